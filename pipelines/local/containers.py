"""One container's life: created, started, heard to its end, removed.

KFP's own runner lets the engine remove a container as soon as it ends and takes
one that is gone for one that went well: exit codes get lost. Here the container
stays until its exit code and its state have been read, whatever happens.

Every container is as small as a restricted pod: user 10001 in group 0, read-only
root, no capabilities, no new privileges, the engine's seccomp profile, and limits
on memory, processes, CPU and log. It sees the paths that it is given, no others.
"""

from __future__ import annotations

import codecs
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.local.container_engine import PLACE, RUN, STAGE, place
from safescale_ammt.errors import SafescaleError

USER = "10001:0"
KILLED = 137
"""Exit code of what SIGKILL ended."""
GRACE = 20
"""Seconds between SIGTERM and SIGKILL; less than the run's own (`parent.GRACE`)."""
_PIDS = 512  # torch starts a few dozen threads; a fork bomb more
_SCRATCH = "rw,nosuid,nodev,noexec,mode=1777,size=256m"  # counts as memory
_LOG = {"max-size": "16m", "max-file": "2"}
_TICK = 0.1  # seconds until a request to stop is noticed
_OUT_OF_MEMORY = 110
"""Added by process 1 to the exit codes 1 and 137 where the kernel counts a kill."""
_ENTRY = f"""\
umask 0002
"$@" & main=$!
trap 'stopped=1; kill -TERM -1' TERM
wait $main; code=$?
[ -z "$stopped" ] || while kill -0 -1 2>/dev/null; do wait; sleep 0.1; done
case $code in
1|{KILLED})
    grep -qs '^oom_kill [1-9]' /sys/fs/cgroup/memory.events \\
        /sys/fs/cgroup/memory/memory.oom_control &&
        code=$((code + {_OUT_OF_MEMORY})) ;;
esac
exit $code
"""
"""Process 1. It gives SIGTERM to all others (a shell in between would die of it and
take the stage along) and waits for them; files are writable by their group.

It reads the kernel's own counter of kills for memory (cgroup v2, v1): containerd may
lose the event that dockerd's `OOMKilled` stands on (its issue 8893), and podman says
nothing of a process below process 1."""
_RESTRICTED: Mapping[str, Any] = {
    "entrypoint": ["/bin/sh", "-c", _ENTRY],
    "user": USER,
    "read_only": True,
    "tmpfs": {"/tmp": _SCRATCH},  # noqa: S108
    "cap_drop": ["ALL"],
    "pids_limit": _PIDS,
}
"""What no stage changes: where it may write, and as whom it runs."""


@dataclass(frozen=True)
class Box:
    """What a container is, and what it may.

    Attributes:
        run: the run that it belongs to.
        stage: what it does there, and what errors call it.
        image: the image, best by its id.
        command: what it runs.
        memory: bytes, swap included.
        cpus: CPUs; more than there are count as all.
        environ: its environment.
        inputs: paths that it may read: path inside -> path outside.
        folder: the one folder that it may write to.
        kept: another one, for what outlives the container; None without.
        network: `none`, `bridge` or `host`.
    """

    run: str
    stage: str
    image: str
    command: tuple[str, ...]
    memory: int
    cpus: float
    environ: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[Path, Path] = field(default_factory=dict)
    folder: Path | None = None
    kept: Path | None = None
    network: str = "none"


@dataclass(frozen=True)
class ContainerExit:
    """How a container ended: its exit code, and whether memory ran out in it."""

    code: int
    out_of_memory: bool


