"""`verify --data`: who has the sealed rows asks the model again."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import preparing
import pytest
from laptop import WORKLOAD
from trained_world import World, build

from pipelines.cli import run_command
from safescale_ammt.config.sections import RegistryConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.files.artifacts import Draft, describe, read_manifest
from safescale_ammt.files.canonical import digest_file, read_json, write_json
from safescale_ammt.judging.assembly import assemble, evidence_of, submission_of
from safescale_ammt.judging.evidence import (
    EVIDENCE,
    Evidence,
    distinct_rows,
    write_evidence,
)
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.model.predictor import DECISION
from safescale_ammt.releasing.bundle import verify_bundle, write_bundle
from safescale_ammt.releasing.page import REPORT, page_of
from safescale_ammt.stages import evaluate_safety
from safescale_ammt.store.uri import STORE, open_store

Change = Callable[[Evidence, np.ndarray], tuple[Evidence, np.ndarray]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.getbasetemp() / "world")


@pytest.fixture(scope="module")
def judged(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A verdict about the model."""
    folder = tmp_path_factory.mktemp("judged")
    environ = {STORE: (folder / "store").as_uri()}
    world.kept_in(open_store(environ[STORE]))
    evaluate_safety.run(
        *(*world.inputs, world.constitution, {}, folder / "apart"), environ=environ
    )
    with preparing.whole(folder / "apart", "verdict") as whole:
        shutil.copytree(whole, folder / "verdict")
    return folder / "verdict"


