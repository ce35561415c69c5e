"""The checkpoints of a run where they are kept: named, verified, and the old ones gone.

    <store>/step-00000420-<run>/state.safetensors    every tensor that changes
                                checkpoint.json      step, phase, the log so far
                                manifest.json        digests; written last

Rank 0 writes one aside on its own disk, which is quick, and a thread brings it to the
store while the training goes on: a store that is slow holds no process up.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from safescale_ammt.errors import (
    InputError,
    IntegrityError,
    SafescaleError,
    StorageError,
)
from safescale_ammt.files.artifacts import MANIFEST, verify, writing
from safescale_ammt.files.canonical import digest_json, read_json, write_json
from safescale_ammt.files.disk import local_disk
from safescale_ammt.model.predictor import tensors_of
from safescale_ammt.store.base import Store
from safescale_ammt.store.folder import FileStore
from safescale_ammt.training.stateful import StateDict

RETAINED = 2
"""Checkpoints of a run that stay: the newest, and the one before it."""
_DAMAGE = (
    *(InputError, IntegrityError),
    *(ValueError, LookupError, TypeError, AttributeError),
)
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


class Upload(threading.Thread):
    """A checkpoint on its way to the store.

    Args:
        shelf: names it and knows the store.
        checkpoint: in memory.
        since: when the training began to wait for it, as `time.monotonic` has it: the
            states of boosters are texts, which take longer than the disk.

    Attributes:
        cost: seconds that the training lost, those of the processor for the upload too.
        seconds: that it was on its way.
        failure: why it did not arrive, "" if it did.
        left: why an old one could not be deleted, "" if none is left.
    """

    def __init__(
        self, shelf: CheckpointShelf, checkpoint: Checkpoint, since: float
    ) -> None:
        # A daemon: a store that hangs must not keep a process that has failed.
        super().__init__(name="checkpoint", daemon=True)
        self._shelf, self._name = shelf, shelf.name(checkpoint.step)
        self.cost, self.seconds, self.failure, self.left = 0.0, 0.0, "", ""
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        # Training is worth more than a checkpoint: a disk or a store that fails here
        # is no reason to stop.
        try:
            with local_disk("writing a checkpoint aside"):
                self._scratch = tempfile.TemporaryDirectory(prefix="safescale-")
                # Now: the next step changes the tensors in place.
                write(Path(self._scratch.name) / self._name, checkpoint, shelf.run)
        except StorageError as error:
            self.failure = str(error)
        self.cost = time.monotonic() - since

    def run(self) -> None:
        """Brings it to the store and deletes old ones; the thread's body."""
        start = time.monotonic()
        try:
            if self._scratch is not None and not self.failure:
                folder = Path(self._scratch.name) / self._name
                with local_disk("reading a checkpoint"):
                    self._shelf.store.upload_folder(folder, self._name)
        except SafescaleError as error:
            self.failure = str(error)
        finally:
            if self._scratch is not None:
                self._scratch.cleanup()
        if not self.failure:
            # Only now: a kill in between leaves one too many, never too few.
            try:
                self._shelf.tidy(self._name)
            except SafescaleError as error:
                self.left = str(error)
        self.seconds = time.monotonic() - start
        self.cost += time.thread_time()


class CheckpointShelf:
    """The checkpoints of one run in a store.

    Args:
        store: where they lie.
        run: digests by which one run differs from another, by name.

    Attributes:
        run: digest of all of these.
    """

    def __init__(self, store: Store, run: Mapping[str, str]) -> None:
        self.store = store
        self.run = digest_json(dict(run))
        # Sixteen digits keep names short; `read` compares the whole digest.
        self._ending = "-" + self.run.removeprefix("sha256:")[:16]
        self._broken: set[str] = set()

    def name(self, step: int) -> str:
        """Returns the name of the checkpoint before a step."""
        return f"step-{step:08d}{self._ending}"

    def names(self) -> list[str]:
        """Returns this run's checkpoints, oldest first; half of one may be left."""
        found = {info.key.partition("/")[0] for info in self.store.list("step-")}
        # Steps have eight digits, so that the order of names is the order of steps.
        return sorted(name for name in found if name.endswith(self._ending))

    def others(self) -> list[str]:
        """Returns checkpoints of other data, config or code, in order."""
        found = {info.key.partition("/")[0] for info in self.store.list("step-")}
        return sorted(found - set(self.names()))

    def whole(self) -> Iterator[Checkpoint | str]:
        """Yields why a checkpoint is not whole, newest first, and the first that is.

        Raises:
            StorageError: the store failed: to begin anew would waste what it holds.
        """
        for name in reversed(self.names()):
            try:
                yield self.fetch(name)
                return
            # Damage shows as a digest, but also as JSON or tensors that do not parse.
            except _DAMAGE as error:
                self._broken.add(name)
                yield f"{name}: {' '.join(str(error).split())}"

    def fetch(self, name: str) -> Checkpoint:
        """Reads one, every byte verified; the errors of `read`."""
        with (
            local_disk("reading a checkpoint"),
            tempfile.TemporaryDirectory(prefix="safescale-") as scratch,
        ):
            self.store.download_folder(name, scratch)
            return read(Path(scratch), self.run)

    def tidy(self, newest: str) -> None:
        """Deletes all but the newest two that are not known to be broken."""
        self._broken.discard(newest)
        names = self.names()
        good = [name for name in names if name not in self._broken]
        for name in names:
            if name not in good[-RETAINED:]:
                self.delete(name)

    def delete(self, name: str) -> None:
        """Deletes a checkpoint, its manifest first: half of one is none."""
        self.store.delete(f"{name}/{MANIFEST}")
        for info in list(self.store.list(f"{name}/")):
            self.store.delete(info.key)
        if isinstance(self.store, FileStore):
            # Or a long training would leave a thousand of them, empty.
            with suppress(OSError):
                (self.store.root / name).rmdir()


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
