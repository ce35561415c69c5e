"""Stage 4 on real artifacts: a model is judged once, on rows nobody has seen."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import preparing
import pytest
from children import Child
from preparing import run as prepare
from trained_world import World, build

from benchmarks.constraint_first import evaluated
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.errors import InputError, IntegrityError, Refusal
from safescale_ammt.files.artifacts import Draft, describe, read_manifest, verify
from safescale_ammt.files.canonical import read_json, write_json
from safescale_ammt.judging.assembly import rederive
from safescale_ammt.judging.evidence import read_evidence
from safescale_ammt.judging.slices import members
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.model.predictor import Predictor
from safescale_ammt.releasing import ledger
from safescale_ammt.reporting.provenance import Provenance, renewed
from safescale_ammt.stages import register_model
from safescale_ammt.stages.evaluate_safety import run
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import open_store


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A trained model that keeps its promises."""
    return build(tmp_path_factory.getbasetemp() / "world")


@pytest.fixture
def environ(tmp_path: Path, world: World) -> dict[str, str]:
    """Names a store with the sealed rows and nothing else."""
    named = {"SAFESCALE_STORE": (tmp_path / "store").as_uri()}
    world.kept_in(store_of(named))
    return named


def store_of(environ: dict[str, str]) -> Store:
    return open_store(environ["SAFESCALE_STORE"], environ=environ)


def judge(
    world: World, out: Path, environ: dict[str, str], **safety: Any
) -> dict[str, Any]:
    if environ:
        world.kept_in(store_of(environ))
    return run(*world.inputs, world.constitution, safety, out, environ=environ)


def reseal(folder: Path) -> None:
    """Writes a manifest anew, as somebody would who changed a file on purpose."""
    old = read_manifest_loosely(folder)
    draft = Draft(folder, old["parents"], set())
    new = describe(folder, draft, old["kind"], old["stage"], old["config_digest"])
    write_json(folder / "manifest.json", new.to_dict())


def read_manifest_loosely(folder: Path) -> dict[str, Any]:
    return dict(read_json(folder / "manifest.json"))


def test_a_model_that_keeps_its_promises_passes(
    world: World, tmp_path: Path, environ: dict[str, str]
) -> None:
    told = judge(world, tmp_path / "v", environ)
    with preparing.whole(tmp_path / "v", "verdict") as whole:
        verdict = rederive(whole, Constitution.from_dict(world.constitution))

    assert (told["decision"], told["guarantee"], told["mode"]) == (
        "pass",
        "holds",
        "sealed",
    )
    assert verdict.use.to_dict() == {"number": 1, "planned": 1, "guarantee": "holds"}
    manifest = verify(tmp_path / "v", "verdict")
    assert manifest.parents["model"] == verdict.model
    assert set(manifest.parents) == {"dataset", "holdout", "architecture", "model"}
    assert not manifest.files["report.html"].identity
    assert not manifest.files["provenance.json"].identity
    told_rows = Provenance.load(tmp_path / "v")
    assert told_rows.rows == {
        name: len(split) for name, split in Dataset.load(world.inputs[0]).splits.items()
    }
    assert told_rows.sealed_rows == verdict.rows
    page = Path(told["report"]).read_text()
    assert "Every hard promise is shown to be kept." in page
    assert "Label flips: not identifiable." in page
    assert "Absent" not in page


def test_the_summary_is_what_a_pipeline_page_can_show(
    world: World, tmp_path: Path, environ: dict[str, str]
) -> None:
    told = judge(world, tmp_path / "v", environ)

    assert all(math.isfinite(v) for v in told["metrics"].values())
    assert told["metrics"]["equal-opportunity.upper"] <= 0.2
    assert sum(map(sum, told["confusion"]["counts"])) == 2000
    assert told["confusion"]["classes"] == ["no", "yes"]
    for points in told["roc"].values():
        assert np.isfinite(points).all()
    assert told["markdown"].startswith("# Pass")


