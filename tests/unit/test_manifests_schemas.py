"""The manifests against Kubernetes' schemas and the projects' own models."""

from __future__ import annotations

import json

import pytest
from policy.breaking import GONE, NODE, RUNTIME, broken
from policy.objects import called, shipped
from policy.schemas import (
    CUSTOM,
    VERSIONS,
    custom_complaint,
    difference,
    kfp_complaint,
    schema_complaint,
)

from safescale_ammt.cluster import trainjob

ADMISSION = "components/read-only-root"
"""The only one that needs a newer Kubernetes: v1 of its policies is in 1.36."""
OLD = ("1.30", "1.35")
NEW = "1.36"
OLDEST = "1.30"
"""v1 of the policies that guard a run is in it."""


def everything():
    """Yields each different object that we ship, but the admission policies."""
    seen = set()
    for name, objects in shipped().items():
        for thing in objects:
            text = json.dumps(thing, sort_keys=True)
            if name != ADMISSION and text not in seen:
                seen.add(text)
                yield thing


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_fits_the_strict_schema_of(version):
    builtin = [thing for thing in everything() if thing["kind"] not in CUSTOM]
    assert len(builtin) > 20
    assert [s for o in builtin if (s := schema_complaint(o, version))] == []


def test_every_custom_resource_fits_its_projects_model():
    custom = [thing for thing in everything() if thing["kind"] in CUSTOM]
    assert {thing["kind"] for thing in custom} >= {"TrainingRuntime", "ClusterQueue"}
    assert [s for thing in custom if (s := custom_complaint(thing))] == []


def test_the_guards_fit_1_30_and_nothing_older():
    guards = [o for o in shipped()["base"] if "Admission" in o["kind"]]
    assert len(guards) == 4
    assert [s for o in guards if (s := schema_complaint(o, OLDEST))] == []
    assert all(schema_complaint(o, "1.29") for o in guards)


def test_the_policies_of_a_read_only_root_fit_1_36_and_nothing_older():
    root = [o for o in shipped()[ADMISSION] if "read-only" in o["metadata"]["name"]]
    policies = [o for o in root if "Admission" in o["kind"]]
    assert len(policies) == 4
    assert [s for o in policies if (s := schema_complaint(o, NEW))] == []
    for version in OLD:
        assert any(schema_complaint(o, version) for o in policies)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("name", "way", "value"),
    [
        ("ServiceAccount/safescale-training", ("automountToken",), False),
        ("NetworkPolicy/names", ("spec", "egres"), []),
        ("NetworkPolicy/names", ("spec", "egress", 0, "ports", 0, "port"), [53]),
        ("Role/safescale-pipeline", ("rules", 0, "verbs"), "get"),
        ("ResourceQuota/safescale", ("spec", "hard"), ["pods"]),
        ("LimitRange/safescale", ("spec", "limits", 0, "type"), GONE),
    ],
)
def test_an_unknown_or_mistyped_field_is_seen(version, name, way, value):
    objects = broken(shipped()["base"], (name, way, value))
    (changed,) = [o for o in objects if called(o) == name]
    assert schema_complaint(changed, version)


@pytest.mark.parametrize(
    ("way", "value"),
    [
        (("spec", "mlPolicy", "torch", "numProcPerNode"), 2),
        (("spec", "mlPolicy", "numNodes"), "two"),
        (("spec", "podTemplate"), {}),
        ((*NODE, "securityContext", "readOnlyRootFileSystem"), True),
        ((*NODE, "volumeMounts", 0, "mountPath"), GONE),
        ((*NODE, "name"), GONE),
    ],
)
def test_a_training_runtime_with_a_wrong_field_is_refused(way, value):
    objects = broken(shipped()["base"], (RUNTIME, way, value))
    (runtime,) = [o for o in objects if o["kind"] == "TrainingRuntime"]
    assert custom_complaint(runtime)


@pytest.mark.parametrize("kind", ["ResourceFlavor", "ClusterQueue", "LocalQueue"])
def test_a_queue_with_an_unknown_field_is_refused(kind):
    objects = broken(
        shipped()["overlays/kueue"],
        (f"{kind}/safescale", ("spec",), {"cohort": "v1beta1's name for it"}),
    )
    (queue,) = [o for o in objects if o["kind"] == kind]
    assert custom_complaint(queue)


SCHEDULE = {
    "display_name": "safescale-train nightly",
    "pipeline_version_reference": {"pipeline_id": "a", "pipeline_version_id": "b"},
    "runtime_config": {"parameters": {"source": "s3://b/rows/", "window": "7d"}},
    "service_account": "safescale-pipeline",
    "max_concurrency": "1",
    "no_catchup": True,
    "mode": "DISABLE",
    "trigger": {"cron_schedule": {"cron": "0 0 3 * * *"}},
}


def test_a_schedule_goes_through_kfps_model_unchanged():
    assert kfp_complaint("V2beta1RecurringRun", SCHEDULE) is None


@pytest.mark.parametrize(
    "change",
    [
        {"max_concurency": "1"},
        {"mode": "OFF"},
        {"trigger": {"cron_schedule": {"schedule": "0 0 3 * * *"}}},
        {"no_catchup": "yes"},
    ],
)
def test_a_schedule_with_a_wrong_field_is_seen(change):
    assert kfp_complaint("V2beta1RecurringRun", SCHEDULE | change)


def test_our_trainjob_goes_through_the_trainers_model_unchanged():
    job = trainjob.TrainJob(
        digest="sha256:" + "a" * 64,
        request="s3://bucket/request.json",
        runtime="safescale-torch",
        nodes=2,
        processes=4,
        queue="safescale",
        image="registry.example.org/train_agents@sha256:" + "b" * 64,
    )
    thing = job.to_dict()
    assert custom_complaint(thing) is None
    thing["spec"]["trainer"]["numProcesses"] = 2
    assert custom_complaint(thing)


def test_a_difference_names_the_first_place():
    assert difference({"a": [{"b": 1}]}, {"a": [{"b": 1, "c": None}]}, "x") is None
    assert difference({"a": [{"b": 1}]}, {"a": [{"b": 2}]}, "x") == (
        "x.a[0].b: 1 became 2"
    )
    assert difference({"a": {"b": 1}}, {"a": {}}, "x") == "x.a: unknown field b"
    assert difference({"a": [1]}, {"a": []}, "x") == "x.a: [1] became []"
