"""A promise on attacked images, from the constitution to a bundle that is rescored."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import preparing
import pytest
from laptop import WORKLOAD
from test_images_to_the_gate import RULE, sources

from pipelines.cli import run_command
from safescale_ammt.files.code_package import CodePackage
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.releasing.registry import Registry
from safescale_ammt.stages import (
    evaluate_safety,
    register_model,
    search_architecture,
    train_agents,
)
from safescale_ammt.store.uri import STORE, open_store

EXAMPLES = Path(__file__).parents[2] / "examples" / "own_model"
BALL: dict[str, Any] = {"norm": "linf", "eps": 0.02, "tier": "full"}
PROMISES: dict[str, dict[str, Any]] = {
    "steady": {"metric": "robust_accuracy", "threshold": 0.3, "threat": BALL},
    "in-earnest": {"metric": "attack_sanity_flags", "threat": BALL},
    "proven": {
        "metric": "certified_accuracy",
        "threshold": 0.05,
        "threat": {"norm": "linf", "eps": 0.005},
    },
    "weather": {"metric": "corruption_accuracy", "threshold": 0.3},
    "dim": {
        "metric": "corruption_accuracy",
        "threshold": 0.4,
        "corruptions": ["noise", "blur"],
        "tier": "soft",
    },
}


def promised() -> dict[str, Any]:
    """The promises of the world of images, and some of changed ones."""
    rule = copy.deepcopy(RULE)
    rule["principles"] += [
        {"id": name, "constraint": constraint} for name, constraint in PROMISES.items()
    ]
    return rule


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the artifacts of all stages, and their store."""
    folder, rule = tmp_path_factory.mktemp("attacked"), promised()
    names = ("dataset", "holdout", "architecture", "model", "verdict", "version")
    dataset, holdout, architecture, model, verdict, version = (
        folder / name for name in names
    )
    environ = {STORE: (folder / "store").as_uri()}
    preparing.run(sources(folder, "idx"), dataset, holdout)
    training = {**WORKLOAD["training"], "steps": 120}
    search_architecture.run(dataset, rule, WORKLOAD["search"], training, architecture)
    train_agents.run(dataset, architecture, rule, training, model)
    inputs = (dataset, holdout, architecture, model, rule, {}, verdict)
    evaluate_safety.run(*inputs, environ=environ)
    register_model.run(
        model, verdict, rule, {"name": "shapes"}, version, environ=environ
    )
    return folder


def test_a_model_passes_by_what_its_battery_left_and_says_so(world: Path) -> None:
    verdict = Verdict.load(world / "verdict")
    assert verdict.decision == "pass"
    assert any(r.startswith("steady is empirical") for r in verdict.reasons)
    found = {f.principle: f for f in verdict.findings}
    # Bounds are below what attacks leave, of half the radius and less.
    steady, proven = found["steady"].value, found["proven"].value
    assert steady is not None
    assert proven is not None
    assert 0.3 < steady < verdict.accuracy
    assert proven < verdict.accuracy
    assert found["in-earnest"].value == 0.0
    weather, dim = found["weather"].value, found["dim"].value
    assert weather is not None
    assert dim is not None
    assert 0.3 < weather < dim <= verdict.accuracy + 0.05
    seen = [a for a in verdict.figures["attacks"].values() if "corruptions" in a]
    assert [a["rows"] for a in seen] == [verdict.rows] * 2
    page = (world / "verdict" / "report.html").read_text()
    assert "as far as its battery goes" in page
    assert "survives the battery, version" in page


def test_the_bundle_is_attacked_again_by_whoever_has_the_rows(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(open_store((world / "store").as_uri()), "shapes")
    registry.get_bundle(registry.versions()[-1], tmp_path / "bundle")
    with preparing.whole(world / "holdout", "holdout") as sealed:
        again = ["verify", str(tmp_path / "bundle"), "--data", str(sealed)]
        assert run_command(again) == 0
    told = capsys.readouterr().out
    assert "battery full they end as the evidence says, by the seed" in told
    assert "Under linf 0.005 in [0, 1] they end as the evidence says." in told
    weather = "Under one of 24 corruptions, by lot they end as the evidence says."
    assert weather in told


def test_a_convolutional_net_of_one_s_own_is_judged_as_nets_of_the_pipeline_are(
    world: Path, tmp_path: Path
) -> None:
    nets = CodePackage.read(EXAMPLES, "my_nets")
    training = {
        **WORKLOAD["training"],
        "steps": 60,
        "num_agents": 2,
        "model": "my_nets.convolutional:build",
        "model_digest": nets.digest,
        "model_package": nets.pack(),
    }
    rule = promised()
    rule["principles"] = [
        p for p in rule["principles"] if p["id"] not in {"useful", "proven", "dim"}
    ]
    for p in rule["principles"]:
        if "threat" in p["constraint"]:
            # A first look shows no promise, so that it may only be soft.
            p["constraint"]["threat"]["tier"] = "smoke"
            p["constraint"]["tier"] = "soft"
    environ = {STORE: (world / "store").as_uri()}
    made = [tmp_path / name for name in ("architecture", "model", "verdict")]
    data = world / "dataset", world / "holdout"
    search_architecture.run(data[0], rule, WORKLOAD["search"], training, made[0])
    train_agents.run(data[0], made[0], rule, training, made[1])
    evaluate_safety.run(*data, *made[:2], rule, {}, made[2], environ=environ)
    verdict = Verdict.load(made[2])
    values = {f.principle: f.value for f in verdict.findings}
    # A third is chance.
    assert verdict.accuracy > 0.45
    assert all(value is not None for value in values.values())
    assert values["steady"] <= verdict.accuracy
    (attack,) = (a for a in verdict.figures["attacks"].values() if "battery" in a)
    assert attack["survived"] + attack["wrong"] + sum(attack["broken_by"].values())
