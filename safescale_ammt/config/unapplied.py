"""What a training section asks for and the learner does not do, a sentence each.

A switch that is silently dead is a lie in a file that an auditor reads: what cannot
apply is said once, and training goes on (docs/decisions.md, 175).
"""

from __future__ import annotations

from collections.abc import Iterator

from safescale_ammt.config.roles import MODAL_ROLES, acts_as_generalist
from safescale_ammt.config.sections import TrainingConfig

# Fields that modules alone read, and what learners of tables do instead.
_OF_MODULES = {
    "precision_switching_enabled": "learners of tables keep one precision",
    "mixed_precision": "learners of tables keep one precision",
    "gradient_checkpointing": "learners of tables are small and recompute nothing",
    "memory_threshold": "nothing of a table switches precision",
    "tpu_pods": "learners of tables have no form for a TPU",
    "execution": "learners of tables have a program of their own",
    "sensitive": "data.sensitive names the groups of a table",
    "human_oversight_enabled": "the gate leaves an undecided promise pending always",
}
_EVOLUTION = {
    "evolution_frequency": "architectures evolve in search_architecture alone",
    "architecture_mutation_rate": "search.architecture_mutation_rate is the one read",
}


def changed(config: TrainingConfig, reasons: dict[str, str]) -> Iterator[str]:
    """Yields a sentence for each of these fields that is not at its default."""
    default = type(config)()
    for key, why in reasons.items():
        if (value := getattr(config, key)) != getattr(default, key):
            yield f"training.{key} is {value!r}, which does not apply: {why}."


def unapplied_to_tables(config: TrainingConfig) -> Iterator[str]:
    """Yields what a section asks for and a table's learner does not do."""
    yield from changed(config, _OF_MODULES | _EVOLUTION)
    for name in sorted(set(config.agent_specializations) & MODAL_ROLES.keys()):
        yield acts_as_generalist(name, "the dataset is a table")


def unapplied_to_own_models(config: TrainingConfig, kind: str) -> Iterator[str]:
    """Yields what a section asks for and a module on a table's rows does not do.

    Args:
        config: the section.
        kind: of the device that trains.
    """
    kept = ("sensitive", "human_oversight_enabled")
    yield from changed(config, {k: _OF_MODULES[k] for k in kept} | _EVOLUTION)
    if config.tpu_pods and kind != "tpu":
        yield (
            f"training.tpu_pods is {config.tpu_pods}, which does not apply: no TPU is "
            f"reached from here, and training uses the {kind}."
        )
    if config.processes > 1 and config.device not in ("auto", "cpu"):
        yield (
            f"training.device is {config.device!r}, which does not apply: several "
            "processes train on processors."
        )
    for name in sorted(set(config.agent_specializations) & MODAL_ROLES.keys()):
        yield acts_as_generalist(name, "the dataset is a table")


def unapplied_to_modules(
    config: TrainingConfig,
    other_kinds: Iterator[str] | tuple[str, ...] = (),
    processes: int = 1,
) -> Iterator[str]:
    """Yields what a section asks for and a module does not do.

    Args:
        config: the section.
        other_kinds: names of roles that the data are of no kind for.
        processes: that train it together.
    """
    of_tables = {
        "learner": "what is trained is the module",
        "model": "what is trained is the module that is given",
    }
    if processes == 1:
        of_tables["backend"] = (
            "one process runs here; start the script by torchrun --nproc-per-node "
            f"{config.processes}"
        )
    yield from changed(config, of_tables | _EVOLUTION)
    for name in other_kinds:
        yield acts_as_generalist(name, "the data are of another kind")
