"""A promise on changed rows, from the constitution to a bundle that is rescored."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import preparing
import pytest
from laptop import WORKLOAD
from trained_world import World, build

from safescale_ammt.config.sections import RegistryConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.holdout import Holdout
from safescale_ammt.data.unseen import UnseenTally
from safescale_ammt.errors import ConstitutionError, IntegrityError
from safescale_ammt.files.artifacts import Draft, describe
from safescale_ammt.files.canonical import (
    digest_file,
    read_json,
    read_json_lines,
    write_json,
)
from safescale_ammt.judging.assembly import (
    assemble,
    evidence_of,
    judge_all,
    rederive,
    submission_of,
)
from safescale_ammt.judging.evidence import EVIDENCE, Evidence, write_evidence
from safescale_ammt.judging.robust import survivors, wrongly_drawn
from safescale_ammt.judging.table_attack import NOT_DRAWN, SURVIVED
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.model.predictor import Predictor
from safescale_ammt.releasing.attacking import under_attack
from safescale_ammt.releasing.bundle import write_bundle
from safescale_ammt.releasing.page import REPORT, page_of
from safescale_ammt.releasing.rescoring import answered, rescore
from safescale_ammt.stages import evaluate_safety, search_architecture
from safescale_ammt.store.uri import STORE, open_store

INCOME = {"by": 2, "step": 1, "range": [0, 200]}
THREAT: dict[str, Any] = {"changes": 2, "columns": {"income": INCOME, "job": ["none"]}}
LINE = 0.1


def promised(rule: dict[str, Any], **constraint: Any) -> dict[str, Any]:
    """The promises of a world, and two of rows that are changed."""
    asked = {"metric": "robust_accuracy", "threshold": LINE, "threat": THREAT}
    more = [
        {"id": "steady", "constraint": {**asked, **constraint}},
        {"id": "steady-by-sex", "constraint": {**asked, "group": "sex", **constraint}},
    ]
    return {**rule, "principles": [*rule["principles"], *more]}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A model that was trained under a constitution with these promises."""
    nets = build(tmp_path_factory.getbasetemp() / "world")
    world = World(tmp_path_factory.mktemp("robust"), promised(nets.constitution))
    for artifact in ("dataset", "holdout"):
        (world.folder / artifact).symlink_to(nets.folder / artifact)
    (world.folder / "store").symlink_to(nets.folder / "store")
    dataset, _, architecture, _ = world.inputs
    sections = WORKLOAD["search"], WORKLOAD["training"]
    search_architecture.run(dataset, world.constitution, *sections, architecture)
    world.train("model", seed=0)
    return world


def test_the_log_and_the_page_of_training_say_once_that_nothing_aims_at_it(
    world: World,
) -> None:
    lines = read_json_lines(world.folder / "model" / "training.jsonl")
    reasons = [e["reason"] for e in lines if e["event"] == "left_out"]
    for name in ("steady", "steady-by-sex"):
        of = [r for r in reasons if r.startswith(f"{name} is judged and not trained ")]
        assert len(of) == 1


