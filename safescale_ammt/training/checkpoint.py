"""Checkpoints: a training that is killed goes on where it was, to the same bytes.

    <place>/step-00000420-<run>/state.safetensors    every tensor that changes
                                checkpoint.json      step, phase, the log so far
                                manifest.json        digests; written last

They are taken at the beginning of a sync round, where no step is half done, every
so many rounds and when SIGTERM comes. The newest whole one of the same run (same
data, genome, constitution, config and code) is taken up; the one before is kept in
case a byte of it is wrong. `place` is a folder or a prefix in an object store.
"""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from safescale_ammt.errors import (
    InputError,
    IntegrityError,
    Interrupted,
    StorageError,
)
from safescale_ammt.files.artifacts import MANIFEST, verify, writing
from safescale_ammt.files.canonical import digest_json, read_json, write_json
from safescale_ammt.store.base import Store
from safescale_ammt.training.placement import SINGLE_PROCESS, Placement, ProcessGroup
from safescale_ammt.training.stateful import StateDict, Stateful, apart, together

Log = Callable[[dict[str, Any]], None]
KEPT = 2
"""Checkpoints of a run that stay: the newest, and the one before it."""
_STATE, _ABOUT = "state.safetensors", "checkpoint.json"


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was read.

    Attributes:
        step: the step that comes next.
        phase: trunk or agents.
        events: the training log up to there.
        state: of all nets.
    """

    step: int
    phase: str
    events: list[dict[str, Any]]
    state: StateDict


class Checkpoints:
    """The checkpoints of one run in one place; without a place, none.

    Args:
        place: the store that they lie in, or None.
        every: sync rounds between them; 0 takes one at SIGTERM alone.
        run: digests by which a run is told from others, by name.
    """

    def __init__(
        self,
        place: Store | None = None,
        *,
        every: int = 0,
        run: Mapping[str, str] | None = None,
    ) -> None:
        self._store, self._every = place, every
        self._run = digest_json(dict(run or {}))
        self._ending = "-" + self._run.removeprefix("sha256:")[:16]
        self._events: list[dict[str, Any]] = []
        self._saved: Saved | None = None
        self._process_group = SINGLE_PROCESS
        self._log: Log = _silent
        self._rounds = 0
        self._asked = False

    @contextmanager
    def listening(self, process_group: ProcessGroup, log: Log) -> Iterator[Log]:
        """Finds what there is, and heeds SIGTERM while the body trains.

        Yields:
            The log to write to: it is kept in every checkpoint.
        """
        self._process_group = process_group
        if self._store is None:
            yield log
            return

        self._log = log

        def recording(event: dict[str, Any]) -> None:
            self._events.append(event)
            log(event)

        self._saved = self._found(log)
        if self._saved is not None:
            for event in self._saved.events:
                recording(event)
            recording({"event": "resumed", "step": self._saved.step})
        with self._heeding_sigterm():
            yield recording

    @property
    def resumed(self) -> bool:
        """Whether this run goes on from a checkpoint."""
        return self._saved is not None

    def resume(
        self, phase: str, parts: Mapping[str, Stateful], placement: Placement
    ) -> int:
        """Returns the step to begin with; parts of that phase take up their state."""
        if self._saved is None:
            return 0
        if self._saved.phase == phase:
            apart(parts, self._saved.state.of(placement.mine))
        return self._saved.step

    def visit(
        self, step: int, phase: str, parts: Mapping[str, Stateful], placement: Placement
    ) -> None:
        """Takes a checkpoint if one is due, in all processes together.

        Raises:
            Interrupted: SIGTERM came; the checkpoint has been taken.
        """
        if self._store is None:
            return
        self._rounds += 1
        asked = self._process_group.any(self._asked)
        if asked or (self._every and self._rounds % self._every == 0):
            state = together(parts).gathered(placement)
            if self._process_group.rank == 0:
                self._try_to_save(Saved(step, phase, self._events, state))
        if asked:
            raise Interrupted(
                f"Training was stopped by SIGTERM before step {step}; the newest "
                f"checkpoint in {self._store.uri} goes on from there."
            )

    def clear(self) -> None:
        """Deletes the checkpoints of this run: its model has been delivered."""
        for name in self._names():
            self._delete(name)

    def _try_to_save(self, saved: Saved) -> None:
        """Saves if the store lets it: training is worth more than a checkpoint."""
        try:
            self._save(saved)
        except StorageError as error:
            self._log({"event": "checkpoint_failed", "reason": str(error)})

    def _save(self, saved: Saved) -> None:
        assert self._store is not None
        name = f"step-{saved.step:08d}{self._ending}"
        with tempfile.TemporaryDirectory(prefix="safescale-") as scratch:
            folder = Path(scratch) / name
            write(folder, saved, self._run)
            self._store.upload_folder(folder, name)
        for old in self._names()[:-KEPT]:
            self._delete(old)

    def _names(self) -> list[str]:
        """Returns this run's checkpoints, oldest first; half of one may be left."""
        if self._store is None:
            return []
        names = {info.key.partition("/")[0] for info in self._store.list("step-")}
        return sorted(name for name in names if name.endswith(self._ending))

    def _delete(self, name: str) -> None:
        """Deletes a checkpoint, its manifest first: half of one is none."""
        assert self._store is not None
        self._store.delete(f"{name}/{MANIFEST}")
        for info in list(self._store.list(f"{name}/")):
            self._store.delete(info.key)

    def _found(self, log: Log) -> Saved | None:
        """Returns the newest checkpoint that rank 0 can read; all take the same."""
        process_group = self._process_group
        saved = self._newest(log) if process_group.rank == 0 else None
        step = torch.tensor(-1 if saved is None else saved.step)
        process_group.broadcast(step)
        if process_group.rank == 0 or step < 0:
            return saved
        return self._read(f"step-{int(step):08d}{self._ending}")

    def _newest(self, log: Log) -> Saved | None:
        assert self._store is not None
        mine = self._names()
        keys = (info.key.partition("/")[0] for info in self._store.list("step-"))
        if others := set(keys) - set(mine):
            said = f"{len(others)} of other data, config or code, such as {min(others)}"
            log({"event": "checkpoint_ignored", "reason": said})
        for name in reversed(mine):
            try:
                return self._read(name)
            except (InputError, IntegrityError, ValueError, KeyError) as error:
                said = " ".join(str(error).split())
                log({"event": "checkpoint_ignored", "reason": f"{name}: {said}"})
        return None

    def _read(self, name: str) -> Saved:
        assert self._store is not None
        with tempfile.TemporaryDirectory(prefix="safescale-") as scratch:
            self._store.download_folder(name, scratch)
            return read(Path(scratch), self._run)

    @contextmanager
    def _heeding_sigterm(self) -> Iterator[None]:
        """Notes SIGTERM instead of stopping at once; the next round stops."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(_signum: int, _frame: object) -> None:
            self._asked = True

        before = signal.signal(signal.SIGTERM, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
        if self._asked:  # after the last round
            raise Interrupted("Training was stopped by SIGTERM before it was done.")


def _silent(_event: dict[str, Any]) -> None:
    """Logs nothing."""


def write(folder: Path, saved: Saved, run: str) -> None:
    """Writes a checkpoint as an artifact: whole or absent."""
    parents = {"run": run}
    with writing(
        folder, kind="checkpoint", stage="train_agents", parents=parents
    ) as draft:
        (draft.folder / _STATE).write_bytes(save(saved.state.flat()))
        about = {"step": saved.step, "phase": saved.phase, "events": saved.events}
        write_json(draft.folder / _ABOUT, about)


def read(folder: Path, run: str) -> Saved:
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
    about = read_json(folder / _ABOUT)
    state = StateDict.from_flat(load_file(folder / _STATE))
    return Saved(about["step"], about["phase"], about["events"], state)
