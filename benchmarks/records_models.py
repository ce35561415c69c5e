"""Models that must not come into service, and some that must, through judge and gate.

Each is tried on a copy of a world whose sealed rows nobody has used. *Blocked* means
that a stage refuses it, or that the gate does not make it champion: it may be kept as
pending, which nothing serves. A bad one is bad by how it is made: its weights are
overwritten, or its papers are forged so that every
digest fits again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.records_world import World, build, promises
from benchmarks.resealing import artifact_sealed_again
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.errors import SafescaleError
from safescale_ammt.files.canonical import digest_file, read_json, write_json
from safescale_ammt.judging.assembly import assemble, evidence_of, submission_of
from safescale_ammt.judging.evidence import EVIDENCE, write_evidence
from safescale_ammt.judging.verdict import SealedUse, Verdict
from safescale_ammt.store.protected import made_whole, set_apart

Weights = dict[str, np.ndarray]
Plant = Callable[[World], dict[str, Any]]
GOOD = 4
"""Models of other tables and seeds that keep the promises by construction."""


def overwritten(world: World, change: Callable[[Weights], Weights]) -> Path:
    """Changes a model's weights, with its manifest written anew."""
    model = world.folder / "model"
    file = model / "weights.safetensors"
    save_file(change(load_file(file)), file)
    artifact_sealed_again(model)
    return model


def released(world: World, model: Path | None = None, **safety: Any) -> dict[str, Any]:
    """Judges a model, and asks the gate."""
    model = model or world.folder / "model"
    verdict = world.judge(model, world.folder / "verdict", **safety)
    return world.register(model, verdict, world.folder / "version")


def constant(world: World) -> dict[str, Any]:
    """Gives everybody the same answer."""
    zeros = lambda weights: {k: np.zeros_like(v) for k, v in weights.items()}  # noqa: E731
    return released(world, overwritten(world, zeros))


def by_lot(world: World) -> dict[str, Any]:
    """Answers by weights that are drawn."""
    rng = np.random.default_rng(0)

    def drawn(weights: Weights) -> Weights:
        return {
            k: rng.normal(0, 1, v.shape).astype(v.dtype) for k, v in weights.items()
        }

    return released(world, overwritten(world, drawn))


def inverted(world: World) -> dict[str, Any]:
    """Answers the contrary."""

    def turned(weights: Weights) -> Weights:
        return {k: -v if k.startswith("out.") else v for k, v in weights.items()}

    return released(world, overwritten(world, turned))


def worse_than_twin(world: World) -> dict[str, Any]:
    """Shifts the line, so that accuracy falls short of the twin's by over 5 points."""

    def shifted(weights: Weights) -> Weights:
        return {k: v - 2.5 if k == "out.bias" else v for k, v in weights.items()}

    return released(world, overwritten(world, shifted))


def not_a_number(world: World) -> dict[str, Any]:
    """Has a weight that is no number."""

    def broken(weights: Weights) -> Weights:
        weights["out.bias"] = np.full_like(weights["out.bias"], np.nan)
        return weights

    return released(world, overwritten(world, broken))


def changed_after_the_verdict(world: World) -> dict[str, Any]:
    """Has a byte of its weights changed between judge and gate."""
    model = world.folder / "model"
    verdict = world.judge(model, world.folder / "verdict")
    file = model / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    return world.register(model, verdict, world.folder / "version")


def exchanged_after_the_verdict(world: World) -> dict[str, Any]:
    """Is another model than the judged one, with a manifest of its own."""
    verdict = world.judge(world.folder / "model", world.folder / "verdict")
    model = overwritten(world, lambda w: {k: v * 0.9 for k, v in w.items()})
    return world.register(model, verdict, world.folder / "version")


def by_another_constitution(world: World) -> dict[str, Any]:
    """Is registered by a constitution with a wider line."""
    model = world.folder / "model"
    verdict = world.judge(model, world.folder / "verdict")
    rule = promises()
    rule["principles"][0]["constraint"]["threshold"] = 0.9
    return world.register(model, verdict, world.folder / "version", rule)


def judged_by_another(world: World) -> dict[str, Any]:
    """Is judged by a constitution that it was not trained under."""
    rule = promises()
    rule["principles"][0]["constraint"]["threshold"] = 0.9
    return released(World(world.folder, rule))


