"""Checkpoints: a training that is killed continues where it was, to the same bytes.

They are taken at the beginning of a sync round, where no step is half done, every so
many rounds or by the clock, and when SIGTERM comes. A run resumes from the newest whole
one of the same run (same data, genome, constitution, config and code); the one before
stays in case a byte of it is wrong. The store is a folder or a prefix in an object
store (`checkpoint_shelf`).
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from safescale_ammt.errors import Interrupted, StorageError
from safescale_ammt.store.base import Store
from safescale_ammt.training.checkpoint_pace import Pace
from safescale_ammt.training.checkpoint_shelf import (
    Checkpoint,
    CheckpointShelf,
    Upload,
)
from safescale_ammt.training.placement import SINGLE_PROCESS, Placement, ProcessGroup
from safescale_ammt.training.stateful import Stateful, join_states, load_states
from safescale_ammt.training.training_log import Log, discard

PATIENCE = 60.0
"""Seconds that a round waits for the checkpoint before; the others wait for it, too."""


class Checkpoints:
    """The checkpoints of one run in a store; without a store, none.

    Args:
        store: where they lie, or None.
        every: sync rounds between them; 0 = by the clock (`checkpoint_pace`).
        run: digests by which one run differs from another, by name.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        every: int = 0,
        run: Mapping[str, str] | None = None,
    ) -> None:
        self._shelf = None if store is None else CheckpointShelf(store, run or {})
        self._every = every
        self._pace = Pace(every, time.monotonic())
        self._events: list[dict[str, Any]] = []
        self._newest: Checkpoint | None = None
        self._process_group = SINGLE_PROCESS
        self._log: Log = discard
        self._phase, self._placement = "", Placement(1)
        self._components: Mapping[str, Stateful] = {}
        self._sigterm = False
        self._upload: Upload | None = None
        self._failure = ""

    @contextmanager
    def session(self, process_group: ProcessGroup, log: Log) -> Iterator[Log]:
        """Reads the newest checkpoint, and defers SIGTERM while the body trains.

        Yields:
            The log to write to: its events are part of every checkpoint.

        Raises:
            Interrupted: SIGTERM came after the last round; before, the next one stops.
            StorageError: the store does not say what it holds.
        """
        self._process_group, self._log = process_group, log
        if self._shelf is None:
            yield log
            return

        def record(event: dict[str, Any]) -> None:
            self._events.append(event)
            log(event)

        # Rank 0 chooses, or two processes could find different ones to be whole.
        newest = self._find_newest(self._shelf) if process_group.rank == 0 else None
        step = torch.tensor(-1 if newest is None else newest.step)
        process_group.broadcast(step)
        if process_group.rank > 0 and step >= 0:
            newest = self._shelf.fetch(self._shelf.name(int(step)))
        self._newest = newest
        if newest is not None:
            # The log of this process is a new file: it is to hold the whole run.
            for event in newest.events:
                record(event)
            record({"event": "resumed", "step": newest.step})

        def note(_signum: int, _frame: object) -> None:
            self._sigterm = True

        self._pace = Pace(self._every, time.monotonic())
        # Python lets only the main thread set signal handlers.
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGTERM, note) if main else None
        try:
            yield record
        finally:
            if main:
                signal.signal(signal.SIGTERM, before)
            self.settle()
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

    def recorded(self, kind: str) -> dict[str, Any] | None:
        """Returns the last event of a kind that the run that goes on has recorded.

        What a clock decided is read there again, and not decided anew.
        """
        found = [event for event in self._events if event["event"] == kind]
        return found[-1] if found else None

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
        if self._shelf is None:
            return
        # One clock decides, rank 0's. The signal may reach one process a round later
        # than another: all of them stop in the round in which the first has it, or
        # they would wait for it.
        group = self._process_group
        due = group.rank == 0 and self._pace.due(time.monotonic())
        stopping, due = group.any(self._sigterm, due)
        if stopping or due:
            since = time.monotonic()
            state = join_states(self._components).gather(self._placement)
            if group.rank == 0 and self.settle(None if stopping else PATIENCE):
                self._pace.begun()
                checkpoint = Checkpoint(step, self._phase, self._events, state)
                self._upload = Upload(self._shelf, checkpoint, since)
                self._upload.start()
        else:
            self.settle(0.0)
        if stopping:
            self.settle()
            where = f"the checkpoint in {self._shelf.store.uri} is of that step."
            if self._failure:
                where = f"no checkpoint could be taken: {self._failure}"
            raise Interrupted(
                f"Training was stopped by SIGTERM before step {step}; {where}"
            )

    def settle(self, seconds: float | None = None) -> bool:
        """Waits for the checkpoint that is on its way, and logs what became of it.

        Args:
            seconds: how long; None = until it has arrived or failed.

        Returns:
            Whether none is on its way any more.
        """
        upload = self._upload
        if upload is None:
            return True
        upload.join(seconds)
        if upload.is_alive():
            return False
        self._upload = None
        now, failed = time.monotonic(), bool(upload.failure)
        self._pace.ended(now, upload.cost, upload.seconds, failed=failed)
        # A store that stays away is told of once, until it has taken one again.
        if upload.failure and not self._failure:
            self._log({"event": "checkpoint_failed", "reason": upload.failure})
        if upload.left:
            self._log({"event": "checkpoint_left", "reason": upload.left})
        self._failure = upload.failure
        return True

    def clear(self) -> None:
        """Deletes the checkpoints of this run: its model has been delivered."""
        if self._shelf is None:
            return
        try:
            for name in self._shelf.names():
                self._shelf.delete(name)
        except StorageError as error:
            # The model stands, whatever lies about.
            print(f"Checkpoints of this training stay: {error}", flush=True)

    def _find_newest(self, shelf: CheckpointShelf) -> Checkpoint | None:
        """Returns the newest checkpoint of this run that is whole; logs the others."""
        if others := shelf.others():
            reason = f"{len(others)} of other data, config or code, such as {others[0]}"
            self._log({"event": "checkpoint_ignored", "reason": reason})
        for found in shelf.whole():
            if isinstance(found, Checkpoint):
                return found
            self._log({"event": "checkpoint_ignored", "reason": found})
        return None
