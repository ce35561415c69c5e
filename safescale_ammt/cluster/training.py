"""Training in a TrainJob: hand over, follow, take the model back."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from safescale_ammt.cluster.api import Api
from safescale_ammt.cluster.ending import JobFailed
from safescale_ammt.cluster.handover import Handover
from safescale_ammt.cluster.life import Life, Product
from safescale_ammt.cluster.owner import Owner, own_pod
from safescale_ammt.cluster.refusals import OutOfReach
from safescale_ammt.cluster.timeouts import TIMEOUTS, Timeouts
from safescale_ammt.cluster.trainjob import TrainJob, digest_of
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.execution import error_of
from safescale_ammt.launch.failure import clear_failures, first_failure, may_pass

_LAYOUT = ("processes", "nodes", "runtime", "queue")
"""Keys of the training section that say where and how wide a job runs."""


def train_in_cluster(
    dataset: Path,
    architecture: Path,
    constitution: Constitution,
    config: TrainingConfig,
    *,
    parents: Mapping[str, str],
    model: Path,
    environ: Mapping[str, str] = os.environ,
    timeouts: Timeouts = TIMEOUTS,
    say: Callable[[str], None] = print,
) -> None:
    """Trains in a TrainJob of this namespace and writes the model artifact.

    A model that an earlier attempt has left in the store is used; a job that an
    earlier attempt has left in the cluster is adopted, or replaced if it failed.

    Args:
        dataset: the dataset artifact.
        architecture: the architecture artifact.
        constitution: what the agents train for.
        config: the training section; `processes`, `nodes`, `runtime`, `queue` and
            `restarts`.
        parents: identities of dataset, architecture and constitution.
        model: where the model artifact is written.
        environ: where the store, the API and the pod's name are found.
        timeouts: how long things may take.
        say: takes each line for the step's log.

    Raises:
        ClusterInputError: no API, right, runtime or store; or the name is taken.
        ClusterError: the API stayed away, nothing ran in time, the job failed more
            often than it may.
        IntegrityError: the model in the store is not what was asked for.
        SafescaleError: what the worker itself raised, with its exit code.
    """
    if say is print:
        # Line by line: people follow the log, and a pipe would be written in blocks.
        say = partial(print, flush=True)
    layout = {key: getattr(config, key) for key in _LAYOUT}
    with Api.connect(environ, timeouts, say=say) as api:
        owner = own_pod(api, environ)
        image = owner.image if owner else ""
        digest = digest_of(parents, config.digest, layout, image)
        handover = Handover.open(digest, environ)
        job = TrainJob(digest, handover.request, image=image, **layout)
        product = Product(
            handover.has_model, lambda: clear_failures(handover.report, environ=environ)
        )
        life = Life(api, job, owner, product)
        if handover.has_model():
            api.say(f"TrainJob {job.name} has left its model in the store; using it.")
        else:
            life.check_runtime()
            handover.send(dataset, architecture, constitution, config)
            _run(life, handover, owner, environ, config.restarts)
        try:
            handover.fetch(model, parents, config.digest)
            handover.tidy()
        finally:
            life.discard()


def _run(
    life: Life,
    handover: Handover,
    owner: Owner | None,
    environ: Mapping[str, str],
    restarts: int,
) -> None:
    """Runs the job, again if it failed; deletes it unless it has to stay.

    It stays when the API is out of reach (the next run adopts it), and when it failed
    and has an owner to be collected with: then people can look at it.
    """
    for left in range(restarts, -1, -1):
        try:
            life.run()
        except OutOfReach:
            raise
        except JobFailed as failed:
            report = first_failure(handover.report, environ=environ)
            if left and may_pass(report, failed.ended):
                life.say(f"{failed} It is made anew, {left} of {restarts} times left.")
                continue
            if owner is None:
                life.stop()
            # The worker's own sentence says more than the cluster's, and has its code.
            if report is None:
                raise
            raise error_of(int(report["code"]), str(report["sentence"])) from failed
        except BaseException:  # SIGTERM too: nobody would take the model
            life.stop()
            raise
        return
