"""`make cluster-test` against the test servers, as far as they go.

The API is a double, below it the pipeline itself runs (`kfp_api.executor`): what is
tested here is that each check can pass, and fail, and be run alone.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.api import ClusterApi
from cluster.spark import status
from kfp_api.executor import Executor
from kfp_api.probes import Probes
from kfp_api.server import KfpApi
from kfp_api.world import encoded, furnish
from patience import PATIENCE

ROOT = Path(__file__).parents[2]


@pytest.fixture
def plane_of_the_test() -> Iterator[ClusterApi]:
    """The cluster below, with all that a run needs."""
    with ClusterApi() as cluster:
        furnish(cluster)
        yield cluster


@pytest.fixture
def environ(s3_server, tmp_path, plane_of_the_test) -> Iterator[dict[str, str]]:
    """A Kubeflow, its cluster and its store, as the suite is told of them."""
    cluster = plane_of_the_test
    place = f"{s3_server.uri}/{uuid.uuid4().hex}"
    stages = {**os.environ, **s3_server.environ, "SAFESCALE_STORE": place}
    stages["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    folder = tmp_path / "runs"
    folder.mkdir()
    with KfpApi() as kubeflow:
        keys = {k: stages[k] for k in s3_server.environ if k.startswith("AWS_")}
        ours = encoded({**keys, "SAFESCALE_STORE": place})
        cluster.patch("secrets", "safescale-store", {"data": ours})
        # Who learns has a key of its own, which this store does not know.
        own = {"AWS_ACCESS_KEY_ID": "key-of-datasets", "AWS_SECRET_ACCESS_KEY": "other"}
        theirs = encoded({**keys, **own, "SAFESCALE_STORE": place})
        cluster.add("secrets", "safescale-datasets", data=theirs)
        kubeconfig = cluster.write_kubeconfig(tmp_path / "kubeconfig")
        bare = {k: v for k, v in stages.items() if not k.startswith("AWS_")}
        with (
            Executor(kubeflow, cluster, stages, folder),
            Probes(cluster, bare),
        ):
            yield {
                **stages,
                "KUBECONFIG": str(kubeconfig),
                "SAFESCALE_KFP_HOST": kubeflow.url,
                "SAFESCALE_BEAT": "0.2",
                "SAFESCALE_QUIET": "2",
                "SAFESCALE_PATIENCE": str(PATIENCE / 2),
            }


def accept(environ: dict[str, str], check: str) -> tuple[int, str]:
    """Runs one check alone; returns pytest's exit code and the table."""
    options = ("-m", "cluster", "-p", "no:cacheprovider", "-q", "-k", check)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/acceptance", *options],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def lines_of(said: str) -> dict[str, str]:
    """Returns check -> state, of the table."""
    line = re.compile(r"^(.+?)  +(passed|failed|skipped) +[0-9.]+ s$", re.MULTILINE)
    return dict(line.findall(said))


# First what starts little: its processes are the ones that coverage looks at.


def test_a_plane_without_guards_and_with_one_key_for_all_is_not_accepted(
    environ, plane_of_the_test
):
    cluster = plane_of_the_test
    for policy in ("safescale-trainjobs", "safescale-results"):
        cluster.delete("validatingadmissionpolicies", policy)
    ours = cluster.get("secrets", "safescale-store")["data"]
    cluster.patch("secrets", "safescale-training", {"data": ours})
    code, said = accept(environ, "guards or key_in")
    states = lines_of(said)
    assert code == 1, said
    assert "A TrainJob with another runtime is admitted." in said
    assert "A pod may write the result of another." in said
    assert "The key in safescale-training lists and reads the judge's rows" in said
    kept = [
        f"sealed rows cannot be read with the key in[{name}]"
        for name in ("mlpipeline-minio-artifact", "safescale-datasets")
    ]
    assert [check for check, state in states.items() if state == "passed"] == kept


def test_runs_and_their_endings_are_accepted(environ):
    checks = (
        "weights or fails_is_quoted or pulled or another_stops or lost or sees_rows"
    )
    code, said = accept(environ, checks)
    states = lines_of(said)
    assert set(states.values()) == {"passed"}, said
    assert (code, len(states)) == (0, 6), said
    assert "left:" not in said
    # Records are not taken away, and who looks for them finds where they are.
    assert re.findall(r"^stays: (\w+ \w+) ", said, re.MULTILINE) == [
        "runs of",
        "what they",
        "registered models",
    ]


def test_what_a_run_needs_and_what_it_may_not_do_are_accepted(environ):
    checks = "doctor or guards or sealed_rows_cannot or too_large or while_it_waits"
    code, said = accept(environ, checks)
    states = lines_of(said)
    assert set(states.values()) == {"passed"}, said
    assert (code, len(states)) == (0, 13), said
    assert "left:" not in said


def test_schedules_are_accepted(environ):
    code, said = accept(environ, "three_rolls or has_ended")
    states = lines_of(said)
    assert set(states.values()) == {"passed"}, said
    assert (code, len(states)) == (0, 2), said


def test_spark_is_asked_for_where_it_is_and_skipped_where_it_is_not(
    environ, plane_of_the_test
):
    cluster = plane_of_the_test
    code, said = accept(environ, "spark_is_ready")
    assert (code, lines_of(said)) == (0, {"spark is ready": "skipped"}), said
    cluster.add("sparkconnects", "safescale-spark", spec={}, status=status(ready=False))
    code, said = accept(environ, "spark_is_ready")
    assert code == 1, said
    assert "Spark is NotReady." in said
    cluster.patch("sparkconnects", "safescale-spark", {"status": status(ready=True)})
    code, said = accept(environ, "spark_is_ready")
    assert (code, lines_of(said)) == (0, {"spark is ready": "passed"}), said
    cluster.forget("sparkconnects")
    code, said = accept(environ, "spark_is_ready")
    assert (code, lines_of(said)) == (0, {"spark is ready": "skipped"}), said


def test_without_a_kubeflow_one_sentence_says_what_to_name():
    bare = {k: v for k, v in os.environ.items() if not k.startswith("SAFESCALE")}
    code, said = accept(bare, "champion")
    assert code == 2
    assert "SAFESCALE_KFP_HOST and SAFESCALE_STORE not set" in said
