"""A source of many files as one frame of numbered rows of text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import pyarrow as pa

from safescale_ammt import errors
from safescale_ammt.config.window import Window
from safescale_ammt.reading.columns import RawTable
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.reading.sources import ALL, names_behind, origin_of
from safescale_ammt.reading.spool import Spool
from safescale_ammt.spark.files import FAULT, SourceFiles, outlined
from safescale_ammt.spark.frames import frame_of, mapped


@dataclass(frozen=True)
class SparkRows:
    """Raw rows in Spark.

    Attributes:
        outline: names, digests, notes and commas of the table, which has no row here.
        rows: number of rows.
        frame: `at`, the row's number in the order of the files (bigint), and a text for
            each name of the outline, `c0`, `c1` and so on.
    """

    outline: RawTable
    rows: int
    frame: Any

    @property
    def origin(self) -> str:
        """The URI, for sentences."""
        return self.outline.origin

    @property
    def digests(self) -> Mapping[str, str]:
        """Digests of the raw bytes by object name."""
        return self.outline.digests

    @property
    def notes(self) -> Mapping[str, int]:
        """What was found out about how files are written -> number of files."""
        return self.outline.notes


def spark_rows(
    session: Any, uri: str, layout: Layout, window: Window = ALL
) -> SparkRows:
    """Reads every row behind a URI with Spark, which its workers have to reach.

    Args:
        session: of Spark Connect.
        uri: `s3://bucket/key` or `file:///path` of a file, or of a folder.
        layout: how the files are written.
        window: which of a folder's dated files.

    Raises:
        DataError: nothing there, or bytes that are no such table.
        StoreInputError: missing bucket or credentials.
    """
    names = names_behind(uri, window)
    numbers = pa.array(range(len(names)))
    sources = SourceFiles(uri, layout, window)
    tasks = {"file": numbers, "name": pa.array(names, pa.string())}
    # As many partitions as files: each is read by whoever is free.
    frame = frame_of(session, pa.table(tasks)).repartition(len(names))
    said = mapped(frame, sources.say, "file bigint, said string").orderBy("file")
    facts = [json.loads(text) for text in said.toArrow()["said"].to_pylist()]
    for fact in facts:
        if "fault" in fact:
            kind, sentence = (fact[name] for name in FAULT)
            raise getattr(errors, kind)(sentence)
    files = {
        name: outlined(fact, origin_of(uri, name))
        for name, fact in zip(names, facts, strict=True)
    }
    table = Spool.of_files(files, uri)
    sources = replace(sources, columns=table.names, commas=table.commas)
    starts = [0, *accumulate(fact["rows"] for fact in facts)][: len(facts)]
    digests = [fact["digest"] for fact in facts]
    tasks = {**tasks, "start": pa.array(starts), "digest": pa.array(digests)}
    frame = frame_of(session, pa.table(tasks)).repartition(len(names))
    kinds = ["at bigint", *(f"c{i} string" for i in range(len(table.names)))]
    rows = mapped(frame, sources.rows, ", ".join(kinds))
    return SparkRows(table.outline, table.rows, rows)