def test_evidence_holds_what_the_predictor_says_of_the_sealed_rows(
    world: World, tmp_path: Path, environ: dict[str, str]
) -> None:
    judge(world, tmp_path / "v", environ)
    verdict = Verdict.load(tmp_path / "v")
    assert verdict.slices is not None
    slices = verdict.slices.confirmed
    rows, hashes = read_evidence(
        preparing.rows_of(tmp_path / "v") / "evidence.parquet",
        verdict.groups,
        classes=verdict.classes,
        positive=verdict.positive,
        slices=len(slices),
    )
    sealed = preparing.sealed(world.folder / "holdout").split
    score, prediction = Predictor.load(world.folder / "model").predict_table(
        sealed.features
    )

    np.testing.assert_array_equal(rows.score, score)
    np.testing.assert_array_equal(rows.prediction, prediction)
    np.testing.assert_array_equal(rows.label, sealed.label)
    assert hashes.tobytes() == sealed.rows.tobytes()
    # The world's model errs more at some places than at others, which nobody named.
    assert slices
    wrong = prediction != sealed.label
    for found, inside in zip(slices, rows.slices, strict=True):
        own = members(found.proposal.conditions, sealed.features)
        np.testing.assert_array_equal(inside, own)
        assert (found.rows, found.errors) == (own.sum(), (own & wrong).sum())
        assert found.inside[0] > found.outside[0]


@pytest.mark.parametrize("rehearse", [True, False], ids=["rehearsal", "in earnest"])
def test_of_an_entity_one_row_is_judged(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    environ: dict[str, str],
    *,
    rehearse: bool,
) -> None:
    people = build(tmp_path_factory.getbasetemp() / "entities", each=4)
    judge(people, tmp_path / "v", environ, rehearse=rehearse)
    with preparing.whole(tmp_path / "v", "verdict") as whole:
        verdict = rederive(whole, Constitution.from_dict(people.constitution))
    assert verdict.sampling is not None
    assert verdict.sampling.to_dict() == {
        "unit": "entities",
        "rows": 4 * verdict.rows,
        "units": verdict.rows,
        "distinct": verdict.rows,
    }
    page = (tmp_path / "v" / "report.html").read_text()
    assert (
        f"{verdict.rows:,} entities, one row of each (of {4 * verdict.rows:,})" in page
    )
    power = read_json(people.inputs[2] / "power.json")
    assert (power["unit"], power["sealed"]) == ("entities", 500)


def test_judging_the_same_model_again_keeps_its_use_and_identity(
    world: World, tmp_path: Path, environ: dict[str, str]
) -> None:
    for name in ("a", "b"):
        judge(world, tmp_path / name, environ)
    (use,) = ledger.uses(store_of(environ))

    assert len(use.openings) == 1
    identities = [read_manifest(tmp_path / n).identity for n in ("a", "b")]
    assert identities == [use.openings[0].verdict] * 2
    # Their heads differ in the time of day alone.
    same = Provenance.load(tmp_path / "a")
    pages = [(tmp_path / n / "report.html").read_text() for n in ("a", "b")]
    assert pages[0] == renewed(pages[1], same)


def test_another_model_after_the_figures_were_readable_needs_a_person(
    world: World, tmp_path: Path, environ: dict[str, str]
) -> None:
    judge(world, tmp_path / "first", environ)
    other = world.train("second-model", seed=11)
    dataset, holdout, architecture, _ = world.inputs
    told = run(
        *(dataset, holdout, architecture, other),
        world.constitution,
        {},
        tmp_path / "second",
        environ=environ,
    )

    assert (told["decision"], told["guarantee"]) == ("needs_human", "spent")
    assert Verdict.load(tmp_path / "second").use.number == 2
    assert "guarantee: spent" in (tmp_path / "second/report.html").read_text()


def test_a_broken_promise_still_gives_a_whole_verdict_and_report(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, environ: dict[str, str]
) -> None:
    world = build(tmp_path_factory.getbasetemp() / "broken", floor=0.97)
    told = judge(world, tmp_path / "v", environ)

    assert told["decision"] == "fail"
    assert verify(tmp_path / "v", "verdict")
    page = (tmp_path / "v/report.html").read_text()
    assert "The gate refuses this model" in page
    assert "useful" in page


def test_a_rehearsal_reads_no_sealed_row_counts_no_use_and_guarantees_nothing(
    world: World, tmp_path: Path
) -> None:
    environ = {"SAFESCALE_STORE": (tmp_path / "store").as_uri()}
    told = run(
        *(*world.inputs, world.constitution, {"rehearse": True}, tmp_path / "v"),
        environ=environ,
    )
    verdict = Verdict.load(tmp_path / "v")
    select = Dataset.load(world.folder / "dataset").splits["select"]

    assert (told["mode"], told["guarantee"]) == ("rehearsal", "none")
    (kept,) = store_of(environ).list()
    assert kept.key.endswith("/evidence.parquet")
    assert verdict.use.number == 0
    assert verdict.rows == len(select)
    assert "This is a rehearsal." in (tmp_path / "v/report.html").read_text()


