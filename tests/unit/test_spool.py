"""Rows in batches: what a whole table says, whatever cuts it and wherever it lies."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_tables import save

from safescale_ammt.errors import DataError
from safescale_ammt.files import memory
from safescale_ammt.reading import (
    byte_streams,
    csv_rows,
    parquet_reader,
    scratch,
    spool,
)
from safescale_ammt.reading.columns import RawTable
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.reading.sources import ALL, read_table, spool_table
from safescale_ammt.reading.spool import Spool

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: pa.Codec("zstd").compress(data).to_pybytes(),
}
CELL = st.text(st.sampled_from('ab ,;"\n0159.-é中😀'), max_size=6)
DISK = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, 1 << 14))"
CHILD = """
import os, resource, signal, sys
from pathlib import Path
from safescale_ammt.errors import SafescaleError
from safescale_ammt.reading import csv_rows, scratch
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.reading.sources import ALL, spool_table
csv_rows.LONGEST_ROW, scratch.IN_MEMORY = 1 << 20, int(sys.argv[3])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
{limit}
try:
    rows = spool_table(Path(sys.argv[1]).as_uri(), Layout(), ALL, Path(sys.argv[2]))
    assert sum(batch.rows for batch in rows.batches()) == rows.rows
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, flush=True)
except SafescaleError as error:
    print(error)
if sys.argv[4:]:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def child(limit: str, *arguments: object) -> tuple[str, int]:
    command = [sys.executable, "-c", CHILD.format(limit=limit), *map(str, arguments)]
    # Without coverage, whose own file would find no room either.
    environ = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr, done.returncode


@pytest.fixture(params=[(1, 0, 64), (7, 1000, 4096), (1000, 1 << 26, 1 << 20)])
def cuts(request: pytest.FixtureRequest) -> Iterator[int]:
    """Rows of a batch; arrays go to disk from a size on, bytes come so many at once."""
    with cut(*request.param):
        yield request.param[0]


def cut(rows: int, in_memory: int, chunk: int, block: int = 1 << 23) -> ExitStack:
    stack = ExitStack()
    for module in (spool, parquet_reader):
        stack.enter_context(patch.object(module, "BATCH_ROWS", rows))
    for module in (byte_streams, csv_rows, parquet_reader):
        stack.enter_context(patch.object(module, "CHUNK", chunk))
    stack.enter_context(patch.object(scratch, "IN_MEMORY", in_memory))
    stack.enter_context(patch.object(csv_rows, "LONGEST_ROW", block))
    return stack


def whole(batches: list[RawTable]) -> dict[str, list[str]]:
    """Puts batches together, each of which has the values of its rows alone."""
    for batch in batches:
        for column in batch.columns.values():
            texts = column.values.to_pylist()
            assert len({*texts}) == len(texts)
            assert {*column.codes.tolist()} == {*range(len(texts))}
    return {
        name: [t for batch in batches for t in batch.columns[name].texts().to_pylist()]
        for name in batches[0].columns
    }


def told(table: RawTable | Spool) -> tuple[object, ...]:
    return (
        table.rows,
        table.digests,
        table.notes,
        table.names_are_safe,
        table.commas,
        table.unclear,
    )


def check_same(uri: str, layout: Layout, folder: Path) -> Spool:
    """Compares a spool with the table, sentence or cells."""
    said = ""
    try:
        table = read_table(uri, layout)
    except DataError as error:
        said = str(error)
    if said:
        with pytest.raises(DataError, match=f"^{re.escape(said)}$"):
            spool_table(uri, layout, ALL, folder)
        return Spool.of(RawTable({}, 0, uri, {}))
    rows = spool_table(uri, layout, ALL, folder)
    batches = [*rows.batches()]
    assert whole(batches) == whole([table])
    assert told(rows) == told(table)
    assert all(0 < batch.rows <= spool.BATCH_ROWS for batch in batches)
    starts = np.cumsum([0, *(batch.rows for batch in batches)])
    assert [batch.start for batch in batches] == starts[:-1].tolist()
    for name, column in table.kept.items():
        parts = [c for batch in batches for c in batch.kept[name].chunks]
        assert pa.chunked_array(parts).to_pylist() == column.to_pylist()
        assert parts[0].type == column.type
    return rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    rows=st.integers(1, 3).flatmap(
        lambda n: st.lists(st.lists(CELL, min_size=n, max_size=n), min_size=1)
    ),
    sign=st.sampled_from([",", ";", "\t"]),
    stored=st.tuples(st.sampled_from([*PACKERS]), st.sampled_from(["utf-8", "utf-16"])),
    cuts=st.tuples(
        st.sampled_from([1, 7, 1000]),
        st.sampled_from([0, 200, 1 << 26]),
        st.sampled_from([16, 17, 61, 1 << 20]),
        st.sampled_from([1 << 9, 1 << 23]),
    ),
)
def test_any_cut_of_any_file_gives_the_texts_that_were_written(
    tmp_path: Path,
    rows: list[list[str]],
    sign: str,
    stored: tuple[str, str],
    cuts: tuple[int, int, int, int],
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=sign, quoting=csv.QUOTE_ALL)
    writer.writerows([[f"name {i}" for i in range(len(rows[0]))], *rows * 3])
    packer, encoding = stored
    data = text.getvalue().encode(encoding)
    # Members of a packed file begin wherever one ends.
    middle = len(data) // 2 if packer in ("gzip", "bz2", "xz") else len(data)
    pack = PACKERS[packer]
    members = pack(data[:middle]) + (pack(data[middle:]) if data[middle:] else b"")
    uri = save(tmp_path / "x.csv", members)
    layout = Layout(decimal=".", delimiter=sign)

    with cut(*cuts):
        found = whole([*check_same(uri, layout, tmp_path).batches()])

    assert [*zip(*found.values(), strict=True)] == [
        tuple(cell.strip() for cell in row) for row in rows * 3
    ]


