"""The embedded store: nobody without its keys reads, writes or lists anything."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from children import Child
from patience import PATIENCE, eventually

from safescale_ammt.errors import SafescaleError
from safescale_ammt.retry import RetryPolicy
from safescale_ammt.store.embedded.certificate import closed_doors, make_certificate
from safescale_ammt.store.embedded.seaweedfs import (
    SERVICES,
    command,
    credentials,
    free_ports,
)
from safescale_ammt.store.embedded.server import EmbeddedStore
from safescale_ammt.store.s3 import S3Store
from safescale_ammt.store.uri import open_store

KEY = "runs/1/evaluate_safety/verdict/evidence.parquet"
BYTES = b"a sealed row"
METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE")
PATHS = (
    "/",
    "/buckets/",
    f"/buckets/safescale/{KEY}",
    f"/safescale/{KEY}",
    "/dir/assign",
    "/dir/status",
    "/vol/status",
    "/col/delete?collection=safescale",
    "/status",
    "/metrics",
    "/1,01637037d6",
    "/?recursive=true",
)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""How a client of gRPC begins: the preface of HTTP/2 and empty settings (RFC 9113)."""
SETTINGS = 4  # the type of the frame that a server answers with


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[EmbeddedStore]:
    with EmbeddedStore(tmp_path_factory.mktemp("closed") / "state") as server:
        open_store(server.uri, environ=server.environ).put(KEY, BYTES)
        yield server


def _weed(server: EmbeddedStore) -> psutil.Process:
    data = f"-dir={server.state_dir / 'data'}"
    return next(p for p in psutil.process_iter() if data in _words(p) and _is_weed(p))


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
        return []


def _is_weed(process: psutil.Process) -> bool:
    return "mini" in _words(process)[:3]


def _listening(server: EmbeddedStore) -> list[int]:
    """Asks the kernel, not our list of ports, where the process listens."""
    sockets = _weed(server).net_connections("inet")
    assert {s.laddr.ip for s in sockets if s.status == "LISTEN"} == {"127.0.0.1"}
    return sorted({s.laddr.port for s in sockets if s.status == "LISTEN"})


def _answer(
    port: int, method: str, path: str, context: ssl.SSLContext | None
) -> tuple[int, bytes]:
    """Returns what a port answers to a request without keys; (0, b"") = nothing."""
    if context is None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    else:
        client = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=PATIENCE, context=context
        )
    try:
        client.request(method, path, body=b"overwritten" if method[0] == "P" else None)
        response = client.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        client.close()


def _stranger(file: Path | None) -> ssl.SSLContext:
    """A client that trusts everybody, with a certificate of its own or with none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if file is not None:
        context.load_cert_chain(file)
    return context


def _lets_in(port: int, context: ssl.SSLContext | None) -> list[tuple[str, str, int]]:
    """Returns the requests that a port did not refuse."""
    found = []
    for method in METHODS:
        for path in PATHS:
            status, body = _answer(port, method, path, context)
            # What a TLS port says to who does not speak it, before any request is read.
            unread = status == 400 and b"HTTP request to an HTTPS server" in body
            # The answer to HEAD has no body, and the handler would not say 400.
            unread = unread or (status == 400 and method == "HEAD")
            if not (unread or status in {0, 401, 403, 405}):
                found.append((method, path, status))
    return found


def test_no_port_takes_a_request_without_keys(server, tmp_path):
    make_certificate(tmp_path / "of-a-stranger.pem")
    ports = _listening(server)
    assert len(ports) == 2 * len(SERVICES)
    s3 = int(server.endpoint.rpartition(":")[2])
    contexts = (None, _stranger(None), _stranger(tmp_path / "of-a-stranger.pem"))
    found = {
        (port, number): lets_in
        for port in ports
        for number, context in enumerate(contexts)
        if (lets_in := _lets_in(port, context))
    }
    # The S3 port says that it is up, and knows a few paths that hold nothing.
    allowed = {("GET", "/status", 200), ("HEAD", "/status", 200)}
    assert set(found.pop((s3, 0), [])) <= allowed
    assert found == {}
    assert open_store(server.uri, environ=server.environ).get(KEY) == BYTES


def test_the_keys_open_the_same_ports(server):
    """Else the test above would pass on ports that are only broken."""
    context = _stranger(server.state_dir / "inner.pem")
    # Its own port of the filer is the third service, see `SERVICES`.
    filer = server._state["ports"][SERVICES.index("filer")]
    status, body = _answer(filer, "GET", f"/buckets/safescale/{KEY}", context)
    assert (status, body) == (200, BYTES)


def _speaks_grpc(port: int, context: ssl.SSLContext | None) -> bool:
    """Says whether a port greets a client of gRPC."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as plain:
        try:
            if context is None:
                plain.sendall(PREFACE)
                greeting = plain.recv(9)
            else:
                context.set_alpn_protocols(["h2"])
                with context.wrap_socket(plain) as closed:
                    closed.sendall(PREFACE)
                    greeting = closed.recv(9)
        except OSError:
            return False
    return len(greeting) >= 4 and greeting[3] == SETTINGS