@contextmanager
def forging(world: World, verdict: Path) -> Iterator[Path]:
    """Gives a whole verdict to forge; it goes apart again with digests that fit."""
    with made_whole(world.data, verdict, "verdict") as whole:
        yield whole
        artifact_sealed_again(whole)
        set_apart(world.data, whole, verdict)


def judged_again(whole: Path, rule: dict[str, Any], **false: Any) -> None:
    """Derives a verdict from its evidence again, under false facts."""
    stated = Verdict.load(whole)
    told, _ = evidence_of(whole, stated)
    shutil.rmtree(whole / "findings")
    about = replace(submission_of(stated), **false)
    digest = digest_file(whole / EVIDENCE)
    assemble(Constitution.from_dict(rule), told, about, digest).save(whole)


def forged(world: World, change: Callable[[Path], None]) -> dict[str, Any]:
    """Judges the model, forges the verdict, and asks the gate."""
    model = world.folder / "model"
    verdict = world.judge(model, world.folder / "verdict")
    with forging(world, verdict) as whole:
        change(whole)
    return world.register(model, verdict, world.folder / "version")


def without_a_finding(world: World) -> dict[str, Any]:
    """Lacks the file of a finding."""
    return forged(world, lambda w: next((w / "findings").iterdir()).unlink())


def without_evidence(world: World) -> dict[str, Any]:
    """Lacks the evidence, which was removed from the store."""
    model = world.folder / "model"
    verdict = world.judge(model, world.folder / "verdict")
    shutil.rmtree(world.folder / "store" / "sealed" / "verdict")
    return world.register(model, verdict, world.folder / "version")


def evidence_exchanged(world: World) -> dict[str, Any]:
    """Has one byte of the evidence in the store changed."""
    model = world.folder / "model"
    verdict = world.judge(model, world.folder / "verdict")
    (file,) = (world.folder / "store" / "sealed" / "verdict").glob("*/evidence.parquet")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    return world.register(model, verdict, world.folder / "version")


def evidence_made_up(world: World) -> dict[str, Any]:
    """Is no better than by lot, and its evidence says that it is always right."""
    rng = np.random.default_rng(0)
    model = overwritten(
        world,
        lambda w: {k: rng.normal(0, 1, v.shape).astype(v.dtype) for k, v in w.items()},
    )
    verdict = world.judge(model, world.folder / "verdict")
    with forging(world, verdict) as whole:
        told, rows = evidence_of(whole, Verdict.load(whole))
        score = told.label.astype(float)
        right = replace(told, prediction=told.label, score=score)
        write_evidence(whole / EVIDENCE, right, rows)
        judged_again(whole, world.rule)
    return world.register(model, verdict, world.folder / "version")


def evidence_of_another(world: World) -> dict[str, Any]:
    """Is bad, and shows the evidence of a good model."""
    good = world.folder / "good"
    shutil.copytree(world.folder / "model", good)
    theirs = world.judge(good, world.folder / "verdict-good")
    model = overwritten(world, lambda w: {k: 0 * v for k, v in w.items()})
    verdict = world.judge(model, world.folder / "verdict")
    with (
        made_whole(world.data, theirs, "verdict") as source,
        forging(world, verdict) as whole,
    ):
        shutil.copyfile(source / EVIDENCE, whole / EVIDENCE)
        judged_again(whole, world.rule, use=SealedUse(2, 1, "holds"))
    return world.register(model, verdict, world.folder / "version")


def called_a_pass(world: World) -> dict[str, Any]:
    """Failed, and its verdict was edited to say pass."""
    model = overwritten(world, lambda w: {k: 0 * v for k, v in w.items()})
    verdict = world.judge(model, world.folder / "verdict")
    with forging(world, verdict) as whole:
        file = whole / "verdict.json"
        write_json(file, {**read_json(file), "decision": "pass", "reasons": []})
    return world.register(model, verdict, world.folder / "version")


def on_opened_rows(world: World) -> dict[str, Any]:
    """Is another one, judged on rows whose figures can be read."""
    released(world)
    other = world.train("other", 11)
    verdict = world.judge(other, world.folder / "verdict-other")
    return world.register(other, verdict, world.folder / "version-other")


def use_restated(world: World) -> dict[str, Any]:
    """Is judged on opened rows, and states a first use with its guarantee."""
    released(world)
    other = world.train("other", 11)
    verdict = world.judge(other, world.folder / "verdict-other")
    with forging(world, verdict) as whole:
        judged_again(whole, world.rule, use=SealedUse(1, 1, "holds"))
    return world.register(other, verdict, world.folder / "version-other")