BROKEN = {
    "ragged": b"a,b\n" + b"1,2\n" * 60 + b"1\n" + b"1,2\n" * 9,
    "truncated": b"a,b\n" + b"1,2\n" * 60 + b"1",
    "open": b"a,b\n" + b"1,2\n" * 60 + b'1,"2\n' + b"1,2\n" * 3,
    "no utf-8": b"a,b\n" + b"1,2\n" * 60 + b"\xff,2\n",
    "no header": b"1,x\n" + b"0,y\n" * 60 + b"1,x\n",
    "nameless": b"a,\n" + b"1,\n" * 60 + b"1,2\n",
    "no rows": b"a,b\n",
    "comments": b"a,b\n#1,2\n#1,2\n",
    "late sign": b"a;b\n" + b"1,5;2\n" * 60 + b"1,5;2.5\n",
    "twice": b"a,a\n1,2\n",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=[*BROKEN])
def test_what_is_wrong_anywhere_is_the_same_sentence(
    tmp_path: Path, cuts: int, data: bytes
) -> None:
    for layout in (Layout(), Layout(comment="#")):
        check_same(save(tmp_path / "x.csv", data), layout, tmp_path)


@pytest.mark.usefixtures("cuts")
def test_a_sign_that_settles_a_column_may_stand_in_its_last_row(tmp_path: Path) -> None:
    unclear = b"a;b\n" + b"1,234;x\n" * 60

    clear = check_same(
        save(tmp_path / "x.csv", unclear + b"1,5;y\n"), Layout(), tmp_path
    )
    assert whole([next(clear.batches(["a"]))])["a"][0] == "1.234e0"
    left = check_same(save(tmp_path / "x.csv", unclear), Layout(), tmp_path)
    assert (left.commas, left.unclear) == (frozenset(), {"a"})


@pytest.mark.usefixtures("cuts")
def test_files_of_a_folder_agree_on_their_commas_in_any_order(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    parts = {"g=1": b"1,234\n" * 20, "g=2": b"1,5\n" * 20, "g=3": b"7\n"}
    for name, rows in parts.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "x.csv").write_bytes(b"a;b\n" + rows.replace(b"\n", b";z\n"))

    rows = check_same(folder.as_uri(), Layout(), tmp_path)
    assert whole([*rows.batches(["g"])])["g"] == ["1"] * 20 + ["2"] * 20 + ["3"]
    assert whole([next(rows.batches())])["a"][0] == "1.234e0"

    # Points in one file, and in another commas that may be either.
    (folder / "g=2" / "x.csv").write_bytes(b"a;b\n" + b"1.5;z\n" * 20)
    check_same(folder.as_uri(), Layout(), tmp_path)
    with pytest.raises(DataError, match=r"Column 1 of g=2/x\.csv in .* data\.decimal"):
        spool_table(folder.as_uri(), Layout(), ALL, tmp_path)


@pytest.mark.parametrize("last", ["90", "5", "095"])
@pytest.mark.parametrize("name", ["", "Unnamed: 0", "__index_level_0__"])
@pytest.mark.parametrize("shuffled", [False, True])
def test_a_writers_index_is_one_by_all_of_its_rows(
    tmp_path: Path, cuts: int, last: str, name: str, shuffled: bool
) -> None:
    index = [str(i) for i in range(90)]
    if shuffled:
        random.Random(0).shuffle(index)
    lines = [f"{i},{n % 5}" for n, i in enumerate([*index, last])]
    data = "\n".join([f"{name},a", *lines, ""]).encode()

    check_same(save(tmp_path / "x.csv", data), Layout(), tmp_path)


