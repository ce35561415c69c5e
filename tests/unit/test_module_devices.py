"""Devices of a module: the first of the ladder that is there, and what is not, said."""

from __future__ import annotations

import pytest
import torch
from module_world import (
    net,
    trained,
)

from safescale_ammt.model.device import find_device

pytestmark = pytest.mark.usefixtures("same_start")


def test_the_first_device_of_the_ladder_that_is_there_is_used() -> None:
    cpu = torch.device("cpu")
    there = {"xpu": torch.device("meta"), "cpu": cpu}
    assert find_device("auto", there.get) == ("xpu", there["xpu"], "")
    assert find_device("cpu", there.get) == ("cpu", cpu, "")
    kind, _, reason = find_device("tpu", there.get)
    assert (kind, reason) == ("xpu", "No tpu is there: training uses the xpu.")
    assert find_device("auto", {"cpu": cpu}.get)[0] == "cpu"


def test_a_tpu_that_is_injected_is_trained_on_and_one_that_is_not_said() -> None:
    fake = {"tpu": torch.device("cpu"), "cpu": torch.device("cpu")}
    _, metrics = trained(net(), device="tpu", options={"present": fake.get})
    assert metrics["device"] == "tpu"
    none = {"cpu": torch.device("cpu")}
    _, other = trained(net(), device="tpu", tpu_pods=4, options={"present": none.get})
    assert other["device"] == "cpu"
    assert other["unapplied"][-1] == "No tpu is there: training uses the cpu."
    assert "training.tpu_pods is 4" in other["unapplied"][0]
