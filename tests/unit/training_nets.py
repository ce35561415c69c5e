"""Nets on rows that were made by hand."""

from __future__ import annotations

from typing import Any

from safescale_ammt.model.genome import Genome, shapes
from safescale_ammt.training.encoded import EncodedRows
from safescale_ammt.training.genome_nets import GenomeNets


class NetsOnRows(GenomeNets):
    """Nets of a genome on rows that were made by hand, not read from a dataset."""

    def __init__(self, genome: Genome, rows: EncodedRows, counts: Any = None) -> None:
        self.genome, self.counts = genome, counts
        self._layout = shapes(genome, rows.width, 1)
