"""Checkpoints: a training that is killed continues where it was, to the same bytes.

    <store>/step-00000420-<run>/state.safetensors    every tensor that changes
                                checkpoint.json      step, phase, the log so far
                                manifest.json        digests; written last

They are taken at the beginning of a sync round, where no step is half done, every
so many rounds and when SIGTERM comes. A run resumes from the newest whole one of the
same run (same data, genome, constitution, config and code); the one before stays in
case a byte of it is wrong. The store is a folder or a prefix in an object store.
"""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from safescale_ammt.errors import (
    InputError,
    IntegrityError,
    Interrupted,
    StorageError,
)
from safescale_ammt.files.artifacts import MANIFEST, verify, writing
from safescale_ammt.files.canonical import digest_json, read_json, write_json
from safescale_ammt.model.predictor import tensors_of
from safescale_ammt.store.base import Store
from safescale_ammt.training.placement import SINGLE_PROCESS, Placement, ProcessGroup
from safescale_ammt.training.stateful import (
    StateDict,
    Stateful,
    join_states,
    load_states,
)
from safescale_ammt.training.training_log import Log, discard

RETAINED = 2
"""Checkpoints of a run that stay: the newest, and the one before it."""
_STATE, _PROGRESS = "state.safetensors", "checkpoint.json"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
        step: the step that comes next.
        phase: trunk, agents, or so many of them.
        events: the training log up to there.
        state: of all nets.
    """

    step: int
    phase: str
    events: list[dict[str, Any]]
    state: StateDict


class Checkpoints:
    """The checkpoints of one run in a store; without a store, none.

    Args:
        store: where they lie, or None.
        every: sync rounds between them; 0 takes one at SIGTERM alone.
        run: digests by which one run differs from another, by name.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        every: int = 0,
        run: Mapping[str, str] | None = None,
    ) -> None:
        self._store, self._every = store, every
        self._run = digest_json(dict(run or {}))
        # Sixteen digits keep names short; `read` compares the whole digest.
        self._ending = "-" + self._run.removeprefix("sha256:")[:16]
        self._events: list[dict[str, Any]] = []
        self._newest: Checkpoint | None = None
        self._process_group = SINGLE_PROCESS
        self._log: Log = discard
        self._phase, self._placement = "", Placement(1)
        self._components: Mapping[str, Stateful] = {}
        self._rounds = 0
        self._sigterm = False

    @contextmanager
    def session(self, process_group: ProcessGroup, log: Log) -> Iterator[Log]:
        """Reads the newest checkpoint, and defers SIGTERM while the body trains.

        Yields:
            The log to write to: its events are part of every checkpoint.

        Raises:
            Interrupted: SIGTERM came after the last round; before, the next one stops.
        """
        self._process_group, self._log = process_group, log
        if self._store is None:
            yield log
            return

        def record(event: dict[str, Any]) -> None:
            self._events.append(event)
            log(event)

        # Rank 0 chooses, or two processes could find different ones to be whole.
        newest = self._find_newest() if process_group.rank == 0 else None
        step = torch.tensor(-1 if newest is None else newest.step)
        process_group.broadcast(step)
        if process_group.rank > 0 and step >= 0:
            newest = self._read(f"step-{int(step):08d}{self._ending}")
        self._newest = newest
        if newest is not None:
            # The log of this process is a new file: it is to hold the whole run.
            for event in newest.events:
                record(event)
            record({"event": "resumed", "step": newest.step})

        def note(_signum: int, _frame: object) -> None:
            self._sigterm = True

        # Python lets only the main thread set signal handlers.
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGTERM, note) if main else None
        try:
            yield record
        finally:
            if main:
                signal.signal(signal.SIGTERM, before)
        if self._sigterm:
            raise Interrupted("Training was stopped by SIGTERM before it was done.")

    def begin(self, phase: str, placement: Placement, **components: Stateful) -> int:
        """Begins a phase, from its checkpoint if there is one.

        Args:
            phase: trunk, agents, or so many of them.
            placement: of the phase's nets.
            components: whose state the checkpoints of this phase hold.

        Returns:
            The step to begin with: 0 without a checkpoint; one of another phase
            loads nothing here.
        """
        self._phase, self._placement, self._components = phase, placement, components
        if self._newest is None:
            return 0
        newest = self._newest
        # States are saved with the rows of all nets, so that another number of
        # processes can take its own.
        if newest.phase == phase:
            load_states(components, newest.state.select(placement.local_slots))
            # What comes after this phase begins at its own beginning.
            self._newest = None
        return newest.step

    @property
    def phase(self) -> str:
        """The phase that the checkpoint is of which training goes on from, or ""."""
        return self._newest.phase if self._newest else ""

    def save_if_due(self, step: int) -> None:
        """Takes a checkpoint if one is due, in all processes together.

        Args:
            step: the step that comes next.

        Raises:
            Interrupted: SIGTERM came; the checkpoint has been taken.
        """
        if self._store is None:
            return
        self._rounds += 1
        # The signal may reach one process a round later than another: all of them
        # stop in the round in which the first has it, or they would wait for it.
        stopping = self._process_group.any(self._sigterm)
        if stopping or (self._every and self._rounds % self._every == 0):
            state = join_states(self._components).gather(self._placement)
            if self._process_group.rank == 0:
                name = f"step-{step:08d}{self._ending}"
                checkpoint = Checkpoint(step, self._phase, self._events, state)
                # Training is worth more than a checkpoint: a store that fails here
                # is no reason to stop.
                try:
                    with tempfile.TemporaryDirectory(prefix="safescale-") as scratch:
                        folder = Path(scratch) / name
                        write(folder, checkpoint, self._run)
                        self._store.upload_folder(folder, name)
                    # Only now: a kill in between leaves one too many, never too few.
                    for old in self._names()[:-RETAINED]:
                        self._delete(old)
                except StorageError as error:
                    self._log({"event": "checkpoint_failed", "reason": str(error)})
        if stopping:
            raise Interrupted(
                f"Training was stopped by SIGTERM before step {step}; the newest "
                f"checkpoint in {self._store.uri} goes on from there."
            )

    def clear(self) -> None:
        """Deletes the checkpoints of this run: its model has been delivered."""
        for name in self._names():
            self._delete(name)

    def _find_newest(self) -> Checkpoint | None:
        """Returns the newest checkpoint of this run that is whole; logs the others."""
        assert self._store is not None
        names = self._names()
        keys = (info.key.partition("/")[0] for info in self._store.list("step-"))
        if others := set(keys) - set(names):
            reason = (
                f"{len(others)} of other data, config or code, such as {min(others)}"
            )
            self._log({"event": "checkpoint_ignored", "reason": reason})
        for name in reversed(names):
            try:
                return self._read(name)
            # Damage shows as a digest, but also as JSON or tensors that do not parse.
            except (InputError, IntegrityError, ValueError, KeyError) as error:
                reason = f"{name}: {' '.join(str(error).split())}"
                self._log({"event": "checkpoint_ignored", "reason": reason})
        return None

    def _read(self, name: str) -> Checkpoint:
        assert self._store is not None
        with tempfile.TemporaryDirectory(prefix="safescale-") as scratch:
            self._store.download_folder(name, scratch)
            return read(Path(scratch), self._run)

    def _names(self) -> list[str]:
        """Returns this run's checkpoints, oldest first; half of one may be left."""
        if self._store is None:
            return []
        names = {info.key.partition("/")[0] for info in self._store.list("step-")}
        # Steps have eight digits, so that the order of names is the order of steps.
        return sorted(name for name in names if name.endswith(self._ending))

    def _delete(self, name: str) -> None:
        """Deletes a checkpoint, its manifest first: half of one is none."""
        assert self._store is not None
        self._store.delete(f"{name}/{MANIFEST}")
        for info in list(self._store.list(f"{name}/")):
            self._store.delete(info.key)


def write(folder: Path, checkpoint: Checkpoint, run: str) -> None:
    """Writes a checkpoint as an artifact: whole or absent."""
    parents = {"run": run}
    with writing(
        folder, kind="checkpoint", stage="train_agents", parents=parents
    ) as draft:
        (draft.folder / _STATE).write_bytes(save(checkpoint.state.flatten()))
        progress = {
            "step": checkpoint.step,
            "phase": checkpoint.phase,
            "events": checkpoint.events,
        }
        write_json(draft.folder / _PROGRESS, progress)


def read(folder: Path, run: str) -> Checkpoint:
    """Reads a checkpoint, every byte verified.

    Raises:
        InputError: it is not whole.
        IntegrityError: a byte was changed, or it is of another run.
    """
    manifest = verify(folder, "checkpoint")
    if manifest.parents.get("run") != run:
        raise IntegrityError(
            f"it was taken in run {manifest.parents.get('run')}, this is {run}."
        )
    progress = read_json(folder / _PROGRESS)
    arrays = tensors_of(folder / _STATE)
    state = StateDict.unflatten({n: torch.from_numpy(a) for n, a in arrays.items()})
    return Checkpoint(progress["step"], progress["phase"], progress["events"], state)
