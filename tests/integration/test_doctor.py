"""`safescale doctor`: each fault is named once, by its own name."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from cluster.api import ClusterApi
from kfp_api.server import KfpApi
from kfp_api.world import encoded, furnish, token_of

from pipelines.cli import run_command
from safescale_ammt.store.uri import open_store

RUN = "system:serviceaccount:safescale:safescale-pipeline"
ARTIFACT_KEY = "mlpipeline-minio-artifact"
OPERATOR = "system:serviceaccount:safescale:safescale-operator"
TRAINJOB = ("--set", "training.backend=trainjob", "--set", "training.processes=2")


@dataclass
class World:
    """A Kubeflow, a cluster, and a folder that plays the object store."""

    kubeflow: KfpApi
    cluster: ClusterApi
    store: str
    token: Path | None = None

    def ask(self, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, dict]:
        """Runs the doctor; returns the findings by check."""
        host = ("--host", self.kubeflow.url, "--patience", "0")
        if self.token is not None:
            host += ("--token-file", str(self.token))
        store = ("--store", self.store) if self.store else ()
        self.code = run_command(["doctor", "--json", *host, *store, *TRAINJOB, *more])
        found = json.loads(capsys.readouterr().out)
        return {finding["check"]: finding for finding in found}


@pytest.fixture
def world(tmp_path, monkeypatch) -> Iterator[World]:
    monkeypatch.chdir(tmp_path)
    for name in ("SAFESCALE_STORE", "KUBERNETES_SERVICE_HOST", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    with KfpApi() as kubeflow, ClusterApi() as cluster:
        furnish(cluster)
        cluster.user = "admin"  # of the kubeconfig, and none of those who count
        kubeconfig = cluster.write_kubeconfig(tmp_path / "kubeconfig")
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        kubeflow.world.multi_user = True
        token = tmp_path / "token"
        token.write_text(token_of(OPERATOR))
        kubeflow.tokens = {token_of(OPERATOR): ("safescale",)}
        yield World(kubeflow, cluster, (tmp_path / "store").as_uri(), token)


def failed(findings: dict[str, dict]) -> list[str]:
    return [name for name, found in findings.items() if found["state"] == "FAILED"]


def test_a_cluster_that_lacks_nothing_is_called_so(world, capsys):
    findings = world.ask(capsys)
    assert failed(findings) == []
    assert world.code == 0
    skipped = [n for n, found in findings.items() if found["state"] == "skipped"]
    # A folder has no clock, adult is no URI there, and nodes pull images.
    away = ["store's place", "sealed rows shut", "data", "store's clock", "images"]
    assert skipped == away


def _secret(name: str, **changed: str | None) -> Callable[[World], None]:
    """Changes keys of a secret; None takes one away."""

    def change(world: World) -> None:
        data = {
            k: encoded({k: v})[k] if v is not None else None for k, v in changed.items()
        }
        world.cluster.patch("secrets", name, {"data": data})

    return change


def _datasets(**changed: str) -> Callable[[World], None]:
    """Adds the key that learners read rows apart with."""
    values = {
        "SAFESCALE_STORE": "s3://team/data",
        "AWS_ENDPOINT_URL": "",
        "AWS_ACCESS_KEY_ID": "key-of-datasets",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        **changed,
    }
    return lambda world: world.cluster.add(
        "secrets", "safescale-datasets", data=encoded(values)
    )


def _limits(kind: str, **changed: object) -> Callable[[World], None]:
    return lambda world: world.cluster.patch(kind, "safescale", changed)


def _without(plural: str, name: str) -> Callable[[World], None]:
    return lambda world: world.cluster.delete(plural, name)


def _label(value: str | None) -> Callable[[World], None]:
    labels = {"pod-security.kubernetes.io/enforce": value}
    return lambda world: world.cluster.patch(
        "namespaces", "safescale", {"metadata": {"labels": labels}}
    )


def _renamed(world: World) -> None:
    runtime = world.cluster.get("trainingruntimes", "safescale-torch")
    jobs = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    jobs[0]["name"] = "worker"
    body = {"spec": {"template": {"spec": {"replicatedJobs": jobs}}}}
    world.cluster.patch("trainingruntimes", "safescale-torch", body)


def _at(attribute: str, value: object) -> Callable[[World], None]:
    """Sets something of the Kubeflow API."""
    return lambda world: setattr(world.kubeflow, attribute, value)


def _small(key: str, hard: str, used: str) -> Callable[[World], None]:
    status = {"hard": {key: hard}, "used": {key: used}}
    return _limits("resourcequotas", status=status)


def _root(root: str | None) -> Callable[[World], None]:
    data = {"data": {"defaultPipelineRoot": root}}
    return lambda world: world.cluster.patch("configmaps", "kfp-launcher", data)


_EXECUTOR = """
executor:
  securityContext:
    allowPrivilegeEscalation: false
    capabilities: {drop: [ALL]}
    seccompProfile: {type: RuntimeDefault}
    runAsNonRoot: true
