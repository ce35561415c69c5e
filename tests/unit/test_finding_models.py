"""What `registry`, `runs`, `verify` and `report` find, show and bring."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest
from registered_world import ended_run, registered, write_parts

from pipelines.cli import run_command
from pipelines.download import place_bundle
from pipelines.headline import headline
from pipelines.local.resolution import registered_names
from safescale_ammt.errors import InputError
from safescale_ammt.files.artifacts import read_manifest, verify
from safescale_ammt.files.canonical import digest_bytes
from safescale_ammt.releasing import ledger
from safescale_ammt.releasing.anchor import keep_ledger_heads, keep_registry_head
from safescale_ammt.releasing.registry import Registry
from safescale_ammt.releasing.versions import Version
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import open_store


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    write_parts(folder)
    return folder


@pytest.fixture(scope="module")
def other_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model, of which one group is found less often."""
    folder = tmp_path_factory.mktemp("other")
    write_parts(folder, weights=b"v", gap=0.1)
    return folder


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    uri = (tmp_path / "store").as_uri()
    monkeypatch.setenv("SAFESCALE_STORE", uri)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return open_store(uri)


@pytest.fixture
def version(store: Store, parts: Path) -> Version:
    return registered(store, parts / "bundle")


# --- lists ---


@pytest.mark.parametrize("tier", ["hard", "inviolable"])
def test_the_gap_of_a_gating_promise_stands_before_a_soft_one(tier):
    about = {"group": "sex", "op": "<=", "threshold": 0.1}
    gating = {"metric": "tpr_gap", "tier": tier, "value": 0.2, **about}
    soft = {"metric": "dp_gap", "tier": "soft", "value": 0.3, **about}
    hard = {"metric": "fpr_gap", "tier": "hard", "value": 0.01, **about}
    verdict = {"decision": "fail", "accuracy": 0.9, "twin_accuracy": 0.9}
    for findings in ([soft, gating, hard], [hard, gating, soft]):
        told = headline({**verdict, "findings": findings})["gap"]
        assert told["what"] == "tpr_gap by sex"


def test_the_registry_shows_decision_accuracy_gap_and_report_in_columns(
    store, version, other_parts, capsys
):
    registered(store, other_parts / "bundle", decision="needs_human")
    assert run_command(["registry", "list"]) == 0
    head, one, two = capsys.readouterr().out.splitlines()
    for title in ("version", "status", "decision", "accuracy", "gap", "report"):
        at = head.index(title)
        # Columns stand below one another.
        assert one[at - 1] == two[at - 1] == " "
        assert one[at] != " " != two[at]
    assert "champion" in one
    assert "pending" in two
    assert "needs_human" in two
    assert "tpr_gap by sex" in one
    assert one.endswith(f"{version.entry.bundle}/verdict/report.html")