def test_a_number_of_a_row_comes_again_wherever_its_twin_lies(tmp_path: Path) -> None:
    index = [*map(str, range(300, 0, -1))]
    for again, is_one in (("150", False), ("0150", True), ("301", True)):
        rows = [*index, again]
        data = ",a\n" + "".join(f"{i},{n % 7}\n" for n, i in enumerate(rows))
        uri = save(tmp_path / "x.csv", data.encode())
        with cut(1000, 0, 1 << 20, 1 << 9):
            if not is_one:
                with pytest.raises(DataError, match=r"Column 1 of .* has no name"):
                    spool_table(uri, Layout(), ALL, tmp_path)
                continue
            found = spool_table(uri, Layout(), ALL, tmp_path)
            assert found.names == ("a",)


def test_a_comment_line_has_no_values_whatever_its_fields_say(tmp_path: Path) -> None:
    # Two cells of the comment are the header's, and a word spoils a decimal comma.
    data = b"a;b;c\n#a;b;c\n1,5;x;1\n2,5;y;2\n"
    uri = save(tmp_path / "x.csv", data)

    rows = check_same(uri, Layout(comment="#"), tmp_path)

    assert whole([*rows.batches()]) == {
        "a": ["1.5", "2.5"],
        "b": ["x", "y"],
        "c": ["1", "2"],
    }


TYPES = {
    "int": pa.array([None, *range(-45, 44)], pa.int16()),
    "float": pa.array([0.0, -0.0, float("nan"), None, 1.234, 1e300] * 15),
    "half": pa.array(np.array([0.1, float("nan"), 3.5] * 30, np.float16)),
    "bool": pa.array([True, None, False] * 30),
    "decimal": pa.array([Decimal("1.234"), None, Decimal("7.000")] * 30),
    "time": pa.array([datetime(2020, 1, 2, tzinfo=UTC), None] * 45),
    "day": pa.array([date(2020, 1, i % 28 + 1) for i in range(90)]),
    "text": pa.array(["é", " a ", None, "", "a"] * 18),
    "category": pa.array(["x", "y", None] * 30).dictionary_encode(),
    "coded": pa.DictionaryArray.from_arrays(
        pa.array([0, 1, 2] * 30, pa.int8()), pa.array([1.5, float("nan"), 2.0])
    ),
    "bytes": pa.array([b"\xc3\xa9", None, b"z"] * 30),
    "nothing": pa.nulls(90),
    "__index_level_0__": pa.array(range(90)),
}


@pytest.mark.parametrize("group", [7, 10**6])
def test_row_groups_of_any_size_and_type_are_the_texts_of_the_table(
    tmp_path: Path, cuts: int, group: int
) -> None:
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table(TYPES), file, row_group_size=group, use_dictionary=["text"])

    rows = check_same(
        file.as_uri(), Layout(keep=("text", "int", "category", "time")), tmp_path
    )

    texts = whole([*rows.batches()])
    assert texts["float"][:6] == ["0", "-0", "", "", "1.234e0", "1e+300"]
    assert texts["coded"][:3] == ["1.5", "", "2"]
    assert "__index_level_0__" not in texts
    assert rows.notes


@pytest.mark.parametrize(
    "column",
    [
        pa.array([10**15] * 80 + [9 * 10**18] * 10).cast(pa.timestamp("us")),
        pa.array([b"a"] * 80 + [b"\xff"] * 10),
        pa.array([b"a"] * 80 + [b"\xff"] * 10).view(pa.string()),
        pa.array([""] * 89 + ["x" * (csv_rows.LONGEST_ROW + 1)]),
    ],
)
def test_what_has_no_text_is_told_of_all_rows(
    tmp_path: Path, cuts: int, column: pa.Array
) -> None:
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1] * 90, "b": column}), file, row_group_size=45)

    check_same(file.as_uri(), Layout(), tmp_path)
    with pytest.raises(DataError, match=r"Column ('b'|2) of"):
        spool_table(file.as_uri(), Layout(), ALL, tmp_path)


