"""Random edits of what is kept of a release, and whether the commands find them.

    byte    one byte changed, added or taken out, anywhere in a file
    row     a line of a text, or a row of the evidence: changed, dropped, doubled
    order   two lines, or two rows, in each other's place
    file    dropped, copied under another name, cut short, emptied, two exchanged

An edit that leaves every byte where it was is none and is drawn again. Each is undone
after the command has looked, so that edits do not add up.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from safescale_ammt.files.canonical import is_digest

PROBE = "conditional-write.txt"
"""Written once to try a store; nothing ever reads it, so an edit of it is none."""
Edit = Callable[[random.Random, Path, Sequence[Path]], str]


@dataclass(frozen=True)
class Target:
    """What is edited.

    Attributes:
        name: in the table.
        folder: the files below it are edited.
        verify: returns the sentence by which it is refused, "" if it is not.
        part: of each file: beginning of its path in `folder`, for the taxonomy.
    """

    name: str
    folder: Path
    verify: Callable[[], str]

    def files(self) -> list[Path]:
        """Lists the files whose bytes mean something, in the same order in every run.

        What has a digest for its name goes by when it was written.
        """
        found = (p for p in self.folder.rglob("*") if p.is_file() and p.name != PROBE)
        named = ((masked(p.relative_to(self.folder)), p) for p in found)
        return [p for _, _, p in sorted((n, p.stat().st_mtime_ns, p) for n, p in named)]


def byte_changed(rng: random.Random, file: Path, _: Sequence[Path]) -> str:
    """Gives one byte another value."""
    data = bytearray(file.read_bytes())
    at = rng.randrange(len(data))
    data[at] ^= rng.randrange(1, 256)
    file.write_bytes(data)
    return f"byte {at}"


def byte_added(rng: random.Random, file: Path, _: Sequence[Path]) -> str:
    """Puts a byte in."""
    data = bytearray(file.read_bytes())
    at = rng.randrange(len(data) + 1)
    data.insert(at, rng.randrange(256))
    file.write_bytes(data)
    return f"before byte {at}"


def byte_removed(rng: random.Random, file: Path, _: Sequence[Path]) -> str:
    """Takes a byte out."""
    data = bytearray(file.read_bytes())
    at = rng.randrange(len(data))
    del data[at]
    file.write_bytes(data)
    return f"byte {at}"


def row_dropped(rng: random.Random, file: Path, _: Sequence[Path]) -> str:
    """Leaves one line, or row, out."""
    return _rows(file, lambda order: order.pop(rng.randrange(len(order))))


def row_doubled(rng: random.Random, file: Path, _: Sequence[Path]) -> str:
    """Writes one line, or row, twice."""

    def doubled(order: list[int]) -> int:
        at = rng.randrange(len(order))
        order.insert(at, order[at])
        return at

    return _rows(file, doubled)


def rows_swapped(rng: random.Random, file: Path, _: Sequence[Path]) -> str:
    """Puts two lines, or rows, in each other's place."""

    def swapped(order: list[int]) -> int:
        one, two = rng.sample(range(len(order)), 2) if len(order) > 1 else (0, 0)
        order[one], order[two] = order[two], order[one]
        return one

    return _rows(file, swapped)


def row_changed(rng: random.Random, file: Path, _: Sequence[Path]) -> str:
    """Replaces a character of a line, or a value of a row by that of another row."""
    if file.suffix != ".parquet":
        lines = file.read_bytes().splitlines(keepends=True)
        at = rng.randrange(len(lines))
        line = bytearray(lines[at])
        # Another character whatever stood there: draws are the same in every run.
        line[rng.randrange(len(line))] ^= rng.randrange(1, 128)
        lines[at] = bytes(line)
        file.write_bytes(b"".join(lines))
        return f"line {at}"
    table = pq.read_table(file)
    column = rng.randrange(table.num_columns)
    values = table.column(column).to_pylist()
    one, two = rng.sample(range(len(values)), 2)
    values[one] = values[two]
    field = table.schema.field(column)
    changed = table.set_column(column, field, pa.array(values, field.type))
    pq.write_table(changed, file)
    return f"row {one} of {field.name}"


def file_dropped(_: random.Random, file: Path, __: Sequence[Path]) -> str:
    """Removes a file."""
    file.unlink()
    return "gone"


