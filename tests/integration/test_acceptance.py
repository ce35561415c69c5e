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
from kfp_api.executor import Executor
from kfp_api.server import KfpApi
from kfp_api.world import furnish
from patience import PATIENCE

ROOT = Path(__file__).parents[2]


@pytest.fixture
def environ(s3_server, tmp_path) -> Iterator[dict[str, str]]:
    """A Kubeflow, its cluster and its store, as the suite is told of them."""
    place = f"{s3_server.uri}/{uuid.uuid4().hex}"
    stages = {**os.environ, **s3_server.environ, "SAFESCALE_STORE": place}
    stages["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    folder = tmp_path / "runs"
    folder.mkdir()
    with KfpApi() as kubeflow, ClusterApi() as cluster:
        furnish(cluster)
        kubeconfig = cluster.write_kubeconfig(tmp_path / "kubeconfig")
        with Executor(kubeflow, cluster, stages, folder):
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


def test_runs_and_their_endings_are_accepted(environ):
    checks = "weights or fails_is_quoted or pulled or another_stops or lost or version"
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


def test_without_a_kubeflow_one_sentence_says_what_to_name():
    bare = {k: v for k, v in os.environ.items() if not k.startswith("SAFESCALE")}
    code, said = accept(bare, "champion")
    assert code == 2
    assert "SAFESCALE_KFP_HOST and SAFESCALE_STORE not set" in said