def test_the_registry_as_json_has_the_figures_of_the_verdict(
    store, version, parts, capsys
):
    stated = json.loads((parts / "verdict/verdict.json").read_text())
    assert run_command(["registry", "list", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert run_command(["registry", "show", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == listed
    assert listed["verdict"]["accuracy"] == stated["accuracy"]
    gap = stated["findings"][0]
    assert listed["verdict"]["gap"] == {
        "what": "tpr_gap by sex",
        "value": gap["value"],
        "op": "<=",
        "threshold": 0.2,
    }
    assert store.exists(listed["report"].removeprefix(f"{store.uri}/"))
    assert run_command(["registry", "show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = dict(line.split(maxsplit=1) for line in lines)
    assert len(shown) == len(lines), "nothing is said twice"
    assert shown["accuracy"] == f"{stated['accuracy']:.4f}"
    assert shown["model"] == stated["model"]


@pytest.mark.parametrize(
    "words",
    [["{}"], ["{}", "champion"], ["{}", "1"], ["1"], ["1", "--name", "{}"]],
)
def test_a_version_is_shown_by_its_model_its_number_or_both(
    words, store, version, capsys
):
    (name,) = registered_names(store)
    assert run_command(["registry", "show", *(w.format(name) for w in words)]) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.split() == ["name", name]
    assert second.split() == ["version", "1"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nobody"], "has no such registered model"),
        (["nobody", "1"], "has no such registered model"),
        (["a", "1", "2"], "Give NAME and VERSION"),
        (["a", "1", "--name", "a"], "NAME once"),
    ],
)
def test_a_model_that_nobody_registered_is_not_taken_for_a_version(
    words, says, version, capsys
):
    assert run_command(["registry", "show", *words]) == 2
    assert says in capsys.readouterr().err


def test_an_empty_registry_as_json_is_an_empty_list(store, capsys):
    assert run_command(["registry", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_damaged_verdict_is_said_and_its_figures_are_not_shown(
    store, version, capsys
):
    store.put(f"{version.entry.bundle}/verdict/verdict.json", b"{}")
    assert run_command(["registry", "list"]) == 0
    shown = capsys.readouterr()
    assert "was changed" in shown.err
    assert "0.8" not in shown.out
    store.delete(f"{version.entry.bundle}/verdict/verdict.json")
    assert run_command(["registry", "list"]) == 0
    assert "is missing" in capsys.readouterr().err


def test_runs_show_decision_accuracy_gap_and_report(two_runs, capsys):
    first, second = two_runs
    assert run_command(["runs", "list"]) == 0
    _, *rows = capsys.readouterr().out.splitlines()
    row = next(row for row in rows if row.startswith(first.id))
    assert "pass" in row
    assert "tpr_gap by sex" in row
    assert Path(row.split()[-1]).read_text(encoding="utf-8").count("<html") == 1
    assert run_command(["runs", "list", "--json"]) == 0
    listed = {run["run"]: run for run in json.loads(capsys.readouterr().out)}
    assert listed[first.id]["verdict"]["gap"]["what"] == "tpr_gap by sex"
    assert listed[first.id]["version"]["version"] == 1
    assert run_command(["runs", "show", second.id]) == 0
    shown = capsys.readouterr().out
    assert "It is over." in shown
    assert second.results["verdict"]["reasons"][0] in shown
    assert run_command(["runs", "diff", first.id, second.id]) == 0
    assert "verdict.accuracy: " in capsys.readouterr().out
    assert run_command(["runs", "diff", first.id, second.id, "--json"]) == 0
    accuracies = [run.results["verdict"]["accuracy"] for run in (first, second)]
    found = json.loads(capsys.readouterr().out)
    assert found["verdict.accuracy"] == accuracies
    assert found["version.version"] == [1, None]


# --- verify ---


def test_verify_without_a_name_checks_every_registered_model(
    store, version, other_parts, capsys
):
    registered(store, other_parts / "bundle", "homes", "needs_human")
    assert run_command(["registry", "verify"]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "homes",
        "loans",
    ]


def test_one_damaged_model_is_named_and_the_others_are_checked_all_the_same(
    store, version, other_parts, capsys
):
    damaged = registered(store, other_parts / "bundle", "homes")
    store.put(f"{damaged.entry.bundle}/card.md", b"forged")
    assert run_command(["registry", "verify"]) == 3
    shown = capsys.readouterr()
    assert "loans: 1 version, every byte is as registered; no signature" in shown.out
    assert "card.md was changed" in shown.err
    assert shown.err.splitlines()[-1] == "1 of 2 registered models are damaged: homes."
    assert run_command(["registry", "verify", "--name", "loans"]) == 0


def test_verify_of_an_empty_registry_says_so(store, capsys):
    assert run_command(["registry", "verify"]) == 2
    assert "Nothing is registered" in capsys.readouterr().err


@pytest.fixture
def used(store: Store) -> Store:
    """A store whose ledger holds an opened use that a gate has seen."""
    digests = {k: digest_bytes(k.encode()) for k in ("model", "holdout", "evidence")}
    use = ledger.reserve(
        store,
        rows=[b"0" * 16],
        model=digests["model"],
        holdout=digests["holdout"],
        planned=1,
        constitution=digests["model"],
    )
    evidence, verdict = digests["evidence"], digests["model"]
    ledger.mark_opened(store, use, evidence=evidence, verdict=verdict)
    keep_ledger_heads(store, store)
    return store


def test_verify_checks_the_ledger_and_that_it_holds_what_the_gate_saw(
    used, version, capsys
):
    keep_registry_head(used, used, "loans")
    assert run_command(["registry", "verify"]) == 0
    told = "1 use, every byte is as recorded; the gate last saw event 2."
    assert capsys.readouterr().out.splitlines() == [
        f"the ledger of sealed rows: {told}",
        (
            "loans: 1 version, every byte is as registered; no signature covers its "
            "events, which the gate wrote."
        ),
    ]
    # Nor is the anchor a registered model.
    assert registered_names(used) == ["loans"]
    assert run_command(["registry", "list"]) == 0


def test_verify_misses_an_event_that_was_cut_from_the_ledger(used, version, capsys):
    used.delete("ledger/events/00000002.json")
    assert run_command(["registry", "verify"]) == 3
    shown = capsys.readouterr()
    assert "ends with event 1" in shown.err
    assert shown.err.splitlines()[-1] == "The ledger is damaged."
    assert "loans: 1 version" in shown.out


def test_verify_finds_a_lost_set_of_rows_though_nothing_is_registered(used, capsys):
    (info,) = used.list("ledger/rows/")
    used.delete(info.key)
    assert run_command(["registry", "verify"]) == 3
    assert "is missing; restore it from a backup" in capsys.readouterr().err


def test_verify_misses_a_version_that_was_cut_from_the_registry(
    used, version, other_parts, capsys
):
    registered(used, other_parts / "bundle")
    keep_registry_head(used, used, "loans")
    used.delete("registry/loans/events/00000002.json")
    assert run_command(["registry", "verify"]) == 3
    shown = capsys.readouterr().err
    assert "loans: " in shown
    assert "registry/loans ends with event 1" in shown
    assert shown.splitlines()[-1] == "1 of 1 registered models are damaged: loans."


def test_verify_finds_the_ledger_in_a_store_of_its_own(used, version, tmp_path, capsys):
    apart = open_store((tmp_path / "ledger").as_uri())
    for info in list(used.list("ledger/")):
        apart.put(info.key, used.get(info.key))
        used.delete(info.key)
    assert run_command(["registry", "verify"]) == 3
    assert "or this is another log" in capsys.readouterr().err
    assert run_command(["registry", "verify", "--ledger", apart.uri]) == 0


# --- one way to say which model or run is meant ---


@pytest.fixture
def two_runs(store, version, parts, other_parts, tmp_path):
    """A run that registered a version, and one of another model that did not."""
    for at, source in (("one", parts), ("two", other_parts)):
        shutil.copytree(source, tmp_path / at)
    first = ended_run(Path("runs"), tmp_path / "one", store, version)
    return first, ended_run(Path("runs"), tmp_path / "two", store)


@pytest.fixture
def run(store, version, parts, tmp_path):
    shutil.copytree(parts, tmp_path / "run")
    return ended_run(Path("runs"), tmp_path / "run", store, version)


@pytest.mark.parametrize(
    "word",
    [
        *("1", "v1", "champion", "latest"),
        *("runs/latest", "runs/latest/run.json", "ID", "ID[:10]", "runs/ID"),
        *("BUNDLE", "file://BUNDLE", "STORE", "RECORD"),
    ],
)
def test_verify_and_report_take_every_word_for_a_bundle(  # noqa: PLR0917 - fixtures
    word, run, parts, version, store, capsys
):
    words = {
        "ID": run.id,
        "ID[:10]": run.id[:10],
        "runs/ID": f"runs/{run.id}",
        "BUNDLE": str(parts / "bundle"),
        "file://BUNDLE": (parts / "bundle").as_uri(),
        "RECORD": run.results["bundle"],
        "STORE": f"{store.uri}/{version.entry.bundle}",
    }
    word = words.get(word, word)
    assert run_command(["verify", word]) == 0
    out = capsys.readouterr().out
    # The registry's own events vouch for a version. A run's record names a bundle too,
    # but lies with whoever made it.
    anchored = word in {"1", "v1", "champion", "latest"}
    whole = "is whole: pass." if anchored else "but by whom is not shown: pass."
    assert out.splitlines()[-1].endswith(whole)
    assert (f"vouched for by event {version.event} of" in out) == anchored
    named = "It is the bundle that the record of run" in out
    of_no_run = "://" in word or Path(word, "manifest.json").is_file() or anchored
    assert named != of_no_run
    assert run_command(["verify", word, "--strict"]) == (0 if anchored else 3)
    capsys.readouterr()
    assert run_command(["report", word, "-o", "again.html"]) == 0
    assert "<html" in Path("again.html").read_text(encoding="utf-8")


def test_a_run_whose_folders_are_gone_is_read_from_its_store(run, capsys):
    shutil.rmtree(run.artifacts["version"]["path"])
    shutil.rmtree(run.artifacts["verdict"]["path"])
    assert run_command(["verify", "runs/latest"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("not shown: pass.")


def test_a_run_that_registered_nothing_is_its_verdict(
    store, other_parts, tmp_path, capsys
):
    shutil.copytree(other_parts, tmp_path / "run")
    ended = ended_run(Path("runs"), tmp_path / "run", store)
    assert run_command(["verify", ended.id]) == 0
    assert "The verdict artifact" in capsys.readouterr().out
    assert run_command(["report", "runs/latest"]) == 0
    assert Path("report.html").is_file()


def test_a_run_in_another_folder_of_runs_is_found_there(
    store, version, parts, tmp_path
):
    shutil.copytree(parts, tmp_path / "run")
    ended = ended_run(Path("elsewhere"), tmp_path / "run", store, version)
    assert run_command(["verify", ended.id]) == 2
    assert run_command(["verify", ended.id, "--runs", "elsewhere"]) == 0


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("2", "has no version '2': it holds version 1 alone"),
        ("pending", "has no version 'pending'"),
        ("99999999", "Run '99999999' does not exist"),
        ("20260101-1200", "does not exist in runs"),
        ("nothing", "names no model, verdict or run"),
        ("", "names no model, verdict or run"),
        ("runs/none", "names no model, verdict or run"),
        ("file:///nowhere/at/all", "nothing is stored under"),
        ("ftp://x/y", "is no storage URI"),
    ],
)
def test_a_word_that_names_nothing_is_one_sentence(word, part, version, capsys):
    for command in (["verify", word], ["report", word]):
        assert run_command(command) == 2
        sentence = capsys.readouterr().err
        assert part in sentence
        assert len(sentence.splitlines()) == 1
    predict = ["predict", word, "--data", "x.csv", "-o", "y.csv"]
    assert run_command(predict) == 2
    assert part in capsys.readouterr().err


def test_of_several_models_the_sentence_asks_for_a_name(
    store, version, other_parts, capsys
):
    registered(store, other_parts / "bundle", name="cars")
    for words in (["registry", "show", "1"], ["verify", "champion"]):
        assert run_command(words) == 2
        said = capsys.readouterr().err
        assert "2 models are registered" in said
        assert "--name has to say which is meant, expected one of cars, loans" in said
        assert "None" not in said


def test_an_address_of_no_artifact_is_named_and_not_our_own_folder(
    store, version, capsys
):
    address = f"{store.uri}/registry/loans"
    assert run_command(["verify", address]) == 2
    said = capsys.readouterr().err
    assert f"{address} is the address of no bundle and no artifact" in said
    assert "/tmp/tmp" not in said


def test_a_run_is_shown_by_the_words_that_verify_takes(store, parts, tmp_path, capsys):
    ended = ended_run(Path("runs"), parts, store)
    for word in ("latest", "runs/latest", f"runs/{ended.id}", ended.id[:17]):
        assert run_command(["runs", "show", word, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["run"] == ended.id
    assert run_command(["runs", "show", "elsewhere/latest"]) == 2


def test_a_run_without_a_verdict_says_how_it_ended(store, capsys):
    from pipelines.local.runfile import RunFile

    run = RunFile.create(Path("runs"), ["safescale", "run"])
    assert run_command(["verify", run.id]) == 2
    assert "it goes on, or was killed" in capsys.readouterr().err
    run.end(1, "Stopped.")
    assert run_command(["verify", run.id]) == 2
    assert "(Stopped)" in capsys.readouterr().err


def test_a_folder_named_like_a_version_wins(store, version, parts, capsys):
    shutil.copytree(parts / "verdict", "1")
    assert run_command(["verify", "1"]) == 0
    assert "The verdict artifact" in capsys.readouterr().out


def test_a_bundle_that_is_not_what_was_registered_is_refused_by_every_word(
    run, version, store, capsys
):
    other = Path("forged")
    write_parts(other, weights=b"forged")
    for name in (other / "bundle").rglob("*"):
        if name.is_file():
            key = name.relative_to(other / "bundle").as_posix()
            store.put(f"{version.entry.bundle}/{key}", name)
    # Whole in itself, and another than the registry recorded.
    assert run_command(["verify", f"{store.uri}/{version.entry.bundle}"]) == 0
    for word in ("1", "champion"):
        assert run_command(["verify", word]) == 3
        assert "is not the bundle that was registered" in capsys.readouterr().err
    assert run_command(["verify", run.id]) == 3
    assert "recorded for it is" in capsys.readouterr().err


# --- download ---


def beside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("words", [["loans"], ["loans", "1"], ["loans", "champion"]])
def test_a_version_is_brought_into_a_folder(words, version, capsys):
    assert run_command(["registry", "download", *words, "deep/bundle"]) == 0
    assert "loans version 1 (champion) is in deep/bundle." in capsys.readouterr().out
    assert verify("deep/bundle", "bundle").identity == version.entry.bundle_digest
    assert beside(Path("deep")) == ["bundle"]


def test_a_version_is_brought_from_an_s3_store(
    s3_store, s3_environ, parts, tmp_path, monkeypatch
):
    registered(s3_store, parts / "bundle")
    for name, value in s3_environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    options = ["--store", s3_store.uri]
    assert run_command(["registry", "download", "loans", "b", *options]) == 0
    assert verify("b", "bundle").identity == read_manifest(parts / "bundle").identity
    version = Registry(s3_store, "loans").show(1)
    assert run_command(["verify", f"{s3_store.uri}/{version.entry.bundle}"]) == 0
    assert run_command(["report", f"{s3_store.uri}/{version.entry.bundle}"]) == 0


def test_what_is_there_is_left_alone_unless_it_may_go(
    store, version, other_parts, capsys
):
    Path("there").mkdir()
    Path("there/mine.txt").write_text("mine")
    Path("file").write_text("mine")
    Path("link").symlink_to("there")
    for place in ("there", "file", "link"):
        assert run_command(["registry", "download", "loans", place]) == 2
        assert f"{place} exists and is left as it is" in capsys.readouterr().err
    assert Path("there/mine.txt").read_text() == "mine"
    assert beside(Path()) == ["file", "link", "there"]
    for place in ("link", "file", "there"):
        assert run_command(["registry", "download", "loans", place, "--replace"]) == 0
        assert "in place of what was there" in capsys.readouterr().out
        assert not Path(place).is_symlink()
        # A link is replaced, and what it leads to is not touched.
        assert Path("there/mine.txt").exists() == (place != "there")
        assert verify(place, "bundle").identity == version.entry.bundle_digest
    assert beside(Path()) == ["file", "link", "there"]


def test_an_empty_folder_may_be_filled(version, capsys):
    Path("empty").mkdir()
    assert run_command(["registry", "download", "loans", "empty"]) == 0
    assert "in place of" not in capsys.readouterr().out
    assert verify("empty", "bundle").identity == version.entry.bundle_digest


@pytest.mark.parametrize("replace", [[], ["--replace"]])
@pytest.mark.parametrize("damage", ["truncated", "missing", "added", "other"])
def test_a_bundle_that_is_not_whole_is_never_placed(damage, replace, store, version):
    prefix = version.entry.bundle
    if damage == "truncated":
        whole = store.get(f"{prefix}/verdict/evidence.parquet")
        store.put(f"{prefix}/verdict/evidence.parquet", whole[:-10])
    elif damage == "missing":
        store.delete(f"{prefix}/model/weights.safetensors")
    elif damage == "added":
        store.put(f"{prefix}/more.txt", b"more")
    else:
        bundle = write_parts(Path("../forged"), weights=b"forged")
        for file in (file for file in bundle.rglob("*") if file.is_file()):
            store.put(f"{prefix}/{file.relative_to(bundle).as_posix()}", file)
    Path("there").mkdir()
    if replace:
        Path("there/mine.txt").write_text("mine")
    assert run_command(["registry", "download", "loans", "there", *replace]) == 3
    assert beside(Path()) == ["there"]
    assert beside(Path("there")) == (["mine.txt"] if replace else [])


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["loans", "7", "d"], "has no version '7'"),
        (["loans", "pending", "d"], "has no version 'pending'"),
        (["homes", "d"], "no such registered model, expected one of loans"),
        (["loans"], "Give NAME and DIR"),
        (["loans", "1", "d", "e"], "Give NAME and DIR"),
        (["loans", "file/d"], "file/d"),
    ],
)
def test_a_download_that_cannot_be_is_one_sentence(words, part, version, capsys):
    Path("file").write_text("")
    assert run_command(["registry", "download", *words]) in {1, 2}
    assert part in capsys.readouterr().err
    assert beside(Path()) == ["file"]


def test_of_downloads_at_once_one_places_the_bundle_and_the_others_say_so(
    store, version
):
    registry = Registry(store, "loans")
    ends: list[str] = []
    barrier = threading.Barrier(4)

    def bring() -> None:
        barrier.wait()
        try:
            place_bundle(registry, version, Path("there"), replace=False)
            ends.append("placed")
        except InputError:
            ends.append("left")

    threads = [threading.Thread(target=bring) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == ["left", "left", "left", "placed"]
    assert beside(Path()) == ["there"]
    assert verify("there", "bundle").identity == version.entry.bundle_digest