@pytest.fixture(autouse=True)
def _named_store(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who verifies with the rows has the key of the store in which they lie."""
    monkeypatch.setenv(STORE, preparing.environ_of(world.inputs[1])[STORE])


def bundled(world: World, verdict: Path, out: Path) -> Path:
    write_bundle(
        out,
        model=world.folder / "model",
        verdict=verdict,
        constitution=Constitution.from_dict(world.constitution),
        registry=RegistryConfig(name="loans"),
    )
    return out


def invented(world: World, judged: Path, folder: Path, change: Change) -> Path:
    """Makes a bundle of other evidence, with our own code and every digest right."""
    verdict = folder / "verdict"
    shutil.copytree(judged, verdict)
    stated, rule = Verdict.load(verdict), Constitution.from_dict(world.constitution)
    rows, keys = change(*evidence_of(verdict, stated))
    rows, slices = preparing.confirmed_again(rows, stated, rule)
    write_evidence(verdict / EVIDENCE, rows, keys)
    digest = digest_file(verdict / EVIDENCE)
    about = replace(submission_of(stated), slices=slices)
    assert about.sampling is not None
    distinct = len(distinct_rows(keys))
    about = replace(about, sampling=replace(about.sampling, distinct=distinct))
    assemble(rule, rows, about, digest).save(verdict)
    (verdict / REPORT).write_text(page_of(verdict, rule, drawn=False), "utf-8")
    redescribe(verdict)
    return bundled(world, verdict, folder / "bundle")


def flipped(name: str, rows: int) -> Change:
    def change(known: Evidence, keys: np.ndarray) -> tuple[Evidence, np.ndarray]:
        column = getattr(known, name).copy()
        column[:rows] = 1 - column[:rows]
        return replace(known, **{name: column}), keys

    return change


def other_sex(known: Evidence, keys: np.ndarray) -> tuple[Evidence, np.ndarray]:
    values, codes = known.groups["sex"]
    codes = np.concatenate([1 - codes[:30], codes[30:]])
    return replace(known, groups={**known.groups, "sex": (values, codes)}), keys


def other_slice(known: Evidence, keys: np.ndarray) -> tuple[Evidence, np.ndarray]:
    inside = known.slices[0].copy()
    inside[:20] = ~inside[:20]
    return replace(known, slices=(inside, *known.slices[1:])), keys


def part(known: Evidence, take: Any) -> Evidence:
    names = ("label", "prediction", "score", "twin_prediction", "twin_score")
    groups = {n: (values, codes[take]) for n, (values, codes) in known.groups.items()}
    columns = {name: getattr(known, name)[take] for name in names}
    slices = tuple(inside[take] for inside in known.slices)
    return replace(known, groups=groups, slices=slices, **columns)


def fewer(known: Evidence, keys: np.ndarray) -> tuple[Evidence, np.ndarray]:
    """What was answered wrong gives its place to rows that nobody has."""
    right = known.prediction == known.label
    made = keys.copy()
    made[~right] ^= 0xFF
    return part(known, np.resize(np.flatnonzero(right), len(keys))), made


def shuffled(known: Evidence, keys: np.ndarray) -> tuple[Evidence, np.ndarray]:
    order = np.random.default_rng(0).permutation(len(keys))
    return part(known, order), keys[order]


def data(world: World, bundle: Path, *more: str) -> int:
    return run_command(["verify", str(bundle), "--data", str(world.inputs[1]), *more])


def test_a_page_that_the_judge_wrote_is_written_again_to_the_last_word(
    world: World, judged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = bundled(world, judged, tmp_path / "bundle")
    told = verify_bundle(bundle)
    assert told.checks[-1].startswith("Report, card and record")
    # Its logs lie with it, so that all its pictures can be drawn again.
    assert (bundle / "verdict/logs/search.json").is_file()
    out = tmp_path / "again.html"
    assert run_command(["report", str(judged), "-o", str(out)]) == 0
    assert out.read_text("utf-8") == (judged / REPORT).read_text("utf-8")


def test_model_and_twin_give_the_answers_of_honest_evidence(
    world: World, judged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = bundled(world, judged, tmp_path / "bundle")
    assert data(world, bundle) == 0
    out = capsys.readouterr().out
    assert "ok  Model and twin give them the answers of the evidence" in out
    assert "were not asked again" not in out
    # Who made it is another question, which the rows do not answer.
    assert data(world, bundle, "--strict") == 3


@pytest.mark.parametrize(
    "forged",
    [
        (flipped("prediction", 40), "prediction of the model differs in 40 rows"),
        (flipped("twin_prediction", 7), "prediction of the twin differs in 7 rows"),
        (flipped("label", 11), "label differs in 11 rows"),
        (flipped("twin_score", 5), "score of the twin differs in 5 rows"),
        (other_sex, "group 'sex' differs in 30 rows"),
        (other_slice, "slice 1 differs in 20 rows"),
        (fewer, r"(\d+) sealed rows are not in the evidence; \1 rows of the evidence"),
    ],
    ids=["model", "twin", "label", "score", "group", "slice", "rows"],
)
def test_evidence_that_the_model_never_gave_is_whole_and_found_by_the_sealed_rows(
    world: World,
    judged: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    forged: tuple[Change, str],
) -> None:
    change, says = forged
    bundle = invented(world, judged, tmp_path, change)
    assert run_command(["verify", str(bundle)]) == 0
    assert "is whole, but by whom is not shown" in capsys.readouterr().out
    assert data(world, bundle) == 3
    sentence = capsys.readouterr().err
    assert re.search(f"departs from what 2,000 sealed rows give: .*{says}", sentence)
    assert len(sentence.splitlines()) == 1


def test_the_order_of_the_evidence_is_no_fault(
    world: World, judged: Path, tmp_path: Path
) -> None:
    assert data(world, invented(world, judged, tmp_path, shuffled)) == 0


def test_other_rows_than_the_verdict_names_are_refused_and_no_rows_are_wrong_input(
    world: World, judged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = bundled(world, judged, tmp_path / "bundle")
    names = {"source": "people.csv", "sealed_source": "sealed.csv"}
    places = {key: (world.folder / name).as_uri() for key, name in names.items()}
    # The same rows, cut otherwise: another dataset, and another holdout.
    section = {**WORKLOAD["data"], **places, "seed": 7}
    preparing.run(section, tmp_path / "dataset", tmp_path / "holdout")
    command = ["verify", str(bundle), "--data"]
    rows = str(tmp_path / "holdout")
    assert run_command([*command, rows]) == 2
    assert "is not there, though a holdout artifact names it" in capsys.readouterr().err
    own = preparing.environ_of(tmp_path / "holdout")[STORE]
    assert run_command([*command, rows, "--store", own]) == 3
    said = capsys.readouterr().err
    assert read_manifest(tmp_path / "holdout").identity in said
    assert Verdict.load(judged).holdout in said
    for wrong in (world.inputs[0], tmp_path / "nothing"):
        assert run_command([*command, str(wrong)]) == 2
    # In the store, or in the artifact, where it has no place.
    file = preparing.rows_of(world.inputs[1]) / "sealed.parquet"
    shutil.copytree(world.folder / "store", tmp_path / "other")
    damaged = tmp_path / "other" / file.relative_to(world.folder / "store")
    damaged.write_bytes(b"PAR1")
    other = ["--store", (tmp_path / "other").as_uri()]
    assert run_command([*command, str(world.inputs[1]), *other]) == 3
    shutil.copytree(world.inputs[1], tmp_path / "changed")
    (tmp_path / "changed/sealed.parquet").write_bytes(b"PAR1")
    assert run_command([*command, str(tmp_path / "changed")]) == 3


def closer(known: Evidence, keys: np.ndarray) -> tuple[Evidence, np.ndarray]:
    """Scores that another processor gave: less than a step of the grid away."""
    return replace(known, score=known.score * (1 - 2.0**-23)), keys


def older(world: World, folder: Path) -> World:
    """The same world with a model that was saved before scores were exact."""
    shutil.copytree(world.folder, folder)
    model = folder / "model"
    for rule in (model / DECISION, model / "twin" / DECISION):
        write_json(rule, {**read_json(rule), "schema": 1})
    redescribe(model)
    return World(folder, world.constitution)


def redescribe(artifact: Path) -> None:
    """Writes an artifact's manifest again, for the files that it has now."""
    old = read_json(artifact / "manifest.json")
    outside = {n for n, entry in old["files"].items() if not entry["identity"]}
    draft = Draft(artifact, old["parents"], outside)
    new = describe(artifact, draft, old["kind"], old["stage"], old["config_digest"])
    write_json(artifact / "manifest.json", new.to_dict())


def test_scores_are_compared_to_the_last_bit_where_their_definition_is_exact(
    world: World,
    judged: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert data(world, invented(world, judged, tmp_path / "new", closer)) == 3
    assert "score of the model differs in 2,000 rows" in capsys.readouterr().err
    before = older(world, tmp_path / "older")
    assert data(before, judged_anew(before, tmp_path / "old", closer)) == 0
    assert "scores within 1e-06" in capsys.readouterr().out


def judged_anew(world: World, folder: Path, change: Change) -> Path:
    """Judges a world's model and bundles it with changed evidence."""
    folder.mkdir()
    environ = {STORE: (folder / "store").as_uri()}
    world.kept_in(open_store(environ[STORE]))
    places = (*world.inputs, world.constitution, {}, folder / "apart")
    evaluate_safety.run(*places, environ=environ)
    with preparing.whole(folder / "apart", "verdict") as whole:
        shutil.copytree(whole, folder / "verdict")
    return invented(world, folder / "verdict", folder / "changed", change)


JUDGED = """
import json, os, sys
from pathlib import Path
from safescale_ammt.stages import evaluate_safety, register_model
*inputs, out, rule = sys.argv[1:]
rule, out = json.loads(rule), Path(out)
evaluate_safety.run(*map(Path, inputs), rule, {}, out / "verdict")
registered = {"name": "loans"}
register_model.run(Path(inputs[3]), out / "verdict", rule, registered, out / "version")
sys.exit("torch" in sys.modules)
"""
COMMAND = """
import sys
from pipelines.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert end.code == 0
print(sorted({"torch", "matplotlib", "pandas", "kfp"} & set(sys.modules)))
"""


def test_nobody_who_judges_registers_verifies_or_predicts_imports_torch(
    world: World, judged: Path, tmp_path: Path
) -> None:
    store = (tmp_path / "store").as_uri()
    world.kept_in(open_store(store))
    places = [*map(str, world.inputs), str(tmp_path), json.dumps(world.constitution)]
    stages = [sys.executable, "-c", JUDGED, *places]
    environ = {**os.environ, STORE: store, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(stages, env=environ, check=False)
    assert done.returncode == 0
    bundle = str(bundled(world, judged, tmp_path / "bundle"))
    rows = str(world.folder / "people.csv")
    out = str(tmp_path / "answers.csv")
    for words in (
        ("verify", bundle),
        ("verify", bundle, "--data", str(world.inputs[1])),
        ("predict", bundle, "--data", rows, "-o", out),
    ):
        command = [sys.executable, "-c", COMMAND, *words]
        said = subprocess.run(command, capture_output=True, text=True, check=True)
        assert said.stdout.splitlines()[-1] == "[]", words
