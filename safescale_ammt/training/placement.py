"""Spread: which nets this process trains, and how it sees all of them.

Slots 0 to k-1 are the agents, slot k is the twin. Every process holds a run of
neighbouring slots, as even as can be, and whatever is decided about all agents is
decided in every process alike, from figures that were gathered from all of them:

    mine = spread.mine                 the slots of this process
    every = spread.gather(part)        a row per net, of all processes
    spread.agree(decision)             rank 0's word, where a bit could differ

A single process holds all slots, and both are nothing at all: there is one loop.
Weights are gathered whole: a mean by reduction would be a sum in another order,
and every process would reach another model than one process does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor

from safescale_ammt.errors import PeerLost

PATIENCE = timedelta(seconds=300)
"""How long a process waits for the others before it gives up."""


class ProcessGroup:
    """What joins the processes; this one joins nobody: there is one process."""

    rank = 0
    size = 1
    bytes = 0
    """Bytes that this process has handed over, all copies to others counted."""

    def all_gather(self, part: Tensor, rows: list[int]) -> Tensor:
        """Returns the rows of all processes, in the order of their ranks.

        Args:
            part: this process' rows.
            rows: how many rows each process holds.
        """
        del rows
        return part

    def broadcast(self, value: Tensor) -> None:
        """Overwrites a tensor with rank 0's."""

    def any(self, flag: bool) -> bool:
        """Says whether a flag is up in any process."""
        return bool(self.all_gather(torch.tensor([flag]), [1] * self.size).any())

    def close(self) -> None:
        """Lets go of the other processes."""


SINGLE_PROCESS = ProcessGroup()


class GlooGroup(ProcessGroup):
    """Processes joined by `torch.distributed` over TCP, on processors.

    Args:
        patience: how long to wait for the others before `PeerLost`.

    Raises:
        PeerLost: not all processes came in time.
    """

    def __init__(self, patience: timedelta = PATIENCE) -> None:
        import torch.distributed as dist

        self._dist = dist
        with _others("before training began"):
            dist.init_process_group("gloo", timeout=patience)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def all_gather(self, part: Tensor, rows: list[int]) -> Tensor:
        """Gathers; a row takes part in as many transfers as there are others."""
        padded = part.new_zeros(max(rows), *part.shape[1:])
        padded[: len(part)] = part
        flags = part.dtype == torch.bool
        sent = padded.view(torch.uint8) if flags else padded
        found = [torch.empty_like(sent) for _ in rows]
        self.bytes += (self.size - 1) * sent.nbytes
        with _others(f"process {self.rank + 1} of {self.size}"):
            self._dist.all_gather(found, sent)
        every = torch.cat([f[:n] for f, n in zip(found, rows, strict=True)])
        return every.view(torch.bool) if flags else every

    def broadcast(self, value: Tensor) -> None:
        """Overwrites a tensor with rank 0's."""
        sent = value.to(torch.uint8) if value.dtype == torch.bool else value
        self.bytes += (self.size - 1) * sent.nbytes * (self.rank == 0)
        with _others(f"process {self.rank + 1} of {self.size}"):
            self._dist.broadcast(sent, 0)
        value.copy_(sent)

    def close(self) -> None:
        """Lets go of the other processes; they may be gone already."""
        self._dist.destroy_process_group()


@contextmanager
def _others(where: str) -> Iterator[None]:
    """Turns what a broken connection raises into one sentence."""
    try:
        yield
    except RuntimeError as error:
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
        wire: joins the processes.
    """

    nets: int
    process_group: ProcessGroup = SINGLE_PROCESS

    @property
    def mine(self) -> range:
        """The slots of this process."""
        return self._of(self.process_group.rank)

    @property
    def leads(self) -> bool:
        """Whether this process writes what is written once."""
        return self.process_group.rank == 0

    def below(self, upto: int) -> range:
        """Returns the slots of this process below a number: its agents."""
        return range(min(self.mine.start, upto), min(self.mine.stop, upto))

    def lone(self, upto: int | None = None) -> bool:
        """Says whether one net of several is all that this process computes."""
        nets = self.nets if upto is None else upto
        return len(self.below(nets)) == 1 < nets

    def local(self, slots: Sequence[int]) -> list[int]:
        """Returns the row numbers of those slots that are this process' own."""
        return [slot - self.mine.start for slot in slots if slot in self.mine]

    def gather(self, part: Tensor, upto: int | None = None) -> Tensor:
        """Returns the rows of all nets from those of each process.

        Args:
            part: a row per net of this process.
            upto: slots below this alone are gathered, from `below(upto)`.
        """
        nets = self.nets if upto is None else upto
        counts = [
            max(0, min(slots.stop, nets) - slots.start)
            for slots in map(self._of, range(self.process_group.size))
        ]
        return self.process_group.all_gather(part, counts)

    def agree(self, *values: Tensor) -> None:
        """Gives every process rank 0's values: processors may differ in a bit."""
        for value in values:
            self.process_group.broadcast(value)

    def _of(self, rank: int) -> range:
        each, more = divmod(self.nets, self.process_group.size)
        first = rank * each + min(rank, more)
        return range(first, first + each + (rank < more))
