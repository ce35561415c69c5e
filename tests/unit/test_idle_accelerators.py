"""Who reserves an accelerator that its training leaves idle is told so."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.kubeflow.preparation import KubeflowRequest, why_idle
from safescale_ammt.config.sections import TrainingConfig

WORKLOAD = Path(__file__).parents[2] / "pipelines" / "adult.yaml"


@pytest.mark.parametrize(
    ("changes", "of_step", "why"),
    [
        ({}, True, ""),
        ({"device": "cuda"}, True, ""),
        ({"backend": "torchrun", "processes": 2}, True, ""),
        ({"device": "cpu"}, True, "training.device is cpu"),
        ({"learner": "trees"}, True, "boosted trees train on CPUs"),
        ({"backend": "trainjob"}, True, "the pods of the TrainJob train"),
        ({"backend": "trainjob"}, False, ""),
        ({"backend": "trainjob", "device": "cpu"}, False, "training.device is cpu"),
    ],
)
def test_a_training_says_what_it_leaves_idle(
    changes: dict[str, object], of_step: bool, why: str
) -> None:
    said = why_idle(TrainingConfig.from_params(changes), of_step=of_step)
    assert said.startswith(why)
    assert bool(said) is bool(why)


@pytest.mark.parametrize(
    ("parameters", "idle"),
    [
        (None, False),
        ({}, False),
        ({"accelerators": "0"}, False),
        ({"accelerators": "two"}, False),  # refused elsewhere, by its own sentence
        ({"accelerator_type": "amd.com/gpu"}, False),
        ({"accelerators": "1"}, True),
        ({"accelerators": "16", "accelerator_type": "amd.com/gpu"}, True),
    ],
)
def test_a_request_says_what_it_reserves_in_vain(
    parameters: dict[str, str] | None, idle: bool
) -> None:
    on_cpus = ("training.device=cpu",)
    request = KubeflowRequest(WORKLOAD, overrides=on_cpus, parameters=parameters)
    assert ("reserves what stays idle" in request.idle_accelerators) is idle
    assert bool(request.idle_accelerators) is idle
    used = KubeflowRequest(WORKLOAD, parameters=parameters)
    assert used.idle_accelerators == ""
