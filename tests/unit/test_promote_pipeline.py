"""The compiled promote pipeline: one step with a gate's rights, and no more."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from approval_world import ALICE, BOB, REASON, World
from policy import complaints, ir
from policy.objects import ROOT
from test_policy_ir import SECRETS

from components import image
from pipelines.compile import compile_promote, compile_train, compiled_graph
from pipelines.ir import CompiledPipeline
from pipelines.kubeflow.manifests import Release, kubernetes_objects, write_objects
from pipelines.kubeflow.run_state import GATES
from safescale_ammt.files.artifacts import verify
from safescale_ammt.releasing.deciding import signed_approval
from safescale_ammt.store.event_log import now
from safescale_ammt.store.uri import open_store

GOLDEN = ROOT / "tests/golden/promote.yaml"


@pytest.fixture(scope="module")
def compiled() -> str:
    return compile_promote()


@pytest.fixture
def documents(compiled: str) -> list[Any]:
    return list(yaml.safe_load_all(compiled))


def test_the_compiled_pipeline_is_the_one_in_the_repository(compiled: str) -> None:
    assert compiled == GOLDEN.read_text(encoding="utf-8"), "make golden, then look"


def test_compiling_both_in_any_order_gives_the_same_bytes(compiled: str) -> None:
    train = compile_train()
    compiled_graph.cache_clear()
    assert compile_promote() == compiled
    assert compile_train() == train


def test_it_keeps_every_rule_of_a_pipeline_of_ours(documents: list[Any]) -> None:
    read = ir.read(documents, SECRETS)
    assert [task.name for task in read.tasks] == ["promote"]
    assert {"promote"} <= GATES
    assert complaints(ir.RULES, read) == []


@pytest.mark.parametrize(
    ("way", "value", "rule"),
    [
        (("cachingOptions",), {"enableCache": True}, ir.gates_are_not_cached),
        (("retryPolicy",), {"maxRetryCount": 1}, ir.gates_are_not_retried),
    ],
)
def test_a_promotion_that_is_cached_or_retried_breaks_a_rule(
    documents: list[Any], way: tuple[str], value: Any, rule: Any
) -> None:
    changed = copy.deepcopy(documents)
    changed[0]["root"]["dag"]["tasks"]["promote"][way[0]] = value
    assert complaints([rule], ir.read(changed, SECRETS))


def test_it_has_the_gates_image_and_the_gates_two_keys(compiled: str) -> None:
    promote = CompiledPipeline.parse(compiled)
    train = CompiledPipeline.parse(compile_train())
    own, gate = (
        p.executors[f"exec-{name}"]["container"]
        for p, name in ((promote, "promote"), (train, "register-model"))
    )
    assert own["image"] == gate["image"] == image("register_model")
    pods = promote.kubernetes["exec-promote"], train.kubernetes["exec-register-model"]
    assert pods[0]["secretAsEnv"] == pods[1]["secretAsEnv"]


def test_the_form_asks_for_a_model_and_for_no_secret(compiled: str) -> None:
    parameters = CompiledPipeline.parse(compiled).parameters
    assert set(parameters) == {
        *("registry", "version", "approvals", "resources_cpu", "resources_memory")
    }
    assert not parameters["registry"].get("isOptional")
    assert parameters["version"]["defaultValue"] == "pending"
    assert parameters["approvals"]["defaultValue"] == ""
    assert all(p["parameterType"] == "STRING" for p in parameters.values())


def test_no_finished_promotion_is_ever_reused(compiled: str) -> None:
    pipeline = CompiledPipeline.parse(compiled)
    pipeline.reuse("sha256:" + "0" * 64, ("promote", "register_model"))
    assert pipeline == CompiledPipeline.parse(compiled)


def test_its_objects_for_git_are_its_own(compiled: str, tmp_path: Any) -> None:
    pipeline, version = kubernetes_objects(compiled, Release())
    assert pipeline["metadata"]["name"] == "safescale-promote"
    assert version["spec"]["pipelineName"] == "safescale-promote"
    assert version["metadata"]["name"].startswith("safescale-promote-")
    tasks = version["spec"]["pipelineSpec"]["root"]["dag"]["tasks"]
    assert list(tasks) == ["promote"]
    pinned = re.sub(
        r"image: \S+", f"image: r.io/x/register_model@sha256:{'a' * 64}", compiled
    )
    write_objects(kubernetes_objects(pinned, Release()), tmp_path / "objects")
    written = yaml.safe_load((tmp_path / "objects/kustomization.yaml").read_text())
    # It trains nothing: the repository of TrainJobs is for the other pipeline to name.
    assert "patches" not in written
    assert [i["name"] for i in written["images"]] == ["safescale-ammt/register_model"]


def locally(world: World, root: Path, run: int, **arguments: str) -> dict[str, Any]:
    """Runs the pipeline under KFP's own local runner, with its own artifacts."""
    given = {"registry": "loans", **arguments}
    script = str(Path(__file__).with_name("promote_run.py"))
    done = subprocess.run(
        [sys.executable, script, str(root / str(run)), json.dumps(given)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "SAFESCALE_STORE": world.store.uri},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"success')]
    assert len(lines) == 1, done.stdout + done.stderr
    return {**json.loads(lines[0]), "log": done.stdout + done.stderr}


def test_kfp_runs_it_and_carries_page_and_record(tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    world = World(store, tmp_path, now=now())
    world.register(human={"quorum": 2}, page=True)
    files = [signed_approval(world.registry(), 1, k, REASON) for k in (ALICE, BOB)]
    red = locally(world, tmp_path, 1, approvals=json.dumps(files[0]))
    assert not red["success"]
    assert (
        "loans version 1 is approved by 1 (alice) in force, human.quorum"
        in (red["log"])
    )
    assert "Traceback" not in red["log"]
    assert world.registry().champion() is None
    # Both as a list, one of them given before: what Kubeflow's form would hold.
    green = locally(world, tmp_path, 2, approvals=json.dumps(files))
    assert green["success"], green["log"]
    champion = world.registry().champion()
    assert champion is not None
    assert champion.number == 1
    place = Path(green["outputs"]["promotion"])
    assert verify(place, "promotion")
    facts = json.loads((place / "promotion.json").read_text())
    assert [a["by"] for a in facts["approvals"]] == ["alice", "bob"]
    page = Path(green["outputs"]["summary"]).read_text()
    assert page.startswith("# loans version 1: champion\n")
    execution = json.loads((place.parent / "execution.json").read_text())
    assert (execution["stage"], execution["code"]) == ("promote", 0)
