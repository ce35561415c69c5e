"""Processes: a script that `torchrun` starts several times is one training.

    torchrun --nproc-per-node 2 my_script.py

Each process joins the others, takes process 0's weights to start from, and trains its
own of the nets (`training.placement`). What they were given has to be the same: agents
draw their own rows, so that a process which was given a part of them would train
another problem.
"""

from __future__ import annotations

import atexit
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import nn

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.errors import ConfigError, InputError
from safescale_ammt.modules.copies import RowLayout, duplicate
from safescale_ammt.training.placement import (
    SINGLE_PROCESS,
    TIMEOUT,
    GlooGroup,
    ProcessGroup,
    one_sentence,
)


class JoinedGroup(GlooGroup):
    """The processes of a script, in a group of their own beside the script's.

    What processes exchange lies with the processor (docs/decisions.md, 187), so that
    gloo is what they need, whatever the script itself has joined them by.

    Args:
        timeout: how long to wait for the others before `PeerLost`.

    Raises:
        PeerLost: not all processes came in time.
    """

    def __init__(self, timeout: timedelta = TIMEOUT) -> None:
        import torch.distributed as dist

        self._dist = dist
        with one_sentence("before training began"):
            # It stays until the script ends: torchrun's store keeps the addresses of a
            # group that has left, and a second one would call them.
            if not dist.is_initialized():
                dist.init_process_group("gloo", timeout=timeout)
                # Its threads would end the process by an abort.
                atexit.register(leave)
            self._group = dist.new_group(timeout=timeout, backend="gloo")
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def close(self) -> None:
        """Leaves the group; who waits for this process sees at once that it is gone."""
        # Whoever holds it keeps its connections open.
        group, self._group = self._group, None
        self._dist.destroy_process_group(group)


def leave() -> None:
    """Leaves the group of all processes, unless the script has done so."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def joined(
    config: TrainingConfig, environ: Mapping[str, str] = os.environ
) -> Iterator[ProcessGroup]:
    """Joins the processes that the environment speaks of, and leaves them at the end.

    Raises:
        ConfigError: they are not as many as the section says, more than there are
            nets, or the environment does not say how to reach them.
        PeerLost: not all of them came.
    """
    size = processes_here(environ)
    if size == 1:
        yield SINGLE_PROCESS
        return
    if config.processes not in (1, size):
        raise ConfigError(
            f"training.processes is {config.processes}, but {size} were started; "
            "start as many, or leave it at 1."
        )
    nets = config.agent_counts[0] + 1
    if size > nets:
        raise ConfigError(
            f"{size} processes were started for {nets - 1} agents and the twin; start "
            f"at most {nets}, a net for each."
        )
    group = JoinedGroup()
    try:
        yield group
    finally:
        group.close()


def processes_here(environ: Mapping[str, str] = os.environ) -> int:
    """Returns how many processes run this script together.

    Raises:
        ConfigError: WORLD_SIZE says several, and nothing how to reach them.
    """
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    given = environ.get("WORLD_SIZE", "1")
    if not given.isdecimal() or int(given) < 1:
        raise ConfigError(f"WORLD_SIZE is {given!r}, expected a number of processes.")
    if int(given) == 1:
        return 1
    wanted = ("RANK", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in wanted if name not in environ]
    if missing or not dist.is_available():
        lacking = f"{', '.join(missing)} unset" if missing else "no torch.distributed"
        raise ConfigError(
            f"WORLD_SIZE is {given}, but here is {lacking}; start the script by "
            f"torchrun --nproc-per-node {given}, or unset WORLD_SIZE."
        )
    return int(given)


def require_equal(group: ProcessGroup, given: Mapping[str, str]) -> None:
    """Refuses to train together on other things than process 0.

    Args:
        group: the processes.
        given: digest in hex by what it is of.

    Raises:
        InputError: one process was given something else.
    """
    for rank, names in differing(group, given).items():
        if names:
            raise InputError(
                f"Process {rank + 1} of {group.size} differs from process 1 in "
                f"{' and '.join(names)}; give each process the same, and all rows, as "
                "agents draw their own."
            )


def differing(group: ProcessGroup, given: Mapping[str, str]) -> dict[int, list[str]]:
    """Returns by rank which digests in hex are others than process 0's, by name."""
    if group.size == 1:
        return {}
    own = b"".join(bytes.fromhex(digest) for digest in given.values())
    row = torch.frombuffer(bytearray(own), dtype=torch.uint8).view(1, len(given), -1)
    every = group.all_gather(row, [1] * group.size)
    other = (every != every[:1]).any(-1).tolist()
    return {
        rank: [name for name, odd in zip(given, odds, strict=True) if odd]
        for rank, odds in enumerate(other)
    }


def all_alike(modules: Sequence[nn.Module], group: ProcessGroup) -> list[nn.Module]:
    """Returns several modules as `alike` does.

    Raises:
        InputError: the processes were given others, or not as many.
    """
    count = hashlib.sha256(str(len(modules)).encode()).hexdigest()
    require_equal(group, {"number of models": count})
    return [alike(module, group) for module in modules]


def alike(module: nn.Module, group: ProcessGroup) -> nn.Module:
    """Returns a module with process 0's tensors; the one that was given stays as it is.

    Raises:
        InputError: the processes were given modules of several forms, or one that
            cannot be trained.
    """
    if group.size == 1:
        return module
    RowLayout.of(module)
    own = duplicate(module, next(module.parameters()).device)
    tensors = {**dict(own.named_parameters()), **dict(own.named_buffers())}
    form = [(name, tuple(t.shape), str(t.dtype)) for name, t in tensors.items()]
    digest = hashlib.sha256(f"{own}{form}".encode()).hexdigest()
    require_equal(group, {"layers of the model": digest})
    for tensor in tensors.values():
        host = tensor.detach().cpu()
        group.broadcast(host)
        tensor.data.copy_(host)
    return own


def from_first(group: ProcessGroup, value: float) -> float:
    """Returns process 0's value, for what a clock says."""
    found = torch.tensor(value, dtype=torch.float64)
    group.broadcast(found)
    return float(found)


def largest(group: ProcessGroup, value: float) -> float:
    """Returns the largest value of all processes; NaN if one has it."""
    own = torch.tensor([value], dtype=torch.float64)
    return float(group.all_gather(own, [1] * group.size).max())