"""


def _argo(data: dict[str, str]) -> Callable[[World], None]:
    return lambda world: world.cluster.patch(
        "configmaps", "workflow-controller-configmap", {"data": data}, "kubeflow"
    )


def _slice(address: str, port: int) -> Callable[[World], None]:
    listens = {"endpoints": [{"addresses": [address]}], "ports": [{"port": port}]}
    return lambda world: world.cluster.patch(
        "endpointslices", "kubernetes", listens, "default"
    )


def _node(**changed: object) -> Callable[[World], None]:
    return lambda world: world.cluster.patch("nodes", "node-1", changed)


def _forget(world: World) -> None:
    for plural in ("trainjobs", "trainingruntimes", "clustertrainingruntimes"):
        world.cluster.forget(plural)


FAULTS: dict[str, tuple[str, Callable[[World], None], str]] = {
    "kubeflow is away": ("kubeflow", lambda w: w.kubeflow.go_away(60), "broke off"),
    "kubeflow is old": ("version", _at("tag", "2.16.0"), "2.17 or later"),
    "a stranger": ("access", _at("tokens", {}), "does not accept the token"),
    "kubernetes is away": ("kubernetes", lambda w: w.cluster.stop(), "KUBECONFIG"),
    "kubernetes does not know us": (
        "kubernetes",
        lambda w: setattr(w.cluster, "token", "another"),
        "KUBECONFIG",
    ),
    "no namespace": ("namespace", _without("namespaces", "safescale"), "kubectl apply"),
    "namespace without labels": ("pod security", _label(None), "kubectl label"),
    "namespace too lax": ("pod security", _label("baseline"), "kubectl label"),
    "no right to start runs": (
        "own rights",
        lambda w: w.cluster.withheld.add(("create", "runs", OPERATOR)),
        "create runs",
    ),
    "no right to roll schedules": (
        "own rights",
        lambda w: w.cluster.withheld.add(("disable", "jobs", OPERATOR)),
        "disable jobs",
    ),
    "no right to upload": (
        "own rights",
        lambda w: w.cluster.withheld.add(("create", "pipelines", OPERATOR)),
        f"{OPERATOR} may not create pipelines in safescale",
    ),
    "no right to upload versions": (
        "own rights",
        lambda w: w.cluster.withheld.add(("create", "pipelines/versions", OPERATOR)),
        "safescale-operator of manifests/base",
    ),
    "account may not read the artifact key": (
        "account's rights",
        lambda w: w.cluster.withheld.add(("get", "secrets", RUN)),
        "get secrets",
    ),
    "no artifact key": (
        "artifact key",
        _without("secrets", ARTIFACT_KEY),
        "pipelines.kubeflow.org/enabled",
    ),
    "half an artifact key": (
        "artifact key",
        _secret(ARTIFACT_KEY, secretkey=""),
        "lacks secretkey",
    ),
    "no place of artifacts": (
        "artifact place",
        _without("configmaps", "kfp-launcher"),
        "kubectl apply",
    ),
    "a place without a root": ("artifact place", _root(None), "defaultPipelineRoot"),
    "a place that was not filled in": (
        "artifact place",
        _root("s3://REPLACE-ME/v2/artifacts"),
        "defaultPipelineRoot",
    ),
    "a place that all share": (
        "artifact place",
        _root("minio://mlpipeline/v2/artifacts"),
        "private-artifacts/safescale",
    ),
    "the place of another namespace": (
        "artifact place",
        _root("s3://team/private-artifacts/safescale-2/v2/artifacts"),
        "private-artifacts/safescale",
    ),
    "Argo says nothing of its containers": (
        "Argo's executor",
        _argo({"executor": "imagePullPolicy: IfNotPresent"}),
        "workflow-controller-configmap",
    ),
    "Argo's containers may be root": (
        "Argo's executor",
        _argo({"executor": "", "config": _EXECUTOR.replace("true", "false")}),
        "lack runAsNonRoot: true",
    ),
    "the API is shut": (
        "way to the API",
        _slice("203.0.113.7", 6443),
        "203.0.113.7, port 6443, is shut",
    ),
    "the API listens on another port": (
        "way to the API",
        _slice("10.88.0.1", 8443),
        "manifests/api-server.sh",
    ),
    "no node is large enough": (
        "nodes",
        _node(status={"allocatable": {"cpu": "1", "memory": "64Gi"}}),
        "the largest of 1 nodes offers 1",
    ),
    "no node takes pods": ("nodes", _node(spec={"unschedulable": True}), "of 0 nodes"),
    "quota on scratch space": (
        "quota",
        _small("limits.ephemeral-storage", "24Gi", "0"),
        "leaves 24Gi of limits.ephemeral-storage",
    ),
    "as many TrainJobs as may be": (
        "quota",
        _small("count/trainjobs.trainer.kubeflow.org", "8", "8"),
        "count/trainjobs",
    ),
    "no account": (
        "account",
        _without("serviceaccounts", "safescale-pipeline"),
        "kubectl apply",
    ),
    "account may not make TrainJobs": (
        "account's rights",
        lambda w: w.cluster.withheld.add(("create", "trainjobs")),
        "create trainjobs",
    ),
    "account may not read logs": (
        "account's rights",
        lambda w: w.cluster.withheld.add(("get", "pods/log")),
        "get pods/log",
    ),
    "no trainer": ("trainer", _forget, "install Kubeflow Trainer"),
    "no runtime": (
        "runtime",
        _without("trainingruntimes", "safescale-torch"),
        "kubectl apply",
    ),
    "runtime of another shape": ("runtime", _renamed, "no container node"),
    "no pull secret": (
        "pull secret",
        _without("secrets", "safescale-pull"),
        "pull.json",
    ),
    "empty pull secret": (
        "pull secret",
        _secret("safescale-pull", **{".dockerconfigjson": "{}"}),
        "no key of an image registry",
    ),
    "quota used up": ("quota", _small("requests.cpu", "4", "3500m"), "leaves 0.5 of"),
    "no more pods": ("quota", _small("pods", "10", "10"), "of pods"),
    "quota on memory": ("quota", _small("limits.memory", "4Gi", "0"), "4Gi"),
    "limit too low": (
        "quota",
        _limits(
            "limitranges",
            spec={"limits": [{"type": "Container", "max": {"memory": "1Gi"}}]},
        ),
        "LimitRange",
    ),
    "store is no store": (
        "store",
        lambda w: setattr(w, "store", "file:///proc/nowhere"),
        "check --store",
    ),
    "kubeflow's clock": ("kubeflow's clock", _at("skew", 300.0), "300 s ahead"),
    "kubernetes' clock": (
        "kubernetes' clock",
        lambda w: setattr(w.cluster, "skew", -300.0),
        "behind this machine",
    ),
}
for _name, _file in (
    ("safescale-store", "store.env"),
    ("safescale-registry", "registry.env"),
    ("safescale-training", "training.env"),
):
    _check = f"secret {_name}"
    FAULTS |= {
        f"no {_name}": (_check, _without("secrets", _name), _file),
        f"{_name} without a key": (
            _check,
            _secret(_name, AWS_REGION=None),
            "lacks AWS_REGION",
        ),
        f"{_name} not filled in": (
            _check,
            _secret(_name, AWS_SECRET_ACCESS_KEY="REPLACE-ME"),
            "still a placeholder",
        ),
        f"{_name} with half a key": (
            _check,
            _secret(_name, AWS_SECRET_ACCESS_KEY=""),
            "half a key",
        ),
        f"{_name} without a place": (
            _check,
            _secret(_name, SAFESCALE_STORE="team/data"),
            "no s3:// URI",
        ),
    }
FAULTS["registry opens with the data's key"] = (
    "secrets apart",
    _secret("safescale-registry", AWS_ACCESS_KEY_ID="key-of-data"),
    "same AWS_ACCESS_KEY_ID",
)
for _fault, _harm, _said in (
    ("elsewhere", _datasets(SAFESCALE_STORE="s3://another"), "another place"),
    ("by the data's key", _datasets(AWS_ACCESS_KEY_ID="key-of-data"), "the same AWS"),
    ("by half a key", _datasets(AWS_SECRET_ACCESS_KEY=""), "half a key"),
    ("by a placeholder", _datasets(AWS_REGION="REPLACE-ME"), "a placeholder"),
):
    _named = "secret safescale-datasets"
    FAULTS[f"rows apart are read {_fault}"] = (_named, _harm, _said)
FAULTS["nobody to tell"] = (
    "secret safescale-notify",
    lambda w: w.cluster.add(
        "secrets",
        "safescale-notify",
        data=encoded({"SAFESCALE_WEBHOOK_URL": "https://REPLACE-ME"}),
    ),
    "still a placeholder",
)
FAULTS["training sees raw rows"] = (
    "secrets apart",
    _secret("safescale-training", SAFESCALE_STORE="s3://team/data"),
    "same SAFESCALE_STORE",
)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_missing_is_named_and_nothing_else(world, capsys, fault):
    check, harm, said = FAULTS[fault]
    harm(world)
    findings = world.ask(capsys)
    assert failed(findings) == [check]
    assert world.code == 2
    told = findings[check]
    assert said in f"{told['found']}: {told['remedy']}"
    assert told["remedy"] or check in ("access", "version")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (None, "absent or empty: rows of datasets that lie apart are not read"),
        (dict.fromkeys(("SAFESCALE_STORE", "AWS_ACCESS_KEY_ID"), ""), "empty: rows"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "by role"),
        ({"SAFESCALE_STORE": "s3://team/data/"}, "whole"),
    ],
)
def test_the_key_of_rows_apart_may_be_absent_empty_or_a_role(
    world, capsys, values, said
):
    if values is not None:
        _datasets(**values)(world)
    findings = world.ask(capsys)
    assert failed(findings) == []
    assert said in findings["secret safescale-datasets"]["found"]


def test_who_prepares_on_spark_needs_the_key_of_rows_apart(world, capsys):
    spark = ("--set", "data.engine=spark")
    check = "secret safescale-datasets"
    findings = world.ask(capsys, *spark)
    assert check in failed(findings)
    assert "rows that Spark prepares do" in findings[check]["found"]
    _datasets()(world)
    assert check not in failed(world.ask(capsys, *spark))


def test_a_check_whose_ground_is_missing_says_which(world, capsys):
    world.cluster.stop()
    findings = world.ask(capsys)
    assert findings["namespace"]["found"] == "because 'kubernetes' failed"
    assert findings["pod security"]["found"] == "because 'namespace' was skipped"
    assert findings["version"]["state"] == "ok"


def test_every_line_says_state_check_and_remedy(world, capsys):
    world.cluster.delete("secrets", "safescale-store")
    who = ("--token-file", str(world.token))
    arguments = ["doctor", "--host", world.kubeflow.url, *who, *TRAINJOB]
    assert run_command(arguments) == 2
    shown = capsys.readouterr()
    (line,) = [x for x in shown.out.splitlines() if x.startswith("FAILED")]
    assert line.split(maxsplit=1)[1].startswith("secret safescale-store")
    assert "kubectl apply -k manifests/secrets" in line
    assert shown.err.endswith("checks failed: secret safescale-store.\n")


def test_no_value_of_a_secret_is_ever_shown(world, capsys):
    _secret("safescale-registry", AWS_ACCESS_KEY_ID="key-of-data")(world)
    _secret("safescale-store", AWS_REGION="REPLACE-ME")(world)
    who = ("--token-file", str(world.token))
    arguments = ["doctor", "--host", world.kubeflow.url, *who, *TRAINJOB]
    assert run_command(arguments) == 2
    shown = capsys.readouterr()
    assert "key-of" not in shown.out + shown.err


@pytest.mark.parametrize(
    ("verb", "resource", "checks"),
    [
        ("get", "secrets", ["secret safescale-store", "secrets apart", "pull secret"]),
        ("create", "localsubjectaccessreviews", ["own rights", "account's rights"]),
        ("get", "configmaps", ["artifact place", "Argo's executor"]),
        ("get", "endpointslices", ["way to the API"]),
        ("list", "networkpolicies", ["way to the API"]),
        ("list", "nodes", ["nodes"]),
        ("list", "resourcequotas", ["quota"]),
    ],
)
def test_what_we_may_not_see_is_called_unknown_not_missing(
    world, capsys, verb, resource, checks
):
    world.cluster.forbid(verb, resource)
    findings = world.ask(capsys)
    assert failed(findings) == []
    for check in checks:
        assert findings[check]["state"] == "skipped"


def test_kfps_own_namespace_is_not_asked_to_be_restricted(world, capsys):
    # Its servers were not written for that: the label would keep them from starting.
    world.kubeflow.world.multi_user = False
    _label(None)(world)
    findings = world.ask(capsys)
    assert failed(findings) == []
    assert findings["pod security"]["state"] == "skipped"


def test_one_key_for_all_is_no_fault_where_kfp_has_no_other(world, capsys):
    world.kubeflow.world.multi_user = False
    _secret("safescale-registry", AWS_ACCESS_KEY_ID="key-of-data")(world)
    findings = world.ask(capsys)
    assert failed(findings) == []
    assert findings["secrets apart"]["state"] == "skipped"
    assert "single-user" in findings["secrets apart"]["found"]
    # Two places cost nothing there either.
    _secret("safescale-registry", SAFESCALE_STORE="s3://team/data")(world)
    assert failed(world.ask(capsys)) == ["secrets apart"]


def test_the_doctor_waits_as_long_as_its_help_says(world, capsys):
    assert run_command(["doctor", "--help"]) == 0
    assert re.search(r"default: 5\.0\b", capsys.readouterr().out)
    world.kubeflow.go_away(6.5)
    assert failed(world.ask(capsys, "--patience", "30")) == []


def test_a_local_backend_needs_no_trainer(world, capsys):
    _forget(world)
    world.cluster.delete("secrets", "safescale-training")
    more = ("--set", "training.backend=local", "--set", "training.processes=1")
    findings = world.ask(capsys, *more)
    assert failed(findings) == []
    assert findings["trainer"]["found"] == "training.backend is not trainjob"


def test_hardware_that_is_reserved_is_named_and_whether_it_stays_idle(world, capsys):
    assert world.ask(capsys)["accelerators"]["found"] == "none"
    one = ("--param", "accelerators=1", "--skip", "quota")
    asked = world.ask(capsys, *one)
    assert asked["accelerators"]["found"] == (
        "nvidia.com/gpu is reserved and stays idle: the pods of the TrainJob train, "
        "and the step waits for them"
    )
    assert asked["accelerators"]["state"] == "ok"
    local = ("--set", "training.backend=local", "--set", "training.processes=1")
    other = ("--param", "accelerator_type=amd.com/gpu", *one, *local)
    for more, use in (
        ((), "nets train on it"),
        (("--set", "training.device=cpu"), "stays idle: training.device is cpu"),
        (("--set", "training.learner=trees"), "stays idle: boosted trees train on"),
    ):
        found = world.ask(capsys, *other, *more)["accelerators"]["found"]
        assert found.startswith(f"amd.com/gpu is reserved and {use}")


@pytest.mark.parametrize("kind", ["limits", "requests"])
def test_hardware_of_a_trainjob_is_named(world, capsys, kind):
    runtime = world.cluster.get("trainingruntimes", "safescale-torch")
    jobs = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    (container,) = jobs[0]["template"]["spec"]["template"]["spec"]["containers"]
    container["resources"][kind]["nvidia.com/gpu"] = "1"
    body = {"spec": {"template": {"spec": {"replicatedJobs": jobs}}}}
    world.cluster.patch("trainingruntimes", "safescale-torch", body)
    found = world.ask(capsys, "--skip", "quota")["accelerators"]
    assert found["found"] == "nvidia.com/gpu is reserved and nets train on it"
    local = ("--set", "training.backend=local", "--set", "training.processes=1")
    assert world.ask(capsys, *local)["accelerators"]["found"] == "none"


def test_asking_for_less_fits_into_a_small_quota(world, capsys):
    _small("requests.memory", "4Gi", "0")(world)
    more = ("--set", "training.backend=local", "--set", "training.processes=1")
    assert failed(world.ask(capsys, *more)) == ["quota"]
    less = (*more, "--param", "train_memory=2Gi")
    assert failed(world.ask(capsys, *less)) == []


@pytest.mark.parametrize("store", ["s3://Bad_Bucket", "ftp://store", "store"])
def test_a_store_that_is_no_place_fails_its_own_check_alone(world, capsys, store):
    world.store = store
    findings = world.ask(capsys)
    assert failed(findings) == ["store"]
    assert store in findings["store"]["found"]


def test_a_check_can_be_left_out(world, capsys):
    world.cluster.stop()
    findings = world.ask(capsys, "--skip", "kubernetes")
    assert findings["kubernetes"]["found"] == "as asked"
    assert world.code == 0
    assert run_command(["doctor", "--host", "http://127.0.0.1:9", "--skip", "x"]) == 2


def test_a_real_store_is_written_read_and_left_as_it_was(
    world, capsys, s3_server, monkeypatch
):
    for name, value in s3_server.environ.items():
        monkeypatch.setenv(name, value)
    world.store = f"{s3_server.uri}/doctor-test"
    _secret("safescale-store", SAFESCALE_STORE=f"{world.store}/")(world)
    findings = world.ask(capsys)
    assert failed(findings) == ["data"]
    assert findings["store's place"]["found"] == "as --store"
    assert "safescale data fetch adult" in findings["data"]["remedy"]
    assert findings["store"]["state"] == "ok"
    assert findings["store's clock"]["state"] == "ok"
    assert not list(open_store(world.store, environ=s3_server.environ).list())
    _secret("safescale-store", SAFESCALE_STORE="s3://team/data")(world)
    findings = world.ask(capsys)
    assert failed(findings) == ["store's place", "data"]
    assert world.store in findings["store's place"]["found"]


def test_a_store_that_ignores_conditions_is_not_good_enough(tmp_path):
    """Two runs could both win a version; the probe sees it before they do."""
    from pipelines.kubeflow.doctor.checks import Fault
    from pipelines.kubeflow.doctor.doctor import check_condition
    from safescale_ammt.store.folder import FileStore

    class Careless(FileStore):
        def put(self, key, data, *, if_absent=False):
            super().put(key, data)

    store = Careless(Path(tmp_path))
    store.put("probe", b"1")
    with pytest.raises(Fault, match="both win"):
        check_condition(store, "probe")


def test_the_rights_of_the_kubeconfigs_user_do_not_count(world, capsys):
    """An administrator asks; the token that KFP gets is of one without rights."""
    training = "system:serviceaccount:safescale:safescale-training"
    assert world.token is not None
    world.token.write_text(token_of(training))
    world.kubeflow.tokens = {token_of(training): ("safescale",)}
    world.cluster.withheld |= {
        (verb, right, training)
        for right in ("pipelines", "pipelines/versions", "experiments", "runs", "jobs")
        for verb in ("create", "get", "list", "terminate", "enable", "disable")
    }
    findings = world.ask(capsys)
    assert failed(findings) == ["own rights"]
    assert findings["own rights"]["found"].startswith(f"{training} may not create pip")


def test_whose_rights_count_may_ask_about_itself(world, capsys):
    """CI's own kubeconfig holds the same account, which may not ask about others."""
    world.cluster.user = OPERATOR
    world.cluster.forbid("create", "localsubjectaccessreviews")
    findings = world.ask(capsys)
    assert findings["own rights"]["found"] == f"16 of 16, of {OPERATOR}"
    assert findings["account's rights"]["state"] == "skipped"
    world.cluster.forbid("terminate", "runs")
    findings = world.ask(capsys)
    assert failed(findings) == ["own rights"]