def test_no_port_speaks_grpc_without_keys(server, tmp_path):
    make_certificate(tmp_path / "of-a-stranger.pem")
    stranger = tmp_path / "of-a-stranger.pem"
    ports = _listening(server)
    for context in (None, _stranger(None), _stranger(stranger)):
        assert [port for port in ports if _speaks_grpc(port, context)] == []
    ours = _stranger(server.state_dir / "inner.pem")
    grpc = [port + 10_000 for port in server._state["ports"]]
    assert all(_speaks_grpc(port, ours) for port in grpc)


def _shell(server: EmbeddedStore, environ: dict[str, str], lines: str) -> str:
    """Calls SeaweedFS' own client; it waits for a master that does not let it in."""
    master, _, filer = server._state["ports"][:3]
    with Child(
        [
            *(str(Path(sysconfig.get_path("scripts")) / "weed"), "shell"),
            *(f"-master=127.0.0.1:{master}", f"-filer=127.0.0.1:{filer}"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environ,
        text=True,
    ) as client:
        try:
            return str(client.communicate(lines, timeout=6)[0])
        except subprocess.TimeoutExpired:
            client.kill()
            return str(client.communicate()[0])


def test_seaweedfs_own_client_lists_and_deletes_nothing_without_keys(server):
    listing = "fs.ls /buckets/safescale/runs/1/evaluate_safety/verdict\nexit\n"
    keys = closed_doors(server.state_dir / "inner.pem")
    assert "evidence.parquet" in _shell(server, keys, listing)
    deleting = f"fs.rm -rf /buckets/safescale/runs\n{listing}"
    assert "evidence.parquet" not in _shell(server, {}, deleting)
    assert open_store(server.uri, environ=server.environ).get(KEY) == BYTES


def test_its_sockets_and_files_are_its_owners_alone(server):
    paths = {Path(s.laddr) for s in _weed(server).net_connections("unix") if s.laddr}
    assert any(path.parent == Path("/tmp") for path in paths)
    folder = server.state_dir
    for path in (*paths, folder, folder / "data", folder / "inner.pem"):
        assert path.stat().st_mode & 0o077 == 0, path
        assert path.stat().st_uid == os.getuid()


def test_no_key_stands_in_a_command_line_or_a_log(server):
    secret = (server.state_dir / "inner.pem").read_text().splitlines()[1]
    said = [" ".join(_words(p)) for p in psutil.process_iter()]
    said.append((server.state_dir / "server.log").read_text())
    said.append((server.state_dir / "endpoint.json").read_text())
    for key in (secret, server.environ["AWS_SECRET_ACCESS_KEY"]):
        assert not any(key in text for text in said)


def test_it_reports_nothing_and_talks_to_nobody_outside(server, tmp_path):
    announced = "Reporting anonymous cluster statistics"
    assert announced not in (server.state_dir / "server.log").read_text()
    peers = _weed(server).net_connections("inet")
    assert {s.raddr.ip for s in peers if s.raddr} <= {"127.0.0.1"}
    # What it would say if it did: the same command, told to report to nobody.
    words = _as_before(tmp_path, ["-master.telemetry=false"])
    nowhere = "-master.telemetry.url=http://127.0.0.1:1/"
    with (tmp_path / "log").open("wb") as log:
        open_ = Child([*words, nowhere], env={}, stdout=log, stderr=log)
        with open_:
            eventually(lambda: announced in (tmp_path / "log").read_text())
            open_.kill()


def _as_before(folder: Path, left_out: list[str]) -> list[str]:
    """The command line of a server, without some of its words."""
    ports = free_ports(len(SERVICES))
    words = command(folder / "data", "safescale", ports)
    assert set(left_out) <= set(words)
    return [word for word in words if word not in left_out]


def test_a_folder_of_an_open_server_is_closed_and_keeps_its_data(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    words = _as_before(folder, [])
    keys = credentials(folder / "credentials.json")
    port = next(w for w in words if w.startswith("-s3.port=")).partition("=")[2]
    endpoint = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    once = RetryPolicy(retries=0, connect=1.0, read=5.0)
    old = S3Store.from_environ(
        "safescale", "", {**keys, **endpoint, "AWS_REGION": "us-east-1"}, once
    )

    def put() -> bool:
        try:
            old.put(KEY, BYTES)
        except SafescaleError:
            return False
        return True

    with Child(words, env=keys, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT):
        eventually(put)
    with EmbeddedStore(folder) as server:
        store = open_store(server.uri, environ=server.environ)
        assert store.get(KEY) == BYTES
        store.put("new", b"1")
        assert folder.stat().st_mode & 0o077 == 0
        assert _lets_in(server._state["ports"][SERVICES.index("filer")], None) == []


@pytest.mark.parametrize("damage", [b"", b"-----BEGIN CERTIFICATE-----\n", None])
def test_a_damaged_certificate_opens_no_port(tmp_path, damage):
    with EmbeddedStore(tmp_path) as server:
        open_store(server.uri, environ=server.environ).put(KEY, BYTES)
    file = tmp_path / "inner.pem"
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)
    with EmbeddedStore(tmp_path, reads_only=True) as server:
        assert open_store(server.uri, environ=server.environ).get(KEY) == BYTES
        ports = [port + 10_000 for port in server._state["ports"]]
        assert not any(_speaks_grpc(port, None) for port in ports)
        assert file.stat().st_mode & 0o077 == 0
