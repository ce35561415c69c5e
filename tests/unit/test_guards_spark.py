"""What Spark's server may make of its right to create pods: the guard, by CEL."""

from __future__ import annotations

import copy

import pytest
from policy.admission import Request, loosened, policies_of, refusals
from policy.network import of_the_operator
from policy.objects import of_kind, shipped

SERVER = "system:serviceaccount:safescale:safescale-spark"
RUN = "system:serviceaccount:safescale:safescale-pipeline"
GUARDS = [
    guard
    for guard in policies_of(shipped()["components/spark"])
    if guard.name == "safescale-spark"
]


def executor():
    """Returns a pod as Spark 4.3.0 makes it of our template, after admission.

    Its steps are in org.apache.spark.deploy.k8s.features: BasicExecutorFeatureStep and
    LocalDirsFeatureStep.
    """
    (connect,) = of_kind(shipped()["components/spark"], "SparkConnect")
    pod = copy.deepcopy(connect["spec"]["executor"]["template"])
    pod["metadata"] |= {"name": "safescale-spark-exec-1", "namespace": "safescale"}
    pod["metadata"]["labels"] |= of_the_operator("spark-executor")
    container = pod["spec"]["containers"][0]
    container["args"] = ["executor"]
    field = {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}
    container["env"] = [
        {"name": "SPARK_EXECUTOR_ID", "value": "1"},
        {"name": "SPARK_EXECUTOR_POD_IP", "valueFrom": field},
    ]
    return pod | {"apiVersion": "v1", "kind": "Pod"}


def ask(pod, **about):
    """Returns what the guard says when the server creates a pod."""
    about = {"object": pod, "user": SERVER} | about
    return refusals(GUARDS, Request("pods", **about))


def changed(change):
    """Returns an executor with something done to it."""
    pod = executor()
    change(pod["metadata"]["labels"], pod["spec"], pod["spec"]["containers"][0])
    return pod


def test_the_executor_that_spark_makes_is_allowed():
    assert ask(executor()) == []


def test_an_image_of_a_registry_by_digest_is_allowed():
    name = "registry.example.org:5000/team/spark@sha256:" + "a" * 64
    assert ask(changed(lambda _, __, c: c.update(image=name))) == []


SECRET = {"secretKeyRef": {"name": "safescale-registry", "key": "k"}}
CHANGES = {
    "as a stage": lambda labels, _, __: labels.update(
        {"app.kubernetes.io/component": "prepare-data"}
    ),
    "with a label of KFP's": lambda labels, _, __: labels.update(
        {"pipelines.kubeflow.org/v2_component": "true"}
    ),
    "with another account": lambda _, spec, __: spec.update(
        serviceAccountName="safescale-pipeline"
    ),
    "with the default account": lambda _, spec, __: spec.pop("serviceAccountName"),
    "with a token": lambda _, spec, __: spec.update(automountServiceAccountToken=True),
    "with a token by default": lambda _, spec, __: spec.pop(
        "automountServiceAccountToken"
    ),
    "with another image": lambda _, __, c: c.update(image="evil/train_agents:1"),
    "with an image like ours": lambda _, __, c: c.update(image="a/notspark:1"),
    "with a command": lambda _, __, c: c.update(command=["sh"]),
    "with other arguments": lambda _, __, c: c.update(args=["executor", "-c"]),
    "with two containers": lambda _, spec, c: spec["containers"].append(c),
    "with a container before": lambda _, spec, c: spec.update(initContainers=[c]),
    "with another secret": lambda _, __, c: c.update(
        envFrom=[{"secretRef": {"name": "safescale-registry"}}]
    ),
    "with a config map": lambda _, __, c: c.update(
        envFrom=[{"configMapRef": {"name": "kfp-launcher"}}]
    ),
    "with a secret's key": lambda _, __, c: c["env"].append(
        {"name": "X", "valueFrom": SECRET}
    ),
    "with a secret's volume": lambda _, spec, __: spec["volumes"].append(
        {"name": "x", "secret": {"secretName": "safescale-registry"}}
    ),
    "with a token's volume": lambda _, spec, __: spec["volumes"].append(
        {"name": "x", "projected": {"sources": []}}
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_pod_that_is_no_executor_of_ours_is_refused(name):
    assert ask(changed(CHANGES[name]))


def test_the_server_acts_in_its_own_namespace():
    assert ask(executor(), namespace="team-b")


def test_the_server_changes_no_pod_and_enters_none():
    old = executor()
    assert ask(old, operation="UPDATE", old=old)
    assert ask(old, subresource="exec")


def test_the_server_deletes_executors_and_nothing_else():
    def delete(pod):
        return ask(None, operation="DELETE", old=pod)

    assert delete(executor()) == []
    assert delete(changed(CHANGES["as a stage"]))


def test_others_are_not_bound():
    pod = changed(CHANGES["with another secret"])
    assert ask(pod, user=RUN) == []
    assert (
        ask(pod, user="system:serviceaccount:safescale:safescale-spark-executor") == []
    )


def test_each_rule_of_the_guard_is_needed():
    """Left out, something goes through that must not."""
    old = executor()
    tried = [
        *(Request("pods", object=changed(c), user=SERVER) for c in CHANGES.values()),
        Request("pods", object=old, user=SERVER, namespace="team-b"),
        Request("pods", object=old, old=old, user=SERVER, operation="UPDATE"),
    ]
    for message, weaker in loosened(GUARDS[0]):
        assert any(refusals([weaker], each) == [] for each in tried), message