def test_a_token_that_names_nobody_is_unknown(world, capsys):
    assert world.token is not None
    world.token.write_text("opaque")
    world.kubeflow.tokens = {"opaque": ("safescale",)}
    findings = world.ask(capsys)
    assert failed(findings) == []
    assert findings["own rights"]["state"] == "skipped"
    assert "no token that names somebody" in findings["own rights"]["found"]


def test_the_wide_way_to_the_api_is_said_and_a_narrow_one_too(world, capsys):
    wide = world.ask(capsys)["way to the API"]
    assert wide["state"] == "ok"
    assert "every address of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16" in wide["found"]
    assert "manifests/api-server.sh" in wide["found"]
    block = {"to": [{"ipBlock": {"cidr": "10.88.0.1/32"}}], "ports": [{"port": 6443}]}
    world.cluster.patch(
        "networkpolicies", "kubernetes-api", {"spec": {"egress": [block]}}
    )
    narrow = world.ask(capsys)["way to the API"]
    assert (narrow["state"], "no other" in narrow["found"]) == ("ok", True)
    block["to"][0]["ipBlock"] = {"cidr": "10.88.0.0/16", "except": ["10.88.0.0/24"]}
    world.cluster.patch(
        "networkpolicies", "kubernetes-api", {"spec": {"egress": [block]}}
    )
    assert failed(world.ask(capsys)) == ["way to the API"]