@pytest.fixture(scope="module")
def told(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What judging tells; its verdict stands in `folder`, whole."""
    folder = tmp_path_factory.mktemp("judged")
    environ = {STORE: (folder / "store").as_uri()}
    world.kept_in(open_store(environ[STORE]))
    said = evaluate_safety.run(
        *(*world.inputs, world.constitution, {}, folder / "apart"), environ=environ
    )
    with preparing.whole(folder / "apart", "verdict") as whole:
        shutil.copytree(whole, folder / "verdict")
    return {**said, "folder": folder / "verdict"}


def rule_of(world: World) -> Constitution:
    return Constitution.from_dict(world.constitution)


def test_the_share_that_survives_is_judged_and_derived_again(
    world: World, told: dict[str, Any]
) -> None:
    found = rederive(told["folder"], rule_of(world))
    steady, by_sex = found.findings[2:]
    assert told["decision"] == "pass"
    assert (steady.outcome, by_sex.outcome) == ("holds", "holds")
    assert 0 < steady.value < found.accuracy
    assert by_sex.value <= steady.value
    assert told["metrics"]["steady.value"] == steady.value
    page = Path(told["report"]).read_text()
    assert "robust accuracy under 2 changes of income" in page
    assert "after any change that the promise permits" in page
    assert "Rows that a change breaks" in page


def test_survivors_are_those_that_the_predictor_answers_right_however_changed(
    world: World, told: dict[str, Any]
) -> None:
    rows, _ = evidence_of(told["folder"], Verdict.load(told["folder"]))
    words, codes = next(iter(rows.attacks.values()))
    sealed = preparing.sealed(world.folder / "holdout").split
    predictor = Predictor.load(world.folder / "model")
    frame = sealed.features.to_pandas()
    right = np.ones(len(frame), dtype=bool)
    for move in (-2, -1, 0, 1, 2):
        for job in (None, "none"):
            changed = frame.copy()
            changed["income"] += move
            outside = ~changed["income"].between(0, 200)
            changed.loc[outside, "income"] = frame.loc[outside, "income"]
            if job:
                changed["job"] = job
            table = sealed.features.from_pandas(changed)
            right &= predictor.predict_table(table).prediction == sealed.label
    assert ((codes == words.index(SURVIVED)) == right).all()
    assert right.sum() == survivors(rows, rule_of(world).principles[2].constraint)[0]


def forged(
    world: World, verdict: Path, out: Path, change: Callable[[Evidence], Evidence]
) -> Path:
    """Makes a bundle of other evidence, with our own code and every digest right."""
    shutil.copytree(verdict, out / "verdict")
    stated = Verdict.load(verdict)
    rows, keys = evidence_of(verdict, stated)
    rows = change(rows)
    write_evidence(out / "verdict" / EVIDENCE, rows, keys)
    digest = digest_file(out / "verdict" / EVIDENCE)
    about = submission_of(stated)
    assemble(rule_of(world), rows, about, digest).save(out / "verdict")
    page = page_of(out / "verdict", rule_of(world), drawn=False)
    (out / "verdict" / REPORT).write_text(page, "utf-8")
    redescribe(out / "verdict")
    write_bundle(
        out / "bundle",
        model=world.folder / "model",
        verdict=out / "verdict",
        constitution=rule_of(world),
        registry=RegistryConfig(name="loans"),
    )
    return out / "bundle"


def redescribe(folder: Path) -> None:
    old = read_json(folder / "manifest.json")
    (folder / "manifest.json").unlink()
    aside = {n for n, entry in old["files"].items() if not entry["identity"]}
    draft = Draft(folder, old["parents"], aside)
    new = describe(folder, draft, old["kind"], old["stage"], old["config_digest"])
    write_json(folder / "manifest.json", new.to_dict())


def all_survive(rows: Evidence) -> Evidence:
    """Says of each row that is answered right that nothing breaks it."""
    ((key, (words, codes)),) = rows.attacks.items()
    broken = codes >= 3
    return replace(rows, attacks={key: (words, np.where(broken, 0, codes))})


def test_who_has_the_sealed_rows_attacks_them_again(
    world: World, told: dict[str, Any], tmp_path: Path
) -> None:
    with preparing.whole(world.folder / "holdout", "holdout") as holdout:
        honest = forged(world, told["folder"], tmp_path / "honest", lambda rows: rows)
        said = rescore(honest, Verdict.load(honest / "verdict"), holdout)
        assert "Under 2 changes of income" in said[-1]
        assert said[-1].endswith("they end as the evidence says.")
        liar = forged(world, told["folder"], tmp_path / "liar", all_survive)
        with pytest.raises(IntegrityError, match="outcome of attack"):
            rescore(liar, Verdict.load(liar / "verdict"), holdout)


def test_evidence_that_lost_or_changed_an_outcome_is_refused(
    world: World, told: dict[str, Any], tmp_path: Path
) -> None:
    stated = Verdict.load(told["folder"])
    rows, keys = evidence_of(told["folder"], stated)
    for name, other in {
        "none": replace(rows, attacks={}),
        "more": all_survive(rows),
    }.items():
        shutil.copytree(told["folder"], tmp_path / name)
        write_evidence(tmp_path / name / EVIDENCE, other, keys)
        with pytest.raises(IntegrityError, match="states evidence sha256"):
            rederive(tmp_path / name, rule_of(world))
        # Nor does a verdict follow that names the new file.
        whole = read_json(tmp_path / name / "verdict.json")
        digest = digest_file(tmp_path / name / EVIDENCE)
        write_json(tmp_path / name / "verdict.json", {**whole, "evidence": digest})
        with pytest.raises(IntegrityError):
            rederive(tmp_path / name, rule_of(world))
        write_json(
            tmp_path / name / "verdict.json",
            {k: v for k, v in whole.items() if k != "attacks"} | {"evidence": digest},
        )
        with pytest.raises(IntegrityError):
            rederive(tmp_path / name, rule_of(world))


def test_too_many_changes_leave_a_part_of_the_rows_that_the_digest_draws(
    world: World,
) -> None:
    rule = rule_of(world)
    with preparing.whole(world.folder / "holdout", "holdout") as folder:
        sealed = Holdout.load(folder)
        plain = answered(
            world.folder / "model", sealed.stored, UnseenTally(sealed.schema)
        )
        asked = (world.folder / "model", sealed.stored, plain, rule.table_threats)
        whole = under_attack(*asked, sealed.identity)
        part = under_attack(*asked, sealed.identity, most=5_000)
        names = sealed.stored.hashes()
    (all_words, every), (words, some) = (
        next(iter(e.attacks.values())) for e in (whole, part)
    )
    out = some == words.index(NOT_DRAWN)
    # At most 9 ways to change a row, so that 5,000 answers are some 600 rows.
    assert 500 < (~out).sum() < 1000
    assert (
        wrongly_drawn(part, names.view(np.uint8).reshape(-1, 16), sealed.identity) == ""
    )
    # What is attacked ends as it does where all rows are.
    same = [all_words[i] == words[j] for i, j in zip(every, some, strict=True)]
    assert np.array(same)[~out].all()
    finding = judge_all(rule, part, 10)[2]
    assert finding.by_group[0].trials == (~out).sum()
    assert f"of {(~out).sum():,} of 2,000 rows, drawn by" in finding.reason


def test_a_rehearsal_attacks_rows_of_select(world: World, tmp_path: Path) -> None:
    environ = {STORE: (tmp_path / "store").as_uri()}
    world.kept_in(open_store(environ[STORE]))
    safety = {"rehearse": True}
    said = evaluate_safety.run(
        *(*world.inputs, world.constitution, safety, tmp_path / "v"), environ=environ
    )
    assert said["mode"] == "rehearsal"
    assert 0 < said["metrics"]["steady.value"] < said["metrics"]["accuracy"]


def test_a_threat_to_no_column_is_refused_before_anything_is_searched(
    world: World, tmp_path: Path
) -> None:
    wrong = {"changes": 1, "columns": {"incom": INCOME}}
    rule = promised(build(world.folder.parent / "world").constitution, threat=wrong)
    sections = WORKLOAD["search"], WORKLOAD["training"]
    with pytest.raises(ConstitutionError, match="'incom', which the model does not"):
        search_architecture.run(
            world.folder / "dataset", rule, *sections, tmp_path / "architecture"
        )
