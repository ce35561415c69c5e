"""The container engine that builds and keeps the images, through its command line.

Either a Docker command that can build with BuildKit and whose daemon answers (Debian
has one; the official one needs its buildx plugin), or podman. BuildKit builds where the
images are needed; podman's would have to be carried over to Docker, so it is taken only
where no Docker answers, or where DOCKER_HOST is podman's own socket.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safescale_ammt.errors import InputError, SafescaleError

CONTAINERS_CONF = Path(__file__).with_name("containers.conf")
"""Settings that podman needs on Debian 12; the user's own file wins."""
_ANSWER = 20.0
"""Seconds that a daemon may take to say that it is there."""


@dataclass(frozen=True)
class Engine:
    """One engine.

    Attributes:
        command: the executable, with options that every call takes.
        kind: `docker` or `podman`.
    """

    command: tuple[str, ...]
    kind: str

    def run(self, *arguments: str, quiet: bool = False) -> None:
        """Runs a command whose output is shown.

        Raises:
            SafescaleError: it failed.
        """
        sink = subprocess.DEVNULL if quiet else None
        result = subprocess.run(
            [*self.command, *arguments], env=_environ(), stdout=sink, check=False
        )
        if result.returncode:
            what = " ".join([Path(self.command[0]).name, *arguments[:2]])
            raise SafescaleError(
                f"`{what} ...` failed with exit code {result.returncode}; its last "
                "lines say why."
            )

    def output(self, *arguments: str, timeout: float | None = None) -> str | None:
        """Returns what a command prints; None where it fails or takes too long."""
        try:
            result = subprocess.run(
                [*self.command, *arguments],
                env=_environ(),
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return result.stdout.strip() if result.returncode == 0 else None

    def inspect(self, reference: str) -> dict[str, Any] | None:
        """Returns what the engine knows of an image; None where there is none."""
        text = self.output("image", "inspect", reference)
        return dict(json.loads(text)[0]) if text else None


def find_engine() -> Engine:
    """Returns the engine that stages will run in, with a command that can build for it.

    Raises:
        InputError: none answers, or one without a command that can build for it.
    """
    dockers = [Engine((path,), "docker") for path in _commands("docker")]
    answering = [d for d in dockers if d.output("info", timeout=_ANSWER) is not None]
    if answering and not _is_podman(answering[0]):
        for engine in answering:
            if engine.output("build", "--help", timeout=_ANSWER):
                return engine
        raise InputError(
            "Docker answers, but no docker command here can build with BuildKit; "
            "install its buildx plugin (Debian: docker-buildx, or docker.io before 13)."
        )
    for path in _commands("podman"):
        return Engine((path,), "podman")
    raise InputError(
        "No container engine answers that can build images (docker with BuildKit, or "
        "podman); `make engines` installs and starts one as root on Debian."
    )


def _commands(name: str) -> Iterator[str]:
    # Every one on the PATH: the first may lack buildx, and the next one have it.
    for folder in os.get_exec_path():
        if found := shutil.which(name, path=folder):
            yield found


def _is_podman(docker: Engine) -> bool:
    """Says whether the daemon is podman's: that one knows no BuildKit."""
    names = "{{range .Server.Components}}{{.Name}} {{end}}"
    return "Podman" in (docker.output("version", f"--format={names}") or "")


def _environ() -> dict[str, str]:
    """Returns the environment of every call; the user's own variables win."""
    # BuildKit by name: Docker's old builder knows no mounts.
    own = {"DOCKER_BUILDKIT": "1", "CONTAINERS_CONF": str(CONTAINERS_CONF)}
    return {**own, **os.environ}


def layer_sizes(engine: Engine, reference: str) -> dict[str, int]:
    """Returns the bytes of each layer of an image, unpacked, by the layer's digest.

    Engines tell digests and sizes apart, both in the order of the layers; only the
    history knows of steps that made no layer. So empty ones are left out of both.
    """
    image = engine.inspect(reference)
    sizes = _sizes_of_steps(engine, reference)
    if image is None or not sizes:
        raise SafescaleError(f"{reference} is not among the engine's images.")
    layers = [d for d in image["RootFS"]["Layers"] if d != _EMPTY]
    filled = [size for size in reversed(sizes) if size]
    if len(layers) != len(filled):
        raise SafescaleError(
            f"{reference} has {len(layers)} layers but a history of {len(filled)}: "
            "its size cannot be told."
        )
    return dict(zip(layers, filled, strict=True))


_EMPTY = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
"""Digest of a layer that holds nothing: 1024 zero bytes, an empty tar file."""


def _sizes_of_steps(engine: Engine, reference: str) -> list[int]:
    """Returns the bytes that each step of a build added, the last step first."""
    if engine.kind == "podman":  # writes sizes for people unless it writes JSON
        text = engine.output("history", "--format=json", reference)
        return [int(step["size"]) for step in json.loads(text or "[]")]
    text = engine.output("history", "--human=false", "--format={{.Size}}", reference)
    return [int(line) for line in (text or "").split()]
