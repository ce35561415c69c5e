"""The Kubernetes API of the tests behaves as the real one does."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from certificates import account, certificate
from cluster.api import ClusterApi
from kubernetes import client, config
from patience import PATIENCE

from safescale_ammt.cluster.api import Api
from safescale_ammt.cluster.refusals import ApiRefusal, Away, Denied, OutOfReach
from safescale_ammt.cluster.resources import PODS, TRAINJOBS
from safescale_ammt.cluster.timeouts import Timeouts
from safescale_ammt.errors import ClusterInputError
from safescale_ammt.retry import RetryPolicy

QUICK = Timeouts(
    RetryPolicy(PATIENCE, 0.01, 0.05, connect=PATIENCE, read=PATIENCE), watch=1
)


@pytest.fixture
def api() -> Iterator[ClusterApi]:
    with ClusterApi() as served:
        yield served


@pytest.fixture
def calls(api: ClusterApi, tmp_path: Path) -> Iterator[Api]:
    file = api.write_kubeconfig(tmp_path / "kubeconfig")
    said: list[str] = []
    with Api.connect({"KUBECONFIG": str(file)}, QUICK, say=said.append) as connected:
        yield connected


def owner(found: dict[str, Any], **rest: Any) -> dict[str, Any]:
    meta = found["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "x",
        "name": meta["name"],
        "uid": meta["uid"],
    } | rest


def status(calls: Api, verb: str, name: str = "", **rest: Any) -> int:
    with pytest.raises(ApiRefusal) as caught:
        calls.call(verb, TRAINJOBS, name, **rest)
    return caught.value.status


def test_the_official_client_reads_and_writes_typed_objects(
    api: ClusterApi, tmp_path: Path
) -> None:
    file = api.write_kubeconfig(tmp_path / "kubeconfig")
    connected = config.new_client_from_config(str(file))
    core = client.CoreV1Api(connected)
    body = client.V1Secret(metadata=client.V1ObjectMeta(name="s"), data={"a": "Yg=="})
    made = core.create_namespaced_secret("safescale", body)
    assert made.metadata.uid
    assert core.list_namespaced_secret("safescale").items[0].data == {"a": "Yg=="}
    asked = client.V1SelfSubjectAccessReview(
        spec=client.V1SelfSubjectAccessReviewSpec(
            resource_attributes=client.V1ResourceAttributes(
                verb="get", resource="pods", subresource="log", namespace="safescale"
            )
        )
    )
    reviews = client.AuthorizationV1Api(connected)
    assert reviews.create_self_subject_access_review(asked).status.allowed
    api.forbid("get", "pods/log")
    assert not reviews.create_self_subject_access_review(asked).status.allowed
    connected.rest_client.pool_manager.clear()


def test_a_name_is_given_once_and_a_stale_write_is_refused(
    api: ClusterApi, calls: Api
) -> None:
    made = calls.call("create", TRAINJOBS, body={"metadata": {"name": "a"}})
    assert status(calls, "create", body={"metadata": {"name": "a"}}) == 409
    version = made["metadata"]["resourceVersion"]
    api.patch("trainjobs", "a", {"metadata": {"labels": {"k": "v"}}})
    stale = {"metadata": {"resourceVersion": version, "labels": {"k": "w"}}}
    assert status(calls, "patch", "a", body=stale) == 409
    options = {"preconditions": {"uid": "another"}}
    assert status(calls, "delete", "a", body=options) == 409
    assert status(calls, "get", "b") == 404


def test_an_object_goes_when_its_last_owner_goes(api: ClusterApi) -> None:
    pods = [api.add("pods", name) for name in ("p", "q")]
    api.add("trainjobs", "a", owners=[owner(pod) for pod in pods])
    api.delete("pods", "p")
    assert api.get("trainjobs", "a")
    api.delete("pods", "q")
    assert not api.list("trainjobs")


def test_an_object_of_an_owner_that_is_gone_is_collected_at_once(
    api: ClusterApi,
) -> None:
    pod = api.add("pods", "p")
    api.delete("pods", "p")
    api.add("trainjobs", "a", owners=[owner(pod)])
    assert not api.list("trainjobs")


def test_deletion_waits_for_finalizers_and_in_the_foreground_for_dependents(
    api: ClusterApi, calls: Api
) -> None:
    job = api.add("trainjobs", "a")
    api.add("pods", "p", owners=[owner(job, blockOwnerDeletion=True)])
    api.patch("pods", "p", {"metadata": {"finalizers": ["x/y"]}})
    calls.call("delete", TRAINJOBS, "a", body={"propagationPolicy": "Foreground"})
    assert api.get("trainjobs", "a")["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert "deletionTimestamp" in api.get("pods", "p")["metadata"]
    api.patch("pods", "p", {"metadata": {"finalizers": None}})
    assert not api.list("trainjobs")
    assert not api.list("pods")


def test_orphans_stay(api: ClusterApi, calls: Api) -> None:
    api.add("pods", "p", owners=[owner(api.add("trainjobs", "a"))])
    calls.call("delete", TRAINJOBS, "a", body={"propagationPolicy": "Orphan"})
    assert not api.get("pods", "p")["metadata"]["ownerReferences"]


def test_a_watch_begins_after_its_version_and_too_old_a_one_is_gone(
    api: ClusterApi, calls: Api
) -> None:
    api.add("trainjobs", "before")
    version = calls.call("list", TRAINJOBS)["metadata"]["resourceVersion"]
    api.add("trainjobs", "after")
    query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": 1}
    lines = list(calls.lines("watch", TRAINJOBS, "", "", query))
    assert len(lines) == 1
    assert b'"after"' in lines[0]
    api.compact()
    with pytest.raises(ApiRefusal) as caught:
        list(calls.lines("watch", TRAINJOBS, "", "", query))
    assert caught.value.status == 410


def test_an_open_watch_ends_with_an_error_when_its_version_is_forgotten(
    api: ClusterApi, calls: Api
) -> None:
    version = calls.call("list", TRAINJOBS)["metadata"]["resourceVersion"]
    api.add("trainjobs", "a")
    query = {"watch": "true", "timeoutSeconds": 1800, "resourceVersion": version}
    lines = calls.lines("watch", TRAINJOBS, "", "", query)
    assert b'"a"' in next(lines)  # so that it is open
    api.compact()
    (*_, last) = lines
    assert b'"ERROR"' in last
    assert b"410" in last


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("k=a", ["one"]),
        ("k!=a", ["two"]),
        ("k in (a, b)", ["one", "two"]),
        ("k notin (a)", ["two"]),
        ("k", ["one", "two"]),
        ("!k", []),
        ("k=a,k=b", []),
    ],
)
def test_labels_select(
    api: ClusterApi, calls: Api, selector: str, names: list[str]
) -> None:
    for name, value in (("one", "a"), ("two", "b")):
        api.add("pods", name, labels={"k": value})
    listed = calls.call("list", PODS, query={"labelSelector": selector})
    assert [item["metadata"]["name"] for item in listed["items"]] == names


def test_a_log_is_read_from_a_second_on_and_breaks_in_mid_line(
    api: ClusterApi, calls: Api
) -> None:
    api.add("pods", "p", status={"phase": "Running"})
    log = api.log("p")
    for second in range(3):
        log.write(f"line {second}", at=second * 10**9 + 5)
    log.close()
    query = {"timestamps": "true", "sinceTime": "1970-01-01T00:00:01+00:00"}
    lines = list(calls.lines("get", PODS, "p", "log", query))
    assert lines == [
        b"1970-01-01T00:00:01.000000005Z line 1",
        b"1970-01-01T00:00:02.000000005Z line 2",
    ]
    api.cut_logs(1)
    got: list[bytes] = []
    broken = calls.lines("get", PODS, "p", "log", {**query, "follow": "true"})
    with pytest.raises(Away):
        got.extend(iter_into(got, broken))
    assert got == lines[:1]


def iter_into(got: list[bytes], lines: Iterator[bytes]) -> Iterator[bytes]:
    """Keeps each line as it comes, so that a break does not lose the earlier."""
    for line in lines:
        got.append(line)
        yield from ()


def test_what_is_not_served_or_not_there_is_404(api: ClusterApi, calls: Api) -> None:
    api.forget("trainjobs")
    assert status(calls, "list") == 404
    elsewhere = Api(calls.client, "elsewhere", QUICK)
    with pytest.raises(ApiRefusal, match='namespaces "elsewhere" not found'):
        elsewhere.call("create", PODS, body={"metadata": {"name": "p"}})


def test_a_pod_finds_its_api_namespace_and_account_by_itself(tmp_path: Path) -> None:
    own, other = (certificate(tmp_path, name) for name in ("own", "other"))
    with ClusterApi(tls=own) as api:
        host, port = api.url.removeprefix("https://").split(":")
        environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
        mounted = account(tmp_path / "own", api.token, own[0].read_bytes())
        with Api.connect(environ, QUICK, account=mounted) as connected:
            assert connected.namespace == "safescale"
            assert connected.call("list", PODS)["items"] == []
        claims = b'{"sub":"system:serviceaccount:safescale:safescale-pipeline"}'
        body = base64.urlsafe_b64encode(claims).decode().rstrip("=")
        mounted = account(tmp_path / "old", f"h.{body}.s", own[0].read_bytes())
        with Api.connect(environ, QUICK, account=mounted) as connected:
            named = (
                r"does not know Service account safescale/safescale-pipeline \(401\)"
            )
            with pytest.raises(Denied, match=named):
                connected.call("list", PODS)
        mounted = account(tmp_path / "wrong", api.token, other[0].read_bytes())
        wrong = Api.connect(environ, QUICK, account=mounted)
        with wrong, pytest.raises(ClusterInputError, match="cannot be verified"):
            wrong.call("list", PODS)


def test_a_right_that_was_there_may_be_refused_for_a_while(
    api: ClusterApi, tmp_path: Path
) -> None:
    file, said = api.write_kubeconfig(tmp_path / "kubeconfig"), []
    environ = {"KUBECONFIG": str(file)}
    with Api.connect(environ, QUICK, say=said.append) as calls:
        calls.call("list", PODS)
        api.answers.extend([401, 401])
        assert calls.call("list", PODS)["items"] == []
        assert len(said) == 1
    with Api.connect(environ, replace(QUICK, denied=0.3), say=said.append) as calls:
        calls.call("list", PODS)
        api.forbid("list", "pods")
        with pytest.raises(Denied, match="may not list pods"):
            calls.call("list", PODS)
        api.forbid("get", "pods")
        with pytest.raises(Denied, match="may not get pods"):
            calls.call("get", PODS, "p")


def test_waiting_is_counted_on_the_clock_that_is_given(
    api: ClusterApi, tmp_path: Path
) -> None:
    file = api.write_kubeconfig(tmp_path / "kubeconfig")
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    with Api.connect({"KUBECONFIG": str(file)}) as real:
        retry = RetryPolicy(total=60, first=1, longest=15, connect=0.2)
        calls = Api(
            real.client,
            "safescale",
            Timeouts(retry),
            say=lambda _: None,
            clock=lambda: now[0],
            sleep=sleep,
        )
        api.stop()
        with pytest.raises(OutOfReach, match="has not answered for 60 s"):
            calls.call("list", PODS)
        assert slept == [1, 2, 4, 8, 15, 15, 15]
        api.start()


@pytest.mark.parametrize("answer", [b"{}", b"[]", b"null", b'"x"', b'{"kind": "x"}'])
def test_what_is_no_list_is_no_empty_list(answer: bytes, tmp_path: Path) -> None:
    with answering(answer, tmp_path) as calls, pytest.raises(OutOfReach):
        calls.call("list", PODS)


def test_an_empty_list_may_be_written_as_null(tmp_path: Path) -> None:
    with answering(b'{"items": null}', tmp_path) as calls:
        assert calls.call("list", PODS)["items"] == []


@contextmanager
def answering(body: bytes, tmp_path: Path) -> Iterator[Api]:
    """Gives calls to a server with one answer to everything."""

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server, ClusterApi() as api:
        Thread(target=server.serve_forever, daemon=True).start()
        file = api.write_kubeconfig(tmp_path / "kubeconfig")
        address = f"http://127.0.0.1:{server.server_port}"
        file.write_text(file.read_text("utf-8").replace(api.url, address), "utf-8")
        timeouts = replace(QUICK, retry=replace(QUICK.retry, total=0.0))
        yield Api.connect({"KUBECONFIG": str(file)}, timeouts, say=lambda _: None)
        server.shutdown()
