"""Work: one training, from the artifacts that it reads to the model that it writes.

The stage and every worker begin here: inputs are verified before torch is
imported, and what is written does not depend on how many processes there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safescale_ammt.code_version import code_digest
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.errors import ConfigError, IntegrityError
from safescale_ammt.files.artifacts import verify, writing
from safescale_ammt.files.canonical import read_json, write_json
from safescale_ammt.model.genome import Genome
from safescale_ammt.store.uri import STORE
from safescale_ammt.training.training_log import LOG, TrainingLog

if TYPE_CHECKING:
    from safescale_ammt.training.checkpoint import Checkpoints
    from safescale_ammt.training.encoded import EncodedDataset
    from safescale_ammt.training.merge import Merged
    from safescale_ammt.training.placement import ProcessGroup
    from safescale_ammt.training.trainer import Trained

STAGE = "train_agents"
TWIN = "twin"
CHECKPOINTS = "SAFESCALE_CHECKPOINTS"
"""Variable that names a place for checkpoints."""


@dataclass(frozen=True)
class TrainingTask:
    """Verified inputs of a training.

    Attributes:
        data: the dataset.
        genome: of every net.
        config: the training section.
        rules: the constitution.
        parents: identities of dataset, architecture and constitution.
    """

    data: Dataset
    genome: Genome
    config: TrainingConfig
    rules: Constitution
    parents: Mapping[str, str]

    @classmethod
    def load(
        cls,
        dataset: Path | str,
        architecture: Path | str,
        constitution: Mapping[str, Any],
        training: Mapping[str, Any],
    ) -> TrainingTask:
        """Reads and verifies the inputs.

        Raises:
            ConfigError: the section is wrong.
            ConstitutionError: the constitution is malformed.
            IntegrityError: a byte was changed, or the architecture was found on
                another dataset or for another constitution.
        """
        config = TrainingConfig.from_params(training)
        rules = Constitution.from_dict(constitution)
        found = verify(architecture, "architecture")
        data = Dataset.load(dataset)
        _same_parent("dataset", found.parents, data.identity)
        _same_parent("constitution", found.parents, rules.digest)
        genome = Genome.from_dict(read_json(Path(architecture) / "genome.json"))
        parents = {
            "dataset": data.identity,
            "architecture": found.identity,
            "constitution": rules.digest,
        }
        return cls(data, genome, config, rules, parents)

    def checkpoints(self, where: str, environ: Mapping[str, str]) -> Checkpoints:
        """Opens the checkpoints of this very work: its inputs, config and code."""
        from safescale_ammt.launch.failure import place
        from safescale_ammt.training.checkpoint import Checkpoints

        run = {**self.parents, "config": self.config.digest, "code": code_digest()}
        store = place(where, environ) if where else None
        return Checkpoints(store, every=self.config.checkpoint_every, run=run)


def checkpoint_place(config: TrainingConfig, environ: Mapping[str, str]) -> str:
    """Returns where a training that was given no place keeps its checkpoints.

    Raises:
        ConfigError: it shall keep some, but the environment names no place.
    """
    if environ.get(CHECKPOINTS) or not config.checkpoint_every:
        return environ.get(CHECKPOINTS, "")
    if not environ.get(STORE):
        raise ConfigError(
            f"training.checkpoint_every is {config.checkpoint_every}, but neither "
            f"{CHECKPOINTS} nor {STORE} names a place; set one to s3://BUCKET/PREFIX "
            "or file:///PATH."
        )
    return environ[STORE].rstrip("/") + "/checkpoints"


def make_model(
    work: TrainingTask,
    model: Path,
    checkpoints: Checkpoints,
    process_group: ProcessGroup | None = None,
    note: Callable[[Mapping[str, Any]], object] | None = None,
) -> None:
    """Trains and, in the process that leads, writes the model artifact.

    Args:
        work: the inputs.
        model: where the artifact is written.
        checkpoints: where the training is kept meanwhile.
        process_group: joins the processes that train together; None is one process.
        note: is told every event too, in the process that leads.

    Raises:
        ConfigError: a role that tables do not have.
        SafescaleError: training lost most of its agents.
        PeerLost: another process went away.
        Interrupted: SIGTERM came and a checkpoint was taken.
    """
    # torch is imported once the inputs have been checked.
    from safescale_ammt.training.encoded import EncodedDataset
    from safescale_ammt.training.placement import SINGLE_PROCESS
    from safescale_ammt.training.trainer import train

    process_group = process_group or SINGLE_PROCESS
    given = (EncodedDataset(work.data), work.genome, work.config, work.rules)
    if process_group.rank > 0:
        train(*given, log=_silent, process_group=process_group, checkpoints=checkpoints)
        return
    with writing(
        model,
        kind="model",
        stage=STAGE,
        config_digest=work.config.digest,
        parents=work.parents,
    ) as draft:
        draft.outside_identity.add(LOG)
        with TrainingLog(draft.folder / LOG, note) as journal:
            trained = train(
                *given,
                log=journal.write,
                process_group=process_group,
                checkpoints=checkpoints,
            )
            merged = _merged(trained, given[0], work, journal)
        merged.model.save(draft.folder, work.data.schema)
        merged.twin.save(draft.folder / TWIN, work.data.schema)
        write_json(draft.folder / "constitution.json", work.rules.to_dict())


def _merged(
    trained: Trained, encoded: EncodedDataset, work: TrainingTask, journal: TrainingLog
) -> Merged:
    """Merges the agents and closes the log."""
    from safescale_ammt.training.merge import merge

    config = work.config
    merged = merge(trained, encoded, work.rules, form=config.merge, seed=config.seed)
    journal.write(merged.to_dict())
    journal.write({"event": "end", "step": trained.steps})
    return merged


def _silent(_event: Mapping[str, Any]) -> None:
    """Logs nothing: the process that leads does."""


def _same_parent(what: str, parents: Mapping[str, str], given: str) -> None:
    """Checks that the architecture was found on what training is given.

    Raises:
        IntegrityError: it was not; the sentence holds both digests.
    """
    stated = parents.get(what)
    if stated != given:
        raise IntegrityError(
            f"The architecture was found with {what} {stated}, but {STAGE} is given "
            f"{given}; search again, or train on what was searched."
        )
