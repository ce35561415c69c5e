"""Tables that unfold: refused by what they would take, read where they fit."""

from __future__ import annotations

import bz2
import gc
import gzip
import io
import json
import lzma
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safety_world import evidence, hashes

from safescale_ammt.data.row_keys import Parts
from safescale_ammt.errors import DataError, InputError, IntegrityError
from safescale_ammt.files import memory, parquet
from safescale_ammt.files.memory import check_fits, free_memory, in_units
from safescale_ammt.files.parquet import read_parquet, size_of, written_out
from safescale_ammt.judging.evidence import (
    EVIDENCE,
    check_types,
    read_evidence,
    write_evidence,
)
from safescale_ammt.model.predictor import tensors_of
from safescale_ammt.reading.byte_streams import UNFOLDED
from safescale_ammt.reading.csv_reader import LONGEST_ROW, Layout
from safescale_ammt.reading.header import MOST_COLUMNS
from safescale_ammt.reading.sources import parse_bytes, read_table

ANY = Layout()

ROOM = 32 << 20
"""Bytes that a table may take in these tests, about."""
PEAK = """
import resource, sys
from pathlib import Path
from safescale_ammt.errors import DataError
from safescale_ammt.files import memory
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.reading.sources import read_table
memory.SHARE = memory.free_memory() // int(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_table(Path(sys.argv[1]).as_uri(), Layout())
except DataError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
LIMITED = """
import resource
from safescale_ammt.files.memory import free_memory
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (100 << 20), taken + (100 << 20)))
print(free_memory())
"""


@pytest.fixture
def small_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table may take `ROOM` bytes: a smaller part of the free memory than usual."""
    # Tables of earlier tests that are freed meanwhile would count as room for this one.
    gc.collect()
    monkeypatch.setattr(memory, "SHARE", memory.free_memory() // ROOM)


def run_child(script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1),
    "bz2": lambda data: bz2.compress(data, 9),
    "xz": lambda data: lzma.compress(data, preset=0),
    "zstd": lambda data: pa.Codec("zstd").compress(data).to_pybytes(),
}


def packed(packer: str, head: bytes, piece: bytes, times: int) -> bytes:
    """Packs a text of a head and many equal pieces; members of a file add up."""
    part = PACKERS[packer](piece * ((1 << 20) // len(piece)))
    return PACKERS[packer](head) + part * times


@pytest.mark.usefixtures("small_room")
@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("piece", [b",,,,,,,,,,,,,,,\n", b"\n" * 16])
def test_a_packed_table_that_unfolds_a_thousandfold_is_refused(
    tmp_path: Path, packer: str, piece: bytes
) -> None:
    head = b",".join(b"c%d" % i for i in range(16)) + b"\n"
    file = tmp_path / "bomb.csv"
    # Blank lines make no cell: they take time alone, of which there is more.
    times = 40 if piece.strip() else 5 * UNFOLDED * (ROOM >> 20) // 4
    file.write_bytes(packed(packer, head, piece, times))
    assert (times << 20) > 50 * file.stat().st_size

    with pytest.raises(DataError, match="use a machine with more memory") as caught:
        read_table(file.as_uri(), Layout())
    assert "MiB" in str(caught.value)


def test_a_table_that_unfolds_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    head = b",".join(b"c%d" % i for i in range(16)) + b"\n"
    (tmp_path / "x.csv.gz").write_bytes(packed("gzip", head, b"," * 15 + b"\n", 400))

    grown = int(run_child(PEAK, str(tmp_path / "x.csv.gz"), str(ROOM)))

    # Read as a whole it takes 4 bytes a cell: 1,600 MiB, and these are KiB.
    assert grown < 300 << 10


@pytest.mark.usefixtures("small_room")
def test_a_table_that_compresses_well_and_fits_is_read(tmp_path: Path) -> None:
    # Unfolded it is larger than the room: its cells take four bytes each.
    row = b"a very long remark that is the same in every row of this table " * 40
    rows = (2 * ROOM) // len(row)
    data = b"remark,x\n" + (row + b",1\n") * rows
    file = tmp_path / "well.csv.gz"
    file.write_bytes(gzip.compress(data, 1))
    assert len(data) > 100 * file.stat().st_size

    assert read_table(file.as_uri(), Layout()).rows == rows


def test_a_limit_of_the_process_counts_as_its_memory() -> None:
    assert int(run_child(LIMITED)) <= 100 << 20


def columns_of(rows: int, **values: pa.Scalar) -> bytes:
    """Writes a Parquet file of columns with one value each."""
    arrays = {}
    for name, value in values.items():
        codes = pa.array(np.zeros(rows, np.int32))
        coded = pa.DictionaryArray.from_arrays(codes, pa.array([value]))
        arrays[name] = coded if isinstance(value, str) else coded.cast(pa.int64())
    out = io.BytesIO()
    pq.write_table(pa.table(arrays), out, compression="zstd")
    return out.getvalue()


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary()])
def test_a_category_that_no_row_has_is_no_value(kind: pa.DataType) -> None:
    words = pa.array(["unused", "b", "a"], pa.string()).cast(kind)
    codes = pa.array([2, 1, None, 2], pa.int8())
    out = io.BytesIO()
    table = pa.table({"a": pa.DictionaryArray.from_arrays(codes, words), "b": [1] * 4})
    pq.write_table(table, out)

    column = parse_bytes(out.getvalue(), "x", ANY).columns["a"]

    assert column.texts().to_pylist() == ["a", "b", "", "a"]
    assert sorted(column.values.to_pylist()) == ["", "a", "b"]