def for_research(world: World) -> dict[str, Any]:
    """Passed, in the ledger of research."""
    return released(world, ledger="research")


def rehearsed(world: World) -> dict[str, Any]:
    """Passed a rehearsal, on rows that development may see."""
    return released(world, rehearse=True)


def rehearsal_as_sealed(world: World) -> dict[str, Any]:
    """Passed a rehearsal, and its verdict was edited to say sealed."""
    model = world.folder / "model"
    verdict = world.judge(model, world.folder / "verdict", rehearse=True)
    with forging(world, verdict) as whole:
        judged_again(whole, world.rule, mode="sealed", use=SealedUse(1, 1, "holds"))
    return world.register(model, verdict, world.folder / "version")


def in_another_ledger(world: World) -> dict[str, Any]:
    """Was judged with another ledger than the gate's."""
    model = world.folder / "model"
    verdict = world.judge(model, world.folder / "verdict")
    shutil.rmtree(world.folder / "store" / "ledger")
    return world.register(model, verdict, world.folder / "version")


def unfair(world: World) -> dict[str, Any]:
    """Says yes to who has a job and no to others, which in its table are the women."""
    other = build(world.folder / "unfair", unfair=True, seed=1)

    def closed(weights: Weights) -> Weights:
        # One unit of each layer, from the last of the inputs to the answer: that is the
        # level `none` of `job`.
        schema = read_json(other.folder / "model" / "schema.json")
        assert schema["features"][-1]["levels"] == ["full", "none"]
        path = (("layer0.weight", (0, -1, 0)), ("layer1.weight", (0, 0, 0)))
        for name, place in path:
            weights[name][..., 0] = 0
            weights[name][place] = 100
            weights[name.replace("weight", "bias")][..., 0] = 0
        weights["out.weight"][:] = 0
        weights["out.weight"][0, 0, 0, 0] = -1
        weights["out.bias"][:] = 10
        return weights

    return released(other, overwritten(other, closed))


BAD: dict[str, Plant] = {
    "one answer for all": constant,
    "weights drawn by lot": by_lot,
    "the contrary of its answers": inverted,
    "worse than its twin": worse_than_twin,
    "a weight that is no number": not_a_number,
    "a gap over the line": unfair,
    "a byte changed after the verdict": changed_after_the_verdict,
    "another model than the judged one": exchanged_after_the_verdict,
    "registered by another constitution": by_another_constitution,
    "judged by another constitution": judged_by_another,
    "a finding's file is missing": without_a_finding,
    "the evidence is missing": without_evidence,
    "a byte of the evidence changed": evidence_exchanged,
    "evidence that was made up": evidence_made_up,
    "evidence of another model": evidence_of_another,
    "a failure called a pass": called_a_pass,
    "judged on opened rows": on_opened_rows,
    "opened rows called a first use": use_restated,
    "a pass for research": for_research,
    "a rehearsal": rehearsed,
    "a rehearsal called sealed": rehearsal_as_sealed,
    "a use that this ledger does not hold": in_another_ledger,
}


def planted(world: World, folder: Path) -> Iterator[dict[str, str | bool]]:
    """Plants every bad model and `GOOD` good ones; yields what became of each.

    Args:
        world: with a model, its sealed rows unused.
        folder: for the copies.
    """
    for name, plant in BAD.items():
        copy = world.copy(folder / name.replace(" ", "-"))
        status, said = outcome(lambda plant=plant, copy=copy: plant(copy))  # type: ignore[misc]
        yield row(name, "bad", status, said, right=status != "champion")
    for seed in range(1, GOOD + 1):
        other = build(folder / f"good-{seed}", seed=seed)
        status, said = outcome(lambda other=other: released(other))  # type: ignore[misc]
        right = status == "champion"
        yield row(f"table and seed {seed}", "good", status, said, right=right)


def outcome(release: Callable[[], dict[str, Any]]) -> tuple[str, str]:
    """Returns a version's status, or `refused` and the sentence."""
    try:
        return str(release()["status"]), ""
    except SafescaleError as error:
        return "refused", str(error)


def row(
    name: str, kind: str, status: str, said: str, *, right: bool
) -> dict[str, str | bool]:
    """Writes down what became of a planted model."""
    return {"model": name, "kind": kind, "status": status, "said": said, "right": right}
