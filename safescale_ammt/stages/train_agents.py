"""Stage 3: agents are trained under the constitution and merged into one model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safescale_ammt.errors import IntegrityError
from safescale_ammt.files.artifacts import read_manifest
from safescale_ammt.launch.request import TrainingRequest
from safescale_ammt.launch.task import TrainingTask, checkpoint_place, make_model
from safescale_ammt.training.training_log import summary

STAGE = "train_agents"


def run(
    dataset: Path | str,
    architecture: Path | str,
    constitution: Mapping[str, Any],
    training: Mapping[str, Any],
    model: Path | str,
) -> dict[str, Any]:
    """Trains the architecture's genome and writes the model artifact.

    `training.backend` says where: here, in processes beside this one, or in a
    TrainJob of the cluster. The model is the same.

    Args:
        dataset: the dataset artifact.
        architecture: the architecture artifact, found on that dataset.
        constitution: the constitution file's mapping.
        training: the `training` section of a config.
        model: where the model artifact is written.

    Returns:
        What the log shows: the form of the model and its figures on *select*.

    Raises:
        ConfigError: the section is wrong, or names a role that tables do not have.
        ConstitutionError: the constitution is malformed.
        IntegrityError: a byte was changed, or the architecture was found on another
            dataset or for another constitution.
        SafescaleError: training lost most of its agents, or one of its processes.
    """
    work = TrainingTask.load(dataset, architecture, constitution, training)
    if work.config.backend == "trainjob":
        from safescale_ammt.cluster.training import train_in_cluster

        train_in_cluster(
            Path(dataset),
            Path(architecture),
            work.rules,
            work.config,
            parents=work.parents,
            model=Path(model),
        )
    else:
        _train_here(work, dataset, architecture, model)
    found = {**summary(model), "agents": work.config.num_agents}
    if dict(read_manifest(model).parents) != dict(work.parents):
        raise IntegrityError(
            f"The model at {model} was trained on other artifacts than {STAGE} was "
            "given; train again."
        )
    return found


def _train_here(
    work: TrainingTask, dataset: Path | str, architecture: Path | str, model: Path | str
) -> None:
    """Trains in this process, or in others on this machine."""
    where = checkpoint_place(work.config, os.environ)
    if work.config.backend == "local":
        checkpoints = work.checkpoints(where, os.environ)
        make_model(work, Path(model), checkpoints)
        checkpoints.clear()
        return
    from safescale_ammt.launch.torchrun import train_in_processes

    request = TrainingRequest(
        dataset=str(Path(dataset).absolute()),
        architecture=str(Path(architecture).absolute()),
        constitution=work.rules.to_dict(),
        training=work.config.to_params(),
        model=str(Path(model).absolute()),
        checkpoints=where,
    )
    train_in_processes(request)
