"""Whatever a library logs, and however loud it is made: no secret is in it.

Logging is turned on as KFP's executor does, and then for every level, so that all
that any library says would be seen.
"""

from __future__ import annotations

import io
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from cluster.api import ClusterApi
from kfp_api.dex import Dex
from kfp_api.server import KfpApi
from kubernetes import client, config
from patience import PATIENCE
from receiver import HANG, receiving
from sick_store import KEYS, QUICK, sick_store

from pipelines.cli import run_command
from safescale_ammt.errors import StoreInputError
from safescale_ammt.execution import EXECUTION, stage
from safescale_ammt.library_logs import quiet_libraries, without_secrets
from safescale_ammt.store.s3 import S3Store

ROOT = Path(__file__).parents[2]
FORMAT = "[KFP Executor %(asctime)s %(levelname)s]: %(message)s"
SECRET = "S3CRET"
URL = f"https://u:{SECRET}@chat.example/hook/{SECRET}?key={SECRET}#{SECRET}"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that is logged, by whom and at what level ever."""
    root, seen = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    logging.basicConfig(stream=seen, format=FORMAT, level=logging.DEBUG, force=True)
    yield seen
    logging.basicConfig(handlers=handlers, level=level, force=True)


def nobody() -> str:
    """Returns the address of a port at which nobody answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


PROGRAM = """
import logging, sys
from dataclasses import replace
from kfp.dsl import executor_main
executor_main._setup_logging()
logging.getLogger().setLevel(int(sys.argv[1]))
from safescale_ammt.releasing.notice import WEBHOOK_RETRY
from safescale_ammt.stages import notify
quick = replace(WEBHOOK_RETRY, retries=2, first=0.01, read=1.0)
notify.run("r-1", "FAILED", on="all", retry=quick)
logging.getLogger("urllib3").warning("speaks again afterwards")
"""


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
@pytest.mark.parametrize("answers", [(), (503, 502, 500), (302,), (HANG,), None])
def test_the_exit_task_logs_no_webhook_s_path(tmp_path, answers, level):
    def tell(url: str) -> str:
        environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SAFESCALE_STORE": f"file://{tmp_path}",
            "SAFESCALE_WEBHOOK_URL": f"{url}?sig=QU3RY",
            "SAFESCALE_WEBHOOK_SECRET": "S1GNING",
        }
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(level)],
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout + done.stderr

    if answers is None:
        said = tell(f"{nobody()}/hook/T0P-S3CRET")
    else:
        with receiving(*answers) as receiver:
            said = tell(receiver.url)
    assert "127.0.0.1" in said
    assert "speaks again afterwards" in said
    assert not [s for s in ("T0P-S3CRET", "QU3RY", "S1GNING", "/hook") if s in said]


def test_without_the_rule_the_path_would_stand_there(log):
    """What these tests look for is logged where nobody forbids it."""
    with pytest.raises(urllib3.exceptions.MaxRetryError):
        urllib3.PoolManager(retries=1).request("GET", f"{nobody()}/hook/{SECRET}")
    assert SECRET in log.getvalue()


def test_a_client_that_sets_the_levels_back_makes_nobody_talk(log):
    with quiet_libraries():
        client.Configuration()  # sets urllib3 to WARNING
        with pytest.raises(urllib3.exceptions.MaxRetryError):
            urllib3.PoolManager(retries=1).request("GET", f"{nobody()}/{SECRET}")
    assert not log.getvalue()


def test_a_store_that_is_away_leaves_no_key(log, tmp_path):
    environ = {"AWS_ENDPOINT_URL": nobody(), **KEYS}
    with (
        pytest.raises(SystemExit),
        stage("prepare_data", tmp_path / "out"),
    ):
        S3Store.from_environ("bucket", "", environ, QUICK).get("k")
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in log.getvalue()


def test_an_identity_token_is_in_no_log(log, tmp_path, monkeypatch):
    token = tmp_path / "token"
    token.write_text("eyJ-very-secret-token")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    for ill in (True, False):
        with sick_store(*["500"] * 20) as server:
            environ = {
                "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
                "AWS_ROLE_ARN": "arn:aws:iam::1:role/x",
                "AWS_ENDPOINT_URL": server.endpoint,
                "AWS_ENDPOINT_URL_STS": server.endpoint if ill else nobody(),
            }
            with quiet_libraries(), pytest.raises(StoreInputError):
                S3Store.from_environ("bucket", "", environ, QUICK).get("k")
    assert "very-secret" not in log.getvalue()


