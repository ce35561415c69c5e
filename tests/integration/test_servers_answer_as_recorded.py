"""The servers that stand for Kubeflow and Kubernetes have the shape of the real ones.

What was done on the real plane is done against them; then each question that was
recorded must have been asked here too, and its answers must have the same fields
of the same types. What differs all the same stands in one list, with the reason.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.api import ClusterApi
from kfp_api.lives import FAILED, PENDING, RUNNING, SUCCEEDED, Scene
from kfp_api.server import KfpApi
from kfp_api.world import encoded, furnish, life
from patience import PATIENCE
from replay.recordings import exchanges, names
from replay.shapes import Shapes, differences, question, unexplained
from submit_world import SOURCE

from pipelines.cli import run_command

ALLOWED = {
    r"(RUNNING|SUCCEEDED): .*execution_id is invented": (
        "a row of the cache's own: seen in runs whose long answers were shortened"
    ),
    r"metadata\.(annotations|labels) is (missing|never there)": (
        "what kubectl and kustomize add to an object when they apply it"
    ),
    r"description is invented": "what the product describes since it was recorded",
    r"storageVersionHash": "a cache's key of the API server's own",
    r"trainingruntimes/.*env\[\]\.valueFrom\.secretKeyRef\.\w+ is invented": (
        "what our runtime asks of the datasets' secret since it was recorded"
    ),
}
"""Pattern of a difference -> why it may stay."""


def recorded(prefix: str) -> Shapes:
    """Returns the shapes of what was recorded."""
    found = Shapes()
    for flow in names(prefix):
        if not flow.endswith("-watch"):
            for asked in exchanges(flow, {"pipeline_spec": {}}):
                if asked.whole:
                    add(found, asked.method, asked.path, asked.status, asked.answer)
    return found


def add(found: Shapes, method: str, path: str, status: int, answer: object) -> None:
    if isinstance(answer, dict):
        for run in answer.get("runs", ()):
            found.add(f"a run that is {run.get('state')}", run)
        if answer.get("state"):
            found.add(f"a run that is {answer['state']}", answer)
    nothing = "" if answer else ", nothing found"
    found.add(question(method, path, status, answer) + nothing, answer)


@pytest.fixture(scope="module")
def real() -> Shapes:
    return recorded("kfp-")


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shapes]:
    """What the test server answers when the recorded flows are done again."""
    folder = tmp_path_factory.mktemp("kfp")
    with pytest.MonkeyPatch.context() as patch, KfpApi() as api:
        patch.chdir(folder)
        for name in ("SAFESCALE_STORE", "KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
            patch.delenv(name, raising=False)
        (folder / "token").write_text("t0ken")
        api.world.multi_user = True
        api.tokens = {"t0ken": ("safescale",)}
        again(api, folder)
        found = Shapes()
        for method, path, status, body in api.answered:
            add(found, method, path, status, json.loads(body))
        yield found


def again(api: KfpApi, folder: Path) -> None:
    """Does what was done on the real plane."""
    session = ("--host", api.url, "--token-file", str(folder / "token"))
    quick = (*session, *SOURCE)
    waiting = (Scene(PENDING), Scene(RUNNING, {"prepare-data": RUNNING}))
    run_command(["doctor", *session])
    for version in ("1", "1", "2"):
        run_command(["submit", *quick, "--upload-only", "--version-name", version])
    run_command(["submit", *quick, "--no-wait", "--experiment", "another"])
    follow = ["submit", *quick, "--poll", "0.05", "--timeout"]
    for script in (
        (Scene(PENDING), *life()),
        (*waiting, *life(FAILED, at="prepare-data")),
    ):
        api.world.script = script
        run_command([*follow, f"{PATIENCE:g}"])
    at_work = Scene(RUNNING, {"prepare-data": SUCCEEDED})
    api.world.script = (*waiting, *[at_work] * 99)
    run_command([*follow, "2"])
    run = next(reversed(api.world.runs))
    # As many looks as there may have been no time for.
    for _ in (*waiting, at_work):
        get(api, f"/runs/{run}")
    get(api, f"/runs/{run}:terminate", "POST")
    while api.world.runs[run].state != FAILED:
        get(api, f"/runs/{run}")
    get(api, f"/runs/{run}:terminate", "POST")
    cron = ("--cron", "0 * * * * *", "--name", "nightly")
    run_command(["schedule", *session, *SOURCE, *cron])
    for act in (["list"], ["pause", "nightly"], ["resume", "nightly"]):
        run_command(["schedule", *act, *session])
    for path in (
        "/runs/00000000-0000-0000-0000-000000000000",
        "/runs?namespace=other",
        # Three of four: which of two runs of one second comes first is chance.
        "/runs?namespace=safescale&page_size=3&sort_by=created_at%20desc",
        "/runs?namespace=safescale&page_token=nonsense",
        "/pipelines?namespace=other",
        "/experiments?namespace=safescale&page_size=1",
    ):
        get(api, path)
    get(api, f"/runs/{run}", token="")
    get(api, f"/runs/{run}", token="wrong")
    bad = {"display_name": "bad", "experiment_id": "nope"}
    get(api, "/recurringruns", "POST", bad)
    api.tokens = {"t0ken": ("another",)}
    get(api, f"/runs/{run}")


def get(
    api: KfpApi,
    path: str,
    method: str = "GET",
    body: dict[str, str] | None = None,
    token: str = "t0ken",
) -> None:
    """Asks as nobody of ours does."""
    asked = urllib.request.Request(
        f"{api.url}/apis/v2beta1{path}",
        json.dumps(body).encode() if body else None,
        {"Authorization": f"Bearer {token}"} if token else {},
        method=method,
    )
    try:
        urllib.request.urlopen(asked).read()
    except urllib.error.HTTPError as error:
        error.read()


QUESTIONS = sorted(recorded("kfp-").union)
KUBERNETES = sorted(recorded("kubernetes-").union)


@pytest.mark.parametrize("asked", QUESTIONS)
def test_kubeflows_answer_has_its_fields_here_too(real, ours, asked):
    assert asked in ours.union, f"nobody asks the test server: {asked}"
    assert unexplained(differences(real, ours, asked), ALLOWED) == []


@pytest.fixture(scope="module")
def cluster() -> Shapes:
    """What the test cluster answers to the questions that were recorded."""
    found = Shapes()
    with ClusterApi() as kube:
        furnish(kube)
        told = encoded({"SAFESCALE_NOTIFY_FILE": "/tmp/told"})
        kube.add("secrets", "safescale-notify", data=told)
        for asked in exchanges("kubernetes-doctor"):
            body = json.dumps(asked.request).encode() if asked.request else None
            bearer = {"Authorization": f"Bearer {kube.token}"}
            request = urllib.request.Request(
                kube.url + asked.path, body, bearer, method=asked.method
            )
            urllib.request.urlopen(request).read()
        for method, path, status, answer in kube.answered:
            add(found, method, path, status, answer)
    return found


@pytest.mark.parametrize("asked", KUBERNETES)
def test_kubernetes_answer_has_its_fields_here_too(cluster, asked):
    assert asked in cluster.union, f"nobody asks the test cluster: {asked}"
    said = differences(recorded("kubernetes-"), cluster, asked)
    assert unexplained(said, ALLOWED) == []
