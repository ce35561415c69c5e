"""Stages in containers: from a task of the compiled pipeline to a box.

KFP resolves a task's inputs, cache and command as for every runner and then asks
for the command to be run. What a container needs beyond the command is taken from
the compiled pipeline, as Kubernetes does: image, limits and secrets. A task sees its
own inputs, read-only, and its own folder. Only a task with a secret gets keys, and
only such a one gets a network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipelines.local.container_engine import engine, stage_images, swept
from pipelines.local.containers import KILLED, Box, Containers
from pipelines.local.kfp_seam import RunTask
from pipelines.local.runner import TaskContext
from pipelines.local.tasks import LocalTask
from pipelines.workload import Workload
from safescale_ammt.addresses import is_loopback
from safescale_ammt.config.kubernetes_names import SPARK_ADDRESS, TRAINING_SECRET
from safescale_ammt.errors import ConfigError, SafescaleError
from safescale_ammt.launch.request import CHECKPOINTS, place_uri
from safescale_ammt.releasing.notice import FILE
from safescale_ammt.spark.address import Address
from safescale_ammt.stage_progress import PROGRESS
from safescale_ammt.store.environment import DATASET_STORE

STAGE = "train_agents"
"""The stage that keeps checkpoints."""
_COMPANIONS = {
    "AWS_ACCESS_KEY_ID": ("AWS_SESSION_TOKEN",),
    "AWS_ENDPOINT_URL": ("AWS_ENDPOINT_URL_S3",),
    "AWS_REGION": ("AWS_DEFAULT_REGION",),
}
"""Variables that a secret's key has beside it on a person's machine."""
_ASKED = (PROGRESS, "PYTHONWARNINGS")
"""Variables by which the run says what its stages are to say."""
_CERTIFICATES = ("AWS_CA_BUNDLE", "SSL_CERT_FILE")
_URLS = re.compile(rf"_URL(_S3)?$|^{SPARK_ADDRESS}$")
"""Names of variables that hold an address: of the store, of the webhook."""


class ContainerRunner:
    """Runs stages in containers of the stage images."""

    name = "docker"
    # A container is no child of this process: a signal to the group does not reach it.
    stops_group = False

    def check(self, workload: Workload, store: str, environ: Mapping[str, str]) -> None:
        """Refuses what a container could not write to, before anything is spent.

        Raises:
            ConfigError: a store that is a folder here, checkpoints or a TrainJob, for
                which training would need keys, or a Spark of the container's own.
        """
        every = workload.training.checkpoint_every
        if every and checkpoint_folder(environ) is None:
            raise ConfigError(
                f"training.checkpoint_every is {every}, but in a container training "
                "has neither keys nor a network to keep a checkpoint; name a folder of "
                f"this machine in {CHECKPOINTS}, set it to 0, or take --runner "
                "subprocess."
            )
        if workload.training.backend == "trainjob":
            raise ConfigError(
                "training.backend is trainjob, but in a container training has neither "
                "keys nor a network to ask a cluster; set it to local or torchrun, or "
                "take --runner subprocess."
            )
        place = environ.get(SPARK_ADDRESS, "")
        if workload.data.engine == "spark" and Address.of(environ).cores:
            raise ConfigError(
                f"{SPARK_ADDRESS} is {place}, but a container has no disk for Spark; "
                "name a server, sc://HOST:15002, or take --runner subprocess."
            )
        read = environ.get(DATASET_STORE, "")
        places = {"The store": store, FILE: environ.get(FILE, ""), DATASET_STORE: read}
        for name, uri in places.items():
            if uri.startswith("file:"):
                does = "reads" if name == DATASET_STORE else "writes to"
                raise ConfigError(
                    f"{name} is {uri}, but a container {does} no folder of this "
                    "machine except its stage's own; name an s3:// place, or take "
                    "--runner subprocess."
                )

    def hold(self, run: str) -> AbstractContextManager[None]:
        """Removes orphans of killed runs, then keeps this run's lock.

        Raises:
            InputError: no engine answers.
        """
        return swept(run)

    @contextmanager
    def tasks(self, context: TaskContext) -> Iterator[RunTask]:
        """Gives the function that runs a task in a container.

        Raises:
            InputError: no engine answers, or an image is missing or of other code.
        """
        with engine() as client:
            executors = context.pipeline.executors.values()
            references = (e["container"]["image"] for e in executors)
            images = stage_images(client, references)
            context.report("images", images=images)
            # KFP's cache key holds the image: another image is another stage.
            context.pipeline.set_images(images)
            containers = Containers(client)
            # SIGKILL ends the client and not the containers: those first.
            context.closing.append(containers.close)

            def run(
                image: str, command: Sequence[str], environ: Mapping[str, str]
            ) -> bool:
                task = context.current()
                box = _box(context, task, image, command, environ)
                exit_ = containers.run(box, task.stop_requested)
                task.code = exit_.code
                # A stage that still says why (2, 3) is believed, whatever died in it.
                if exit_.code == KILLED or (exit_.out_of_memory and exit_.code == 1):
                    # Without the kernel's counter, memory may be the reason too.
                    how = ":" if exit_.out_of_memory else " by somebody, or because"
                    memory = context.limits[task.executor].memory
                    more = "the limit stands in the pipeline itself"
                    if memory.parameter:
                        more = f"--param {memory.parameter}=... gives it more"
                    raise SafescaleError(
                        f"{task.stage} was killed{how} it needed more memory than its "
                        f"limit of {memory.text}; {more}, and finished stages are kept."
                    )
                return exit_.code == 0

            yield run


def _box(
    context: TaskContext,
    task: LocalTask,
    image: str,
    command: Sequence[str],
    environ: Mapping[str, str],
) -> Box:
    """Describes the container of a task.

    Raises:
        ConfigError: raw data that are not on this disk.
    """
    limits = context.limits[task.executor]
    # More threads than CPUs would wait for each other.
    threads = str(max(1, int(limits.cpu.value)))
    asked = {n: context.environ[n] for n in _ASKED if n in context.environ}
    environ = {"OMP_NUM_THREADS": threads, **asked, **environ}
    environ |= _secrets(context, task)
    certificates = [Path(environ[n]) for n in _CERTIFICATES if n in environ]
    # KFP's executor gets its inputs as JSON behind this option, paths filled in.
    call = json.loads(command[list(command).index("--executor_input") + 1])["inputs"]
    paths = [
        Path(artifact["uri"])
        for artifacts in call.get("artifacts", {}).values()
        for artifact in artifacts["artifacts"]
    ]
    for name, value in call.get("parameterValues", {}).items():
        if isinstance(value, str) and value.startswith("file://"):
            paths.append(Path(unquote(urlsplit(value).path)))
            if not paths[-1].exists():
                raise ConfigError(f"{name} is {value!r}, which is not on this disk.")
    paths += [file for file in certificates if file.is_file()]
    kept = checkpoint_folder(context.environ) if task.stage == STAGE else None
    if kept is not None:
        environ[CHECKPOINTS] = kept.as_uri()
    # What a stage writes belongs to the caller's group, whoever runs in the container.
    for folder in (task.folder, *([kept] if kept else [])):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(folder.stat().st_mode | 0o2070)
    return Box(
        run=context.run,
        stage=task.stage,
        image=image,
        command=tuple(command),
        memory=int(limits.memory.value),
        cpus=limits.cpu.value,
        environ=environ,
        # A link is followed here: its target is not there inside.
        inputs={path: path.resolve() for path in paths},
        folder=task.folder,
        kept=kept,
        network=network_of(environ),
    )


def checkpoint_folder(environ: Mapping[str, str]) -> Path | None:
    """Returns the folder of this machine that checkpoints go to, None if it is none.

    Training has no keys, and gets none for this: they would open the sealed rows too.
    """
    place = environ.get(CHECKPOINTS, "")
    if not place or ("://" in place and not place.startswith("file://")):
        return None
    return Path(unquote(urlsplit(place_uri(place)).path))


def _secrets(context: TaskContext, task: LocalTask) -> dict[str, str]:
    """Returns the variables of a task's secrets that the environment holds."""
    names: set[str] = set()
    for secret in context.pipeline.kubernetes.get(task.executor, {}).get(
        "secretAsEnv", ()
    ):
        # Only a TrainJob on a cluster needs that one.
        if secret["secretName"] != TRAINING_SECRET:
            names |= {key["envVar"] for key in secret["keyToEnv"]}
    about = context.pipeline.kubernetes.get(task.executor, {})
    for config in about.get("configMapAsEnv", ()):
        names |= {key["envVar"] for key in config["keyToEnv"]}
    for name in tuple(names):
        names.update(_COMPANIONS.get(name, ()))
    # A store of a company's own often has a certificate that only its machines trust.
    if names:
        names.update(_CERTIFICATES)
    values = {name: context.environ.get(name) for name in sorted(names)}
    return {name: value for name, value in values.items() if value}


def network_of(environ: Mapping[str, str]) -> str:
    """Chooses a container's network by what its environment names.

    Returns:
        `none` without keys or addresses; `host` if an address is this machine's
        own loopback, which no other network reaches; `bridge` for all else.
    """
    hosts = {urlsplit(v).hostname or "" for k, v in environ.items() if _URLS.search(k)}
    # Keys without an address mean AWS, which the client finds by itself.
    if any(map(is_loopback, hosts)):
        return "host"
    keys = any(name.endswith("AWS_ACCESS_KEY_ID") for name in environ)
    return "bridge" if hosts or keys else "none"
