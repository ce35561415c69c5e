"""How much memory is free, so that a table that cannot fit is refused and not killed.

A packed or coded file may unfold a thousandfold, and a table that compresses well may
too: so no ratio is a limit. What unfolds is measured against what this process may
still take.
"""

from __future__ import annotations

import ctypes
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safescale_ammt.errors import DataError

_MEMINFO, _STATUS = Path("/proc/meminfo"), Path("/proc/self/status")
# A container's limit and what it has taken of it, by version 2 and 1 of cgroups.
_GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    (
        "/sys/fs/cgroup/memory",
        *("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ),
)
_UNKNOWN = 16 << 30
"""Bytes that are taken to be free where the system does not say."""
SHARE = 2
"""A table may take one part in so many of the free memory: what follows copies it."""


def free_memory() -> int:
    """Returns the bytes that this process may still take: of machine, group and limit.

    Source: proc(5), cgroups(7), getrlimit(2).
    """
    free = [_field(_MEMINFO, "MemAvailable") or _UNKNOWN]
    for folder, limit, taken, cache in _GROUPS:
        # No limit is the word `max`, or a number beyond every memory. What a group has
        # read of files is given back when it is needed.
        with suppress(OSError, ValueError):
            most, now = (int(Path(folder, f).read_text()) for f in (limit, taken))
            free.append(most - now + _field(Path(folder, "memory.stat"), cache, "", 1))
    with suppress(ImportError):
        import resource

        soft = resource.getrlimit(resource.RLIMIT_AS)[0]
        if soft != resource.RLIM_INFINITY:
            free.append(soft - _field(_STATUS, "VmSize"))
    return max(0, min(free))


def give_back_freed() -> None:
    """Gives freed memory, which Arrow and glibc keep, back to the system.

    Worth its milliseconds once, between a part of the work that frees much and one that
    takes much in other sizes: the peak is then that of one and not of both.
    """
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    # glibc's malloc_trim(3); other libraries have none.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def room_for_table() -> int:
    """Returns the bytes that a table may take."""
    return free_memory() // SHARE


@dataclass(frozen=True)
class Room:
    """What a table may take of something that is free.

    Attributes:
        size: bytes.
        of: `memory` or `disk`.
    """

    size: int
    of: Literal["memory", "disk"] = "memory"

    @classmethod
    def in_memory(cls) -> Room:
        """Returns the room of a table that is held in memory."""
        return cls(room_for_table())

    @classmethod
    def on_disk(cls, folder: Path) -> Room:
        """Returns the room of a table that lies in a folder."""
        return cls(shutil.disk_usage(folder).free // SHARE, "disk")

    def check(self, size: int, what: str) -> None:
        """Refuses what would take more.

        Args:
            size: bytes that it takes at least.
            what: the file, for the sentence.

        Raises:
            DataError: it does not fit.
        """
        if size > self.size:
            raise DataError(
                f"{what} unfolds to at least {in_units(size)}, more than the "
                f"{in_units(self.size)} that a table may take here (half of the free "
                f"{self.of}); leave columns or rows out of the file, or use a machine "
                f"with more {self.of}."
            )


def check_fits(size: int, what: str, room: int | None = None) -> None:
    """Refuses what would take more memory than a table may.

    Args:
        size: bytes that it takes at least.
        what: the file, for the sentence.
        room: bytes that it may take; None = as many as are free now.

    Raises:
        DataError: it does not fit.
    """
    (Room.in_memory() if room is None else Room(room)).check(size, what)


def in_units(size: int) -> str:
    """Spells a number of bytes for a sentence."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _field(file: Path, name: str, sign: str = ":", unit: int = 1 << 10) -> int:
    with suppress(OSError):
        found = re.search(rf"^{name}{sign}\s+(\d+)", file.read_text(), re.MULTILINE)
        return int(found[1]) * unit if found else 0
    return 0
