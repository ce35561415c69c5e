"""What `safescale doctor` says of Spark, where a workload prepares its rows there."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from cluster.api import ClusterApi
from cluster.spark import status
from policy.objects import of_kind, shipped

from pipelines.kubeflow.doctor import spark
from pipelines.kubeflow.doctor.checks import examine
from pipelines.kubeflow.doctor.cluster import Cluster
from safescale_ammt.config.kubernetes_names import SPARK, SPARK_ADDRESS, SPARK_VERSION

NAMES = ["spark operator", "spark connect", "spark version", "spark address"]


@pytest.fixture
def api() -> Iterator[ClusterApi]:
    """A cluster with the component applied, whose server is ready."""
    (connect,) = of_kind(shipped()["components/spark"], "SparkConnect")
    (config,) = [
        thing
        for thing in of_kind(shipped()["components/spark"], "ConfigMap")
        if thing["metadata"]["name"] == SPARK
    ]
    with ClusterApi() as found:
        ready = status(ready=True, running=2)
        found.add("sparkconnects", SPARK, spec=connect["spec"], status=ready)
        found.add("configmaps", SPARK, data=config["data"])
        yield found


def asked(api: ClusterApi, tmp_path) -> dict[str, tuple[str, str, str]]:
    """Returns state, observation and remedy of each check of Spark."""
    environ = {**os.environ, "KUBECONFIG": str(api.write_kubeconfig(tmp_path / "kube"))}
    names = ("safescale", "safescale-pipeline", "safescale-torch")
    about = {"trainjob": False, "multi_user": lambda: True, "environ": environ}
    cluster = Cluster(*names, **about, patience=0.0, spark=True)
    # Those of the cluster that these need; the others need a Kubeflow.
    base = [c for c in cluster.checks() if c.name in {"kubernetes", "namespace"}]
    results = examine([*base, *spark.checks(cluster)])
    return {r.check: (r.state, r.observation, r.remedy) for r in results}


def faults(found: dict[str, tuple[str, str, str]]) -> list[str]:
    return [name for name, (state, _, _) in found.items() if state == "FAILED"]


def test_a_spark_that_is_ready_is_called_so(api, tmp_path):
    found = asked(api, tmp_path)
    assert [name for name in found if name.startswith("spark")] == NAMES
    assert faults(found) == []
    said = "safescale-spark is ready, with 2 executors at work"
    assert found["spark connect"][1] == said
    assert found["spark version"][1] == SPARK_VERSION


def test_without_data_on_spark_nothing_is_asked(api):
    cluster = Cluster("a", "b", "c", False, lambda: True, {}, 0.0)
    assert spark.checks(cluster) == []
    assert api.seen == []


def test_a_cluster_without_the_operator_is_told_once(api, tmp_path):
    api.forget("sparkconnects")
    found = asked(api, tmp_path)
    assert faults(found) == ["spark operator"]
    assert "install Kubeflow's spark-operator" in found["spark operator"][2]
    assert found["spark connect"][1] == "because 'spark operator' failed"


def test_without_the_component_its_folder_is_named(api, tmp_path):
    api.delete("sparkconnects", SPARK)
    api.delete("configmaps", SPARK)
    found = asked(api, tmp_path)
    assert faults(found) == ["spark connect", "spark address"]
    for name in faults(found):
        assert "does not exist" in found[name][1]
        assert "manifests/components/spark" in found[name][2]


def test_a_server_that_nobody_has_looked_at_names_who_should(api, tmp_path):
    api.patch("sparkconnects", SPARK, {"status": None})
    found = asked(api, tmp_path)
    assert "no operator has looked at" in found["spark connect"][1]
    assert "let spark-operator watch namespace safescale" in found["spark connect"][2]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("", "is NotReady (Server pod is not ready)"),
        ("no room", "is NotReady (Server pod is not ready: no room)"),
    ],
)
def test_a_server_that_is_not_ready_is_quoted(api, tmp_path, message, words):
    api.patch("sparkconnects", SPARK, {"status": status(ready=False, message=message)})
    found = asked(api, tmp_path)
    assert faults(found) == ["spark connect"]
    assert words in found["spark connect"][1]
    assert "describe pod safescale-spark-server" in found["spark connect"][2]
    assert found["spark version"][0] == "skipped"


def test_a_server_of_another_version_is_a_fault(api, tmp_path):
    api.patch("sparkconnects", SPARK, {"spec": {"sparkVersion": "4.0.4"}})
    found = asked(api, tmp_path)
    assert faults(found) == ["spark version"]
    assert (
        f"of Spark 4.0.4, prepare_data's client of {SPARK_VERSION}"
        in (found["spark version"][1])
    )


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (None, "has no SAFESCALE_SPARK"),
        ("", "has no SAFESCALE_SPARK"),
        ("http://safescale-spark-server:15002", "and no sc://HOST:15002"),
        ("sc://safescale-spark-server", "and no sc://HOST:15002"),
        ("sc://:15002", "and no sc://HOST:15002"),
        ("sc://host:port", "and no sc://HOST:15002"),
        ("sc://safescale-spark-server.team.svc:15002", "in another namespace"),
    ],
)
def test_an_address_that_leads_nowhere_is_a_fault(api, tmp_path, address, words):
    api.patch("configmaps", SPARK, {"data": {SPARK_ADDRESS: address}})
    found = asked(api, tmp_path)
    assert faults(found) == ["spark address"]
    assert words in found["spark address"][1]


@pytest.mark.parametrize(
    "host",
    ["safescale-spark-server", "safescale-spark-server.safescale", "spark.x.org"],
)
def test_an_address_of_ones_own_is_taken(api, tmp_path, host):
    address = f"sc://{host}:15002"
    api.patch("configmaps", SPARK, {"data": {SPARK_ADDRESS: address}})
    assert asked(api, tmp_path)["spark address"][:2] == ("ok", address)


def test_who_may_not_look_is_told_so_and_nothing_failed(api, tmp_path):
    api.forbid("get", "sparkconnects")
    api.forbid("get", "configmaps")
    found = asked(api, tmp_path)
    assert faults(found) == []
    assert found["spark connect"][1] == "you may not read sparkconnects"
    assert found["spark address"][1] == "you may not read configmaps"
