"""Rows that Spark's workers read: the texts and sentences of one machine's reader."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from spark_server import SPARK, partitions

from safescale_ammt.errors import DataError
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.reading.sources import read_table
from safescale_ammt.store.uri import open_store

pytestmark = SPARK
NAN = float("nan")
YEARS = [
    datetime(year, 12, 31, 23, 59, tzinfo=UTC).replace(tzinfo=None)
    for year in (1, 1816, 9999)
]
ZONED = [datetime(2024, 7, 1, 12, 30, tzinfo=UTC), None, None]


def parquet(path: Path, columns: dict[str, object], **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)


def csv(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def numbers(folder: Path) -> None:
    """Group-by, statistics and sorting of these differ from engine to engine."""
    columns = {
        "zero": pa.array([0.0, -0.0, NAN, NAN, None]),
        "x": pa.array([1.0, 3.0, NAN, 2.5, 1e300]),
        "half": pa.array(np.array([0.1, 1, np.nan, 2, 3], np.float16)),
        "single": pa.array([0.1, 1e-7, None, 3.0, 1e10], pa.float32()),
        "price": pa.array(
            [Decimal("1.10"), None, Decimal("-0.05"), Decimal("7.00"), None],
            pa.decimal128(4, 2),
        ),
        "big": pa.array([2**63, 2**64 - 1, 0, None, 1], pa.uint64()),
        "yes": pa.array([True, False, None, True, False]),
    }
    parquet(folder / "a.parquet", columns)


def times(folder: Path) -> None:
    """INT96 beside micro- and nanoseconds, with and without a zone."""
    parquet(
        folder / "a.parquet",
        {
            "t": pa.array(YEARS, pa.timestamp("us")),
            "z": pa.array(ZONED, pa.timestamp("us", "Europe/Berlin")),
        },
    )
    nano = pa.array([1, None, 1_700_000_000_123_456_789], pa.timestamp("ns"))
    none = pa.array([None] * 3, pa.timestamp("us", "UTC"))
    parquet(folder / "b.parquet", {"t": nano, "z": none})
    parquet(
        folder / "c.parquet",
        {"t": pa.array(YEARS[1:2], pa.timestamp("us")), "z": none[:1]},
        use_deprecated_int96_timestamps=True,
    )


def folders(folder: Path) -> None:
    """`g=01` is a text; what a writer left beside the data is none."""
    for group in ("01", "1", "", "__HIVE_DEFAULT_PARTITION__"):
        csv(folder / f"g={group}" / "a.csv", f"x,y\n1,a\n2,{group or 'b'}\n")
    csv(folder / "_tmp" / "x.csv", "x,y\n9,9\n")
    csv(folder / ".y.csv", "x,y\n9,9\n")


def inferred(folder: Path) -> None:
    """What inference makes numbers, booleans, nulls or dates of stays text."""
    rows = [
        "A,a,b.c,w",
        "007,yes,+2,T",
        f"{2**63},no,,F",
        '1e5,,"",2024-01-02',
        ' -0.0 ,null,"x\ny","q""r"',
    ]
    csv(folder / "a.csv", "\n".join(rows) + "\n")


def commas(folder: Path) -> None:
    """One file makes clear what the commas of another are."""
    csv(folder / "a.csv", "x;y\n1,234;a\n5,678;b\n")
    csv(folder / "b.csv", "x;y\n1,5;a\n2,25;b\n")


def many(folder: Path) -> None:
    """Files of unlike sizes, read by whoever is free."""
    for i in range(12):
        rows = "".join(f"{i}-{j},{j % 3}\n" for j in range((i * 7) % 5 + 1))
        csv(folder / f"part-{i:02}.csv", "x,y\n" + rows)


@pytest.mark.parametrize("write", [numbers, times, folders, inferred, commas, many])
def test_spark_reads_the_texts_of_the_local_reader(
    spark, tmp_path: Path, write: Callable[[Path], None]
) -> None:
    from safescale_ammt.spark.reading import spark_rows

    write(tmp_path / "rows")
    uri = (tmp_path / "rows").as_uri()
    expected = read_table(uri, Layout())
    with partitions(spark, 3):
        found = spark_rows(spark, uri, Layout())
        # Sorted by a number that has nothing to do with where Spark holds a row.
        texts = found.frame.orderBy("at").toArrow()
    assert found.rows == expected.rows
    assert texts["at"].to_pylist() == [*range(expected.rows)]
    for i, (name, column) in enumerate(expected.columns.items()):
        assert texts[f"c{i}"].to_pylist() == column.texts().to_pylist(), name
    for name in ("origin", "digests", "notes", "names_are_safe", "commas", "unclear"):
        assert getattr(found.outline, name) == getattr(expected, name), name
    assert [*found.outline.columns] == [*expected.columns]


def points(folder: Path) -> None:
    csv(folder / "a.csv", "x;y\n1,234;a\n5,678;b\n")
    csv(folder / "b.csv", "x;y\n1.5;a\n2.25;b\n")


def unlike(folder: Path) -> None:
    csv(folder / "a.csv", "x,y\n1,2\n")
    csv(folder / "b.csv", "x,z\n1,2\n")


def broken(folder: Path) -> None:
    csv(folder / "a.csv", "x,y\n1,2\n")
    csv(folder / "b.csv", "x,y\n1,2\n3\n")
    csv(folder / "c.csv", 'x,y\n1,"2\n')


def nothing(folder: Path) -> None:
    csv(folder / "_SUCCESS", "")


@pytest.mark.parametrize("write", [points, unlike, broken, nothing])
def test_spark_refuses_rows_with_the_sentence_of_the_local_reader(
    spark, tmp_path: Path, write: Callable[[Path], None]
) -> None:
    from safescale_ammt.spark.reading import spark_rows

    write(tmp_path / "rows")
    uri = (tmp_path / "rows").as_uri()
    with pytest.raises(DataError) as expected:
        read_table(uri, Layout())
    with pytest.raises(DataError, match=f"^{re.escape(str(expected.value))}$"):
        spark_rows(spark, uri, Layout())


def test_workers_read_what_lies_on_s3(
    spark, s3_server, s3_environ, monkeypatch, tmp_path: Path
) -> None:
    from safescale_ammt.spark.reading import spark_rows

    for name, value in s3_environ.items():
        monkeypatch.setenv(name, value)
    uri = f"{s3_server.uri}/{uuid.uuid4().hex}"
    many(tmp_path)
    for path in tmp_path.glob("*.csv"):
        open_store(s3_server.uri).put(f"{uri.rsplit('/', 1)[1]}/rows/{path.name}", path)
    expected = read_table(f"{uri}/rows", Layout())
    found = spark_rows(spark, f"{uri}/rows", Layout())
    texts = found.frame.orderBy("at").toArrow()
    assert texts["c0"].to_pylist() == expected.columns["x"].texts().to_pylist()
    assert found.outline.digests == expected.digests


def test_one_file_is_a_table_and_one_that_changed_is_refused(
    spark, tmp_path: Path
) -> None:
    from safescale_ammt.spark.reading import spark_rows

    csv(tmp_path / "a.csv", "x,y\n1,2\n")
    found = spark_rows(spark, (tmp_path / "a.csv").as_uri(), Layout())
    assert found.frame.toArrow().to_pylist() == [{"at": 0, "c0": "1", "c1": "2"}]
    csv(tmp_path / "a.csv", "x,y\n1,3\n")
    with pytest.raises(Exception, match="changed while it was read"):
        found.frame.toArrow()