def test_without_a_store_the_sealed_rows_stay_unread(
    world: World, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="SAFESCALE_STORE is not set") as error:
        judge(world, tmp_path / "v", {})

    assert error.value.exit_code == 2
    assert not (tmp_path / "v").exists()


def test_rows_read_in_research_are_open_when_a_model_is_judged_officially(
    world: World, tmp_path: Path, environ: dict[str, str]
) -> None:
    told = judge(world, tmp_path / "v", environ, ledger="research")
    assert (told["decision"], told["guarantee"]) == ("pass", "holds")
    assert Verdict.load(tmp_path / "v").ledger == "research"
    assert "can never be registered" in (tmp_path / "v/report.html").read_text()

    official = judge(world, tmp_path / "w", environ)
    assert (official["decision"], official["guarantee"]) == ("needs_human", "spent")
    research, second = ledger.uses(store_of(environ))
    assert (research.ledger, research.number) == ("research", 1)
    assert (second.ledger, second.number) == ("official", 2)


def test_a_benchmark_and_an_official_run_share_no_store(
    world: World, tmp_path: Path, environ: dict[str, str]
) -> None:
    judge(world, tmp_path / "v", environ, ledger="benchmark")
    page = (tmp_path / "v/report.html").read_text()
    assert "This is a benchmark's verdict." in page
    with pytest.raises(InputError, match="no official use is counted there") as error:
        judge(world, tmp_path / "w", environ)
    assert error.value.exit_code == 2
    assert not (tmp_path / "w").exists()
    (use,) = ledger.uses(store_of(environ))
    assert use.ledger == "benchmark"

    ordinary = {"SAFESCALE_STORE": (tmp_path / "ordinary").as_uri()}
    judge(world, tmp_path / "x", ordinary)
    with pytest.raises(InputError, match="no benchmark use is counted there"):
        judge(world, tmp_path / "y", ordinary, ledger="benchmark")
    assert not (tmp_path / "y").exists()


def test_a_use_is_reserved_before_the_rows_are_scored(
    world: World, tmp_path: Path, environ: dict[str, str]
) -> None:
    """A model that breaks while scoring has spent its use, but opened nothing."""
    model = tmp_path / "model"
    shutil.copytree(world.folder / "model", model)
    shutil.rmtree(model / "twin")
    reseal(model)
    dataset, holdout, architecture, _ = world.inputs
    with pytest.raises(InputError, match="does not exist"):
        run(
            *(dataset, holdout, architecture, model),
            world.constitution,
            {},
            tmp_path / "v",
            environ=environ,
        )
    (use,) = ledger.uses(store_of(environ))

    assert not use.opened
    assert not (tmp_path / "v").exists()


def test_what_breaks_on_development_rows_costs_no_use(
    world: World, tmp_path: Path, environ: dict[str, str]
) -> None:
    """Slices are looked for there first: a model that cannot answer is found by it."""
    model = tmp_path / "model"
    shutil.copytree(world.folder / "model", model)
    (model / "weights.safetensors").unlink()
    reseal(model)
    dataset, holdout, architecture, _ = world.inputs
    inputs = (dataset, holdout, architecture, model)
    with pytest.raises(InputError, match=r"weights\.safetensors"):
        run(*inputs, world.constitution, {}, tmp_path / "v", environ=environ)
    assert ledger.uses(store_of(environ)) == []
    assert not (tmp_path / "v").exists()


def test_benchmarks_keep_a_book_that_takes_no_official_use(
    world: World, tmp_path: Path
) -> None:
    rule = Constitution.from_dict(world.constitution)
    verdict = evaluated(tmp_path, world.inputs, rule)
    assert (verdict.ledger, verdict.use.number) == ("benchmark", 1)
    book = {"SAFESCALE_STORE": (tmp_path / "store").as_uri()}
    with pytest.raises(InputError, match="no official use is counted there"):
        judge(world, tmp_path / "v", book)
    with pytest.raises(Refusal, match="in the benchmark ledger"):
        register_model.run(
            *(world.folder / "model", tmp_path / "verdict", world.constitution),
            *({"name": "loans"}, tmp_path / "version"),
            environ=book,
        )