def test_what_kubernetes_answers_is_in_no_log(log, tmp_path):
    with ClusterApi() as api:
        api.add("secrets", "safescale-store", data={"AWS_SECRET_ACCESS_KEY": "a2V5"})
        file = api.write_kubeconfig(tmp_path / "kubeconfig")
        with quiet_libraries():
            config.load_kube_config(str(file))
            found = client.CoreV1Api().read_namespaced_secret(
                "safescale-store", api.namespace
            )
    assert found.data == {"AWS_SECRET_ACCESS_KEY": "a2V5"}
    assert not log.getvalue()


def test_a_command_logs_neither_token_nor_password(log, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    token = tmp_path / "token"
    token.write_text("a-bearer-token")
    with KfpApi() as api:
        api.world.multi_user, api.tokens = True, {"another": ()}
        asked = ["schedule", "list", "--host", api.url, "--token-file", str(token)]
        assert run_command(asked) == 2
    with KfpApi() as api:
        api.dex = Dex(approval=True)
        monkeypatch.setenv("SAFESCALE_KFP_USER", api.dex.user)
        monkeypatch.setenv("SAFESCALE_KFP_PASSWORD", api.dex.password)
        assert run_command(["schedule", "list", "--host", api.url]) == 0
        secrets = ["a-bearer-token", api.dex.password, *api.dex.sessions]
    shown = capsys.readouterr()
    said = log.getvalue() + shown.out + shown.err
    assert not [secret for secret in secrets if secret in said]


def test_errors_of_libraries_are_logged_without_addresses(log):
    with quiet_libraries():
        try:
            try:
                raise OSError(f"cannot reach {URL}")
            except OSError as error:
                raise RuntimeError(f"exceeded with url: /hook/{SECRET}") from error
        except RuntimeError:
            logging.getLogger("google.auth").exception("request to %s failed", URL)
        logging.getLogger("some.library").error("Authorization: Bearer %s", SECRET)
        logging.getLogger("safescale_ammt.store").warning("ours stays")
        logging.info("and KFP's executor")
    said = log.getvalue()
    assert SECRET not in said
    for part in ("request to https://chat.example/...", "RuntimeError", "OSError"):
        assert part in said
    assert "ours stays" in said
    assert "and KFP's executor" in said


def test_an_inner_body_that_ends_leaves_the_outer_one_quiet(log):
    with quiet_libraries():
        with quiet_libraries():
            pass
        logging.getLogger("some.library").warning(SECRET)
    assert not log.getvalue()
    logging.getLogger("some.library").warning("as before")
    assert "as before" in log.getvalue()


def reach_nobody(*, chained: bool) -> None:
    try:
        pool = urllib3.PoolManager(retries=False, timeout=PATIENCE)
        pool.request("GET", f"{nobody()}/hook/{SECRET}")
    except urllib3.exceptions.HTTPError as error:
        error.args = (f"exceeded with url: /hook/{SECRET} at {URL}",)
        if chained:
            raise RuntimeError("it broke") from error
        raise


@pytest.mark.parametrize("chained", [False, True])
def test_a_stage_that_breaks_shows_no_address(tmp_path, capsys, chained):
    with pytest.raises(SystemExit), stage("train_agents", tmp_path / "model"):
        reach_nobody(chained=chained)
    shown = capsys.readouterr()
    assert SECRET not in shown.out + shown.err
    assert "NewConnectionError" in shown.err
    report = (tmp_path / EXECUTION).read_text(encoding="utf-8")
    assert SECRET not in report
    assert json.loads(report)["code"] == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"to {URL} failed", "to https://chat.example/... failed"),
        (f"'http://10.0.0.1:8080/{SECRET}'", "'http://10.0.0.1:8080/...'"),
        (f"with url: /{SECRET} (Caused by x)", "with url: ... (Caused by x)"),
        (f'"POST /{SECRET}?a=b HTTP/1.1" 503', '"POST ... HTTP/1.1" 503'),
        (f"{{'authorization': 'Bearer {SECRET}'}}", "{'authorization': '...'}"),
        (f"Set-Cookie: a={SECRET}; b={SECRET}", "Set-Cookie: ..."),
        (f"X-Amz-Security-Token={SECRET}&a=b", "X-Amz-Security-Token=...&a=b"),
        (f"aws_secret_access_key = {SECRET}", "aws_secret_access_key = ..."),
        ("a plain line of /usr/lib, 5 tokens", "a plain line of /usr/lib, 5 tokens"),
    ],
)
def test_of_an_address_the_host_is_shown_and_of_a_header_its_name(text, shown):
    assert without_secrets(text) == shown