@pytest.mark.usefixtures("small_room")
@pytest.mark.parametrize(
    "read",
    [
        read_parquet,
        lambda p: read_table(p.as_uri(), ANY),
        lambda p: Parts.from_bytes(p.read_bytes(), str(p)),
    ],
)
def test_a_parquet_file_of_many_equal_rows_is_refused_by_its_footer(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    (tmp_path / "x.parquet").write_bytes(columns_of(1_000_000, a=1, b=2, c="x"))
    assert (tmp_path / "x.parquet").stat().st_size < 20_000

    with pytest.raises(DataError, match="unfolds to at least 84 MiB, more than the"):
        read(tmp_path / "x.parquet")


@pytest.mark.usefixtures("small_room")
def test_one_long_text_in_every_row_takes_its_place_once(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(columns_of(100_000, a="y" * 20_000))

    # Written out these are 2 GB; as codes into one text they fit.
    assert read_table((tmp_path / "x.parquet").as_uri(), ANY).rows == 100_000
    # What trains needs the texts themselves: refused before they are written out.
    with pytest.raises(DataError, match=r"unfolds to at least 1\.9 GiB"):
        read_parquet(tmp_path / "x.parquet")


def test_the_size_of_what_is_read_is_known_from_the_footer() -> None:
    footer = pq.read_metadata(pa.BufferReader(columns_of(1000, a=1, b="x" * 5000)))

    assert size_of(footer) >= 1000 * (parquet.SPELLED + 2 * parquet.CELL) + 5000
    assert size_of(footer, ["a"]) < size_of(footer)
    coded = pa.chunked_array([pa.array(["ab", None, "ab"]).dictionary_encode()])
    assert written_out(coded) == 4


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.int64()),
        pa.struct([("a", pa.int64())]),
        pa.map_(pa.string(), pa.int64()),
        pa.list_(pa.list_(pa.string())),
        pa.binary(4),
        pa.duration("s"),
        pa.time64("us"),
    ],
)
def test_a_column_of_no_table_is_refused_before_it_is_read(
    kind: pa.DataType, tmp_path: Path
) -> None:
    table = pa.table({"a": [1], "b": pa.array([None], kind)})
    pq.write_table(table, tmp_path / "x.parquet")

    with pytest.raises(DataError, match=r"^Column 2 \('b'\) of x holds"):
        parse_bytes((tmp_path / "x.parquet").read_bytes(), "x", Layout())
    if kind.num_fields:
        with pytest.raises(IntegrityError, match="has nested columns"):
            read_parquet(tmp_path / "x.parquet")


