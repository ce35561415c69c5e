"""Beginning of a training: what its loops do before their first step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.model.device import settled
from safescale_ammt.training.checkpoint import Checkpoints
from safescale_ammt.training.nets import Nets
from safescale_ammt.training.placement import ProcessGroup
from safescale_ammt.training.plan import Plan, make_plan
from safescale_ammt.training.training_log import Log


@contextmanager
def begun(
    nets: Nets,
    config: TrainingConfig,
    constitution: Constitution,
    *,
    log: Log,
    twin: bool,
    process_group: ProcessGroup,
    checkpoints: Checkpoints,
    rounds: int = 0,
) -> Iterator[tuple[Plan, Log]]:
    """Settles torch, plans, logs the plan and opens the checkpoints for the body.

    Args:
        nets: what is trained, on which dataset.
        config: the training section.
        constitution: names the enforced principles.
        log: receives every event, a JSON mapping.
        twin: whether to train the twin.
        process_group: the processes that the nets are placed on.
        checkpoints: where the run is saved and resumed from.
        rounds: steps that the log tells of, where they are not the plan's.

    Yields:
        The plan, and the log to write to from now on.

    Raises:
        ConfigError: an unknown role.
        DataError: too few rows for the folds.
        Interrupted: SIGTERM came.
    """
    with settled(config.threads, nets.device):
        plan = make_plan(nets, config, constitution, twin=twin)
        for event in replace(plan, steps=rounds or plan.steps).events():
            log(event)
        with checkpoints.session(process_group, log) as record:
            yield plan, record
