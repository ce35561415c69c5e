"""A TrainJob as an object, the log's cursor, and what a train pod reports."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cluster.trainer_status import is_valid
from hypothesis import given
from hypothesis import strategies as st
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob
from patience import eventually

from safescale_ammt.cluster.api import Api
from safescale_ammt.cluster.handover import Handover
from safescale_ammt.cluster.logs import Cursor
from safescale_ammt.cluster.trainjob import (
    JobState,
    TrainJob,
    digest_of,
    progress,
    state,
)
from safescale_ammt.errors import ClusterInputError
from safescale_ammt.launch import trainer_status as reporting
from safescale_ammt.launch.failure import may_pass
from safescale_ammt.launch.trainer_status import TrainerStatus

DIGEST = "sha256:" + "ab" * 32
JOB = TrainJob(DIGEST, "s3://b/training/jobs/x/request.json", "safescale-torch", 2, 4)
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("queue", ["", "safescale"])
@pytest.mark.parametrize("image", ["", "r/a@sha256:" + "1" * 64])
def test_a_job_is_what_trainers_own_model_accepts_and_no_more(
    queue: str, image: str
) -> None:
    job = TrainJob(DIGEST, JOB.request, JOB.runtime, 2, 4, queue, image)
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}
    body = job.to_dict([owner])
    parsed = TrainerV1alpha1TrainJob.from_dict(body)
    assert parsed is not None
    assert parsed.to_dict() == body


def test_a_job_has_four_processes_on_two_nodes_and_one_command() -> None:
    trainer = JOB.to_dict()["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 2)
    words = [*trainer["command"], *trainer["args"]]
    assert words[:3] == ["python", "-m", "torch.distributed.run"]
    assert words[3:] == ["-m", "safescale_ammt.launch.worker", JOB.request]


def test_a_job_in_a_queue_is_made_suspended_for_kueue_to_start() -> None:
    body = TrainJob(DIGEST, JOB.request, JOB.runtime, queue="team").to_dict()
    assert body["spec"]["suspend"] is True
    assert body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert JOB.to_dict()["spec"]["suspend"] is False


def test_a_name_is_a_dns_label_that_leaves_room_for_the_pods_names() -> None:
    assert JOB.name == "safescale-train-" + "ab" * 8
    assert len(JOB.name) + len("-node-0-100-abcde") <= 63


def test_whatever_decides_the_model_changes_the_digest() -> None:
    parents = {"dataset": "d", "architecture": "a", "constitution": "c"}
    layout = {"processes": 1, "nodes": 1, "runtime": "r", "queue": ""}
    made = {
        digest_of(parents, "config", layout, "image"),
        digest_of({**parents, "dataset": "e"}, "config", layout, "image"),
        digest_of(parents, "other", layout, "image"),
        digest_of(parents, "config", {**layout, "nodes": 2}, "image"),
        digest_of(parents, "config", layout, "newer"),
    }
    assert len(made) == 5
    again = digest_of(dict(reversed(parents.items())), "config", layout, "image")
    assert again in made


def found(*conditions: str, **rest: Any) -> dict[str, Any]:
    held = [{"type": c, "status": "True"} for c in conditions]
    return {"metadata": {}, "spec": {}, "status": {"conditions": held}, **rest}


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ({"metadata": {}, "spec": {}}, JobState.ACTIVE),
        (found(), JobState.ACTIVE),
        (found("Suspended"), JobState.SUSPENDED),
        (found(spec={"suspend": True}), JobState.SUSPENDED),
        (found("Complete"), JobState.COMPLETE),
        (found("Failed"), JobState.FAILED),
        (found("Complete", metadata={"deletionTimestamp": "now"}), JobState.GOING),
    ],
)
def test_a_state_is_read_off_the_conditions(
    job: dict[str, Any], expected: JobState
) -> None:
    assert state(job) is expected


def test_a_condition_that_no_longer_holds_says_nothing() -> None:
    resumed = {"type": "Suspended", "status": "False"}
    job = {"metadata": {}, "spec": {}, "status": {"conditions": [resumed]}}
    assert state(job) is JobState.ACTIVE


def test_progress_is_told_in_trainers_words_if_it_is_there() -> None:
    metrics = [{"name": "step", "value": "40"}]
    told = {
        "progressPercentage": 50,
        "estimatedRemainingSeconds": 9,
        "metrics": metrics,
    }
    assert progress(found(status={"trainerStatus": told})) == "50 %, 9 s left, step 40"
    assert not progress(found())


def stamped(seconds: int, nanoseconds: int, text: str) -> bytes:
    return f"2026-01-01T00:00:{seconds:02d}.{nanoseconds:09d}Z {text}".encode()


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([0, 0, 1, 999_999_999])),
        min_size=1,
        max_size=20,
    ),
    breaks=st.lists(st.integers(0, 20), max_size=4),
)
def test_a_log_has_every_line_once_wherever_its_streams_break(
    steps: list[tuple[int, int]], breaks: list[int]
) -> None:
    lines, second, part = [], 0, 0
    for number, (ahead, nanoseconds) in enumerate(steps):
        second, part = second + ahead, nanoseconds if ahead else max(part, nanoseconds)
        lines.append((second, stamped(second, part, str(number))))
    cursor, got = Cursor(), []
    for stop in [*breaks, len(lines)]:
        since = int(cursor.since[17:19]) if cursor.since else 0
        cursor.rewind()
        again = [line for at, line in lines if at >= since]
        got += [t for line in again[:stop] if (t := cursor.take(line)) is not None]
    assert got == [str(number) for number in range(len(steps))]


@pytest.mark.parametrize(
    ("line", "text", "since"),
    [
        (b"2026-01-01T00:00:01Z whole", "whole", "2026-01-01T00:00:01+00:00"),
        (b"2026-01-01T02:00:01.5+02:00 zone", "zone", "2026-01-01T02:00:01+02:00"),
        (b"2026-01-01T00:00:01.000000001Z ", "", "2026-01-01T00:00:01+00:00"),
        (b"no stamp", "no stamp", ""),
    ],
)
def test_a_line_is_read_however_its_time_is_spelled(
    line: bytes, text: str, since: str
) -> None:
    cursor = Cursor()
    assert cursor.take(line) == text
    assert cursor.since == since


def test_without_a_cluster_one_sentence_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(ClusterInputError, match="set backend: local") as caught:
        Api.connect({"KUBECONFIG": str(tmp_path / "none")})
    assert "\n" not in str(caught.value)


def test_without_a_store_one_sentence_names_the_secret() -> None:
    with pytest.raises(ClusterInputError, match="safescale-training"):
        Handover.open(DIGEST, {})


def test_the_kubernetes_client_and_torch_are_imported_only_when_needed() -> None:
    code = (
        "import sys, safescale_ammt.cluster.training;"
        "import safescale_ammt.launch.trainer_status;"
        "print(sorted({'torch', 'kubernetes'} & set(sys.modules)))"
    )
    out = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT)
    assert out.strip() == "[]"


class _Trainer(ThreadingHTTPServer):
    """Trainer's status server (2.3.0, pkg/statusserver): its answer, or silence.

    It answers 422 for what the TrainJob's CRD does not allow.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Reports)
        self.status = 200
        self.silent = threading.Event()
        """Set: as behind a policy that drops packets."""
        self.got: list[tuple[str | None, dict[str, Any]]] = []

    @property
    def url(self) -> str:
        path = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/n/trainjobs/j/status"
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class _Reports(BaseHTTPRequestHandler):
    server: _Trainer

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(length))
        self.server.got.append((self.headers["Authorization"], body))
        while self.server.silent.is_set():
            time.sleep(0.01)
        valid = is_valid(body["trainerStatus"])
        self.send_response(self.server.status if valid else 422)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Says nothing."""


@contextmanager
def trainer() -> Iterator[_Trainer]:
    with _Trainer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_progress_is_reported_with_the_token_of_the_moment(tmp_path: Path) -> None:
    token, now = tmp_path / "token", [100.0]
    token.write_text("first\n", encoding="utf-8")
    with trainer() as server:
        told = TrainerStatus(900, server.url, "", str(token), clock=lambda: now[0])
        assert not told.note({"event": "plan", "steps": 200})
        now[0] += 10
        event = {"event": "round", "step": 50, "violation": {"tpr": -0.0123}}
        assert told.note(event)
        eventually(lambda: len(server.got) == 1)
        assert not told.note({**event, "step": 51})  # too soon
        assert not told.note({"event": "merge"})
        token.write_text("second", encoding="utf-8")
        now[0] += 5
        assert told.note({**event, "step": 100})
        eventually(lambda: len(server.got) == 2)
        assert told.note({"event": "end", "step": 200})
        told.close()
    assert [who for who, _ in server.got] == [
        "Bearer first",
        "Bearer second",
        "Bearer second",
    ]
    first = server.got[0][1]["trainerStatus"]
    assert (first["progressPercentage"], first["estimatedRemainingSeconds"]) == (25, 30)
    assert {"name": "violation tpr", "value": "-0.0123"} in first["metrics"]
    assert server.got[-1][1]["trainerStatus"]["progressPercentage"] == 100


def test_training_never_waits_for_a_status_server_that_says_nothing(
    tmp_path: Path,
) -> None:
    token = tmp_path / "token"
    token.write_text("t", encoding="utf-8")
    with trainer() as server:
        server.silent.set()
        told = TrainerStatus(10**6, server.url, "", str(token), every=0.0)
        began = time.monotonic()
        for step in range(2000):
            assert told.note({"event": "round", "step": step})
        lasted = time.monotonic() - began
        server.silent.clear()
        told.close()
    # Each report that was waited for would have lasted two seconds.
    assert lasted < 2.0
    # One was on its way, and the newest took the place of all that came after it.
    assert len(server.got) <= 3
    assert server.got[-1][1]["trainerStatus"]["metrics"][0]["value"] == "1999"


def test_a_status_server_that_refuses_is_asked_less_and_less_often(
    tmp_path: Path,
) -> None:
    token = tmp_path / "token"
    token.write_text("t", encoding="utf-8")
    with trainer() as server:
        server.status = 403
        told = TrainerStatus(10**6, server.url, "", str(token), every=0.05)
        began = time.monotonic()
        while time.monotonic() - began < 1.0:
            told.note({"event": "round", "step": 1})
            time.sleep(0.01)
        told.close()
    # 0.05 s, then 0.1, 0.2, 0.4 ...: five or six tries, where every report made twenty.
    assert 2 <= len(server.got) <= 8


def test_reports_are_what_trainers_validation_takes(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t", encoding="utf-8")
    long = {f"{'a very long name of a promise ' * 4}{n}": 0.5 for n in range(400)}
    with trainer() as server:
        told = TrainerStatus(10**12, server.url, "", str(token))
        assert told.report(1, long)["metrics"][1]["name"].endswith("...")
        for step in (1, 10**12, 10**13):
            assert told.send(told.report(step, long))
        wrong = told.report(1, {})
        wrong["metrics"] = [{"name": "x" * 65, "value": "1"}]
        assert not told.send(wrong)


def test_progress_that_cannot_be_reported_does_not_disturb(tmp_path: Path) -> None:
    event = {"event": "round", "step": 1}
    assert not TrainerStatus(10).note(event)
    gone = "http://127.0.0.1:9/status"
    assert not TrainerStatus(10, gone, "", str(tmp_path / "none")).send({})
    token = tmp_path / "token"
    token.write_text("t", encoding="utf-8")
    assert not TrainerStatus(10, gone, "", str(token)).send({})
    told = TrainerStatus(10, gone, "", str(token))
    assert told.note(event)
    told.close()


@pytest.mark.parametrize(
    ("kind", "ended", "passes"),
    [
        ("", "pod: Error, 137", True),
        ("", "", True),
        ("", "pod: OOMKilled, 137", False),
        ("PeerLost", "", True),
        ("Interrupted", "", True),
        ("StorageError", "", True),
        ("StoreInputError", "", False),
        ("SafescaleError", "", False),
        ("IntegrityError", "", False),
        ("ValueError", "", False),
    ],
)
def test_only_what_was_lost_is_begun_again(kind: str, ended: str, passes: bool) -> None:
    report = {"class": kind, "code": 1, "sentence": "It broke."} if kind else None
    assert may_pass(report, ended) is passes


def test_progress_goes_where_trainer_says() -> None:
    environ = {reporting.URL: "https://t", reporting.CA: "/ca", reporting.TOKEN: "/t"}
    told = TrainerStatus.from_environ(10, environ)
    assert (told.url, told.ca, told.token) == ("https://t", "/ca", "/t")
    assert not TrainerStatus.from_environ(10, {}).url
