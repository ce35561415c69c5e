"""What a run may create, change and delete of TrainJobs: the guard, by CEL."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import policy
import pytest
from kubeflow_trainer_api import models as trainer
from policy.admission import Request, loosened, policies_of, refusals
from policy.objects import shipped
from policy.trainjob_fields import (
    ALLOWED,
    BY_KUEUE,
    CONTROLLER,
    DIGEST,
    IMAGE,
    KUEUE,
    OF_A_POD,
    PATCHES_THAT_REACH_PODS,
    QUEUE,
    REFUSED,
    SECRET,
    SPEC,
    TRAINER,
)

from safescale_ammt.cluster.trainjob import TrainJob

TRAINJOBS = "trainjobs.trainer.kubeflow.org"
POD = ("safescale-train-gkjrc-retry-system-container-impl-997151561", "uid-of-the-pod")
OTHER = {"apiVersion": "v1", "kind": "Pod", "name": "of-another-run", "uid": "other"}
PIN = "safescale-ammt/train-image"
GUARDS = policies_of(shipped()["base"])


def owner(**changes):
    """Returns the reference that a stage writes for its own pod."""
    name, uid = POD
    plain = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
    return plain | {"controller": False, "blockOwnerDeletion": False} | changes


def job(queue="", image=IMAGE, owners=None):
    """Returns a job as `safescale_ammt.cluster` makes it."""
    made = TrainJob(
        digest=f"sha256:{DIGEST}",
        request=f"s3://bucket/training/jobs/{DIGEST}/request.json",
        runtime="safescale-torch",
        nodes=2,
        processes=4,
        queue=queue,
        image=image,
    )
    return made.to_dict([owner()] if owners is None else owners)


def changed(thing, way, value):
    """Returns a copy with one field, named by dots, set."""
    copied = copy.deepcopy(thing)
    *steps, last = way.split(".")
    place = copied
    for step in steps:
        place = place.setdefault(step, {})
    place[last] = value
    return copied


def create(thing, **about):
    return refusals(GUARDS, Request(TRAINJOBS, object=thing, **{"pod": POD} | about))


def update(old, new, **about):
    about = {"pod": POD, "operation": "UPDATE"} | about
    return refusals(GUARDS, Request(TRAINJOBS, object=new, old=old, **about))


def delete(old, **about):
    about = {"pod": POD, "operation": "DELETE"} | about
    return refusals(GUARDS, Request(TRAINJOBS, old=old, **about))


@pytest.mark.parametrize("queue", ["", "safescale"])
@pytest.mark.parametrize("image", [IMAGE, ""])
@pytest.mark.parametrize("owners", [None, []])
def test_every_job_that_a_stage_makes_is_allowed(queue, image, owners):
    assert create(job(queue, image, owners)) == []


def test_the_job_that_ran_on_the_real_cluster_is_allowed_with_what_trainer_added():
    thing = job("", "127.0.0.1:5000/team/train_agents@sha256:" + "3" * 64)
    thing["spec"] |= {"managedBy": CONTROLLER, "suspend": False}
    thing["spec"]["trainer"]["args"][1] = "safescale_ammt.training.worker"
    assert create(thing) == []


@pytest.mark.parametrize("version", BY_KUEUE)
def test_what_kueue_writes_into_a_job_on_its_way_is_allowed(version):
    thing = job("safescale")
    thing["spec"] |= BY_KUEUE[version]
    thing["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] = "default"
    assert create(thing) == []


@pytest.mark.parametrize("version", SPEC)
def test_every_field_of_every_version_of_trainer_is_allowed_or_refused(version):
    fields = {f"spec.{name}" for name in SPEC[version].split()}
    fields |= {f"spec.trainer.{name}" for name in TRAINER.split()}
    assert fields <= ALLOWED.keys() | REFUSED.keys()


def test_the_table_has_every_field_of_the_trainers_own_package():
    job_spec = trainer.TrainerV1alpha1TrainJobSpec.model_fields
    of_trainer = trainer.TrainerV1alpha1Trainer.model_fields
    assert {f.alias or name for name, f in job_spec.items()} == set(SPEC["2.3"].split())
    assert {f.alias or name for name, f in of_trainer.items()} == set(TRAINER.split())
    of_a_pod = trainer.TrainerV1alpha1PodSpecPatch.model_fields
    assert {f.alias or name for name, f in of_a_pod.items()} == OF_A_POD.keys()


@pytest.mark.parametrize("way", ALLOWED)
def test_a_field_of_ours_is_allowed(way):
    assert create(changed(job(), way, ALLOWED[way])) == []


@pytest.mark.parametrize("way", REFUSED)
def test_a_field_that_reaches_the_pods_is_refused(way):
    assert create(changed(job(), way, REFUSED[way]))


@pytest.mark.parametrize("entry", PATCHES_THAT_REACH_PODS, ids=json.dumps)
def test_a_patch_of_the_runtime_is_refused_whoever_it_says_it_is_by(entry):
    thing = changed(job("safescale"), "spec.runtimePatches", [entry])
    assert "A run patches no runtime." in create(thing)


def test_a_field_that_nobody_knows_yet_is_refused():
    assert create(changed(job(), "spec.podSpec", {"hostNetwork": True}))
    assert create(changed(job(), "spec.trainer.envFrom", [SECRET]))


ATTACKS = {
    "another namespaced runtime": ("spec.runtimeRef.name", "torch-distributed"),
    "a runtime of the cluster": ("spec.runtimeRef.kind", "ClusterTrainingRuntime"),
    "a runtime of another group": ("spec.runtimeRef.apiGroup", "example.org"),
    "no kind, which means the cluster's": (
        "spec.runtimeRef",
        {"name": "safescale-torch"},
    ),
    "no trainer, which means the image's own command": ("spec.trainer", {}),
    "a shell": ("spec.trainer.command", ["sh", "-c", "env"]),
    "no command": ("spec.trainer.command", []),
    "code in the arguments": ("spec.trainer.args", ["-c", "import os"]),
    "another module": (
        "spec.trainer.args",
        ["-m", "http.server", f"s3://b/jobs/{DIGEST}/request.json"],
    ),
    "more arguments": (
        "spec.trainer.args",
        [*ALLOWED["spec.trainer.args"], "--rdzv-conf=x"],
    ),
    "arguments before ours": (
        "spec.trainer.args",
        ["--no-python", "-m", "safescale_ammt.launch.worker"],
    ),
    "another request": (
        "spec.trainer.args",
        ["-m", "safescale_ammt.launch.worker", "s3://b/jobs/" + "a" * 64],
    ),
    "another image": ("spec.trainer.image", "docker.io/library/python:3.11"),
    "an image that begins like ours": (
        "spec.trainer.image",
        "evil.example.org/train_agents/shell@sha256:" + "c" * 64,
    ),
    "an image that ends like ours": ("spec.trainer.image", "example.org/xtrain_agents"),
    "the image of another stage": (
        "spec.trainer.image",
        "registry.example.org/team/register_model@sha256:" + "c" * 64,
    ),
    "processes in words": ("spec.trainer.numProcPerNode", "auto"),
    "another cluster": ("spec.managedBy", "kueue.x-k8s.io/multikueue"),
    "another name": ("metadata.name", "safescale-train-0000000000000000"),
    "a name of no digest": ("metadata.name", "mine"),
    "a name to be made up": ("metadata.generateName", "safescale-train-"),
    "no digest": ("metadata.annotations", {}),
    "another digest": (
        "metadata.annotations",
        {"safescale-ammt/request": "sha256:" + "a" * 64},
    ),
    "a digest that is none": (
        "metadata.annotations",
        {"safescale-ammt/request": DIGEST[:16]},
    ),
    "a finalizer": ("metadata.finalizers", ["example.org/stay"]),
    "a prebuilt workload of Kueue": (
        "metadata.labels",
        {QUEUE: "safescale", "kueue.x-k8s.io/prebuilt-workload-name": "x"},
    ),
    "parameters of a provisioning request": (
        "metadata.annotations",
        {
            "safescale-ammt/request": f"sha256:{DIGEST}",
            "provreq.kueue.x-k8s.io/maxRunDurationSeconds": "9",
        },
    ),
    "a label of Kueue's that is not its queue": (
        "spec.labels",
        {"kueue.x-k8s.io/podset": "node"},
    ),
    "a queue that the job is not in": ("spec.labels", {QUEUE: "another"}),
    "the pod of another run as owner": ("metadata.ownerReferences", [OTHER]),
    "another run's pod beside its own": (
        "metadata.ownerReferences",
        [owner(), OTHER],
    ),
    "an owner that controls": (
        "metadata.ownerReferences",
        [owner(controller=True)],
    ),
    "an owner that blocks": (
        "metadata.ownerReferences",
        [owner(blockOwnerDeletion=True)],
    ),
    "an owner of another kind": (
        "metadata.ownerReferences",
        [owner(kind="Namespace")],
    ),
}
"""What code in a stage might send: a field, and what stands there."""


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_run_may_not_create_a_job_with(attack):
    assert create(changed(job("safescale"), *ATTACKS[attack]))


def test_a_job_without_a_trainer_is_refused_by_a_sentence():
    thing = job()
    del thing["spec"]["trainer"]
    assert create(thing) == [
        "A TrainJob of a run starts our worker, on the request of its own digest."
    ]


@pytest.mark.parametrize("way", ["spec", "spec.runtimeRef", "metadata.annotations"])
def test_a_job_that_lacks_what_a_rule_looks_at_is_refused_all_the_same(way):
    assert create(changed(job(), way, {}))


PINNED = {
    "registry.example.org/team/train_agents": {
        IMAGE: True,
        "registry.example.org/team/train_agents:1.4.0": True,
        "registry.example.org/team/train_agents": True,
        "registry.example.org/team/train_agents2@sha256:" + "c" * 64: False,
        "evil.example.org/team/train_agents@sha256:" + "c" * 64: False,
        "": True,
    },
    IMAGE: {
        IMAGE: True,
        "registry.example.org/team/train_agents@sha256:" + "d" * 64: False,
        "registry.example.org/team/train_agents:1.4.0": False,
        "": True,
    },
}
"""What the namespace says -> image of a job -> whether it is allowed."""


@pytest.mark.parametrize("said", PINNED)
def test_a_namespace_may_name_the_image_of_its_jobs(said):
    found = {i: not create(job(image=i), annotations={PIN: said}) for i in PINNED[said]}
    assert found == PINNED[said]


def test_whose_token_was_made_for_no_pod_may_do_nothing():
    said = "Only a pod of a run acts for it, and this token was made for no pod."
    assert said in create(job(owners=[]), pod=None)
    assert said in update(job(), job(), pod=None)
    assert said in delete(job(), pod=None)


@pytest.mark.parametrize(
    "user",
    [
        "system:serviceaccount:kubeflow-system:kubeflow-trainer-controller-manager",
        "system:serviceaccount:kueue-system:kueue-controller-manager",
        "system:serviceaccount:kube-system:generic-garbage-collector",
        "system:serviceaccount:safescale:default-editor",
        "system:serviceaccount:safescale:safescale-operator",
        "system:serviceaccount:safescale:not-safescale-pipeline",
        "jane@example.org",
    ],
)
def test_controllers_and_people_are_not_held_to_what_a_run_may_do(user):
    thing = changed(job(), "spec.runtimePatches", PATCHES_THAT_REACH_PODS)
    assert create(thing, user=user, pod=None) == []
    assert update(job(), thing, user=user, pod=None) == []
    assert update(job(), thing, user=user, pod=None, subresource="status") == []
    assert delete(thing, user=user, pod=None) == []


def test_a_renamed_namespace_is_guarded_without_a_change():
    user = "system:serviceaccount:team-a:safescale-pipeline"
    assert create(job(), user=user, namespace="team-a") == []
    assert create(job("x", "python"), user=user, namespace="team-a")


def test_the_account_of_one_namespace_does_nothing_in_another():
    assert "A run acts in its own namespace." in create(job(), namespace="team-b")


def test_a_run_writes_no_status():
    done = changed(job(), "status.conditions", [{"type": "Complete", "status": "True"}])
    assert update(job(), done, subresource="status")


def test_a_retry_adds_its_pod_and_a_run_that_lets_go_takes_its_own_off():
    lonely, shared = job(owners=[OTHER]), job(owners=[OTHER, owner()])
    assert update(lonely, shared) == []
    assert update(shared, lonely) == []


def test_a_job_that_kueue_has_changed_meanwhile_is_adopted_all_the_same():
    old = job("safescale", owners=[OTHER])
    old["spec"] |= {"runtimePatches": [PATCHES_THAT_REACH_PODS[6]], "suspend": False}
    old["metadata"]["finalizers"] = ["foregroundDeletion"]
    new = changed(old, "metadata.ownerReferences", [OTHER, owner()])
    assert update(old, new) == []


CHANGES = {
    "an owner taken off": ("metadata.ownerReferences", [owner()]),
    "an owner put in": ("metadata.ownerReferences", [OTHER, OTHER | {"uid": "third"}]),
    "its own pod as a controller": (
        "metadata.ownerReferences",
        [OTHER, owner(controller=True)],
    ),
    "a label": ("metadata.labels", {QUEUE: "another"}),
    "no label": ("metadata.labels", {}),
    "another identity": (
        "metadata.annotations",
        {"safescale-ammt/request": "sha256:" + "b" * 64},
    ),
    "a finalizer": ("metadata.finalizers", ["example.org/stay"]),
    "environment": ("spec.trainer.env", [SECRET]),
    "another image": ("spec.trainer.image", "python"),
    "resumed past its queue": ("spec.suspend", True),
    "a patch of the runtime": ("spec.runtimePatches", [{"manager": KUEUE}]),
}
"""What a run may not change of a job that is there."""


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_may_not_change_of_a_job(change):
    old = job(owners=[OTHER])
    assert update(old, changed(old, *CHANGES[change]))


def test_a_job_of_a_persons_is_not_a_runs_to_touch():
    theirs = changed(job(owners=[]), "spec.runtimeRef.name", "torch-distributed")
    theirs = changed(theirs, "metadata.name", "of-a-person")
    new = changed(theirs, "metadata.ownerReferences", [owner()])
    assert update(theirs, new)
    assert delete(theirs)
    assert delete(changed(theirs, "metadata.name", "safescale-train-" + "a" * 16))


def test_a_run_deletes_what_it_waits_for_what_has_ended_and_what_nobody_waits_for():
    assert delete(job()) == []
    assert delete(job(owners=[OTHER, owner()])) == []
    assert delete(job(owners=[])) == []
    others = job(owners=[OTHER])
    assert delete(others) == [
        "A run deletes a TrainJob that it waits for, or that has ended."
    ]
    for kind in ("Complete", "Failed"):
        ended = [{"type": "Suspended", "status": "False"}]
        ended += [{"type": kind, "status": "True"}]
        assert delete(changed(others, "status.conditions", ended)) == []
    assert delete(changed(others, "metadata.deletionTimestamp", "now")) == []
    waits = [{"type": "Failed", "status": "False"}]
    assert delete(changed(others, "status.conditions", waits))


def test_the_flow_that_was_recorded_on_the_real_cluster_goes_through():
    recorded = Path(policy.__file__).parent / "recorded" / "trainjob.json"
    first, last = json.loads(recorded.read_text(encoding="utf-8"))
    mine = first["metadata"]["ownerReferences"][0]
    about = {"pod": (mine["name"], mine["uid"])}
    assert create(first, **about) == []
    assert delete(last, **about) == []


def bad_requests():
    """Yields what a run may not send."""
    fields = [*ATTACKS.values(), *REFUSED.items()]
    fields += [("spec.runtimePatches", [entry]) for entry in PATCHES_THAT_REACH_PODS]
    for field in fields:
        yield Request(TRAINJOBS, object=changed(job("safescale"), *field), pod=POD)
    old, about = job(owners=[OTHER]), {"pod": POD, "operation": "UPDATE"}
    for field in CHANGES.values():
        yield Request(TRAINJOBS, object=changed(old, *field), old=old, **about)
    yield Request(TRAINJOBS, object=old, old=old, subresource="status", **about)
    yield Request(TRAINJOBS, old=old, operation="DELETE", pod=POD)
    yield Request(TRAINJOBS, object=job(), namespace="team-b", pod=POD)
    yield Request(TRAINJOBS, object=job(owners=[]))


def test_no_rule_is_without_an_attack_that_it_alone_stops():
    (policy,) = [p for p in GUARDS if p.name == "safescale-trainjobs"]
    bad = list(bad_requests())
    assert all(policy.refusals(request) for request in bad)
    assert not [m for m, weak in loosened(policy) if all(map(weak.refusals, bad))]
