"""The network policies, enforced on the labels that the pods really carry."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess

import pytest
import yaml
from policy import complaints, network
from policy.breaking import GONE, Break, broken
from policy.network import (
    AWS,
    MINIO,
    STATUS,
    WEBHOOK,
    End,
    Target,
    kinds,
    reaches,
)
from policy.objects import (
    COMPONENTS,
    MANIFESTS,
    OVERLAYS,
    build,
    compose,
    copy_manifests,
    of_kind,
    shipped,
)

ALL = [*OVERLAYS, *(f"components/{name}" for name in COMPONENTS)]


def the_policies(objects):
    """Returns the network policies as text."""
    return json.dumps(of_kind(objects, "NetworkPolicy"), sort_keys=True)


def network_components():
    """Returns the components that change or add a policy."""
    base = the_policies(shipped()["base"])
    return [c for c in COMPONENTS if the_policies(shipped()[f"components/{c}"]) != base]


@pytest.mark.parametrize("name", ALL)
def test_what_a_run_needs_is_open_and_the_rest_is_shut(name):
    assert complaints(network.RULES, shipped()[name]) == []


def test_components_together_shut_and_open_no_more_than_alone(tmp_path):
    """In every order: a component that replaces what another added shows here."""
    manifests = copy_manifests(tmp_path)
    found = network_components()
    assert set(found) == {"minio", "irsa", "api-server", "notify-egress", "spark"}
    opened = {"minio": MINIO, "irsa": AWS}
    all_of_them = (tuple(found), tuple(reversed(found)))
    # With irsa the webhook needs no rule of its own, so that is not asked here.
    rules = (network.a_run_gets_through, network.the_rest_is_shut)
    for several in (*itertools.permutations(found, 2), *all_of_them):
        objects = build(compose(manifests, base="base", components=several))
        assert complaints(rules, objects) == [], several
        for name in set(several) & set(opened):
            for target in opened[name]:
                for source, _ in kinds(objects).values():
                    assert reaches(objects, source, target), (several, target)


def test_each_store_is_reached_with_its_component_alone():
    for name in ALL:
        if name == "overlays/local":
            continue
        objects = shipped()[name]
        for source, _ in kinds(objects).values():
            for store, targets in (("minio", MINIO), ("irsa", AWS)):
                for target in targets:
                    opened = reaches(objects, source, target)
                    to_notify = source.name == "notify" and target.port == 443
                    with_webhook = name == "components/notify-egress" and to_notify
                    assert opened is (name == f"components/{store}" or with_webhook)


def test_a_webhook_is_reached_by_the_exit_task_alone():
    for name, hooked in (("base", False), ("components/notify-egress", True)):
        objects = shipped()[name]
        for kind, (source, _) in kinds(objects).items():
            opened = [reaches(objects, source, target) for target in WEBHOOK]
            assert opened == [hooked and kind == "notify"]


PRIVATE = [End("private", a) for a in ("10.1.2.3", "172.20.0.1", "192.168.7.7")]


@pytest.mark.parametrize(("name", "wide"), [("base", True), ("api-server", False)])
def test_the_way_to_the_api_is_as_wide_as_the_docs_say(name, wide):
    objects = shipped()[name if name == "base" else f"components/{name}"]
    for kind, (source, _) in kinds(objects).items():
        for end, port in itertools.product(PRIVATE, (443, 6443)):
            opened = reaches(objects, source, Target(end, port))
            assert opened is (wide and kind != "training-node")


def test_the_address_of_the_service_is_not_the_one_to_write():
    service = Target(End("Service of kubernetes", "10.96.0.1"), 443)
    objects = shipped()["components/api-server"]
    assert not any(reaches(objects, s, service) for s, _ in kinds(objects).values())


def test_the_status_of_trainer_is_nobodys_but_a_trainjobs():
    for name in ALL:
        if name == "overlays/local":
            continue
        for kind, (source, _) in kinds(shipped()[name]).items():
            for target in STATUS:
                opened = reaches(shipped()[name], source, target)
                assert not opened or kind == "training-node"


STORE, API = "NetworkPolicy/object-store", "NetworkPolicy/kubernetes-api"
PEERS = "NetworkPolicy/training-peers"
FIRST = ("spec", "egress", 0)
BROKEN: dict[str, list[Break]] = {
    "a_run_gets_through": [
        # As components/minio and irsa once were: no log could be stored, and no run
        # ended well.
        (STORE, FIRST, {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": []}),
        (STORE, (*FIRST, "ports", 0, "port"), 9000),
        ("NetworkPolicy/names", (*FIRST, "ports"), [{"protocol": "TCP", "port": 53}]),
        ("NetworkPolicy/names", ("spec", "podSelector"), {"matchLabels": {"a": "b"}}),
        ("NetworkPolicy/pipeline-services", ("spec", "egress", 1), GONE),
        # The Service's own, which is refused.
        (API, (*FIRST, "to"), [{"ipBlock": {"cidr": "10.96.0.1/32"}}]),
        (API, (*FIRST, "ports"), [{"protocol": "TCP", "port": 443}]),
        (PEERS, ("spec", "ingress"), []),
        (PEERS, ("spec", "egress", 0, "ports", 0, "endPort"), 2048),
    ],
    "the_rest_is_shut": [
        ("NetworkPolicy/default-deny", ("spec", "policyTypes"), ["Egress"]),
        (STORE, (*FIRST, "ports"), GONE),
        (STORE, (*FIRST, "to", 0, "podSelector"), GONE),
        (STORE, (*FIRST, "to", 0, "namespaceSelector"), {}),
        (STORE, (*FIRST, "ports", 0, "endPort"), 8888),
        (API, (*FIRST, "ports", 0), {"protocol": "TCP", "port": 10250}),
        (API, ("spec", "podSelector"), {}),
        (API, (*FIRST, "to", 0, "ipBlock", "cidr"), "0.0.0.0/0"),
        ("NetworkPolicy/pipeline-services", ("spec", "podSelector"), {}),
        (PEERS, ("spec", "ingress", 0, "from"), GONE),
        (PEERS, ("spec", "ingress", 0, "from", 0, "namespaceSelector"), {}),
    ],
    "every_policy_is_of_use": [
        (PEERS, ("spec", "podSelector", "matchLabels"), {"app": "of-nobody"}),
        (PEERS, ("spec", "egress", 0, "ports", 0), {"protocol": "TCP", "port": 1}),
    ],
}
CASES = [(rule, change) for rule, changes in BROKEN.items() for change in changes]


@pytest.mark.parametrize(("rule", "change"), CASES, ids=[r for r, _ in CASES])
def test_a_rule_of_the_network_catches_what_breaks_it(rule, change):
    (tested,) = [r for r in network.RULES if r.__name__ == rule]
    assert complaints([tested], broken(shipped()["base"], change)), change


def test_no_rule_of_the_network_is_without_an_example():
    assert set(BROKEN) == {rule.__name__ for rule in network.RULES}


def a_kubectl(folder, found):
    """Puts a `kubectl` there that reads this endpoint slice instead of a cluster's.

    The real one works out the output that the script asks for.
    """
    real = shutil.which("kubectl")
    if real is None:
        pytest.skip("no kubectl here")
    (folder / "slice.json").write_text(json.dumps(found))
    fake = folder / "kubectl"
    fake.write_text(
        '#!/bin/sh\n[ "$1 $2 $3 $4 $5" = "get endpointslices --namespace default '
        'kubernetes" ] || exit 9\n'
        f'exec {real} label --local -f {folder}/slice.json a=b "$6" "$7"\n'
    )
    fake.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("kind", "addresses", "ports", "written"),
    [
        ("IPv4", [["10.88.0.1"]], [6443], ["10.88.0.1/32"]),
        ("IPv4", [["10.0.0.4"], ["10.0.0.5"]], [443], ["10.0.0.4/32", "10.0.0.5/32"]),
        ("IPv4", [["203.0.113.7", "203.0.113.8"]], [443, 6443], None),
        ("IPv6", [["fd00::1"]], [6443], ["fd00::1/128"]),
    ],
)
def test_one_command_writes_where_the_api_listens(
    tmp_path, kind, addresses, ports, written
):
    manifests = copy_manifests(tmp_path)
    found = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default"},
        "addressType": kind,
        "endpoints": [{"addresses": a} for a in addresses],
        "ports": [{"name": "https", "port": p, "protocol": "TCP"} for p in ports],
    }
    done = subprocess.run(
        [str(manifests / "api-server.sh")],
        env=a_kubectl(tmp_path, found),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    objects = build(compose(manifests, base="base", components=("api-server",)))
    (policy,) = [o for o in objects if o["metadata"]["name"] == "kubernetes-api"]
    (rule,) = policy["spec"]["egress"]
    cidrs = [peer["ipBlock"]["cidr"] for peer in rule["to"]]
    assert cidrs == (written or [f"{a}/32" for part in addresses for a in part])
    assert [p["port"] for p in rule["ports"]] == ports


def test_a_slice_without_addresses_writes_nothing(tmp_path):
    manifests = copy_manifests(tmp_path)
    found = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default"},
        "addressType": "IPv4",
        "endpoints": [],
    }
    before = (manifests / "components/api-server/address.yaml").read_text()
    done = subprocess.run(
        [str(manifests / "api-server.sh")],
        env=a_kubectl(tmp_path, found),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "names no address" in done.stderr
    assert (manifests / "components/api-server/address.yaml").read_text() == before


def test_the_example_of_the_address_is_what_the_command_writes():
    example = MANIFESTS / "components" / "api-server" / "address.yaml.example"
    (change,) = yaml.safe_load(example.read_text(encoding="utf-8"))
    assert change["path"] == "/spec/egress"
    ignored = subprocess.run(
        ["git", "check-ignore", "-q", str(example.with_suffix(""))],
        cwd=MANIFESTS,
        check=False,
    )
    assert ignored.returncode == 0
