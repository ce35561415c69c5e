"""Which rows propose slices, and which judged rows lie in them.

Proposals come from development rows that the weights of nets were not fitted to; which
rows those are changes no promise, since the judged ones alone confirm. A rehearsal
judges *select*, which then proposes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.config.sections import SafetyConfig
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.data.holdout import StoredRows
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.slice_forms import Proposal, Slices
from safescale_ammt.judging.slices import Mask, confirmed, members, propose
from safescale_ammt.model.predictor import Predictor

PROPOSING = ("validation", "monitor", "select")
"""Splits whose rows propose slices."""
MOST_ROWS = 1 << 14
"""Rows of a split that do: of more, one in so many of its first file."""


def proposed_slices(
    model: Path, development: Dataset, judged: int, *, config: SafetyConfig, min_n: int
) -> tuple[Slices, tuple[Proposal, ...]]:
    """Looks for slices, of which the judged rows know nothing yet.

    Args:
        model: a verified model artifact.
        development: the dataset that it was made from.
        judged: rows that will be judged.
        config: how slices are looked for, and whether *select* is judged.
        min_n: least rows of a group that is judged.

    Returns:
        What the search came to, with nothing confirmed, and what it proposes.
    """
    asked = config.searched
    if not asked["most"] or judged < 2 * min_n or development.schema.image:
        # No slice can have so many rows inside and outside; and a slice is told by
        # columns, which images have none of.
        return Slices(asked["fdr"], 0, 0, 0), ()
    splits = [name for name in PROPOSING if not (config.rehearse and name == "select")]
    features, wrong = answered_errors(model, development, splits)
    proposals = propose(
        features,
        wrong,
        most=asked["most"],
        conditions=asked["conditions"],
        least=int(np.ceil(min_n / judged * len(wrong))),
    )
    about = Slices(asked["fdr"], len(wrong), int(wrong.sum()), len(proposals))
    return about, proposals


def with_slices(
    stored: StoredRows,
    evidence: Evidence,
    about: Slices,
    proposals: Sequence[Proposal],
    min_n: int,
) -> tuple[Evidence, Slices]:
    """Confirms proposed slices on the judged rows.

    Args:
        stored: the judged rows.
        evidence: what the model answered to them.
        about: the search, as `proposed_slices` returns it.
        proposals: what it proposes.
        min_n: least rows of a group that is judged.

    Returns:
        The evidence with the rows of each confirmed slice, and what the search came to.
    """
    inside = rows_inside(stored, proposals)
    slices, kept = confirmed(evidence, inside, about, proposals, min_n)
    return replace(evidence, slices=kept), slices


def answered_errors(
    model: Path, development: Dataset, splits: Sequence[str]
) -> tuple[pa.Table, NDArray[np.bool_]]:
    """Answers some development rows; returns raw columns, and which are wrong (n,)."""
    predictor = Predictor.load(model)
    features, wrong = list[pa.Table](), list[Mask]()
    for name in splits:
        stored = StoredRows.of_split(development, name)
        # Where a split has several files, each may have to be fetched.
        every = max(1, -(-len(stored) // (len(stored.files) * MOST_ROWS)))
        left = MOST_ROWS
        for batch in stored.batches():
            part = batch.take(np.arange(0, len(batch), every)[:left])
            features.append(part.features)
            wrong.append(predictor.predict_table(part.features)[1] != part.label)
            left -= len(part)
            if not left:
                break
    return pa.concat_tables(features).combine_chunks(), np.concatenate(wrong)


def rows_inside(stored: StoredRows, slices: Sequence[Proposal]) -> tuple[Mask, ...]:
    """Returns the judged rows (n,) of each slice.

    Raises:
        IntegrityError: a slice asks for what the rows do not have.
    """
    if not slices:
        return ()
    inside, at = np.empty((len(slices), len(stored)), np.bool_), 0
    for batch in stored.batches():
        own = slice(at, at := at + len(batch))
        for i, proposal in enumerate(slices):
            inside[i, own] = members(proposal.conditions, batch.features)
    return tuple(inside)
