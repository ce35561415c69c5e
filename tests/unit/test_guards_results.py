"""Which pod may report which result: the guard on Argo's task results, by CEL."""

from __future__ import annotations

import copy

import pytest
from policy.admission import Request, loosened, policies_of, refusals
from policy.objects import shipped

RESULTS = "workflowtaskresults.argoproj.io"
WORKFLOW = "safescale-train-gkjrc"
LABEL = "workflows.argoproj.io/workflow"
DONE = "workflows.argoproj.io/report-outputs-completed"
GUARDS = policies_of(shipped()["base"])


def fnv32a(text):
    """Returns FNV-1a of 32 bits, by which Argo names nodes."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 % 2**32
    return value


def names(node, template, workflow=WORKFLOW):
    """Returns Argo's names of a node's result and of its pod (pod_name.go, v2)."""
    hashed = fnv32a(f"{workflow}.{node}")
    prefix = f"{workflow}-{template}"[: 253 - 10 - 1]
    return f"{workflow}-{hashed}", f"{prefix}-{hashed}"


SEARCH = names("root.search(0)", "retry-system-container-impl")
DRIVER = names("root.train-driver", "system-container-driver")


def result(name, workflow=WORKFLOW, **labels):
    """Returns a result as Argo's workflow/executor/taskresult.go writes it."""
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTaskResult",
        "metadata": {
            "name": name,
            "labels": {LABEL: workflow, DONE: "false", **labels},
            "ownerReferences": [
                {
                    "apiVersion": "argoproj.io/v1alpha1",
                    "kind": "Workflow",
                    "name": workflow,
                    "uid": "uid-of-the-workflow",
                }
            ],
        },
        "outputs": {"parameters": [{"name": "pod-spec-patch", "value": "{}"}]},
    }


def ask(thing, pod, **about):
    """Returns what the guards say when a pod sends a result."""
    about = {"object": thing, "pod": (pod, "uid") if pod else None} | about
    return refusals(GUARDS, Request(RESULTS, **about))


@pytest.mark.parametrize(
    ("node", "template", "workflow"),
    [
        ("root.search(0)", "retry-system-container-impl", WORKFLOW),
        ("x.onExit(0)", "metadata-0-2-retry-system-container-impl", WORKFLOW),
        ("root-driver", "system-dag-driver", WORKFLOW),
        # A name that is cut (253 characters), and a workflow without a dash.
        ("root.a", "b" * 250, WORKFLOW),
        ("root.a", "entrypoint", "w"),
    ],
)
def test_a_pod_reports_its_own_result(node, template, workflow):
    name, pod = names(node, template, workflow)
    thing = result(name, workflow)
    assert ask(thing, pod) == []
    finished = result(name, workflow, **{DONE: "true"})
    assert ask(finished, pod, operation="UPDATE", old=thing) == []


def test_the_pod_of_the_real_run_could_report_its_result():
    pod = f"{WORKFLOW}-metadata-0-2-retry-system-container-impl-997151561"
    assert ask(result(f"{WORKFLOW}-997151561"), pod) == []
    # POD_NAMES=v1: the pod has the name of its node.
    assert ask(result(f"{WORKFLOW}-997151561"), f"{WORKFLOW}-997151561") == []


def test_a_result_may_come_without_an_owner_and_of_an_instance_of_its_own():
    thing = result(SEARCH[0], **{"workflows.argoproj.io/controller-instanceid": "a"})
    del thing["metadata"]["ownerReferences"]
    assert ask(thing, SEARCH[1]) == []


def with_metadata(**metadata):
    """Returns the search's result with some metadata changed."""
    thing = copy.deepcopy(result(SEARCH[0]))
    thing["metadata"] |= metadata
    return thing