class Containers:
    """Runs boxes on an engine; once closed, it starts none and none is left.

    Args:
        client: the engine.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self._lock = threading.Lock()
        self._living: dict[str, Any] = {}
        self._closed = False
        info = client.info()
        # An engine refuses a container that may take more CPUs than there are.
        self._cpus = float(info["NCPU"])
        # A file of the user's is not relabelled to be read by a container.
        labelled = any("selinux" in o for o in info.get("SecurityOptions") or ())
        self._security = ["no-new-privileges", *["label=disable"] * labelled]

    def run(self, box: Box, stop: threading.Event) -> ContainerExit:
        """Runs a container to its end; its output goes to standard output.

        Args:
            box: what to run.
            stop: once set, the container is stopped, with `GRACE`.

        Raises:
            SafescaleError: the engine could not run it, lost it or went away.
        """
        with self._container(box) as container:
            container.start()
            listener = _Listener(container)
            listener.start()
            while listener.is_alive() and not stop.is_set():
                listener.join(_TICK)
            if listener.is_alive():
                container.stop(timeout=GRACE)
            # Read only now: an exit code before the end is 0.
            listener.join()
            container.reload()
            state = container.attrs["State"]
            code, out_of_memory = int(state["ExitCode"]), bool(state["OOMKilled"])
            if code - _OUT_OF_MEMORY in {1, KILLED}:
                return ContainerExit(code - _OUT_OF_MEMORY, out_of_memory=True)
            return ContainerExit(code, out_of_memory)

    def close(self) -> None:
        """Kills and removes what runs; safe to call from another thread."""
        with self._lock:
            self._closed = True
            for container in list(self._living.values()):
                _remove(container)

    @contextmanager
    def _container(self, box: Box) -> Iterator[Any]:
        from docker.errors import APIError, ImageNotFound, NotFound

        stage = box.stage
        try:
            # Created under the lock: none comes into being behind the back of `close`.
            with self._lock:
                if self._closed:
                    raise SafescaleError(f"{stage} was not started: the run is over.")
                container = self._create(box)
                self._living[container.id] = container
            try:
                yield container
            finally:
                _remove(container)
                del self._living[container.id]
        except APIError as error:
            why = " ".join(str(error.explanation or error).split()).rstrip(".")
            sentence = f"The container engine could not run {stage}: {why}."
            if isinstance(error, NotFound) and not isinstance(error, ImageNotFound):
                sentence = (
                    f"{stage}'s container was removed by somebody else while it ran."
                )
            raise SafescaleError(sentence) from None
        except OSError:  # what `requests` raises is one
            raise SafescaleError(
                f"The container engine went away while {stage} ran; start it and run "
                "again to go on from the last finished stage."
            ) from None

    def _create(self, box: Box) -> Any:
        from docker.types import LogConfig, Mount

        mounts = [
            Mount(str(inside), str(outside), type="bind", read_only=True)
            for inside, outside in box.inputs.items()
        ]
        mounts += [
            Mount(str(folder), str(folder), type="bind")
            for folder in (box.folder, box.kept)
            if folder is not None
        ]
        return self.client.containers.create(
            box.image,
            # Not `init=True`: tini would give SIGTERM to KFP's shell alone, which dies
            # of it and takes the stage along.
            ["safescale", *box.command],
            name=f"safescale-{box.run}-{box.stage}",
            labels={RUN: box.run, STAGE: box.stage, PLACE: place()},
            environment={"HOME": "/tmp", **box.environ},  # noqa: S108  its tmpfs
            mounts=mounts,
            network_mode=box.network,
            # What it writes belongs to the caller's group too, by the set-gid
            # bit of its folder; without root, group 0 is the caller's already.
            group_add=[str(os.getgid())],
            security_opt=self._security,
            mem_limit=box.memory,
            # Left out, an engine grants as much swap again.
            memswap_limit=box.memory,
            nano_cpus=int(min(box.cpus, self._cpus) * 1e9),
            log_config=LogConfig(type=LogConfig.types.JSON, config=_LOG),
            **_RESTRICTED,
        )


class _Listener(threading.Thread):
    """Prints what a container says until it has ended."""

    def __init__(self, container: Any) -> None:
        super().__init__(daemon=True)
        self._container = container

    def run(self) -> None:
        """Listens; a connection that breaks off does not end the container."""
        from docker.errors import APIError
        from urllib3.exceptions import HTTPError

        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        heard = 0
        # dockerd may end a followed log before its last lines, on a busy machine: what
        # is left is read once the container has ended.
        for follow in (True, False):
            place = 0
            # What `requests` raises is an OSError.
            with (
                suppress(APIError, HTTPError, OSError),
                closing(self._container.logs(stream=True, follow=follow)) as chunks,
            ):
                for chunk in chunks:  # one may end within a character
                    place += len(chunk)
                    if (fresh := place - heard) > 0:
                        sys.stdout.write(decode(chunk[-fresh:]))
                        sys.stdout.flush()
                        heard = place
            with suppress(APIError, HTTPError, OSError):
                self._container.wait(timeout=None)


def _remove(container: Any) -> None:
    from docker.errors import APIError

    # Whoever was faster, or an engine that is gone, leaves nothing to be done here.
    with suppress(APIError, OSError):
        container.remove(force=True, v=True)