def file_copied(rng: random.Random, file: Path, _: Sequence[Path]) -> str:
    """Copies a file under a name that is not there."""
    name = f"{file.stem}-{rng.randrange(100)}{file.suffix}"
    if file.stem.isdigit():  # the next event of a log
        name = f"{1 + max(int(p.stem) for p in file.parent.iterdir()):08d}.json"
    elif is_digest(f"sha256:{file.name}"):
        name = f"{rng.getrandbits(256):064x}"
    (file.parent / name).write_bytes(file.read_bytes())
    return name


def file_cut(rng: random.Random, file: Path, _: Sequence[Path]) -> str:
    """Cuts a file short."""
    size = rng.randrange(file.stat().st_size)
    with file.open("rb+") as opened:
        opened.truncate(size)
    return f"to {size} bytes"


def file_emptied(_: random.Random, file: Path, __: Sequence[Path]) -> str:
    """Empties a file."""
    file.write_bytes(b"")
    return "0 bytes"


def files_exchanged(rng: random.Random, file: Path, others: Sequence[Path]) -> str:
    """Gives two files each other's bytes; of one ending, where there are others."""
    alike = [p for p in others if p.suffix == file.suffix and p != file]
    other = rng.choice(alike or [p for p in others if p != file])
    one, two = file.read_bytes(), other.read_bytes()
    file.write_bytes(two)
    other.write_bytes(one)
    return f"with {other.name}"


KINDS: dict[str, Edit] = {
    "byte changed": byte_changed,
    "byte added": byte_added,
    "byte removed": byte_removed,
    "row changed": row_changed,
    "row dropped": row_dropped,
    "row doubled": row_doubled,
    "order of two rows": rows_swapped,
    "file dropped": file_dropped,
    "file copied": file_copied,
    "file cut short": file_cut,
    "file emptied": file_emptied,
    "two files exchanged": files_exchanged,
}
SHARES = (4, 1, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1)
"""How often each kind is drawn, for those of `KINDS` in order."""


def _rows(file: Path, change: Callable[[list[int]], int]) -> str:
    """Reorders the rows of a Parquet file, or the lines of another."""
    if file.suffix == ".parquet":
        table = pq.read_table(file)
        order = list(range(len(table)))
        at = change(order)
        pq.write_table(table.take(order), file)
        return f"row {at}"
    lines = file.read_bytes().splitlines(keepends=True)
    order = list(range(len(lines)))
    at = change(order)
    file.write_bytes(b"".join(lines[i] for i in order))
    return f"line {at}"


@contextmanager
def undone(folder: Path) -> Iterator[Callable[[], bool]]:
    """Gives what says whether a byte below a folder changed, and undoes it at the end.

    Names and bytes come back; times of files do not, which no digest covers.
    """
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    def changed() -> bool:
        now = {p for p in folder.rglob("*") if p.is_file()}
        return now != before.keys() or any(
            path.read_bytes() != data for path, data in before.items()
        )

    try:
        yield changed
    finally:
        for path in folder.rglob("*"):
            if path.is_file() and path not in before:
                path.unlink()
        for path, data in before.items():
            if not path.is_file() or path.read_bytes() != data:
                path.write_bytes(data)


def edited(
    target: Target, edits: int, seed: int, mend: Callable[[Path], None] | None = None
) -> Iterator[dict[str, str | bool]]:
    """Edits a target and yields what each edit was and how the command refused it.

    Args:
        target: what is edited.
        edits: how many times.
        seed: of file, kind and place.
        mend: makes the digests of an edited folder fit again.
    """
    rng, made = random.Random(seed), 0
    names = list(KINDS)
    if refused := target.verify():
        raise SystemExit(f"{target.name} is refused before any edit: {refused}")
    while made < edits:
        files = target.files()
        file, [kind] = rng.choice(files), rng.choices(names, SHARES)
        with undone(target.folder) as changed:
            where = KINDS[kind](rng, file, files)
            if mend and changed():
                mend(target.folder)
            # An edit of a manifest may be mended away.
            if not changed():
                continue
            said = target.verify()
        made += 1
        yield {
            "target": target.name,
            "kind": kind,
            "file": masked(file.relative_to(target.folder)),
            "where": where,
            "detected": bool(said),
            "said": said,
        }


def masked(path: Path) -> str:
    """Leaves digests out of a path: they differ from run to run."""
    return "/".join(
        "DIGEST" if is_digest(f"sha256:{part}") else part for part in path.parts
    )
