"""What the compiled pipeline becomes on a person's machine."""

from __future__ import annotations

import copy

import pytest
import yaml

from pipelines.compile import compile_train
from pipelines.local.container_runner import network_of
from pipelines.local.graph import Limit, drop_retries, take_limits


@pytest.fixture(scope="module")
def compiled():
    return next(yaml.safe_load_all(compile_train()))


@pytest.fixture
def graph(compiled):
    return copy.deepcopy(compiled)


def tasks(graph):
    for component in (graph["root"], *graph["components"].values()):
        yield from component.get("dag", {}).get("tasks", {}).items()


def test_no_stage_is_tried_again(graph):
    assert any("retryPolicy" in task for _, task in tasks(graph))
    drop_retries(graph)
    assert not any("retryPolicy" in task for _, task in tasks(graph))


def test_limits_are_read_with_the_parameter_that_holds_them(graph):
    limits = take_limits(graph, {"train_memory": "8Gi"})
    assert limits["exec-train-agents"].memory == Limit("8Gi", "train_memory")
    assert limits["exec-train-agents"].memory.value == 8 * 1024**3
    assert limits["exec-train-agents"].cpu == Limit("2", "train_cpu")
    assert limits["exec-prepare-data"].memory == Limit("2Gi", "memory")
    assert limits["exec-notify"].memory.parameter == ""


def test_limits_are_no_input_of_a_stage_any_more(graph):
    take_limits(graph, {})
    for name, task in tasks(graph):
        if "dag" in graph["components"][task["componentRef"]["name"]]:
            continue
        inputs = task.get("inputs", {}).get("parameters", {})
        described = graph["components"][task["componentRef"]["name"]]
        known = described.get("inputDefinitions", {}).get("parameters", {})
        assert set(inputs) <= set(known), name


@pytest.mark.parametrize(
    ("environ", "network"),
    [
        ({"OMP_NUM_THREADS": "2"}, "none"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:8333"}, "host"),
        ({"AWS_ENDPOINT_URL_S3": "http://localhost:8333"}, "host"),
        ({"AWS_ENDPOINT_URL": "http://[::1]:8333"}, "host"),
        ({"AWS_ENDPOINT_URL": "https://store.example.org"}, "bridge"),
        ({"AWS_ENDPOINT_URL": "http://192.0.2.7:9000"}, "bridge"),
        ({"AWS_ACCESS_KEY_ID": "key"}, "bridge"),
        ({"SAFESCALE_WEBHOOK_URL": "https://chat.example.org/x"}, "bridge"),
    ],
)
def test_a_container_gets_the_least_network_that_its_addresses_need(environ, network):
    assert network_of(environ) == network
