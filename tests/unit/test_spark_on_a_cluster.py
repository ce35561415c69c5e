"""Spark's component, and how prepare_data gets to it."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from policy.breaking import broken
from policy.network import API, Target, kinds, reaches
from policy.objects import ROOT, build, compose, copy_manifests, of_kind, shipped
from policy.schemas import custom_complaint

from components import IMAGE_PREFIX, LOCK_SCHEMA, SPARK, STAGES, image
from images.pin import pinned
from images.spark_executor import command
from pipelines.compile import compile_train
from pipelines.image_lock import Lock
from pipelines.ir import CompiledPipeline, on_spark
from pipelines.workload import Workload
from safescale_ammt import __version__
from safescale_ammt.config import kubernetes_names as names
from safescale_ammt.errors import ConfigError

CONNECT = f"SparkConnect/{names.SPARK}"
WITH = shipped()["components/spark"]


def connect():
    (found,) = of_kind(WITH, "SparkConnect")
    return found["spec"]


def config():
    (found,) = [
        thing
        for thing in of_kind(WITH, "ConfigMap")
        if thing["metadata"]["name"] == names.SPARK
    ]
    return found["data"]


@pytest.mark.parametrize(
    ("way", "value"),
    [
        (("spec", "driver"), {}),
        (("spec", "server", "memroy"), "2g"),
        (("spec", "executor", "instances"), "two"),
        (("spec", "dynamicAllocation", "maxExecutor"), 4),
        (("spec", "server", "template", "spec", "containers", 0, "image"), 7),
    ],
)
def test_a_sparkconnect_with_a_wrong_field_is_refused(way, value):
    (changed,) = of_kind(broken(WITH, (CONNECT, way, value)), "SparkConnect")
    assert custom_complaint(changed)


def test_one_version_of_spark_is_named_everywhere():
    spec = connect()
    assert spec["sparkVersion"] == names.SPARK_VERSION
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extra,) = extras["optional-dependencies"]["spark"]
    assert extra == f"pyspark[connect]=={names.SPARK_VERSION}"
    for file in ("requirements-spark.txt", "images/requirements/pyspark.txt"):
        assert pinned(ROOT / file)["pyspark"] == names.SPARK_VERSION


def test_the_operator_finds_its_containers_by_name():
    """pkg/common/spark.go, 2.5.2: it adds one of its own beside others."""
    for role, name in (("server", "driver"), ("executor", "executor")):
        (container,) = connect()[role]["template"]["spec"]["containers"]
        assert container["name"] == f"spark-kubernetes-{name}"


def test_no_setting_means_anything_to_a_shell():
    """2.5.2 joins them to one `bash -c`, unquoted (options.go)."""
    for key, value in connect()["sparkConf"].items():
        assert re.fullmatch(r"[\w.:/-]+", f"{key}{value}"), key


def test_no_setting_is_one_that_the_operator_refuses():
    """internal/webhook/sparkconf_validator.go, 2.5.2."""
    denied = ("spark.master", "spark.kubernetes.authenticate", "container.image")
    assert not [k for k in connect()["sparkConf"] if any(d in k for d in denied)]


def test_an_executor_requests_no_more_than_its_limits():
    """Spark writes over cpu and memory: heap and what is beside it, and cores."""
    spec, conf = connect()["executor"], connect()["sparkConf"]
    (container,) = spec["template"]["spec"]["containers"]
    heap = int(spec["memory"].removesuffix("g"))
    beside = int(conf["spark.executor.memoryOverhead"].removesuffix("g"))
    limits = container["resources"]["limits"]
    assert f"{heap + beside}Gi" == limits["memory"]
    cores = {
        conf["spark.kubernetes.executor.request.cores"],
        conf["spark.kubernetes.executor.limit.cores"],
    }
    assert cores == {str(spec["cores"]), limits["cpu"]}


def test_spark_shuffles_where_the_volume_of_that_name_is():
    for role in ("server", "executor"):
        (container,) = connect()[role]["template"]["spec"]["containers"]
        places = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
        assert places["spark-local-dir-1"] == connect()["sparkConf"]["spark.local.dir"]


def test_only_executors_have_the_key_of_the_store():
    (server,) = connect()["server"]["template"]["spec"]["containers"]
    (executor,) = connect()["executor"]["template"]["spec"]["containers"]
    assert "envFrom" not in server
    assert "secret" not in json.dumps(server["env"]).lower()
    assert executor["envFrom"] == [{"secretRef": {"name": names.STORE_SECRET}}]
    assert "AWS" not in json.dumps(connect()["sparkConf"])


def test_prepare_data_alone_reaches_the_server():
    found = kinds(WITH)
    server = found["spark-server"][0]
    for name, (source, _) in found.items():
        opened = reaches(WITH, source, Target(server, 15002))
        assert opened is (name == "prepare-data"), name


@pytest.mark.parametrize(
    ("order", "narrow"),
    [(("spark", "api-server"), True), (("api-server", "spark"), False)],
)
def test_the_servers_way_to_the_api_is_narrowed_by_what_comes_after(
    tmp_path, order, narrow
):
    manifests = copy_manifests(tmp_path)
    objects = build(compose(manifests, base="base", components=order))
    policies = {o["metadata"]["name"]: o for o in of_kind(objects, "NetworkPolicy")}
    wide = policies["spark-kubernetes-api"]["spec"]["egress"]
    assert (wide == policies["kubernetes-api"]["spec"]["egress"]) is narrow
    server = kinds(objects)["spark-server"][0]
    assert all(reaches(objects, server, target) for target in API)


def test_the_address_is_that_of_the_service_that_the_operator_makes(tmp_path):
    host = f"{names.SPARK}-server.safescale.svc.cluster.local"
    assert config() == {names.SPARK_ADDRESS: f"sc://{host}:15002"}
    manifests = copy_manifests(tmp_path)
    team = manifests / "overlays" / "team" / "kustomization.yaml"
    text = team.read_text(encoding="utf-8") + "components: [../../components/spark]\n"
    team.write_text(text, encoding="utf-8")
    (found,) = [
        o
        for o in of_kind(build(team.parent), "ConfigMap")
        if o["metadata"]["name"] == names.SPARK
    ]
    assert ".team.svc." in found["data"][names.SPARK_ADDRESS]


def reader(text):
    """Returns the image of prepare_data and what Kubernetes alone reads of it."""
    pipeline = CompiledPipeline.parse(text)
    executor = pipeline.executors["exec-prepare-data"]["container"]
    return executor["image"], pipeline.kubernetes["exec-prepare-data"]


def test_prepare_data_is_told_the_address_and_no_other_stage_is():
    pipeline = CompiledPipeline.parse(compile_train())
    told = {k for k, v in pipeline.kubernetes.items() if "configMapAsEnv" in v}
    assert told == {"exec-prepare-data"}
    (given,) = pipeline.kubernetes["exec-prepare-data"]["configMapAsEnv"]
    assert given["configMapName"] == names.SPARK
    assert given["optional"] is True
    assert [k["envVar"] for k in given["keyToEnv"]] == [names.SPARK_ADDRESS]
    assert {k["configMapKey"] for k in given["keyToEnv"]} <= config().keys()


def test_rows_on_spark_are_prepared_in_sparks_image_alone():
    assert on_spark({"engine": "spark"})
    assert not on_spark({"engine": "local"})
    assert not on_spark({})
    plain, spark = compile_train(), compile_train(spark=True, image_prefix="r.org/t")
    assert reader(plain)[0] == image("prepare_data")
    assert reader(spark)[0] == f"r.org/t/{SPARK}:{__version__}"
    deadlines = [
        CompiledPipeline.parse(text).kubernetes["exec-prepare-data"][
            "activeDeadlineSeconds"
        ]
        for text in (plain, spark)
    ]
    assert deadlines == ["3600", "86400"]
    swapped = {SPARK: "prepare_data"}
    there = [swapped.get(name, name) for name in re.findall(r"r\.org/t/(\w+):", spark)]
    assert there == re.findall(rf"image: {IMAGE_PREFIX}/(\w+):", plain)


@pytest.mark.parametrize("engine", ["local", "spark"])
def test_the_config_says_where_rows_are_prepared(engine):
    adult = ROOT / "pipelines/adult.yaml"
    workload = Workload.load(adult, overrides=[f"data.engine={engine}"])
    assert on_spark(workload.arguments()["data"]) is (engine == "spark")


def lock(folder: Path, *stages: str) -> Lock:
    entries = {name: {"digest": f"sha256:{i:064x}"} for i, name in enumerate(stages)}
    content = {"schema": LOCK_SCHEMA, "version": __version__, "images": entries}
    path = folder / "lock.json"
    path.write_text(json.dumps(content))
    return Lock.load(path)


def test_a_lock_pins_sparks_image_where_it_has_it(tmp_path):
    whole = lock(tmp_path, *STAGES, SPARK)
    text = compile_train(images=whole, image_prefix="r.org/t", spark=True)
    assert reader(text)[0] == f"r.org/t/{SPARK}@{whole.images[SPARK].digest}"
    pipeline = CompiledPipeline.parse(text)
    pipeline.reuse("sha256:" + "a" * 64, pipeline.pinned_images)
    tasks = {n: t for n, t, _ in pipeline._tasks()}
    assert tasks["prepare-data"]["cachingOptions"] == {"enableCache": True}


def test_a_lock_without_sparks_image_says_how_to_build_it(tmp_path):
    whole = lock(tmp_path, *STAGES)
    assert compile_train(images=whole, image_prefix="r.org/t")
    with pytest.raises(ConfigError, match=r"`make images SPARK=1 PUSH=r\.org/t`"):
        compile_train(images=whole, image_prefix="r.org/t", spark=True)


ENVIRON = {
    "SPARK_HOME": "/opt/spark",
    "SPARK_DRIVER_URL": "spark://CoarseGrainedScheduler@10.0.0.1:7078",
    "SPARK_EXECUTOR_ID": "3",
    "SPARK_EXECUTOR_CORES": "2",
    "SPARK_EXECUTOR_MEMORY": "2048m",
    "SPARK_APPLICATION_ID": "spark-1",
    "SPARK_EXECUTOR_POD_IP": "10.0.0.2",
    "SPARK_EXECUTOR_POD_NAME": "safescale-spark-exec-3",
    "SPARK_RESOURCE_PROFILE_ID": "0",
}


def test_an_executor_is_started_with_all_that_spark_gave_it():
    options = {"SPARK_JAVA_OPT_10": "-Dc=3", "SPARK_JAVA_OPT_2": "-Da=b c"}
    started = command(["executor"], ENVIRON | options)
    assert started[:7] == [
        *("java", "-Da=b c", "-Dc=3", "-Xms2048m", "-Xmx2048m"),
        *("-cp", "/opt/spark/jars/*"),
    ]
    assert started[7].endswith(".k8s.KubernetesExecutorBackend")
    given = dict(zip(started[8::2], started[9::2], strict=True))
    assert given["--podName"] == "safescale-spark-exec-3"
    assert set(given.values()) <= set(ENVIRON.values())
    assert command(["executor"], ENVIRON | {"JAVA_HOME": "/j"})[0] == "/j/bin/java"


@pytest.mark.parametrize("arguments", [["python3", "-m", "kfp"], ["bash"], []])
def test_what_is_no_executor_is_run_as_it_is(arguments):
    assert command(arguments, {}) == arguments


@pytest.mark.parametrize(("asked", "spark"), [([], False), (["SPARK=1"], True)])
def test_sparks_image_is_built_for_who_asks_for_it(asked, spark):
    words = ["make", "--dry-run", "images", *asked]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if "images.build" in line]
    assert ("--spark" in line) == spark
