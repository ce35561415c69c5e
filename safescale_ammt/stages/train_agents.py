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

    `training.backend` says where: in this process, in others on this machine, or in a
    TrainJob of the cluster. The model is the same in all three.

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
    task = TrainingTask.load(dataset, architecture, constitution, training)
    # Each branch imports what it alone needs, such as the Kubernetes client.
    if task.config.backend == "trainjob":
        from safescale_ammt.cluster.training import train_in_cluster

        train_in_cluster(
            Path(dataset),
            Path(architecture),
            task.rules,
            task.config,
            parents=task.parents,
            model=Path(model),
        )
    elif task.config.backend == "local":
        checkpoints = task.checkpoints(
            checkpoint_place(task.config, os.environ), os.environ
        )
        make_model(task, Path(model), checkpoints)
        # Only now: until the artifact has its name, a kill must find them.
        checkpoints.clear()
    else:
        from safescale_ammt.launch.torchrun import train_in_processes

        request = TrainingRequest(
            dataset=str(Path(dataset).absolute()),
            architecture=str(Path(architecture).absolute()),
            constitution=task.rules.to_dict(),
            training=task.config.to_params(),
            model=str(Path(model).absolute()),
            checkpoints=checkpoint_place(task.config, os.environ),
        )
        train_in_processes(request)
    figures = {**summary(model), "agents": task.config.num_agents}
    # The model may come from other processes or out of a store, so its manifest has to
    # say what it was trained on.
    if dict(read_manifest(model).parents) != dict(task.parents):
        raise IntegrityError(
            f"The model at {model} was trained on other artifacts than {STAGE} was "
            "given; train again."
        )
    return figures
