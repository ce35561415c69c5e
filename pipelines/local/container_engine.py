"""The container engine: dockerd or podman's socket, the images in it, its sweeping.

A run labels its containers with its id and holds a lock for as long as it lives.
The kernel drops a lock with its holder, so that a container whose run has no
lock any more is an orphan; the next run in the same folder removes it. Before it
comes to that, the run's two processes clean up after each other: see `child`.
"""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from pipelines.local.state import HOME
from safescale_ammt.errors import InputError
from safescale_ammt.files.library import library_digest

RUN, PLACE, STAGE = "safescale-ammt.run", "safescale-ammt.place", "safescale-ammt.stage"
"""Labels of a container: its run, whose folder it is, its stage."""
CODE = "safescale-ammt.code"
"""Label of an image: the digest of the library in it."""
_TIMEOUT = 60
"""Seconds that one answer of the engine may take."""


@contextmanager
def engine(timeout: int = _TIMEOUT) -> Iterator[Any]:
    """Gives a client of the engine that `DOCKER_HOST` or the Docker context names.

    Raises:
        InputError: the client library is not installed, or no engine answers.
    """
    try:
        import docker
        from docker.errors import DockerException
    except ImportError:
        raise InputError(
            "--runner docker needs the package `docker`, which is not installed; "
            "`make setup` installs it."
        ) from None
    try:
        client = docker.from_env(timeout=timeout)
    except (DockerException, ValueError):  # ValueError: a port that is no number
        where = os.environ.get("DOCKER_HOST", "the default socket")
        raise InputError(
            f"No container engine answers at {where}; start dockerd, name another "
            "engine's socket in DOCKER_HOST, or take --runner subprocess (on Debian, "
            "`make engines` installs one)."
        ) from None
    try:
        yield client
    finally:
        client.close()


def stage_images(client: Any, references: Iterable[str]) -> dict[str, str]:
    """Returns the id of each stage image, checked to hold this code.

    Args:
        client: the engine.
        references: `safescale-ammt/<stage>:<version>`.

    Raises:
        InputError: an image is missing, or was built from other code.
    """
    from docker.errors import ImageNotFound

    code, ids = library_digest(), {}
    for reference in sorted(set(references)):
        try:
            image = client.images.get(reference)
        except ImageNotFound:
            raise InputError(
                f"Image {reference} is not in the container engine; `make images` "
                "builds all of them, and with SPARK=1 Spark's too."
            ) from None
        if image.labels.get(CODE) != code:
            raise InputError(
                f"Image {reference} was built from other code than this; `make images` "
                "builds it anew."
            )
        ids[reference] = str(image.id)
    return ids


def place() -> str:
    """Names the folder that runs belong to, on this machine."""
    # One engine may serve several of both, and each sweeps its own runs alone.
    return f"{platform.node()}:{HOME.absolute()}"


@contextmanager
def swept(run: str) -> Iterator[None]:
    """Removes orphans, then lets a run use the engine; nothing of it stays.

    Raises:
        InputError: no engine answers.
    """
    folder = HOME.absolute() / "containers"
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*.lock"):
        _lives(folder, left.stem)  # takes away what a killed run left
    file = folder / f"{run}.lock"
    with engine() as client, ExitStack() as stack:
        while True:
            # The kernel drops the lock with this process, however it dies.
            lock = stack.enter_context(file.open("ab"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            # A sweeper may have deleted the file between the two calls: then this lock
            # is of a file that nobody else can find.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock.fileno()), file.stat()):
                    break
        stack.callback(file.unlink, missing_ok=True)
        _remove(client, f"{PLACE}={place()}", unless=lambda r: _lives(folder, r))
        try:
            yield
        finally:
            with suppress(OSError):  # the engine is gone, and the run said so
                remove_run(client, run)


def remove_run(client: Any, run: str) -> None:
    """Kills and removes all containers of a run."""
    _remove(client, f"{RUN}={run}", unless=lambda _: False)


def _remove(client: Any, label: str, unless: Callable[[str], bool]) -> None:
    from docker.errors import APIError

    # Sparse: the client would else ask for each one again, and one may be gone by then.
    labelled = client.containers.list(all=True, filters={"label": label}, sparse=True)
    for container in labelled:
        if unless(container.attrs["Labels"].get(RUN, "")):
            continue
        with suppress(APIError):  # somebody else is removing it
            container.remove(force=True, v=True)


def _lives(folder: Path, run: str) -> bool:
    """Says whether a run still holds its lock; takes the file away if not."""
    file = folder / f"{run}.lock"
    if not run or not file.exists():
        return False
    with file.open("ab") as lock:
        # A file alone proves nothing: kill -9 leaves it behind, and drops the lock.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        file.unlink(missing_ok=True)
        return False
