"""The expressions of the admission policies, evaluated as a cluster would."""

from __future__ import annotations

import cel
import pytest
from policy.objects import shipped

OURS = {"app.kubernetes.io/part-of": "safescale-ammt"}
WAIT = {"name": "wait"}


def container(name, root=None):
    """Returns a container; `root`: what it says about its root file system."""
    if root is None:
        return {"name": name}
    return {"name": name, "securityContext": root}


READ_ONLY = {"readOnlyRootFilesystem": True}
POD = [
    (None, [WAIT], "not ours"),
    ({}, [container("main")], "not ours"),
    ({"app.kubernetes.io/part-of": "kubeflow"}, [container("main")], "not ours"),
    (OURS, [WAIT], "fine"),
    (OURS, [container("main", READ_ONLY), WAIT], "fine"),
    (OURS, [container("node", READ_ONLY)], "fine"),
    (OURS, [container("main"), WAIT], "refused"),
    (OURS, [container("main", {}), WAIT], "refused"),
    (OURS, [container("main", {"readOnlyRootFilesystem": False})], "refused"),
    (OURS, [container("node")], "refused"),
    (OURS, [container("main", READ_ONLY), container("node")], "refused"),
]


def policy(kind):
    """Returns the spec of one of the two policies."""
    objects = shipped()["components/read-only-root"]
    (found,) = [o["spec"] for o in objects if o["kind"] == kind]
    return found


def evaluate(expression, labels, containers):
    """Evaluates an expression on a pod."""
    metadata = {} if labels is None else {"labels": labels}
    pod = {"metadata": metadata, "spec": {"containers": containers}}
    return cel.evaluate(expression, {"object": pod})


@pytest.mark.parametrize(("labels", "containers", "outcome"), POD)
def test_a_stage_with_a_writable_root_is_refused(labels, containers, outcome):
    spec = policy("ValidatingAdmissionPolicy")
    (condition,), (validation,) = spec["matchConditions"], spec["validations"]
    ours = evaluate(condition["expression"], labels, containers)
    assert ours is (outcome != "not ours")
    if ours:
        allowed = evaluate(validation["expression"], labels, containers)
        assert allowed is (outcome == "fine")


@pytest.mark.parametrize(("labels", "containers", "outcome"), POD)
def test_only_a_stage_of_ours_is_changed(labels, containers, outcome):
    (condition,) = policy("MutatingAdmissionPolicy")["matchConditions"]
    changed = evaluate(condition["expression"], labels, containers)
    is_stage = any(c["name"] == "main" for c in containers)
    assert changed is (outcome != "not ours" and is_stage)


def test_the_change_itself_can_be_read():
    (mutation,) = policy("MutatingAdmissionPolicy")["mutations"]
    assert cel.compile(mutation["applyConfiguration"]["expression"])
    with pytest.raises(ValueError):
        cel.compile(mutation["applyConfiguration"]["expression"] + "}")
