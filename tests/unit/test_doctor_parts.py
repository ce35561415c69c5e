"""What the doctor reads of others' settings, in each form that they take."""

from __future__ import annotations

from decimal import Decimal
from ipaddress import ip_address
from typing import Any

import pytest

from pipelines.kubeflow.doctor.checks import Fault
from pipelines.kubeflow.doctor.network import binds_a_run, blocks_of, opens
from pipelines.kubeflow.doctor.platform import settings_of
from pipelines.kubeflow.doctor.quota import charge_of, check_room, most_at_once
from safescale_ammt.cluster.refusals import subject_of

BLOCK = {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}


@pytest.mark.parametrize(
    ("rule", "opened"),
    [
        ({"to": [BLOCK], "ports": [{"port": 6443}]}, True),
        ({"to": [BLOCK], "ports": [{"port": 443}]}, False),
        ({"to": [BLOCK], "ports": [{"port": 1024, "endPort": 7000}]}, True),
        ({"to": [BLOCK], "ports": [{"port": 1024, "endPort": 6442}]}, False),
        ({"to": [BLOCK]}, True),
        ({"ports": [{"port": 6443}]}, True),
        ({}, True),
        ({"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]}, False),
        # A name stands for what the pod calls so; an address has none.
        ({"to": [BLOCK], "ports": [{"port": "https"}]}, False),
        ({"to": [{"podSelector": {}}], "ports": [{"port": 6443}]}, False),
        ({"to": [{"ipBlock": {"cidr": "fd00::/8"}}]}, False),
    ],
)
def test_a_rule_opens_what_it_says(rule: dict[str, Any], opened: bool) -> None:
    policy = {"spec": {"egress": [rule]}}
    address = ip_address("10.2.0.1")
    assert any(opens(b, address, 6443) for b in blocks_of(policy)) is opened


def test_what_a_rule_excepts_is_shut() -> None:
    policy = {"spec": {"egress": [{"to": [BLOCK]}]}}
    assert not any(opens(b, ip_address("10.1.2.3"), 443) for b in blocks_of(policy))


RUN = {"pipelines.kubeflow.org/v2_component": "true"}


@pytest.mark.parametrize(
    ("spec", "bound"),
    [
        ({"podSelector": {}, "policyTypes": ["Egress"]}, True),
        ({"podSelector": {"matchLabels": RUN}, "policyTypes": ["Egress"]}, True),
        ({"podSelector": {"matchLabels": RUN}, "policyTypes": ["Ingress"]}, False),
        (
            {"podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": ["Egress"]},
            False,
        ),
        (
            {
                "podSelector": {
                    "matchExpressions": [{"key": "a", "operator": "Exists"}]
                },
                "policyTypes": ["Egress"],
            },
            False,
        ),
    ],
)
def test_a_policy_of_other_pods_binds_no_run(spec: dict[str, Any], bound: bool) -> None:
    assert binds_a_run({"spec": spec}) is bound


@pytest.mark.parametrize(
    "data",
    [
        {"executor": "securityContext: {runAsNonRoot: true}", "namespace": "kubeflow"},
        {"config": "executor: {securityContext: {runAsNonRoot: true}}"},
    ],
)
def test_argos_settings_are_read_in_both_forms(data: dict[str, str]) -> None:
    assert settings_of(data)["executor"] == {"securityContext": {"runAsNonRoot": True}}


def test_argos_settings_that_are_none_are_no_crash() -> None:
    assert settings_of({"config": "- a"}) == {}
    assert settings_of({"executor": "a: [", "links": "x"})["links"] == "x"
    assert settings_of({}) == {}


def test_without_a_limit_range_nothing_is_added_to_a_stage() -> None:
    charge = charge_of({"cpu": "2"}, {"cpu": "1"}, [])
    two, one = Decimal(2), Decimal(1)
    assert charge == {"pods": one, "limits.cpu": two, "requests.cpu": one}


def test_a_quotas_plain_keys_mean_requests() -> None:
    charge = charge_of({"cpu": "4"}, {"cpu": "1"}, [])
    assert most_at_once({"cpu": "3"}, charge) == 3
    assert most_at_once({"limits.cpu": "8", "cpu": "100"}, charge) == 2
    assert most_at_once({"secrets": "1"}, charge) == 0
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"cpu": "3"}}}
    check_room(quota, {"requests.cpu": Decimal(3)})
    with pytest.raises(Fault, match="leaves 3 of cpu, a run needs 4"):
        check_room(quota, {"requests.cpu": Decimal(4)})


@pytest.mark.parametrize(
    ("token", "named"),
    [
        # {"sub": "a"}, then no JSON, no object, and no JWT at all.
        ("e30.eyJzdWIiOiAiYSJ9.c2ln", "a"),
        ("e30.e30.c2ln", ""),
        ("a.b.c", ""),
        ("opaque", ""),
        ("", ""),
    ],
)
def test_a_token_says_whom_it_is_of_or_nobody(token: str, named: str) -> None:
    assert subject_of(token) == named