ATTACKS = {
    # What KFP steers a later pod by: its driver's patch, with any volume and account.
    "the result of the next stage's driver": result(DRIVER[0]),
    "the result of a node of another workflow": result(
        names("root.judge", "x", "safescale-train-other")[0], "safescale-train-other"
    ),
    "its own hash in another workflow": result(
        f"safescale-train-other-{SEARCH[0].rpartition('-')[2]}", "safescale-train-other"
    ),
    "a name that is another's but for its end": result(f"{DRIVER[0]}-1"),
    "another node's name before its own hash": result(
        f"{DRIVER[0]}-{SEARCH[0].rpartition('-')[2]}", DRIVER[0]
    ),
    "the workflow itself": result(WORKFLOW),
    "a name without a dash": result("w"),
    "half of its hash": result(SEARCH[0][:-1]),
    "a name to be made up": with_metadata(generateName="x-"),
    # Argo then waits for this result before it ends that other workflow.
    "its own name for another workflow to wait for": with_metadata(
        labels={LABEL: "safescale-train-other", DONE: "false"}
    ),
    "no workflow": with_metadata(labels={}),
    "no labels": with_metadata(labels=None),
    "an owner of another kind": with_metadata(
        ownerReferences=[{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "y"}]
    ),
    "another workflow as its owner": result(SEARCH[0])
    | {"metadata": result("x", "other")["metadata"] | {"name": SEARCH[0]}},
    "an owner of another group": with_metadata(
        ownerReferences=[
            {"apiVersion": "v1", "kind": "Workflow", "name": WORKFLOW, "uid": "y"}
        ]
    ),
    "a finalizer": with_metadata(finalizers=["example.org/stay"]),
}
"""What code in the search's pod might send."""


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("operation", ["CREATE", "UPDATE"])
def test_a_pod_may_not_write(attack, operation):
    old = ATTACKS[attack] if operation == "UPDATE" else None
    assert ask(ATTACKS[attack], SEARCH[1], operation=operation, old=old)


def test_a_label_that_another_workflow_counts_by_is_not_put_on_an_own_result():
    old, new = result(SEARCH[0]), with_metadata(labels={LABEL: "safescale-train-other"})
    said = ask(new, SEARCH[1], operation="UPDATE", old=old)
    assert said == ["A pod reports to its own workflow only."]


def test_a_run_deletes_no_result_its_own_neither():
    old = result(SEARCH[0])
    said = ask(None, SEARCH[1], operation="DELETE", old=old)
    assert said[0] == "A run deletes no result."


def test_a_token_that_was_made_for_no_pod_reports_nothing():
    assert ask(result(SEARCH[0]), None)


def test_the_account_of_one_namespace_reports_nothing_in_another():
    said = ask(result(SEARCH[0]), SEARCH[1], namespace="team-b")
    assert said == ["A run acts in its own namespace."]


def test_the_part_of_a_result_that_has_a_path_of_its_own_is_guarded_too():
    assert ask(result(DRIVER[0]), SEARCH[1], operation="UPDATE", subresource="status")


@pytest.mark.parametrize("user", ["argo", "pipeline-runner", "safescale-operator"])
def test_other_accounts_are_not_held_to_it(user):
    user = f"system:serviceaccount:safescale:{user}"
    assert ask(result(DRIVER[0]), None, user=user) == []
    assert ask(None, None, user=user, operation="DELETE", old=result("x-1")) == []


def test_no_rule_is_without_an_attack_that_it_alone_stops():
    own = {"old": result(SEARCH[0]), "operation": "DELETE"}
    bad = [Request(RESULTS, object=a, pod=(SEARCH[1], "")) for a in ATTACKS.values()]
    bad += [
        Request(RESULTS, pod=(SEARCH[1], ""), **own),
        Request(RESULTS, object=result(SEARCH[0]), pod=(SEARCH[1], ""), namespace="b"),
    ]
    (policy,) = [p for p in GUARDS if p.name == "safescale-results"]
    idle = [m for m, weak in loosened(policy) if all(weak.refusals(r) for r in bad)]
    # Errors refuse too: without an object there is nothing to read, without a pod no
    # name to compare; the two rules say so in words.
    assert idle == [
        "A run deletes no result.",
        "Only a pod of a run acts for it, and this token was made for no pod.",
    ]
