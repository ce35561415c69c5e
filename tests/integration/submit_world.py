"""What tests of `safescale submit` stand on: one source, nothing of this machine's."""

from __future__ import annotations

from pathlib import Path

import pytest
from kfp_api.server import KfpApi

from pipelines.cli import run_command

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
