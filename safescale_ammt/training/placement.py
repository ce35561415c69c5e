"""Placement: which nets this process trains, and how it sees all of them.

Slots 0 to k-1 are the agents, slot k is the twin. Every process holds a run of
neighbouring slots, as even as can be, and whatever is decided about all agents is
decided in every process alike, from figures that were gathered from all of them:

    placement.local_slots              the slots of this process
    placement.gather(part)             a row per net, of all processes
    placement.broadcast(decision)      rank 0's value, where a bit could differ

A single process holds all slots, and the two collectives do nothing: there is one
training loop. Weights are gathered whole: a mean by reduction would be a sum in
another order, and every process would reach another model than one process does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from safescale_ammt.errors import PeerLost

TIMEOUT = timedelta(seconds=300)
"""How long a process waits for the others before it gives up."""


class ProcessGroup:
    """The processes of a training; this one is of one process alone."""

    rank = 0
    size = 1
    bytes = 0
    """Bytes that this process has sent, all copies to others counted."""

    def all_gather(self, part: Tensor, counts: list[int]) -> Tensor:
        """Returns the rows of all processes, in the order of their ranks.

        Args:
            part: this process' rows.
            counts: how many rows each process holds.
        """
        del counts
        return part

    def broadcast(self, value: Tensor) -> None:
        """Overwrites a tensor with rank 0's."""

    def any(self, *flags: bool) -> list[bool]:
        """Returns of each flag whether it is set in any process."""
        # A gather and no broadcast: each process has a say, whatever its rank.
        gathered = self.all_gather(torch.tensor([flags]), [1] * self.size)
        found: list[bool] = gathered.any(0).tolist()
        return found

    def close(self) -> None:
        """Leaves the group."""


SINGLE_PROCESS = ProcessGroup()


class GlooGroup(ProcessGroup):
    """Processes joined by `torch.distributed` over TCP, on processors.

    Args:
        timeout: how long to wait for the others before `PeerLost`.

    Raises:
        PeerLost: not all processes came in time.
    """

    _group: Any = None
    """Group of `torch.distributed`; None is its default, of all processes."""

    def __init__(self, timeout: timedelta = TIMEOUT) -> None:
        import torch.distributed as dist

        self._dist = dist
        with one_sentence("before training began"):
            dist.init_process_group("gloo", timeout=timeout)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def all_gather(self, part: Tensor, counts: list[int]) -> Tensor:
        """Gathers; a row takes part in as many transfers as there are others."""
        # Gloo gathers tensors of one shape: short parts are padded, then cut.
        padded = part.new_zeros(max(counts), *part.shape[1:])
        padded[: len(part)] = part
        is_bool = part.dtype == torch.bool
        buffer = padded.view(torch.uint8) if is_bool else padded
        buffers = [torch.empty_like(buffer) for _ in counts]
        self.bytes += (self.size - 1) * buffer.nbytes
        with one_sentence(f"process {self.rank + 1} of {self.size}"):
            self._dist.all_gather(buffers, buffer, group=self._group)
        rows = torch.cat([b[:n] for b, n in zip(buffers, counts, strict=True)])
        return rows.view(torch.bool) if is_bool else rows

    def broadcast(self, value: Tensor) -> None:
        """Overwrites a tensor with rank 0's."""
        buffer = value.to(torch.uint8) if value.dtype == torch.bool else value
        self.bytes += (self.size - 1) * buffer.nbytes * (self.rank == 0)
        with one_sentence(f"process {self.rank + 1} of {self.size}"):
            self._dist.broadcast(buffer, 0, group=self._group)
        value.copy_(buffer)

    def close(self) -> None:
        """Leaves the group; the other processes may have ended already."""
        self._dist.destroy_process_group(self._group)


@contextmanager
def one_sentence(where: str) -> Iterator[None]:
    """Turns what a broken connection raises into one sentence.

    Raises:
        PeerLost: the connection to another process broke.
    """
    try:
        yield
    except RuntimeError as error:
        # Gloo's message runs over several lines, with source files and addresses.
        first = " ".join(str(error).split())[:160]
        raise PeerLost(
            f"Training lost touch with another of its processes ({where}): {first}; "
            "read the log of the one that stopped first."
        ) from None


@dataclass(frozen=True)
class Placement:
    """Nets dealt out to processes.

    Attributes:
        nets: slots in all.
        process_group: the processes.
    """

    nets: int
    process_group: ProcessGroup = SINGLE_PROCESS

    @property
    def local_slots(self) -> range:
        """The slots of this process."""
        return self._slots_of(self.process_group.rank)

    def local_below(self, stop: int) -> range:
        """Returns the slots of this process below a number: its agents, below k."""
        slots = self.local_slots
        return range(min(slots.start, stop), min(slots.stop, stop))

    def local_rows(self, slots: Sequence[int]) -> list[int]:
        """Returns the row numbers, in this process, of those slots that it holds."""
        local = self.local_slots
        return [slot - local.start for slot in slots if slot in local]

    def one_of_several(self, nets: int | None = None) -> bool:
        """Returns whether this process computes just one of the first nets.

        `model.network.forward` needs to know: for a single net the library picks
        another routine than for several, with other bits.
        """
        stop = self.nets if nets is None else nets
        return len(self.local_below(stop)) == 1 < stop

    def gather(self, part: Tensor, nets: int | None = None) -> Tensor:
        """Returns the rows of all nets from those of each process.

        Args:
            part: a row per net of this process.
            nets: how many nets have a row, the first ones; None is all.
        """
        stop = self.nets if nets is None else nets
        counts = [
            max(0, min(slots.stop, stop) - slots.start)
            for slots in map(self._slots_of, range(self.process_group.size))
        ]
        return self.process_group.all_gather(part, counts)

    def broadcast(self, *values: Tensor) -> None:
        """Overwrites values with rank 0's: processors may differ in a bit."""
        for value in values:
            self.process_group.broadcast(value)

    def _slots_of(self, rank: int) -> range:
        # Runs of neighbours: what is gathered by rank is in the order of the slots.
        each, more = divmod(self.nets, self.process_group.size)
        first = rank * each + min(rank, more)
        return range(first, first + each + (rank < more))
