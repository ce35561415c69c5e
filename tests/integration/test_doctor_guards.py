"""What `safescale doctor` says of the guards, to who may see them and who may not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from cluster.api import ClusterApi
from kfp_api.server import KfpApi
from kfp_api.world import furnish

from pipelines.cli import run_command

POLICIES = "validatingadmissionpolicies"
BINDINGS = "validatingadmissionpolicybindings"
RUN = "system:serviceaccount:safescale:safescale-pipeline"


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Iterator[ClusterApi]:
    monkeypatch.chdir(tmp_path)
    for name in ("SAFESCALE_STORE", "KUBERNETES_SERVICE_HOST", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    with ClusterApi() as api:
        furnish(api)
        api.user = "jane@example.org"
        kubeconfig = api.write_kubeconfig(tmp_path / "kubeconfig")
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield api


def ask(capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, str]:
    """Returns what the doctor finds of the guards."""
    with KfpApi() as kubeflow:
        kubeflow.world.multi_user = True
        host = ("--host", kubeflow.url, "--patience", "0")
        run_command(["doctor", "--json", *host, *more])
    found = json.loads(capsys.readouterr().out)
    (guards,) = [one for one in found if one["check"] == "guards"]
    return guards


def narrow(cluster: ClusterApi, place: str) -> None:
    """Gives both bindings a selector of somebody's own."""
    selects = {"matchLabels": {"kubernetes.io/metadata.name": place}}
    for name in ("safescale-trainjobs", "safescale-results"):
        spec = {"matchResources": {"namespaceSelector": selects}}
        cluster.patch(BINDINGS, name, {"spec": spec})


def blind(cluster: ClusterApi) -> None:
    """Owns the namespace and not the cluster, as Kubeflow's users do."""
    for plural in (POLICIES, BINDINGS):
        cluster.forbid("*", plural)


def test_guards_that_are_there_are_called_so_and_nothing_is_written(cluster, capsys):
    found = ask(capsys)
    assert (found["state"], found["remedy"]) == ("ok", "")
    assert "are in force" in found["found"]
    assert not [seen for seen in cluster.seen if "dryRun" in seen]


def test_the_image_that_trainjobs_may_run_is_named(cluster, capsys):
    trainjob = ("--set", "training.backend=trainjob", "--set", "training.processes=2")
    assert "TrainJobs" not in ask(capsys)["found"].rpartition("are in force")[2]
    found = ask(capsys, *trainjob)["found"]
    assert found.endswith("TrainJobs may run train_agents of any registry")
    annotations = {"safescale-ammt/train-image": "registry.test/train_agents"}
    cluster.patch("namespaces", "safescale", {"metadata": {"annotations": annotations}})
    found = ask(capsys, *trainjob)["found"]
    assert found.endswith("TrainJobs may run registry.test/train_agents")


FAULTS: dict[str, tuple[Callable[[ClusterApi], None], str]] = {
    "no policy on TrainJobs": (
        lambda api: api.delete(POLICIES, "safescale-trainjobs"),
        "policy safescale-trainjobs does not exist",
    ),
    "no policy on results": (
        lambda api: api.delete(POLICIES, "safescale-results"),
        "policy safescale-results does not exist",
    ),
    "no binding": (
        lambda api: api.delete(BINDINGS, "safescale-results"),
        "no binding lets policy safescale-results deny",
    ),
    "a binding that only warns": (
        lambda api: api.patch(
            BINDINGS, "safescale-trainjobs", {"spec": {"validationActions": ["Warn"]}}
        ),
        "no binding lets policy safescale-trainjobs deny",
    ),
    "errors pass": (
        lambda api: api.patch(
            POLICIES, "safescale-trainjobs", {"spec": {"failurePolicy": "Ignore"}}
        ),
        "lets through what it cannot judge",
    ),
    "a Kubernetes that knows no policies": (
        lambda api: api.forget(POLICIES),
        "policy safescale-trainjobs does not exist",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_guards_that_do_not_guard_are_a_fault_with_what_to_do(cluster, capsys, fault):
    breaks, words = FAULTS[fault]
    breaks(cluster)
    found = ask(capsys)
    assert found["state"] == "FAILED"
    assert words in found["found"]
    assert "kubectl apply -k manifests/base" in found["remedy"]


def test_another_account_than_the_guards_are_about_is_named(cluster, capsys):
    cluster.add("serviceaccounts", "team-runs")
    found = ask(capsys, "--service-account", "team-runs")
    assert found["state"] == "FAILED"
    assert "not about the account team-runs" in found["found"]
    assert "manifests/components/guards" in found["remedy"]


def test_who_may_not_read_policies_tries_them_as_the_run_in_a_dry_run(cluster, capsys):
    blind(cluster)
    before = cluster.list("trainjobs"), cluster.list("workflowtaskresults")
    found = ask(capsys)
    said = "safescale-trainjobs and safescale-results refused a trial"
    assert (found["state"], found["found"]) == ("ok", said)
    assert (cluster.list("trainjobs"), cluster.list("workflowtaskresults")) == before


def test_a_trial_that_is_let_through_is_a_fault_and_leaves_nothing(cluster, capsys):
    blind(cluster)
    cluster.delete(BINDINGS, "safescale-trainjobs")
    found = ask(capsys)
    assert found["state"] == "FAILED"
    assert "safescale-trainjobs lets through what it must refuse" in found["found"]
    assert cluster.list("trainjobs") == []


def test_without_trainer_the_guard_of_results_is_tried_alone(cluster, capsys):
    blind(cluster)
    cluster.forget("trainjobs")
    assert ask(capsys)["found"] == "safescale-results refused a trial"
    cluster.forget("workflowtaskresults")
    assert ask(capsys)["state"] == "skipped"


def test_bindings_that_somebody_has_narrowed_are_tried(cluster, capsys):
    narrow(cluster, "safescale")
    assert "refused a trial" in ask(capsys)["found"]
    narrow(cluster, "another")
    assert ask(capsys)["state"] == "FAILED"


def test_who_may_neither_read_nor_act_as_the_run_is_told_that_nobody_knows(
    cluster, capsys
):
    blind(cluster)
    cluster.forbid("impersonate", "serviceaccounts")
    found = ask(capsys)
    assert found["state"] == "skipped"
    assert "you may not read admission policies" in found["found"]
    assert "cannot impersonate" in found["found"]


def test_what_stands_before_the_guards_is_quoted(cluster, capsys):
    blind(cluster)
    cluster.admission.append(lambda *_: "another webhook is out of order")
    found = ask(capsys)
    assert found["state"] == "skipped"
    assert f"a dry run as {RUN} ended before them" in found["found"]
    assert "another webhook is out of order" in found["found"]