KILLED = """
import json, os, signal, sys
from safescale_ammt.stages import register_model
from safescale_ammt.stages.evaluate_safety import run

def watch(event, arguments):
    # FileStore brings an object to its place by a link.
    if event == "os.link" and str(arguments[1]).endswith(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
inputs, constitution, _, out, store = json.loads(sys.argv[1])
run(*inputs, constitution, {}, out, environ={"SAFESCALE_STORE": store})
sys.exit(f"{sys.argv[2]} was not killed")
"""


@pytest.mark.parametrize("event", [1, 2])
def test_a_kill_before_the_rows_are_opened_leaves_nothing_to_read(
    world: World, tmp_path: Path, environ: dict[str, str], event: int
) -> None:
    """At the event that reserves, and at the one that opens."""
    out = tmp_path / "out" / "v"
    out.parent.mkdir()
    inputs = [str(path) for path in world.inputs]
    job = [inputs, world.constitution, {}, str(out), environ["SAFESCALE_STORE"]]
    killed = Child(
        [sys.executable, "-c", KILLED, json.dumps(job), "it", f"{event:08d}.json"],
        env={**os.environ, "TMPDIR": str(tmp_path / "out")},
    )
    assert killed.wait() == -signal.SIGKILL
    # The rows as they were fetched, in a folder of their own, and no answer to one.
    left = {path.parent.name for path in out.parent.rglob("*") if path.is_file()}
    assert left == ({"holdout"} if event == 1 else set())
    assert [use.opened for use in ledger.uses(store_of(environ))] == [False] * (
        event - 1
    )

    told = judge(world, tmp_path / "again", environ)
    assert (told["decision"], told["guarantee"]) == ("pass", "holds")
    (use,) = ledger.uses(store_of(environ))
    assert (use.number, len(use.openings)) == (1, 1)


def test_another_constitution_than_that_of_training_is_refused(
    world: World, tmp_path: Path, environ: dict[str, str]
) -> None:
    other = {**world.constitution, "groups": {"min_n": 10}}
    with pytest.raises(IntegrityError) as error:
        run(*world.inputs, other, {}, tmp_path / "v", environ=environ)

    for rule in (other, world.constitution):
        assert Constitution.from_dict(rule).digest in str(error.value)
    assert ledger.uses(store_of(environ)) == []


def test_the_holdout_of_another_dataset_is_refused_with_both_digests(
    world: World, tmp_path: Path, environ: dict[str, str]
) -> None:
    source = (world.folder / "people.csv").as_uri()
    cut = {"train": 0.4, "validation": 0.1, "constraint": 0.1, "monitor": 0.1}
    section = {
        "source": source,
        "label": "granted",
        "positive": "yes",
        "sensitive": ["sex"],
        "splits": {**cut, "select": 0.1, "sealed": 0.2},
    }
    prepare(section, tmp_path / "d", tmp_path / "h")
    dataset, holdout, architecture, model = world.inputs
    with pytest.raises(IntegrityError) as error:
        run(
            *(dataset, tmp_path / "h", architecture, model),
            world.constitution,
            {},
            tmp_path / "v",
            environ=environ,
        )

    for path in (holdout, tmp_path / "h"):
        assert read_manifest(path).identity in str(error.value)


@pytest.mark.parametrize("kind", ["dataset", "holdout", "architecture", "model"])
def test_a_changed_input_is_refused(
    world: World, tmp_path: Path, environ: dict[str, str], kind: str
) -> None:
    places = dict(
        zip(("dataset", "holdout", "architecture", "model"), world.inputs, strict=True)
    )
    shutil.copytree(places[kind], tmp_path / kind)
    file = next(p for p in sorted((tmp_path / kind).glob("*.*")) if "man" not in p.name)
    file.write_bytes(file.read_bytes() + b" ")
    places[kind] = tmp_path / kind

    with pytest.raises(IntegrityError, match="was changed"):
        run(*places.values(), world.constitution, {}, tmp_path / "v", environ=environ)
    assert ledger.uses(store_of(environ)) == []


def test_a_training_log_that_is_damaged_is_one_clear_sentence(
    world: World, tmp_path: Path, environ: dict[str, str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(world.folder / "model", model)
    (model / "training.jsonl").write_text("{half a line\n")
    reseal(model)
    dataset, holdout, architecture, _ = world.inputs

    with pytest.raises(InputError, match=r"training\.jsonl holds a line"):
        run(
            *(dataset, holdout, architecture, model),
            world.constitution,
            {"rehearse": True},
            tmp_path / "v",
            environ=environ,
        )
