"""The whole pipeline on a laptop: real KFP, real object store, real stages."""

from __future__ import annotations

import csv
import shutil
from contextlib import contextmanager
from html import escape
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from laptop import CONSTITUTION, ROOT, STAGES, Laptop
from patience import PATIENCE

from pipelines.local.launch import RunRequest, launch
from pipelines.local.process_runner import SubprocessRunner
from pipelines.local.runfile import read_run
from safescale_ammt.files.artifacts import read_manifest, verify
from safescale_ammt.files.canonical import read_json
from safescale_ammt.releasing.ledger import uses
from safescale_ammt.store.uri import open_store


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A laptop on which one run went through."""
    laptop = Laptop(tmp_path_factory.mktemp("finished"))
    with laptop.store():
        code, last = laptop.run()
        assert code == 0, last
        laptop.first = laptop.record
        yield laptop


@pytest.fixture
def laptop(tmp_path):
    """A laptop on which nothing ran yet."""
    laptop = Laptop(tmp_path / "laptop")
    with laptop.store():
        yield laptop


def test_a_run_makes_a_champion_and_says_what_it_did(finished):
    record = finished.first
    assert record["exit_code"] == 0
    assert record["sentence"] == "loans version 1 is champion."
    assert [stage["stage"] for stage in record["stages"]] == list(STAGES)
    assert not any(stage["cached"] for stage in record["stages"])
    assert all(stage["seconds"] > 0 for stage in record["stages"])
    assert record["verdict"]["decision"] == "pass"
    assert record["verdict"]["guarantee"] == "holds"
    assert (record["version"]["version"], record["version"]["status"]) == (
        1,
        "champion",
    )
    for key in ("config_digest", "source_digest", "code_digest"):
        assert record[key].startswith("sha256:")
    assert record["constitution"]["digest"].startswith("sha256:")


def test_every_artifact_of_a_run_lies_in_the_object_store(finished, tmp_path):
    record = finished.record
    with finished.store() as server:
        store = open_store(server.uri, environ=server.environ)
        for name in ("dataset", "holdout", "architecture", "model", "verdict"):
            artifact = record["artifacts"][name]
            key = f"runs/{record['run']}/{artifact['stage']}/{name}"
            assert artifact["uri"] == f"{server.uri}/{key}"
            store.download_folder(key, tmp_path / name)
            assert verify(tmp_path / name).identity == artifact["identity"]
            assert verify(artifact["path"]).identity == artifact["identity"]


def test_the_report_and_the_bundle_are_where_the_record_says(finished):
    folder = finished.folder / "runs" / "latest"
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert f"<dd>{finished.record['run']}</dd>" in page
    assert "<dd>loans, version 1, champion</dd>" in page
    code, lines = finished.call("verify", finished.record["bundle"])
    assert code == 0
    assert lines[-1].endswith("is whole, but by whom is not shown: pass.")
    assert finished.record["bundle"] == finished.record["version"]["bundle"]


def test_terminal_report_card_and_record_tell_the_same_warnings(finished):
    record = finished.first
    audit = read_json(Path(record["artifacts"]["dataset"]["path"]) / "audit.json")
    assert record["warnings"] == audit["warnings"]
    (sentence,) = (warning["sentence"] for warning in record["warnings"])
    assert "differ by 'sex'" in sentence
    code, lines = finished.call("run", "--config", "loans.yaml")
    assert code == 0
    head, line = (
        i for i, text in enumerate(lines) if "warning" in text or sentence in text
    )
    assert lines[head].endswith("] 1 warning about the data:")
    assert lines[line].endswith(f"] - {sentence}")
    assert "prepare_data done" in lines[head - 1]
    for place in ("report.html", "log.txt"):
        text = (finished.folder / "runs" / record["run"] / place).read_text("utf-8")
        assert escape(sentence) in text or sentence in text
    with finished.store() as server:
        store = open_store(server.uri, environ=server.environ)
        key = record["bundle"].removeprefix(f"{server.uri}/")
        card = store.get(f"{key}/card.md").decode()
    assert f"- {sentence}" in card


def test_a_leak_ends_a_run_before_anything_is_spent(laptop):
    people = laptop.folder / "people.csv"
    head, *rows = people.read_text("utf-8").splitlines()
    told = [f"{row},{'Y' if row.endswith('yes') else 'N'}" for row in rows]
    people.write_text("\n".join([f"{head},code", *told]) + "\n", encoding="utf-8")
    splits = "{train: .3, validation: .1, constraint: .1, monitor: .1, select: .1, "
    splits += "sealed: .3}"
    one_file = ("--set", "data.sealed_source=", "--set", f"data.splits={splits}")
    code, lines = laptop.call("run", "--config", "loans.yaml", *one_file)
    assert code == 2
    assert "told by 'code' (AUC 1.000) alone" in lines[-1]
    assert "data.allow_leak" in laptop.record["sentence"]
    assert [stage["stage"] for stage in laptop.record["stages"]] == ["prepare_data"]
    assert laptop.record["artifacts"] == {}


def test_the_second_run_takes_every_stage_but_the_gate_from_the_cache(finished):
    before = finished.identities("model", "verdict", "version")
    code, last = finished.run()
    assert (code, last) == (0, f"Record: {finished.folder}/runs/{_latest(finished)}")
    cached = {s["stage"]: s["cached"] for s in finished.record["stages"]}
    assert cached == {name: name != "register_model" for name in STAGES}
    assert finished.record["version"]["version"] == 1
    assert finished.identities("model", "verdict", "version") == before


def _latest(laptop: Laptop) -> str:
    return f"{laptop.record['run']}/run.json"


def test_the_champion_answers_as_it_was_judged(finished):
    arguments = ("predict", "champion", "--data", "sealed.csv", "-o", "answers.csv")
    assert finished.call(*arguments)[0] == 0
    verdict = Path(finished.record["artifacts"]["verdict"]["path"])
    key = read_manifest(verdict).place("evidence.parquet")
    with finished.store() as server:
        store = open_store(server.uri, environ=server.environ)
        evidence = pq.read_table(pa.BufferReader(store.get(key)))
    with (finished.folder / "answers.csv").open(encoding="utf-8") as file:
        answers = list(csv.DictReader(file))
    classes = read_json(verdict / "verdict.json")["classes"]
    assert [float(a["score"]) for a in answers] == evidence["score"].to_pylist()
    assert [classes.index(a["prediction"]) for a in answers] == (
        evidence["prediction"].to_pylist()
    )


def test_no_artifact_of_a_run_holds_a_sealed_row(finished, tmp_path):
    """Neither its row, nor what it is known by, nor its label or answer."""
    record = finished.first
    with finished.store() as server:
        store = open_store(server.uri, environ=server.environ)
        store.download_folder(f"runs/{record['run']}", tmp_path / "mirrored")
        holdout = Path(record["artifacts"]["holdout"]["path"])
        key = read_manifest(holdout).place("sealed.parquet")
        rows = pq.read_table(pa.BufferReader(store.get(key)))["_row"].to_pylist()
    hashes = set(rows)
    lines = (finished.folder / "sealed.csv").read_text("utf-8").splitlines()[1:]
    own = set(lines) - set((finished.folder / "people.csv").read_text().splitlines())
    secrets = [*rows[:100], *(row.hex().encode() for row in rows[:100])]
    secrets += [line.encode() for line in sorted(own)[:100]]
    assert len(secrets) == 300
    tops = [tmp_path / "mirrored", finished.folder / "runs"]
    tops.append(finished.folder / ".safescale" / "pipeline-root")
    files = [path for top in tops for path in top.rglob("*") if path.is_file()]
    assert {"holdout", "verdict", "version"} <= {path.parent.name for path in files}
    for file in files:
        data = file.read_bytes()
        assert not any(secret in data for secret in secrets), file
        if data[:4] == b"PAR1":
            for column in pq.read_table(file).columns:
                if pa.types.is_fixed_size_binary(column.type):
                    assert hashes.isdisjoint(column.to_pylist()), file
    names = {path.name for path in files}
    assert names.isdisjoint({"sealed.parquet", "keys.parquet", "parts.parquet"})
    assert names.isdisjoint({"evidence.parquet", "sampling.json", "bundle"})


def test_the_registry_is_listed_and_verified(finished):
    code, lines = finished.call("registry", "list")
    assert code == 0
    assert len(lines) == 2
    assert "champion" in lines[1]
    assert "tpr_gap by sex" in lines[1]
    assert finished.call("registry", "verify")[0] == 0
    code, lines = finished.call("registry", "show", "1", "--name", "loan")
    assert code == 2
    assert lines[-1].endswith("expected one of loans; the nearest is 'loans'.")


def test_a_run_shows_its_figures_and_is_found_by_every_word(finished):
    code, lines = finished.call("runs", "list")
    assert code == 0
    row = next(line for line in lines if line.startswith(finished.record["run"]))
    assert "tpr_gap by sex" in row
    assert (finished.folder / row.split()[-1]).is_file()
    version = finished.record["version"]
    for word in ("runs/latest", finished.record["run"], "1", version["bundle"]):
        code, lines = finished.call("verify", word)
        assert code == 0
        # The registry's event vouches for a version alone.
        whole = "is whole" + ", but by whom is not shown" * (word != "1")
        assert lines[-1] == f"Bundle {version['bundle_digest']} {whole}: pass."


def test_commands_at_once_share_the_store(finished):
    commands = [
        *(["registry", "list"], ["registry", "verify"], ["verify", "champion"]),
        ["registry", "download", "loans", "brought"],
        ["predict", "champion", "--data", "sealed.csv", "-o", "at-once.tsv.gz"],
        ["predict", "runs/latest", "--data", "sealed.csv", "-o", "run.tsv.gz"],
    ]
    processes = [finished.start(*words) for words in commands]
    ends = [(p.communicate(timeout=PATIENCE)[0], p.returncode) for p in processes]
    assert [code for _, code in ends] == [0] * len(commands), ends
    brought = verify(finished.folder / "brought", "bundle")
    assert brought.identity == finished.record["version"]["bundle_digest"]
    one, two = (finished.folder / f"{n}.tsv.gz" for n in ("at-once", "run"))
    assert one.read_bytes() == two.read_bytes()


def test_a_command_that_looks_makes_no_store(tmp_path):
    laptop = Laptop(tmp_path)
    code, lines = laptop.call("registry", "list")
    assert code == 0
    assert lines[0].startswith("Nothing is registered")
    assert laptop.call("registry", "verify")[0] == 2
    assert laptop.call("verify", "champion")[0] == 2
    code, lines = laptop.call("verify", "s3://safescale/runs/1/stage/model")
    assert (code, len(lines)) == (2, 1)
    assert "nothing is stored here yet" in lines[0]
    assert not (tmp_path / ".safescale").exists()


def test_a_report_can_be_written_again(finished):
    code, _ = finished.call("report", finished.first["bundle"], "-o", "again.html")
    assert code == 0
    page = (finished.folder / "again.html").read_text(encoding="utf-8")
    # The day and the rows are in the bundle, and its name; its run is not.
    assert "<dt>Judged</dt>" in page
    assert "<dt>Development rows</dt>" in page
    assert "<dd>loans</dd>" in page
    assert "<dt>Run</dt>" not in page
    assert "Warnings about the data" in page


def test_a_constitution_is_checked_against_the_counts_alone(finished):
    dataset = finished.record["artifacts"]["dataset"]["path"]
    arguments = ("constitution", "check", "constitution.yaml", "--data", dataset)
    code, lines = finished.call(*arguments, "--draws", "200")
    assert code == 0
    assert any("equal-opportunity" in line for line in lines)


def test_tampering_with_the_cache_is_refused(finished, tmp_path):
    finished.run()
    model = Path(finished.record["artifacts"]["model"]["path"])
    genome = model / "genome.json"
    before = genome.read_bytes()
    versions = finished.call("registry", "list")[1]
    genome.write_bytes(before.replace(b"{", b"{ ", 1))
    code, last = finished.run()
    assert code == 3
    assert last.count("sha256:") == 2
    assert "genome.json was changed" in last
    assert finished.record["exit_code"] == 3
    assert finished.record["version"] is None
    assert finished.call("registry", "list")[1] == versions
    genome.write_bytes(before)
    assert finished.run()[0] == 0


def test_a_stage_refuses_what_was_tampered_with_too(finished, tmp_path):
    paths = {n: Path(a["path"]) for n, a in finished.record["artifacts"].items()}
    shutil.copytree(paths["dataset"], tmp_path / "dataset")
    schema = tmp_path / "dataset" / "schema.json"
    schema.write_bytes(schema.read_bytes() + b" ")
    code, lines = finished.call(
        "stage",
        "search_architecture",
        f"dataset={tmp_path / 'dataset'}",
        "constitution=constitution.yaml",
        "search=loans.yaml",
        "training=loans.yaml",
        f"architecture={tmp_path / 'architecture'}",
    )
    assert code == 3
    assert lines[-1].count("sha256:") == 2
    assert read_json(tmp_path / "execution.json")["class"] == "IntegrityError"
    assert not (tmp_path / "architecture").exists()


def test_a_rehearsal_counts_no_use_and_registers_nothing(finished):
    versions = finished.call("registry", "list")[1]
    with finished.store() as server:
        before = uses(open_store(server.uri, environ=server.environ))
        code, _ = finished.run("--rehearse")
        after = uses(open_store(server.uri, environ=server.environ))
    assert code == 0
    assert finished.record["sentence"] == "Rehearsal: pass; nothing was registered."
    assert finished.record["bundle"] == ""
    assert after == before
    assert finished.call("registry", "list")[1] == versions


class FolderInTheWay(SubprocessRunner):
    """Puts a folder where the report is to lie, once the stages are over."""

    @contextmanager
    def hold(self, run):
        yield
        Path("elsewhere", run, "report.html").mkdir()


def test_results_that_cannot_be_written_end_in_the_record(finished, monkeypatch):
    monkeypatch.chdir(finished.folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("SAFESCALE_STORE", raising=False)
    output = Path("elsewhere")
    request = RunRequest(Path("loans.yaml"), output=output, runner=FolderInTheWay())
    with pytest.raises(IsADirectoryError):
        launch(request)
    record = read_run(output, "latest")
    assert record["exit_code"] == 1
    assert record["sentence"] == "The run broke: IsADirectoryError."
    assert [stage["status"] for stage in record["stages"]] == ["finished"] * 5
    assert "report.html" in (output / "latest" / "log.txt").read_text(encoding="utf-8")


def test_the_log_holds_what_stages_say_and_no_tools_account_of_itself(finished):
    folder = finished.folder / "runs" / finished.first["run"]
    lines = (folder / "log.txt").read_text(encoding="utf-8").splitlines()
    headings = [line.split()[1] for line in lines if not line.startswith(" ")]
    assert headings == list(STAGES)
    said = [line for line in lines if line.startswith(" ")]
    assert any("Merged into one model" in line for line in said)
    for chatter in ("KFP", "INFO", "executor_input", "safescale-progress", "\x1b", "{"):
        assert not [line for line in lines if chatter in line]


def test_a_run_that_never_started_is_not_the_latest(finished):
    latest = finished.folder / "runs" / "latest"
    before = latest.resolve()
    for arguments in (
        ["--set", "training.stepps=1"],
        ["--constitution", "nowhere.yaml"],
        ["--set", "data.source=nowhere.csv"],
        ["--store", "file:///proc/nowhere"],
        ["--runner", "docker", "--store", "file:///folder"],
    ):
        code, _ = finished.run(*arguments)
        assert code, arguments
        assert finished.record["exit_code"] == code
        assert finished.record["stages"] == []
        assert latest.resolve() == before


def test_a_run_that_is_refused_by_its_first_stage_is_the_latest(finished):
    code, _ = finished.run("--set", "data.label=nothing")
    assert code == 2
    latest = finished.folder / "runs" / "latest"
    assert latest.resolve().name == finished.record["run"]


def test_a_rehearsal_that_is_no_pass_says_why_and_is_refused_if_strict(finished):
    hard = {"metric": "accuracy", "threshold": 0.99}
    strict = {**CONSTITUTION, "gate": {"on_uncertifiable": "human"}}
    strict["principles"] = [{"id": "perfect", "constraint": hard}]
    finished.write("perfect.yaml", strict)
    arguments = ("run", "--config", "loans.yaml", "--constitution", "perfect.yaml")
    for option, code in (([], 0), (["--strict"], 3)):
        ended, lines = finished.call(*arguments, "--rehearse", *option)
        assert ended == code
        assert finished.record["exit_code"] == code
        assert "Rehearsal: fail; nothing was registered." in lines
        (told,) = (line for line in lines if line.startswith("- perfect: accuracy is"))
        assert "with 95 % confidence, which breaks the promised ≥ 0.99." in told
        assert "What would help: " in told
        folder = finished.folder / "runs" / finished.record["run"]
        assert f"Report: {folder / 'report.html'}" in lines
    assert lines[-1] == "The decision is no pass (--strict)."


def test_a_pass_is_no_refusal_if_strict(finished):
    code, last = finished.run("--strict")
    assert (code, finished.record["exit_code"]) == (0, 0)
    assert last.startswith("Record: ")
    assert finished.record["verdict"]["shortfalls"] == []


def test_a_broken_promise_is_refused_and_reported(laptop):
    strict = {**CONSTITUTION, "gate": {"on_uncertifiable": "human"}}
    useful = {"metric": "accuracy", "threshold": 0.99}
    strict["principles"] = [{"id": "perfect", "constraint": useful}]
    laptop.write("strict.yaml", strict)
    arguments = ("run", "--config", "loans.yaml", "--constitution", "strict.yaml")
    code, lines = laptop.call(*arguments)
    last = lines[-1]
    assert code == 3
    assert "perfect" in last
    latest = (laptop.folder / "runs" / "latest").resolve()
    told = " ".join(lines)
    assert f"Report: {latest / 'report.html'}" in told
    assert "- perfect: accuracy is" in told
    assert "which breaks the promised ≥ 0.99" in told
    record = laptop.record
    assert (record["exit_code"], record["sentence"]) == (3, last)
    assert record["verdict"]["decision"] == "fail"
    assert record["version"] is None
    assert record["stages"][-1]["status"] == "failed"
    page = laptop.folder / "runs" / "latest" / "report.html"
    assert "<dd>loans, refused</dd>" in page.read_text(encoding="utf-8")
    assert laptop.call("registry", "list")[1][-1].startswith("Nothing is registered")


def test_an_undecided_promise_waits_for_a_person(laptop):
    cautious = {**CONSTITUTION, "groups": {"min_n": 100_000}}
    cautious["gate"] = {"on_uncertifiable": "human"}
    laptop.write("cautious.yaml", cautious)
    code, _ = laptop.run("--constitution", "cautious.yaml")
    assert code == 0
    assert laptop.record["sentence"] == "loans version 1 is pending."
    (told,) = laptop.record["verdict"]["shortfalls"]
    assert told.startswith("equal-opportunity: true-positive-rate gap by sex is not")
    assert "at least 100000 of each" in told
    code, lines = laptop.call(
        *("run", "--config", "loans.yaml", "--constitution", "cautious.yaml"),
        "--strict",
    )
    assert code == 3
    assert laptop.record["sentence"] == "loans version 1 is pending."
    assert "loans version 1 is pending." in lines
    assert f"- {told}" in lines
    arguments = ("predict", "1", "--data", "sealed.csv", "-o", "answers.csv")
    code, lines = laptop.call(*arguments)
    assert code == 3
    assert "pending" in lines[-1]
    assert not (laptop.folder / "answers.csv").exists()


def test_a_promise_that_the_data_cannot_certify_is_bad_input(laptop):
    bold = {**CONSTITUTION, "principles": [dict(CONSTITUTION["principles"][0])]}
    gap = {"metric": "tpr_gap", "group": "sex", "threshold": 0.001}
    bold["principles"][0]["constraint"] = gap
    laptop.write("bold.yaml", bold)
    code, last = laptop.run("--constitution", "bold.yaml")
    assert code == 2
    assert laptop.record["sentence"] == last
    assert [s["stage"] for s in laptop.record["stages"]] == list(STAGES[:2])


def test_the_same_work_done_anew_has_the_same_digests_and_version(finished):
    assert finished.run("--no-cache")[0] == 0
    assert not any(stage["cached"] for stage in finished.record["stages"])
    assert finished.record["version"]["version"] == 1
    for name in ("dataset", "holdout", "architecture", "model", "verdict"):
        identity = finished.record["artifacts"][name]["identity"]
        assert identity == finished.first["artifacts"][name]["identity"]