def test_batches_are_read_again_side_by_side_and_by_name(tmp_path: Path) -> None:
    data = b"a,b,c\n" + b"".join(b"%d,%d,x\n" % (i, i % 3) for i in range(900))
    with cut(100, 0, 1 << 20):
        rows = spool_table(save(tmp_path / "x.csv", data), Layout(), ALL, tmp_path)
        pairs = zip(rows.batches(["c", "a"]), rows.batches(["b"]), strict=True)
        for at, (some, others) in enumerate(pairs):
            assert list(some.columns) == ["a", "c"]
            numbers = [str(i) for i in range(at * 100, at * 100 + 100)]
            assert some.columns["a"].texts().to_pylist() == numbers
            assert others.columns["b"].texts()[0].as_py() == str(at * 100 % 3)
        assert rows.outline.rows == 0
        with pytest.raises(DataError, match=r"has no column 'd' \(an id\)"):
            rows.outline.column("d", "an id")
        assert whole([rows.table()]) == whole([*rows.batches()])
        # A table that somebody holds is as good.
        held = Spool.of(rows.table())
        assert [batch.rows for batch in held.batches()] == [100] * 9


def test_rows_lie_in_no_file_with_a_name_and_go_with_a_killed_process(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "aside"
    folder.mkdir()
    data = b"a,b\n" + b"".join(b"%d,%d\n" % (i, i % 3) for i in range(5000))
    source = save(tmp_path / "x.csv", data).removeprefix("file://")

    with cut(1000, 0, 1 << 20):
        rows = spool_table(Path(source).as_uri(), Layout(), ALL, folder)
        assert os.listdir(folder) == []  # noqa: PTH208
    assert rows.rows == 5000

    _, code = child("", source, folder, 0, "kill")
    assert code == -signal.SIGKILL
    assert [*folder.iterdir()] == []
    said, code = child(DISK, source, folder, 0)
    assert "failed: the disk has no room left" in said
    assert [*folder.iterdir()] == []
    # Where nothing has to be written, a full disk is no matter.
    assert int(child(DISK, source, folder, 1 << 26)[0]) >= 0


def test_many_rows_are_read_in_bounded_memory(tmp_path: Path) -> None:
    line = b",".join([b""] * 16) + b"\n"
    head = b",".join(b"c%d" % i for i in range(16)) + b"\n"
    data = gzip.compress(head, 1) + gzip.compress(line * (1 << 16), 1) * 24
    (tmp_path / "x.csv.gz").write_bytes(data)

    said, _ = child("", tmp_path / "x.csv.gz", tmp_path, 1 << 20)

    # As one table: 24 << 16 rows of 16 codes of four bytes are 96 MiB, these are KiB.
    print(said)
    assert int(said) < 60 << 10


@pytest.mark.parametrize("kind", ["csv", "blank", "parquet"])
def test_a_source_that_unfolds_is_refused_by_the_disk_that_it_would_take(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = b"\n" if kind == "blank" else b"a,1\n"
    file = tmp_path / "x"
    file.write_bytes(gzip.compress(b"a,b\n" + line * (3 << 20), 1))
    if kind == "parquet":
        column = pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(1 << 21, np.int32)), pa.array(["x"])
        )
        pq.write_table(pa.table({"a": column, "b": column}), file)
    room = memory.Room(1 << 19, "disk")
    monkeypatch.setattr(memory.Room, "on_disk", lambda _: room)
    # What stays in memory needs no disk, even if there is none.
    if kind != "blank":
        assert spool_table(file.as_uri(), Layout(), ALL, tmp_path).rows >= 1 << 21
    monkeypatch.setattr(scratch, "IN_MEMORY", 1000)

    with pytest.raises(DataError, match="use a machine with more disk"):
        spool_table(file.as_uri(), Layout(), ALL, tmp_path)
    # It would fit in memory: which is what a whole table takes.
    if kind != "blank":
        assert read_table(file.as_uri(), Layout()).rows >= 1 << 21


def test_a_row_group_that_does_not_fit_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table({"a": [f"{i:0200}" for i in range(40_000)]})
    pq.write_table(table, tmp_path / "x.parquet", use_dictionary=False)
    monkeypatch.setattr(memory, "SHARE", memory.free_memory() // (4 << 20))
    monkeypatch.setattr(memory.Room, "on_disk", lambda _: memory.Room(1 << 40, "disk"))

    with pytest.raises(DataError, match=r"A row group of .* more than the"):
        spool_table((tmp_path / "x.parquet").as_uri(), Layout(), ALL, tmp_path)
    pq.write_table(
        table, tmp_path / "x.parquet", use_dictionary=False, row_group_size=2000
    )
    rows = spool_table((tmp_path / "x.parquet").as_uri(), Layout(), ALL, tmp_path)
    assert rows.rows == 40_000
