"""KFP's tasks in containers: from a task of the compiled pipeline to a box.

KFP resolves a task's inputs, cache and command as for every runner and then asks
a task handler to run the command. Ours is put in the place of its own; what it
needs beyond the command it takes from the compiled pipeline, as Kubernetes does:
image, limits and secrets. A task sees its own inputs, read-only, and its own
folder. Only a task with a secret gets keys, and only such a one gets a network.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pipelines.containers import Box, Containers
from pipelines.quantities import quantity
from pipelines.watched import Task, Watch
from safescale_ammt.errors import ConfigError, SafescaleError

_PARAMETER = re.compile(r"\{\{\$\.inputs\.parameters\['(?:pipelinechannel--)?(\w+)'\]")
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


@dataclass(frozen=True)
class Limit:
    """A limit as it was given, and the pipeline's parameter that holds it."""

    text: str
    parameter: str

    @property
    def value(self) -> float:
        """CPUs or bytes."""
        return quantity(self.text, self.parameter)


class ContainerRunner:
    """Runs a pipeline's tasks in containers.

    Args:
        containers: runs the boxes.
        platform: the second document of the compiled pipeline.
        run: the run's id.
        environ: stands for the secrets: place and keys of the store.
        watch: knows the task that runs now.
    """

    def __init__(
        self,
        containers: Containers,
        platform: Mapping[str, Any],
        run: str,
        environ: Mapping[str, str],
        watch: Watch,
    ) -> None:
        self._containers = containers
        self._executors = platform["platforms"]["kubernetes"]["deploymentSpec"][
            "executors"
        ]
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
        asked = json.loads(command[list(command).index("--executor_input") + 1])
        folder = Path(asked["outputs"]["outputFile"]).parent
        _shared_with_group(folder)
        memory = _limit(task, "memory_limit", asked["inputs"]["parameterValues"])
        cpus = _limit(task, "cpu_limit", asked["inputs"]["parameterValues"])
        environ = {
            # More threads than CPUs would wait for each other.
            "OMP_NUM_THREADS": str(max(1, int(cpus.value))),
            **values,
            **self._secrets(task),
        }
        box = Box(
            run=self._run,
            stage=task.stage,
            image=image,
            command=tuple(command),
            memory=int(memory.value),
            cpus=cpus.value,
            environ=environ,
            inputs={**_inputs(asked), **_certificates(environ)},
            folder=folder,
            network=network_of(environ),
        )
        ended = self._containers.run(box, task.asked)
        task.code = ended.code
        if ended.out_of_memory and ended.code:
            raise SafescaleError(
                f"{task.stage} was killed: it needed more memory than its limit of "
                f"{memory.text}; --param {memory.parameter}=... gives it more, and "
                "finished stages are kept."
            )
        return Status.SUCCESS if ended.code == 0 else Status.FAILURE

    def _secrets(self, task: Task) -> dict[str, str]:
        """Returns the variables of a task's secrets that the environment holds."""
        names: set[str] = set()
        for secret in self._executors.get(task.executor, {}).get("secretAsEnv", ()):
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
    if any(map(_is_loopback, hosts)):
        return "host"
    return "bridge" if hosts or "AWS_ACCESS_KEY_ID" in environ else "none"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _limit(task: Task, field: str, values: Mapping[str, Any]) -> Limit:
    """Returns a limit of the task, with the parameter that it comes from."""
    spelled = str(getattr(task.resources, f"resource_{field}"))
    found = _PARAMETER.match(spelled)
    if found is None:
        return Limit(spelled, field)
    value = values.get(f"pipelinechannel--{found[1]}", values.get(found[1]))
    return Limit(str(value), found[1])


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


def _shared_with_group(folder: Path) -> None:
    """Makes a folder whose files belong to the caller's group, whoever writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(folder.stat().st_mode | 0o2070)
