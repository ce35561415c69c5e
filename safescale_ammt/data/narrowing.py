"""Narrowing: of a table with very many inputs each column keeps what it is worth.

Of each column there are narrower forms: half of a number's pieces and spikes, half of
a text's own levels, and so on to one of each. A form is worth what its parts tell of
the label on the train rows: G = 2 sum n ln(n / expected), less what chance gives it,
(parts - 1) (classes - 1). All columns begin with their narrowest form; the step that
gains most for each input is taken next, as long as there is room and it gains
anything. A column that says nothing stays narrow, one that says much stays whole.

A table of at most `MOST_INPUTS` inputs is left as it is, digests included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.data.coding import Coding, width
from safescale_ammt.data.dataset import Split
from safescale_ammt.data.feature_codes import Pieces, feature_width, parts_of
from safescale_ammt.data.schema import (
    CategoricalFeature,
    DateFeature,
    ImageFeature,
    NumericFeature,
    Schema,
)

MOST_INPUTS = 2048
"""Most inputs of a row, unless there are more columns than that."""
Part = NumericFeature | CategoricalFeature
Counts = NDArray[np.int64]


class Form(NamedTuple):
    """One form of a column.

    Attributes:
        part: what is learnt of it.
        width: its inputs.
        worth: what it tells of the label.
    """

    part: Part
    width: int
    worth: float


def code_counts(schema: Schema, train: Iterable[Split]) -> list[Counts]:
    """Counts the rows of each code and class of every part of the inputs.

    Args:
        schema: as learnt.
        train: rows in batches; the counts of several add up to those of all.

    Returns:
        Of each part int64 (codes, classes).
    """
    coding, classes = Coding(schema, "ple"), len(schema.classes)
    counts = [np.zeros((size, classes), np.int64) for size in coding.sizes]
    for batch in train:
        codes = coding.codes(batch.features).code.astype(np.int64)
        cells = codes * classes + batch.label[:, None]
        for i, table in enumerate(counts):
            found = np.bincount(cells[:, i], minlength=table.size)
            counts[i] = table + found.reshape(table.shape)
    return counts


def narrowed(
    schema: Schema,
    counted: Callable[[Schema], list[Counts]],
    most: int | None = None,
) -> Schema:
    """Returns a schema of at most so many inputs, as far as its columns allow it.

    Args:
        schema: as learnt.
        counted: `code_counts` of the train rows; not asked where all inputs have room.
        most: inputs of a row; None = `MOST_INPUTS`.
    """
    most = MOST_INPUTS if most is None else most
    # An image has no narrower form, and no column beside it is an input.
    if width(schema) <= most or schema.image:
        return schema
    pairs = zip(parts_of(schema), counted(schema), strict=True)
    forms = [
        [*forms_of(part, counts)]
        for part, counts in pairs
        if not isinstance(part, ImageFeature)
    ]
    taken = [len(each) - 1 for each in forms]
    room = most - sum(each[-1].width for each in forms)
    steps = [step for i in range(len(forms)) for step in wider(forms[i], taken[i], i)]
    heapify(steps)
    while steps:
        _, i, inputs = heappop(steps)
        if inputs <= room:
            room -= inputs
            taken[i] -= 1
            for step in wider(forms[i], taken[i], i):
                heappush(steps, step)
    chosen = iter(forms[i][at].part for i, at in enumerate(taken))
    return replace(
        schema,
        features=tuple(
            replace(f, parts=tuple(next(chosen) for _ in f.parts))
            if isinstance(f, DateFeature)
            else next(chosen)
            for f in schema.features
        ),
    )


def wider(forms: list[Form], at: int, i: int) -> Iterator[tuple[float, int, int]]:
    """Yields the step from a form to the next wider one, if it gains anything.

    Its rank is what it loses for each input, rounded, so that no processor's last bit
    decides; equal ones go by the column's number.
    """
    if at:
        inputs = forms[at - 1].width - forms[at].width
        gain = forms[at - 1].worth - forms[at].worth
        if inputs > 0 and gain > 0:
            yield -round(gain / inputs, 6), i, inputs


def forms_of(part: Part, counts: Counts) -> Iterator[Form]:
    """Yields the forms of a column, the widest first.

    Args:
        part: as learnt.
        counts: rows of each code and class (codes, classes).
    """
    least = 1 << 62
    halve = levels_halved if isinstance(part, CategoricalFeature) else pieces_halved
    for form, merged in halve(part, counts):  # type: ignore[arg-type]
        # To pool levels takes inputs of its own, which few levels are not worth.
        if (inputs := feature_width(form, "ple")) < least:
            least = inputs
            yield Form(form, inputs, worth(merged))


def pieces_halved(
    part: NumericFeature, counts: Counts
) -> Iterator[tuple[NumericFeature, Counts]]:
    """Yields a number with ever fewer pieces and spikes, and its codes' counts."""
    pieces, spikes = max(len(part.edges) - 1, 1), len(part.spikes)
    home = Pieces(part).home
    of_spikes = counts[pieces : pieces + spikes].sum(1)
    by_count = np.argsort(-of_spikes, kind="stable")
    step = 1
    while True:
        kept = np.sort(by_count[: -(-spikes // step)])
        target = home // step
        target[pieces + kept] = pieces + kept
        target[pieces + spikes :] = pieces + spikes
        form = replace(
            part,
            edges=part.edges[:-1:step] + part.edges[-1:],
            spikes=tuple(part.spikes[i] for i in kept),
        )
        yield form, moved(counts, target)
        if step >= max(pieces, spikes):
            return
        step *= 2


def levels_halved(
    part: CategoricalFeature, counts: Counts
) -> Iterator[tuple[CategoricalFeature, Counts]]:
    """Yields a text with ever fewer own levels, and the counts of its codes."""
    yield part, counts
    own, total = len(part.levels), int(counts.sum())
    rows = counts[:own].sum(1)
    by_count = np.argsort(-rows, kind="stable")
    # Its frequency tells a pooled level apart again, and keeps it known by name.
    shares = np.log1p(rows) / np.log1p(total)
    frequency = part.frequency or dict(zip(part.levels, shares.tolist(), strict=True))
    step = 2
    while step < 2 * own:
        kept = np.sort(by_count[: -(-own // step)])
        target = np.arange(len(counts))
        # Those that are pooled share a code: the first of theirs.
        target[by_count[len(kept) :]] = by_count[len(kept)]
        levels = tuple(part.levels[i] for i in kept)
        yield (
            replace(part, levels=levels, pooled=True, frequency=frequency),
            moved(counts, target),
        )
        step *= 2


def moved(counts: Counts, target: NDArray[Any]) -> Counts:
    """Returns counts with each code's rows at another code."""
    merged = np.zeros_like(counts)
    np.add.at(merged, target, counts)
    return merged


def worth(counts: Counts) -> float:
    """Returns G of a table of codes and classes, less what chance gives it."""
    table = counts[counts.any(1)][:, counts.any(0)].astype(np.float64)
    if not table.size:
        return 0.0
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    ratio = np.where(table > 0, table, expected) / expected
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    return float(2 * (table * np.log(ratio)).sum() - freedom)
