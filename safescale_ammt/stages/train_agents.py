"""Stage 3: agents are trained under the constitution and merged into one model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safescale_ammt.launch.task import TrainingTask, make_model
from safescale_ammt.training.training_log import summary


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
    folder = Path(model)
    task = TrainingTask.load(
        dataset, architecture, constitution, training, beside=folder
    )
    config = task.config
    # Each branch imports what it alone needs, such as the Kubernetes client.
    if config.backend == "trainjob":
        from safescale_ammt.cluster.training import train_in_cluster

        train_in_cluster(
            Path(dataset),
            Path(architecture),
            task.constitution,
            config,
            parents=task.parents,
            model=folder,
        )
    elif config.backend == "torchrun":
        from safescale_ammt.launch.torchrun import train_in_processes

        train_in_processes(
            Path(dataset),
            Path(architecture),
            task.constitution,
            config,
            model=folder,
        )
    else:
        checkpoints = task.checkpoints(os.environ)
        make_model(task, folder, checkpoints)
        # Only now: a stage that is killed before the model stands resumes.
        checkpoints.clear()
    # A model of the cluster comes out of a store: its parents are checked again.
    return summary(model, task.parents)
