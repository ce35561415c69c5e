"""Training in a TrainJob: hand over, follow, take the model back."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from safescale_ammt.cluster.api import Api
from safescale_ammt.cluster.handover import Handover
from safescale_ammt.cluster.life import JobFailed, Life, Product
from safescale_ammt.cluster.owner import Owner, own_pod
from safescale_ammt.cluster.refusals import OutOfReach
from safescale_ammt.cluster.timeouts import TIMEOUTS, Timeouts
from safescale_ammt.cluster.trainjob import TrainJob, digest_of
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.execution import error_of
from safescale_ammt.launch.failure import first_failure, forget


def train_in_cluster(
    dataset: Path,
    architecture: Path,
    rules: Constitution,
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
        rules: the constitution.
        config: the training section; `processes`, `nodes`, `runtime`, `queue`.
        parents: identities of dataset, architecture and constitution.
        model: where the model artifact is written.
        environ: where the store, the API and the pod's name are found.
        timeouts: how long things may take.
        say: takes each line for the step's log.

    Raises:
        ClusterInputError: no API, right, runtime or store; or the name is taken.
        ClusterError: the API stayed away, nothing ran in time, the job failed.
        IntegrityError: the model in the store is not what was asked for.
        SafescaleError: what the worker itself raised, with its exit code.
    """
    with Api.connect(environ, timeouts, say=_flushed(say)) as api:
        owner = own_pod(api, environ)
        digest = _digest(config, parents, owner)
        handover = Handover.open(digest, environ)
        job = _job(digest, handover.request, config, owner)
        product = Product(
            handover.has_model, lambda: forget(handover.report, environ=environ)
        )
        life = Life(api, job, owner, product)
        if handover.has_model():
            api.say(f"TrainJob {job.name} has left its model in the store; using it.")
        else:
            life.check_runtime()
            handover.send(dataset, architecture, rules, config)
            _run(life, handover, owner, environ)
        try:
            handover.fetch(model, parents, config.digest)
            handover.tidy()
        finally:
            life.discard()


def _run(
    life: Life, handover: Handover, owner: Owner | None, environ: Mapping[str, str]
) -> None:
    """Runs the job; deletes it on the way out unless it has to stay.

    It stays when the API is out of reach (a retry adopts it), and when it failed
    and has an owner to be collected with: then people can look at it.
    """
    try:
        life.run()
    except OutOfReach:
        raise
    except JobFailed as failed:
        if owner is None:
            life.stop()
        told = first_failure(handover.report, environ=environ)
        if told is None:
            raise
        raise error_of(int(told["code"]), str(told["sentence"])) from failed
    except BaseException:
        life.stop()
        raise


def _job(
    digest: str, request: str, config: TrainingConfig, owner: Owner | None
) -> TrainJob:
    return TrainJob(
        digest=digest,
        request=request,
        runtime=config.runtime,
        nodes=config.nodes,
        processes=config.processes,
        queue=config.queue,
        image=owner.image if owner else "",
    )


def _digest(
    config: TrainingConfig, parents: Mapping[str, str], owner: Owner | None
) -> str:
    layout = {
        key: getattr(config, key) for key in ("processes", "nodes", "runtime", "queue")
    }
    return digest_of(parents, config.digest, layout, owner.image if owner else "")


def _flushed(say: Callable[[str], None]) -> Callable[[str], None]:
    """Lines go out at once: the log is followed by people."""
    if say is not print:
        return say
    return lambda line: print(line, flush=True)
