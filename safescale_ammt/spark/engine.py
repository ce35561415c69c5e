"""Preparation on Spark: read there, decided here, written there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safescale_ammt.config.sections import DataConfig
from safescale_ammt.config.window import Window
from safescale_ammt.data.local_table import Held
from safescale_ammt.data.preparation import Prepared, prepare
from safescale_ammt.data.shelf import Shelf
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.spark.reading import SparkRows, spark_rows
from safescale_ammt.spark.table import SparkTable


@dataclass(frozen=True)
class SparkEngine:
    """Prepares rows on Spark; see `preparation.Engine`.

    Attributes:
        session: of Spark Connect.
        store: URI of the store of data, which workers have to reach.
        held: how much is held at once here, of entries.
        scratch: private folder for what is too much for memory.
    """

    session: Any
    store: str
    held: Held
    scratch: Path

    def read(self, uri: str, layout: Layout, window: Window) -> SparkRows:
        """Reads every row behind a URI."""
        return spark_rows(self.session, uri, layout, window)

    def prepared(self, config: DataConfig, sides: Sequence[SparkRows]) -> Prepared:
        """Types and splits the rows."""
        held, shelf = self.held, Shelf(self.scratch, self.held.memory)
        rows = SparkTable(
            self.session, sides, config.missing, self.store, held.bucket_rows
        )
        return prepare(config, rows, shelf, [*sides[-1].digests.values()])