def test_a_table_has_not_more_columns_than_anybody_can_name() -> None:
    names = [f"c{i}" for i in range(MOST_COLUMNS + 1)]
    text = ",".join(names) + "\n" + ",".join("1" * len(names)) + "\n"
    out = io.BytesIO()
    pq.write_table(pa.table({name: [1] for name in names}), out)

    for data in (text.encode(), out.getvalue()):
        with pytest.raises(DataError, match="has 10,001 columns, at most 10,000"):
            parse_bytes(data, "x", Layout())


def test_a_value_is_not_longer_than_a_row_may_be() -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"a": ["x" * (LONGEST_ROW + 1), "y"]}), out)

    with pytest.raises(DataError, match="Column 1 of x has a value of 8,388,609 bytes"):
        parse_bytes(out.getvalue(), "x", Layout())


@pytest.mark.parametrize("cut", [0, 4, 8, 100])
def test_a_parquet_file_without_its_footer_is_a_sentence(
    tmp_path: Path, cut: int
) -> None:
    data = columns_of(10, a=1)
    (tmp_path / "x.parquet").write_bytes(data[:-cut] if cut else b"PAR1")

    with pytest.raises(DataError, match="is not a whole Parquet file"):
        parse_bytes((tmp_path / "x.parquet").read_bytes(), "x", Layout())
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_parquet(tmp_path / "x.parquet")


@pytest.mark.parametrize("other", [1, 699, 701, 10**9])
def test_evidence_of_another_number_of_rows_is_not_read(
    tmp_path: Path, other: int
) -> None:
    rows = evidence()
    write_evidence(tmp_path / EVIDENCE, rows, hashes(700))
    groups = {name: values for name, (values, _) in rows.groups.items()}
    named = {"classes": ("no", "yes"), "positive": "yes"}

    back, _ = read_evidence(tmp_path / EVIDENCE, groups, rows=700, **named)
    assert len(back.label) == 700
    for name, (values, codes) in rows.groups.items():
        assert back.groups[name][0] == values
        assert (back.groups[name][1] == codes).all()
    with pytest.raises(IntegrityError, match="does not follow from its evidence"):
        read_evidence(tmp_path / EVIDENCE, groups, rows=other, **named)


def test_the_types_of_evidence_are_judged_before_its_values() -> None:
    with pytest.raises(IntegrityError, match="the verdict's evidence has"):
        check_types(Path("e"), pa.schema([("label", pa.string())]), {})


def test_what_does_not_fit_names_its_size_and_the_room() -> None:
    check_fits(100, "x", 100)
    with pytest.raises(DataError, match=r"^x unfolds to at least 3\.0 GiB, more than"):
        check_fits(3 << 30, "x", 1 << 30)
    assert in_units(512 << 20) == "512 MiB"
    assert 0 < free_memory() < 1 << 50


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xff" * 8,
        (2**62).to_bytes(8, "little") + b"{}",
        (100).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        *(
            len(text).to_bytes(8, "little") + text
            for text in (
                json.dumps({"a": {"dtype": "F32", **about}}).encode()
                for about in (
                    {"shape": [1 << 40], "data_offsets": [0, 1 << 42]},
                    {"shape": [1], "data_offsets": [0, 1 << 40]},
                    {"shape": [-1], "data_offsets": [0, 4]},
                    {"shape": [1], "data_offsets": [4, 0]},
                    {"shape": [1 << 62, 1 << 62], "data_offsets": [0, 4]},
                )
            )
        ),
    ],
)
def test_weights_whose_header_lies_are_a_sentence(
    tmp_path: Path, header: bytes
) -> None:
    (tmp_path / "weights.safetensors").write_bytes(header)

    with pytest.raises(InputError, match="is not a safetensors file"):
        tensors_of(tmp_path / "weights.safetensors")
