"""Files of raw rows, read whole in Spark's workers by the reader of this machine.

No cell is parsed or inferred by Spark: what a decimal, a time, a NaN or a gap is
spelled like is decided by one code. A file is one task; it is read once for what it
says, and again for its rows, whose bytes have to be the same then.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safescale_ammt.config.window import Window
from safescale_ammt.errors import IntegrityError, SafescaleError
from safescale_ammt.reading.columns import Column
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.reading.files import File, read_file
from safescale_ammt.reading.scratch import Scratch
from safescale_ammt.reading.sources import ALL, folders_of, origin_of
from safescale_ammt.reading.spool import Spool
from safescale_ammt.spark.faults import Batches, fault_of
from safescale_ammt.store.uri import open_store, split_uri

FAULT = ("fault", "sentence")
"""What is said of a file in place of its facts: class of an error, and sentence."""
_DECIMALS = pa.array(["", "."])


@dataclass(frozen=True)
class SourceFiles:
    """Files of one URI, as a worker reads them.

    Attributes:
        uri: of the folder, or of the one file.
        layout: how they are written.
        window: by which they were chosen.
        columns: their names, in order, once they are known.
        commas: names of columns with decimal commas in some file.
    """

    uri: str
    layout: Layout
    window: Window = ALL
    columns: tuple[str, ...] = ()
    commas: frozenset[str] = frozenset()

    def read(self, name: str, scratch: Path) -> File:
        """Reads one file, by its name below the URI.

        Raises:
            SafescaleError: as `read_file`, or the store does not give it.
        """
        store, key = split_uri(self.uri)
        key = "/".join(filter(None, (key.rstrip("/"), name))) if name else key
        with open_store(store).open(key) as stream:
            return read_file(
                stream,
                origin_of(self.uri, name),
                self.layout,
                Scratch(scratch),
                folders_of(name, self.window),
            )

    def say(self, batches: Batches) -> Batches:
        """Says of files, batches with `file` and `name`, what they are: `said`."""
        for batch in batches:
            said = []
            for name in batch["name"].to_pylist():
                with tempfile.TemporaryDirectory() as folder:
                    try:
                        facts = said_of(self.read(name, Path(folder)))
                    except SafescaleError as error:
                        # As data: the first file's is told, whoever was read first.
                        facts = dict(zip(FAULT, fault_of(error), strict=True))
                said.append(json.dumps(facts))
            columns = {"file": batch["file"], "said": pa.array(said, pa.string())}
            yield pa.RecordBatch.from_pydict(columns)

    def rows(self, batches: Batches) -> Batches:
        """Yields the rows of files, batches with `name`, `start` and `digest`.

        Returns:
            Batches with `at`, the row's number in the table, and texts `c0`, `c1` and
            so on: Spark takes names that differ in case, or have a dot, for others.

        Raises:
            IntegrityError: a file has other bytes than it had.
        """
        for batch in batches:
            for task in batch.to_pylist():
                with tempfile.TemporaryDirectory() as folder:
                    file = self.read(task["name"], Path(folder))
                    if file.digest != task["digest"]:
                        raise IntegrityError(
                            f"{file.origin} changed while it was read; start anew."
                        )
                    file.commas |= file.unclear & self.commas
                    for part in Spool.of_files({"": file}, self.uri).batches():
                        start = task["start"] + part.start
                        columns = {"at": pa.array(np.arange(start, start + part.rows))}
                        for i, name in enumerate(self.columns):
                            columns[f"c{i}"] = part.columns[name].texts()
                        yield pa.RecordBatch.from_pydict(columns)


def said_of(file: File) -> dict[str, Any]:
    """Returns what a file says but its rows, as plain data."""
    points = [
        name
        for name in file.columns
        if any(
            pc.any(pc.match_substring(column.values, ".")).as_py()
            for column in file.blocks(name)
        )
    ]
    return {
        "rows": sum(file.sizes),
        "names": list(file.columns),
        "folders": dict(file.folders),
        "digest": file.digest,
        "notes": list(file.notes),
        "safe": file.names_are_safe,
        "commas": sorted(file.commas),
        "unclear": sorted(file.unclear),
        "points": points,
    }


def outlined(said: Mapping[str, Any], origin: str) -> File:
    """Makes of what a file said one that says the same, and has no rows.

    In place of a column's values it has those by which files agree on commas.
    """
    points = {*said["points"]}
    columns = {
        name: [Column(np.zeros(1, np.int32), _DECIMALS[int(name in points) :][:1])]
        for name in said["names"]
    }
    return File(
        origin,
        [said["rows"]],
        {name: [c.coded() for c in held] for name, held in columns.items()},
        said["folders"],
        digest=said["digest"],
        notes=said["notes"],
        names_are_safe=said["safe"],
        commas=frozenset(said["commas"]),
        unclear=frozenset(said["unclear"]),
    )
