"""Under `gate.feedback: bit` one bit leaves the judge, and nothing else of the rows."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import preparing
import pytest
from trained_world import World, build

from pipelines.auditing import AuditorView, auditor_view
from pipelines.cli import run_command
from pipelines.local.resolution import Found
from pipelines.verification import checked
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.holdout import StoredRows
from safescale_ammt.data.unseen import UnseenTally
from safescale_ammt.errors import InputError, IntegrityError, Refusal
from safescale_ammt.files.artifacts import read_manifest
from safescale_ammt.files.canonical import digest_file, read_json
from safescale_ammt.judging.answer import NOT_PASSED, Answer
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.releasing import ledger
from safescale_ammt.releasing.answers import behind, opened_verdict
from safescale_ammt.releasing.bundle import verify_bundle
from safescale_ammt.releasing.registry import Registry
from safescale_ammt.releasing.rescoring import answered
from safescale_ammt.stages import evaluate_safety, promote, register_model
from safescale_ammt.store.auditor import AUDITOR, keep_for_auditor, kept_for_auditor
from safescale_ammt.store.base import Store
from safescale_ammt.store.event_log import EventLog
from safescale_ammt.store.protected import set_apart
from safescale_ammt.store.uri import open_store

Ask = Callable[[Path, StoredRows, UnseenTally], Evidence]
RUN = "the-run"
HIDDEN = (AUDITOR, "sealed/")
"""What no key of development opens."""
BOOKS = ("ledger/", "registry/_ledger")
"""Logs of random writers and times, which hold commitments at most."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends stages at once; that they end evenly is shown in `test_even_time`."""
    monkeypatch.setattr("safescale_ammt.releasing.even_time.STEP", 0.01)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A trained model that keeps its promises, of which one bit may be told."""
    folder = tmp_path_factory.getbasetemp() / "one-bit"
    return build(folder, planned=4, feedback="bit")


def place(world: World, folder: Path) -> dict[str, str]:
    """Makes a store with the sealed rows and nothing else."""
    environ = {"SAFESCALE_STORE": (folder / "store").as_uri()}
    world.kept_in(store_of(environ))
    return environ


def store_of(environ: dict[str, str]) -> Store:
    return open_store(environ["SAFESCALE_STORE"], environ=environ)


def wrong(share: float, seed: int = 0, sex: int | None = None) -> Ask:
    """Answers as the model does, but for a share of rows, of one sex or of all."""

    def ask(model: Path, rows: StoredRows, tally: UnseenTally) -> Evidence:
        given = answered(model, rows, tally)
        turned = np.random.default_rng(seed).random(len(given.label)) < share
        if sex is not None:
            turned &= given.groups["sex"][1] == sex
        prediction = np.where(turned, 1 - given.prediction, given.prediction)
        return replace(given, prediction=prediction.astype(given.prediction.dtype))

    return ask


def judge(
    world: World,
    out: Path,
    environ: dict[str, str],
    ask: Ask = answered,
    model: str = "model",
    **safety: Any,
) -> dict[str, Any]:
    dataset, holdout, architecture, _ = world.inputs
    inputs = (dataset, holdout, architecture, world.folder / model)
    told = evaluate_safety.run(
        *(*inputs, world.constitution, safety, out), environ=environ, ask=ask
    )
    return {**told, "report": Path(told["report"]).name}


def register(
    world: World,
    folder: Path,
    environ: dict[str, str],
    verdict: str = "v",
    model: str = "model",
) -> dict[str, Any]:
    return register_model.run(
        *(world.folder / model, folder / verdict, world.constitution),
        *({"name": "loans"}, folder / "version"),
        run_id=RUN,
        environ=environ,
    )


def files_of(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def told_of(
    world: World, folder: Path, ask: Ask, capfd: pytest.CaptureFixture[str]
) -> dict[str, Any]:
    """Judges, and lets the gate decide; returns all that development can read of it.

    Of times and of the random names of writers the value is taken out.
    """
    environ = place(world, folder)
    told: dict[str, Any] = {"summary": judge(world, folder / "v", environ, ask)}
    try:
        told["version"] = register(world, folder, environ)
    except Refusal as refusal:
        told["refused"] = str(refusal)
    told["said"] = capfd.readouterr()
    store = store_of(environ)
    for info in store.list():
        if not info.key.startswith((*HIDDEN, *BOOKS)):
            told[info.key] = store.get(info.key)
    for name in ("v", "version"):
        told |= {f"{name}/{k}": v for k, v in files_of(folder / name).items()}
    spelled = {key: repr(value) for key, value in told.items()}
    clock = re.compile(r"\d{4}-\d\d-\d\dT[\d:.+]*\d")
    random = re.compile(r'"(writer|digest|previous)":\s*"[^"]*"')
    logs = [k for k in spelled if "/events/" in k or k.endswith("outcome.json")]
    changed = {k: random.sub("RANDOM", clock.sub("TIME", spelled[k])) for k in logs}
    return {**spelled, **changed}


@pytest.mark.parametrize(
    "runs",
    [
        {wrong(0.0): "pass", wrong(0.01): "pass"},
        {wrong(0.25, sex=0): "needs_human", wrong(0.5): "fail"},
    ],
    ids=["passed", "not passed"],
)
def test_what_development_reads_of_two_runs_that_differ_in_figures_is_byte_identical(
    world: World,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    runs: dict[Ask, str],
) -> None:
    both = []
    for name, ask in zip(("a", "b"), runs, strict=True):
        # At one place, since addresses stand in what is told.
        both.append(told_of(world, tmp_path / "here", ask, capfd))
        (tmp_path / "here").rename(tmp_path / name)
    assert both[0].keys() == both[1].keys()
    for key, text in both[0].items():
        assert text == both[1][key], key
    # The figures do differ, or nothing was shown.
    wholes, decisions = [], []
    for name in ("a", "b"):
        store = open_store((tmp_path / name / "store").as_uri())
        with behind(store, tmp_path / name / "v") as (folder, verdict):
            assert (folder / "evidence.parquet").is_file()
            wholes.append((verdict.accuracy, read_manifest(folder)))
            decisions.append(verdict.decision)
    assert wholes[0][0] != wholes[1][0]
    assert decisions == list(runs.values())
    # Nor does any book name a digest of them.
    for name, (_, manifest) in zip(("a", "b"), wholes, strict=True):
        secret = {manifest.identity, *(e.sha256 for e in manifest.files.values())}
        secret.discard(manifest.files["constitution.json"].sha256)
        store = open_store((tmp_path / name / "store").as_uri())
        for info in store.list():
            if info.key.startswith(BOOKS):
                data = store.get(info.key)
                assert not [d for d in secret if d.encode() in data], info.key


def test_who_hears_one_bit_a_round_has_the_guarantee_until_a_model_passes(
    world: World, tmp_path: Path
) -> None:
    """An adversary that tries on by what it hears: the whole of it is known before."""
    environ = place(world, tmp_path)
    heard: list[tuple[str, str, int]] = []
    for seed in range(5):
        name = "model" if not seed else f"model-{seed}"
        world.train(name, seed)
        # Each next model is chosen by what was heard of those before.
        hopeless = len(heard) < 3 and all(h[0] == NOT_PASSED for h in heard)
        ask = wrong(0.5, seed) if hopeless else answered
        out = tmp_path / f"v{seed}"
        told = judge(world, out, environ, ask, model=name)
        heard.append((told["decision"], told["guarantee"], told["submissions_left"]))
        if told["decision"] == "pass":
            version = register(world, tmp_path, environ, out.name, model=name)
            assert version["status"] == "champion"
        else:
            with pytest.raises(Refusal, match="Not every hard principle is shown"):
                register(world, tmp_path, environ, out.name, model=name)
    assert heard == [
        (NOT_PASSED, "holds", 3),
        (NOT_PASSED, "holds", 2),
        (NOT_PASSED, "holds", 1),
        ("pass", "holds", 0),
        # As good as the one before, on rows of which more than one way was told.
        (NOT_PASSED, "spent", 0),
    ]
    uses = ledger.uses(store_of(environ))
    assert [use.number for use in uses] == [1, 2, 3, 4, 5]
    assert not any(use.opened for use in uses)
    levels = [Answer.load(tmp_path / f"v{i}").alpha for i in range(4)]
    assert sum(levels) == pytest.approx(0.05)


def test_beyond_the_planned_uses_the_guarantee_is_spent(
    world: World, tmp_path: Path
) -> None:
    environ = place(world, tmp_path)
    for seed in range(5):
        name = "model" if not seed else f"model-{seed}"
        world.train(name, seed)
        told = judge(world, tmp_path / "v", environ, wrong(0.5), model=name)
        assert told["guarantee"] == ("holds" if seed < 4 else "spent")


def test_the_same_model_keeps_its_use_and_its_answer(
    world: World, tmp_path: Path
) -> None:
    environ = place(world, tmp_path)
    first, second = (judge(world, tmp_path / n, environ) for n in ("v", "w"))
    assert first == second
    assert files_of(tmp_path / "v") == files_of(tmp_path / "w")
    (use,) = ledger.uses(store_of(environ))
    assert (use.number, len(use.answers)) == (1, 1)
    assert register(world, tmp_path, environ) == register(world, tmp_path, environ)
    # Other answers of one model would be a second bit.
    with pytest.raises(IntegrityError, match="was answered by other evidence"):
        judge(world, tmp_path / "x", environ, wrong(0.3))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("after", ["reserve", "answer", "keep"])
def test_a_judge_killed_at_any_moment_tells_one_bit_when_it_comes_again(
    world: World, tmp_path: Path, after: str
) -> None:
    environ = place(world, tmp_path)
    calm = judge(world, tmp_path / "v", environ)
    lost = tmp_path / "lost"
    shutil.copytree(world.folder / "store" / "sealed", lost / "store" / "sealed")
    killed = {"SAFESCALE_STORE": (lost / "store").as_uri()}

    class Lost(BaseException):
        pass

    def dying(model: Path, rows: StoredRows, tally: UnseenTally) -> Evidence:
        raise Lost

    if after == "reserve":
        with pytest.raises(Lost):
            judge(world, lost / "v", killed, dying)
        (use,) = ledger.uses(store_of(killed))
        assert not use.answers
    else:
        judge(world, lost / "v", killed)
        shutil.rmtree(lost / "v")
        kept = lost / "store" / AUDITOR
        gone = [p for p in kept.rglob("*") if p.is_file() and p.name != "key"]
        for path in gone if after == "answer" else []:
            path.unlink()
        if after == "keep":
            next(p for p in gone if p.name == "manifest.json").unlink()
    assert judge(world, lost / "v", killed) == calm
    (use,) = ledger.uses(store_of(killed))
    assert (use.number, use.guarantee, len(use.answers)) == (1, "holds", 1)
    version = register(world, lost, killed)
    assert (version["status"], version["decision"]) == ("champion", "pass")


def test_a_forged_answer_is_refused_by_the_gate(world: World, tmp_path: Path) -> None:
    environ = place(world, tmp_path)
    judge(world, tmp_path / "v", environ, wrong(0.5))
    store = store_of(environ)
    # Who writes to the ledger, and has no key of the auditor's, says that it passed.
    made_up = {"evidence": f"sha256:{1:064x}", "verdict": f"sha256:{2:064x}"}
    event = {"use": 1, **made_up, "passed": True}
    EventLog(store, ledger.BOOK).append(lambda _: ("answered", event))
    (use,) = ledger.uses(store)
    assert use.passed
    # And writes the answer that goes with it.
    answer = tmp_path / "v" / "answer.json"
    text = answer.read_text().replace(NOT_PASSED, "pass")
    text = text.replace('"submissions_left":3', '"submissions_left":0')
    answer.write_text(text)
    with pytest.raises(IntegrityError, match="was changed"):
        register(world, tmp_path, environ)
    reseal(tmp_path / "v")
    with pytest.raises(IntegrityError, match="does not follow from the answer"):
        register(world, tmp_path, environ)
    write_page(tmp_path / "v")
    # Even with a copy of the verdict where the gate looks for the one behind it.
    with pytest.raises(InputError, match="holds no verdict behind the answer"):
        register(world, tmp_path, environ)
    old = next(i.key for i in store.list(AUDITOR) if i.key.endswith("/manifest.json"))
    with kept_for_auditor(store, f"sha256:{old.split('/')[1]}") as whole:
        files = files_of(whole)
        del files["manifest.json"]
        identity = read_manifest(tmp_path / "v").identity
        keep_for_auditor(store, identity, read_manifest(whole), files)
    with pytest.raises(IntegrityError, match="is not that of the verdict"):
        register(world, tmp_path, environ)
    assert Registry(store, "loans").versions() == []


def reseal(folder: Path) -> None:
    """Writes the manifest of an answer anew, as a forger does."""
    manifest = read_manifest(folder)
    files = {
        name: replace(e, sha256=digest_file(folder / name))
        for name, e in manifest.files.items()
    }
    sizes = {n: replace(e, size=(folder / n).stat().st_size) for n, e in files.items()}
    text = json.dumps(
        replace(manifest, files=sizes).to_dict(), sort_keys=True, separators=(",", ":")
    )
    (folder / "manifest.json").write_text(text + "\n")


def write_page(folder: Path) -> None:
    """Writes the page that goes with a forged answer, and reseals."""
    from safescale_ammt.reporting.answer_page import answer_page

    rule = Constitution.from_dict(read_json(folder / "constitution.json"))
    (folder / "report.html").write_text(answer_page(Answer.load(folder), rule))
    reseal(folder)


def test_an_answer_without_its_event_is_refused(world: World, tmp_path: Path) -> None:
    environ = place(world, tmp_path)
    judge(world, tmp_path / "v", environ)
    shutil.rmtree(tmp_path / "store" / "ledger")
    with pytest.raises(IntegrityError, match="holds no use of rows"):
        register(world, tmp_path, environ)


def test_the_bundle_of_a_pass_holds_no_figure_and_is_checked_to_its_last_word(
    world: World, tmp_path: Path
) -> None:
    environ = place(world, tmp_path)
    judge(world, tmp_path / "v", environ)
    register(world, tmp_path, environ)
    registry = Registry(store_of(environ), "loans")
    (version,) = registry.versions()
    registry.get_bundle(version, tmp_path / "b")
    held = files_of(tmp_path / "b")
    verdict = {n for n in held if n.startswith("verdict/")}
    names = ("manifest.json", "answer.json", "constitution.json", "report.html")
    assert verdict == {f"verdict/{name}" for name in names}
    checked = verify_bundle(tmp_path / "b", version.entry.bundle_digest)
    assert checked.verdict == Answer.load(tmp_path / "v")
    assert any("are the auditor's" in said for said in checked.not_evidence)
    assert registry.verify() == [version]
    assert registry.terms(version.entry).open == ()
    for name in ("card.md", "verdict/report.html", "record/events.jsonl"):
        text = (tmp_path / "b" / name).read_text()
        (tmp_path / "b" / name).write_text(text.replace("use", "usage", 1))
        with pytest.raises(IntegrityError, match="was changed"):
            verify_bundle(tmp_path / "b")
        (tmp_path / "b" / name).write_text(text)


def passed(world: World, folder: Path, ask: Ask = answered) -> Found:
    """Judges and registers a model, and returns its bundle."""
    environ = place(world, folder)
    judge(world, folder / "v", environ, ask=ask)
    register(world, folder, environ)
    registry = Registry(store_of(environ), "loans")
    registry.get_bundle(registry.versions()[0], folder / "b")
    return Found(folder / "b", "the bundle", store=environ["SAFESCALE_STORE"])


def test_the_auditor_lets_the_model_behind_a_bit_answer_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meant = passed(world, tmp_path)
    assert meant.store is not None
    monkeypatch.setenv("SAFESCALE_STORE", meant.store)
    with preparing.whole(world.inputs[1], "holdout") as sealed:
        with auditor_view(meant) as view:
            found = checked(meant, "", sealed, view)
        # Without the key one sentence says what is not shown; the rows are compared.
        for why in ("", "the key does not open it."):
            blind = checked(meant, "", sealed, AuditorView(None, why=why))
            assert not blind.rescored
            assert "is the one that the answer names." in blind.checks[-1]
            assert blind.not_evidence[-1].startswith("That model and twin answer so: ")
    assert found.rescored
    assert "the answers of the evidence, scores to the last bit." in found.checks[-1]
    assert not [said for said in found.not_evidence if "--data" in said]
    command = ["verify", str(meant.folder), "--data", str(world.inputs[1]), "--strict"]
    command += ["--digest", found.digest]
    assert run_command(command) == 0
    # As for a key that opens the sealed rows and not the auditor's part.
    shutil.rmtree(tmp_path / "store" / "auditor")
    assert run_command(command) == 3


def test_data_sealed_tells_what_was_told_of_rows_and_what_is_left(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    environ = place(world, tmp_path)
    monkeypatch.setenv("SAFESCALE_STORE", environ["SAFESCALE_STORE"])

    def listed(*words: str) -> dict[str, Any]:
        capsys.readouterr()
        assert run_command(["data", "sealed", "--json", *words]) == 0
        return {row["kind"]: row for row in json.loads(capsys.readouterr().out)}

    assert listed()["holdout"]["told"] == {}
    judge(world, tmp_path / "v", environ, ask=wrong(0.5))
    found = listed()
    assert found["holdout"]["told"] == {"bits": 1, "planned": 4, "left": 3}
    answer = read_manifest(tmp_path / "v").identity
    assert found["answer"]["digest"] == answer
    assert found["answer"]["bytes"] > 10_000
    assert run_command(["data", "sealed"]) == 0
    assert "1 of 4 bits, 3 left" in capsys.readouterr().out
    # It stays whatever is asked for.
    assert listed("--older-than", "0", "--remove").keys() == {"holdout"}
    assert run_command(["data", "sealed", answer, "--remove"]) == 2
    assert "nothing of ours removes it" in capsys.readouterr().err
    assert listed().keys() == {"answer"}
    # A pass ends the planned uses.
    world.kept_in(store_of(environ))
    model = world.train("another", 5).name
    judge(world, tmp_path / "w", environ, model=model)
    assert listed()["holdout"]["told"] == {"bits": 2, "planned": 4, "left": 0}


def test_evidence_behind_a_bit_that_the_model_does_not_give_is_found_by_the_auditor(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A judge that writes down other answers than the model's, in all else by the rules.
    meant = passed(world, tmp_path, wrong(0.002))
    assert meant.store is not None
    monkeypatch.setenv("SAFESCALE_STORE", meant.store)
    departs = r"prediction of the model differs in \d+ rows"
    with (
        auditor_view(meant) as view,
        preparing.whole(world.inputs[1], "holdout") as sealed,
        pytest.raises(IntegrityError, match=departs),
    ):
        checked(meant, "", sealed, view)


def test_a_step_of_the_promote_pipeline_finds_a_champion_of_one_bit(
    world: World, tmp_path: Path
) -> None:
    environ = place(world, tmp_path)
    judge(world, tmp_path / "v", environ)
    register(world, tmp_path, environ)
    done = promote.run("1", "loans", "", tmp_path / "p", run_id=RUN, environ=environ)
    assert (done["status"], done["decision"]) == ("champion", "pass")


def test_what_depends_on_right_answers_takes_whole_steps(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    within, seen = [0], dict[str, int]()

    @contextmanager
    def counted() -> Iterator[None]:
        within[0] += 1
        yield
        within[0] -= 1

    monkeypatch.setattr(evaluate_safety, "even_time", counted)

    def noted(name: str) -> Callable[..., Any]:
        real = getattr(evaluate_safety, name)

        def call(*given: Any, **more: Any) -> Any:
            seen[name] = within[0]
            return real(*given, **more)

        return call

    for name in ("under_attack", "with_slices", "assemble", "tell_answer"):
        monkeypatch.setattr(evaluate_safety, name, noted(name))
    judge(world, tmp_path / "v", place(world, tmp_path))
    # The event is written once the block of the figures has ended.
    assert seen == {
        "under_attack": 1,
        "with_slices": 1,
        "assemble": 2,
        "tell_answer": 1,
    }
    assert within == [0]


def test_what_is_opened_is_readable_and_may_become_pending(
    world: World, tmp_path: Path
) -> None:
    environ = place(world, tmp_path)
    judge(world, tmp_path / "v", environ, wrong(0.25, sex=0))
    store = store_of(environ)
    with pytest.raises(Refusal):
        register(world, tmp_path, environ)
    # A verdict that nobody opened is none that the gate takes.
    with behind(store, tmp_path / "v") as (whole, _):
        set_apart(store, whole, tmp_path / "early")
    with pytest.raises(IntegrityError, match="never opened"):
        register(world, tmp_path, environ, "early")

    verdict, use = opened_verdict(store, tmp_path / "v", tmp_path / "w")
    assert (verdict.decision, use.opened) == ("needs_human", True)
    assert "equal-opportunity" in (tmp_path / "w" / "report.html").read_text()
    assert not (tmp_path / "w" / "evidence.parquet").exists()
    told = register(world, tmp_path, environ, "w")
    assert (told["status"], told["decision"]) == ("pending", "needs_human")
    registry = Registry(store, "loans")
    (version,) = registry.versions()
    assert [p.what for p in registry.terms(version.entry).open]
    # From now on whoever trains may have looked.
    world.train("model-1", 1)
    after = judge(world, tmp_path / "x", environ, model="model-1")
    assert after["guarantee"] == "spent"


def test_an_opened_pass_is_registered_once(world: World, tmp_path: Path) -> None:
    environ = place(world, tmp_path)
    judge(world, tmp_path / "v", environ)
    opened_verdict(store_of(environ), tmp_path / "v", tmp_path / "w")
    with pytest.raises(Refusal, match="A pass is registered by its answer"):
        register(world, tmp_path, environ, "w")


def test_a_rehearsal_tells_its_figures(world: World, tmp_path: Path) -> None:
    environ = place(world, tmp_path)
    told = judge(world, tmp_path / "v", environ, rehearse=True)
    assert told["mode"] == "rehearsal"
    assert "accuracy" in told["metrics"]
    assert ledger.uses(store_of(environ)) == []