def test_how_many_runs_fit_is_said(world, capsys):
    local = ("--set", "training.backend=local", "--set", "training.processes=1")
    alone = world.ask(capsys, *local)["quota"]["found"]
    assert alone == "the largest stage fits, 15 like it at once where nothing else runs"
    # With a TrainJob's pod beside the stage it is 32 of 4.05 CPUs.
    beside = world.ask(capsys)["quota"]["found"]
    assert beside == "the largest stage fits, 7 like it at once where nothing else runs"
    _small("count/trainjobs.trainer.kubeflow.org", "3", "1")(world)
    assert "3 like it at once" in world.ask(capsys)["quota"]["found"]


ODD = {
    "nothing": {},
    "no object": [],
    "nulls": dict.fromkeys(("items", "resources", "metadata", "spec", "status"), None),
    "bare items": {"items": [{}, {"metadata": {}, "spec": {}}], "resources": [{}]},
    "lists": {key: ["hush"] for key in ("items", "resources", "metadata", "status")},
    "quantities": {
        "items": [
            {
                "metadata": {"name": "q"},
                "spec": {"hard": {"cpu": "hush"}, "limits": [{"type": "Container"}]},
            }
        ],
        "status": {"allowed": True},
    },
}


@pytest.mark.parametrize("answer", ODD.values(), ids=list(ODD))
def test_whatever_answers_every_check_has_its_line(world, capsys, monkeypatch, answer):
    class Odd(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    every = world.ask(capsys).keys()
    with ThreadingHTTPServer(("127.0.0.1", 0), Odd) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        host = f"http://127.0.0.1:{server.server_port}"
        file = Path(os.environ["KUBECONFIG"])
        file.write_text(
            re.sub(r"http://127[^\s\"']+", host, file.read_text("utf-8")), "utf-8"
        )
        try:
            found = world.ask(capsys)
        finally:
            server.shutdown()
    assert found.keys() == every
    assert world.code == 2
    assert "hush" not in json.dumps(found)
