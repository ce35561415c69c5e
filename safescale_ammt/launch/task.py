"""One training task, from the artifacts that it reads to the model that it writes.

The stage and every worker begin here: inputs are verified before torch is
imported, and what is written does not depend on how many processes there are.

    TrainingTask.load    dataset, architecture, constitution and config, verified
    make_model           train in every process; in rank 0 merge, and write the model
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safescale_ammt.code_version import code_digest
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.errors import ConfigError, IntegrityError
from safescale_ammt.files.artifacts import Draft, verify, writing
from safescale_ammt.files.canonical import read_json, write_json
from safescale_ammt.files.code_package import CODE
from safescale_ammt.launch.request import checkpoint_place, open_place
from safescale_ammt.model.module_genome import ModuleGenome
from safescale_ammt.model.tree_genome import AnyGenome, TreeGenome, read_genome
from safescale_ammt.stage_progress import say_progress
from safescale_ammt.training.threshold import require_two_classes
from safescale_ammt.training.training_log import LOG, TrainingLog, discard

if TYPE_CHECKING:
    from safescale_ammt.training.checkpoint import Checkpoints
    from safescale_ammt.training.placement import ProcessGroup
    from safescale_ammt.training.trainer import Trained

STAGE = "train_agents"


@dataclass(frozen=True)
class TrainingTask:
    """Verified inputs of a training.

    Attributes:
        data: the dataset.
        genome: of every net, or booster.
        config: the training section.
        constitution: the promises.
        parents: identities of dataset, architecture and constitution.
    """

    data: Dataset
    genome: AnyGenome
    config: TrainingConfig
    constitution: Constitution
    parents: Mapping[str, str]

    @classmethod
    def load(
        cls,
        dataset: Path | str,
        architecture: Path | str,
        constitution: Mapping[str, Any],
        training: Mapping[str, Any],
        *,
        environ: Mapping[str, str] = os.environ,
        beside: Path | None = None,
    ) -> TrainingTask:
        """Reads and verifies the inputs.

        Args:
            dataset: the artifact.
            architecture: the artifact.
            constitution: the file's mapping.
            training: the section.
            environ: names the store of rows that lie apart.
            beside: as in `store.shards.Shards`.

        Raises:
            ConfigError: the section is wrong, its threshold parts three classes, or
                the architecture is of another kind of learner.
            ConstitutionError: the constitution is malformed.
            IntegrityError: a changed byte, or an architecture of other parents.
        """
        config = TrainingConfig.from_params(training)
        promises = Constitution.from_dict(constitution)
        manifest = verify(architecture, "architecture")
        data = Dataset.load(dataset, environ, beside)
        parents = {"dataset": data.identity, "constitution": promises.digest}
        require_two_classes(config.threshold, data.schema)
        # A genome that was found elsewhere would train just as well, and the verdict
        # would name a search that never saw this data.
        for name, identity in parents.items():
            if (searched := manifest.parents.get(name)) != identity:
                raise IntegrityError(
                    f"The architecture was found with {name} {searched}, but {STAGE} "
                    f"is given {identity}; search again, or train on what was searched."
                )
        parents["architecture"] = manifest.identity
        genome = read_genome(read_json(Path(architecture) / "genome.json"))
        check_kind(genome, config)
        return cls(data, genome, config, promises, parents)

    def checkpoints(
        self, environ: Mapping[str, str], where: str | None = None
    ) -> Checkpoints:
        """Opens the checkpoints of this task: its inputs, its config and this code.

        Args:
            environ: names the place, and holds the keys of a store.
            where: the place, if a request has named it; "" is nowhere.

        Raises:
            ConfigError: the config asks for checkpoints, but nothing names a place.
        """
        from safescale_ammt.training.checkpoint import Checkpoints

        if where is None:
            where = checkpoint_place(self.config, environ)
        run = {**self.parents, "config": self.config.digest, "code": code_digest()}
        # Another torch may draw or add otherwise: the end would be neither's.
        run |= {"torch": version("torch")}
        store = open_place(where, environ) if where else None
        return Checkpoints(store, every=self.config.checkpoint_every, run=run)


def check_kind(genome: AnyGenome, config: TrainingConfig) -> None:
    """Checks that an architecture is of what a section trains.

    Raises:
        ConfigError: it is of another learner, or of another module.
    """
    kind = "trees" if isinstance(genome, TreeGenome) else "nets"
    if kind != config.learner:
        raise ConfigError(
            f"The architecture was searched for {kind}, but training.learner is "
            f"{config.learner!r}; search again."
        )
    asked = (config.model, config.model_digest, config.model_encoding)
    of = None
    if isinstance(genome, ModuleGenome):
        of = (genome.model, genome.code, genome.encoding)
    if of != (asked if config.model else None):
        found = f"{of[0]} of code {of[1]}" if of else "a searched net"
        wanted = f"{asked[0]} of code {asked[1]}" if config.model else "a searched net"
        raise ConfigError(
            f"The architecture is {found}, but the training section names {wanted}; "
            "run search_architecture again."
        )


def make_model(
    task: TrainingTask,
    model: Path,
    checkpoints: Checkpoints,
    process_group: ProcessGroup | None = None,
    note: Callable[[Mapping[str, Any]], object] | None = None,
) -> None:
    """Trains and, in rank 0, writes the model artifact.

    Args:
        task: the inputs.
        model: where the artifact is written.
        checkpoints: where the training is saved meanwhile.
        process_group: the processes that train together; None is one process.
        note: receives every event too, in rank 0.

    Raises:
        ConfigError: a role that tables do not have.
        SafescaleError: training lost most of its agents.
        PeerLost: another process went away.
        Interrupted: SIGTERM came and a checkpoint was taken.
    """
    # Importing torch takes seconds: a bad input has ended the task before that.
    from safescale_ammt.training.placement import SINGLE_PROCESS
    from safescale_ammt.training.trainer import train

    process_group = process_group or SINGLE_PROCESS
    nets = nets_of(task, deploys=process_group.rank == 0)
    train_task = partial(
        boosting_of(nets) or partial(train, nets),
        task.config,
        task.constitution,
        process_group=process_group,
        checkpoints=checkpoints,
    )
    if process_group.rank > 0:
        train_task(log=discard)
        return
    with (
        writing(
            model,
            kind="model",
            stage=STAGE,
            config_digest=task.config.digest,
            parents=task.parents,
        ) as draft,
        TrainingLog(draft.folder / LOG, note) as log,
    ):
        # Nets of a user's own module have events of their own.
        if hasattr(nets, "log"):
            nets.log = log.write
        trained = train_task(log=log.write)
        _write_model(draft, task, trained, log)


def nets_of(task: TrainingTask, *, deploys: bool = True) -> Any:
    """Returns what a task trains: nets, or boosted trees in their place.

    Args:
        task: the inputs.
        deploys: whether this process makes the model of them.
    """
    from safescale_ammt.training.encoded import EncodedDataset

    encoded = EncodedDataset(task.data)
    if isinstance(task.genome, TreeGenome):
        from safescale_ammt.trees.tree_nets import TreeNets

        return TreeNets(encoded, task.genome)
    if isinstance(task.genome, ModuleGenome):
        from safescale_ammt.modules.own_nets import OwnNets

        return OwnNets(encoded, task.config, deploys=deploys)
    from safescale_ammt.model.device import find_device, present_for_tables
    from safescale_ammt.training.genome_nets import GenomeNets

    wanted = task.config.device
    _, device, said = find_device(wanted, present_for_tables(wanted))
    return GenomeNets(encoded, task.genome, device, said)


def boosting_of(nets: Any) -> Callable[..., Trained] | None:
    """Returns what trains boosted trees, None for nets, which have a loop."""
    if not isinstance(getattr(nets, "genome", None), TreeGenome):
        return None
    from safescale_ammt.trees.trainer import train_trees

    return partial(train_trees, nets)


def _write_model(
    draft: Draft, task: TrainingTask, trained: Trained, log: TrainingLog
) -> None:
    """Merges the agents; writes model, twin and constitution, and ends the log."""
    from safescale_ammt.model.device import settled
    from safescale_ammt.training.budget import spent
    from safescale_ammt.training.merge import merge

    # The log holds seconds, and the same training has the same identity.
    draft.outside_identity.add(LOG)
    say_progress(trained.steps, trained.steps, "merging the agents")
    # On as many threads as training: a fit on all of them takes several times as long.
    with settled(task.config.threads, trained.nets.device):
        merged = merge(
            trained,
            task.constitution,
            form=task.config.merge,
            seed=task.config.seed,
            rule=task.config.threshold,
        )
    for event in merged.events():
        log.write(event)
    if taken := spent(task.config, log.seconds):
        log.write(taken)
    log.write({"event": "end", "step": trained.steps, "agents": len(trained.agents)})
    merged.save(draft.folder, task.data.schema)
    if isinstance(task.genome, ModuleGenome):
        # The code goes with the model: who audits it reads what was trained.
        nets: Any = trained.nets
        write_json(draft.folder / CODE, dict(nets.package.files))
    # The promises travel with the model: whoever serves it can read them.
    write_json(draft.folder / "constitution.json", task.constitution.to_dict())
