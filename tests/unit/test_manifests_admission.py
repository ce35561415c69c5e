"""The expressions of the admission policies, evaluated as a cluster would."""

from __future__ import annotations

import pytest
from cel_expr_python import cel
from policy.admission import Request, policies_of
from policy.objects import shipped

OURS = {"app.kubernetes.io/part-of": "safescale-ammt"}
WAIT = {"name": "wait"}
INSISTS = {"safescale-ammt/read-only-root": "insist"}
"""Label of a namespace whose cluster adds the read-only root."""


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


def pod(labels, containers):
    """Returns a pod with these labels and containers."""
    metadata = {} if labels is None else {"labels": labels}
    return {"metadata": metadata, "spec": {"containers": containers}}


def mutation():
    """Returns the spec of the policy that changes pods."""
    objects = shipped()["components/read-only-root"]
    (found,) = [o for o in objects if o["kind"] == "MutatingAdmissionPolicy"]
    return found["spec"]


@pytest.mark.parametrize(("labels", "containers", "outcome"), POD)
def test_a_stage_with_a_writable_root_is_refused(labels, containers, outcome):
    policies = policies_of(shipped()["components/read-only-root"])
    (policy,) = [p for p in policies if p.name == "safescale-read-only-root"]
    asked = {"object": pod(labels, containers), "labels": INSISTS}
    assert bool(policy.refusals(Request("pods", **asked))) is (outcome == "refused")
    # Below Kubernetes 1.36 nothing adds the read-only root, so nothing insists on it.
    assert not policy.refusals(Request("pods", **{**asked, "labels": {}}))


@pytest.mark.parametrize(("labels", "containers", "outcome"), POD)
def test_only_a_stage_of_ours_is_changed(labels, containers, outcome):
    (condition,) = mutation()["matchConditions"]
    env = cel.NewEnv(variables={"object": cel.Type.DYN})
    known = {"object": pod(labels, containers)}
    changed = env.compile(condition["expression"]).eval(data=known).value()
    is_stage = any(c["name"] == "main" for c in containers)
    assert changed is (outcome != "not ours" and is_stage)


def test_the_change_itself_can_be_read():
    (change,) = mutation()["mutations"]
    env, text = cel.NewEnv(), change["applyConfiguration"]["expression"]
    # Its types are those of Kubernetes, which no other evaluator has.
    assert env.compile(text, disable_check=True)
    with pytest.raises(RuntimeError):
        env.compile(text + "}", disable_check=True)
