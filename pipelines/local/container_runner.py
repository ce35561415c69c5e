"""KFP's tasks in containers: from a task of the compiled pipeline to a box.

KFP resolves a task's inputs, cache and command as for every runner and then asks
a task handler to run the command. Ours is put in the place of its own; what it
needs beyond the command it takes from the compiled pipeline, as Kubernetes does:
image, limits and secrets. A task sees its own inputs, read-only, and its own
folder. Only a task with a secret gets keys, and only such a one gets a network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pipelines.local.containers import KILLED, Box, Containers, Ended
from pipelines.local.graph import ContainerLimits, Limit
from pipelines.local.tasks import LocalTask, TaskWatch
from safescale_ammt.addresses import is_loopback
from safescale_ammt.errors import ConfigError, SafescaleError

_ELSEWHERE = "training_secret"
"""The parameter of a secret that only a TrainJob on a cluster needs."""
_BESIDE = {
    "AWS_ACCESS_KEY_ID": ("AWS_SESSION_TOKEN",),
    "AWS_ENDPOINT_URL": ("AWS_ENDPOINT_URL_S3",),
    "AWS_REGION": ("AWS_DEFAULT_REGION",),
}
"""Variables that a secret's key has beside it on a person's machine."""
_CERTIFICATES = ("AWS_CA_BUNDLE", "SSL_CERT_FILE")
_URLS = re.compile(r"_URL(_S3)?$")


class ContainerRunner:
    """Runs a pipeline's tasks in containers.

    Args:
        containers: runs the boxes.
        watch: knows the task that runs now.
        settings: executor's label -> what Kubernetes is told of it: its secrets.
        limits: executor's label -> what it may take.
        run: the run's id.
        environ: stands for the secrets: place and keys of the store.
    """

    def __init__(
        self,
        containers: Containers,
        watch: TaskWatch,
        *,
        settings: Mapping[str, Any],
        limits: Mapping[str, ContainerLimits],
        run: str,
        environ: Mapping[str, str],
    ) -> None:
        self._containers = containers
        self._settings = settings
        self._limits = limits
        self._run = run
        self._environ = environ
        self._watch = watch

    def install(self) -> None:
        """Takes the place of KFP's handler of Docker tasks."""
        from kfp.local import docker_task_handler

        runner = self

        class Handler:
            """What KFP makes for a task and then runs once."""

            def __init__(
                self,
                image: str,
                full_command: list[str],
                env_vars: dict[str, str] | None = None,
                **_: Any,
            ) -> None:
                self.parts = (image, full_command, env_vars or {})

            def run(self) -> Any:
                return runner.run(*self.parts)

        docker_task_handler.DockerTaskHandler = Handler

    def run(self, image: str, command: Sequence[str], values: Mapping[str, str]) -> Any:
        """Runs the current task; returns KFP's status.

        Raises:
            SafescaleError: memory ran out, or the engine did not do its part.
        """
        from kfp.local.status import Status

        task = self._watch.task
        box = self._box(task, image, command, values)
        ended = self._containers.run(box, task.asked)
        task.code = ended.code
        # A stage that still says why (2, 3) is believed, whatever died in it.
        if ended.code == KILLED or (ended.out_of_memory and ended.code == 1):
            raise _killed(task.stage, ended, self._limits[task.executor].memory)
        return Status.SUCCESS if ended.code == 0 else Status.FAILURE

    def _box(
        self,
        task: LocalTask,
        image: str,
        command: Sequence[str],
        values: Mapping[str, str],
    ) -> Box:
        asked = json.loads(command[list(command).index("--executor_input") + 1])
        _share_with_group(task.folder)
        limits = self._limits[task.executor]
        # More threads than CPUs would wait for each other.
        threads = str(max(1, int(limits.cpu.value)))
        environ = {"OMP_NUM_THREADS": threads, **values, **self._secrets(task)}
        return Box(
            run=self._run,
            stage=task.stage,
            image=image,
            command=tuple(command),
            memory=int(limits.memory.value),
            cpus=limits.cpu.value,
            environ=environ,
            inputs={**_inputs(asked), **_certificates(environ)},
            folder=task.folder,
            network=network_of(environ),
        )

    def _secrets(self, task: LocalTask) -> dict[str, str]:
        """Returns the variables of a task's secrets that the environment holds."""
        names: set[str] = set()
        for secret in self._settings.get(task.executor, {}).get("secretAsEnv", ()):
            name = secret.get("secretNameParameter", {})
            if not name.get("componentInputParameter", "").endswith(_ELSEWHERE):
                names |= {key["envVar"] for key in secret["keyToEnv"]}
        for name in tuple(names):
            names.update(_BESIDE.get(name, ()))
        if names:
            names.update(_CERTIFICATES)
        return {n: self._environ[n] for n in sorted(names) if self._environ.get(n)}


def network_of(environ: Mapping[str, str]) -> str:
    """Chooses a container's network by what its environment names.

    Returns:
        `none` without keys or addresses; `host` if an address is this machine's
        own loopback, which no other network reaches; `bridge` for all else.
    """
    hosts = {urlsplit(v).hostname or "" for k, v in environ.items() if _URLS.search(k)}
    if any(map(is_loopback, hosts)):
        return "host"
    return "bridge" if hosts or "AWS_ACCESS_KEY_ID" in environ else "none"


def _killed(stage: str, ended: Ended, memory: Limit) -> SafescaleError:
    """Says why a container was killed: dockerd knows of memory, podman does not."""
    how = ":" if ended.out_of_memory else " by somebody, or because"
    more = "the limit stands in the pipeline itself"
    if memory.parameter:
        more = f"--param {memory.parameter}=... gives it more"
    return SafescaleError(
        f"{stage} was killed{how} it needed more memory than its limit of "
        f"{memory.text}; {more}, and finished stages are kept."
    )


def _inputs(asked: Mapping[str, Any]) -> dict[Path, Path]:
    """Lists the paths that a task reads: its artifacts, and raw data on this disk."""
    artifacts = asked["inputs"].get("artifacts", {}).values()
    paths = [Path(a["uri"]) for some in artifacts for a in some["artifacts"]]
    for name, value in asked["inputs"].get("parameterValues", {}).items():
        if isinstance(value, str) and value.startswith("file://"):
            paths.append(Path(unquote(urlsplit(value).path)))
            if not paths[-1].exists():
                raise ConfigError(f"{name} is {value!r}, which is not on this disk.")
    # A link is followed here: its target is not there inside.
    return {path: path.resolve() for path in paths}


def _certificates(environ: Mapping[str, str]) -> dict[Path, Path]:
    files = (Path(environ[n]) for n in _CERTIFICATES if n in environ)
    return {file: file.resolve() for file in files if file.is_file()}


def _share_with_group(folder: Path) -> None:
    """Makes a folder whose files belong to the caller's group, whoever writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(folder.stat().st_mode | 0o2070)
