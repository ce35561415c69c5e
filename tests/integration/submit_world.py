"""What tests of `safescale submit` stand on: one source, nothing of this machine's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from children import Child
from kfp_api.server import KfpApi
from kfp_api.state import RUNNING, Scene
from patience import PATIENCE

from pipelines.cli import run_command

ROOT = Path(__file__).parents[2]
PLACE = (
    *("--set", "data.source=s3://team/rows.csv", "--set", "data.label=income"),
    *("--set", "data.sealed_source=s3://team/test.csv"),
)
SOURCE = (*PLACE, "--set", "data.source_digest=sha256:" + 64 * "0")
QUICK = ("--poll", "0.05")
_FOLLOWS_NOTHING = {"--no-wait", "--upload-only"}
_PLACES = ("SAFESCALE_WEBHOOK_URL", "SAFESCALE_NOTIFY_FILE", "SAFESCALE_WEBHOOK_SECRET")


def leave_home(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Lets nothing of this machine's own reach a command."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    names = ("SAFESCALE_STORE", "SAFESCALE_KFP_HOST", "SSL_CERT_FILE", "CI")
    for name in (*names, "KUBERNETES_SERVICE_HOST", "KUBECONFIG", *_PLACES):
        monkeypatch.delenv(name, raising=False)


def submit(api: KfpApi, *more: str) -> int:
    """Calls `safescale submit`, with no option that it would not read."""
    source = () if "--follow" in more else SOURCE
    quick = () if _FOLLOWS_NOTHING & {*more} else QUICK
    return run_command(["submit", "--host", api.url, *source, *quick, *more])


def interrupted(api: KfpApi, folder: Path, *more: str) -> str:
    """Sends SIGINT to a `submit` whose first stage goes on; returns what it said."""
    api.world.script = (Scene(RUNNING, {"prepare-data": RUNNING}),) * 10_000
    command = [sys.executable, "-m", "pipelines", "submit", "--host", api.url]
    command += [*SOURCE, *QUICK, *more]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = Child(command, stderr=subprocess.PIPE, text=True, cwd=folder, env=environ)
    assert child.stderr is not None
    for line in child.stderr:
        if "Prepare data" in line:
            break
    child.send_signal(signal.SIGINT)
    said = child.communicate(timeout=PATIENCE)[1]
    assert child.returncode == 1
    return str(said)
