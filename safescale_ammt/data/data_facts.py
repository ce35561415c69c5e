"""Facts about prepared data that a reader of figures should know, as warnings.

What the audit's statistics do not see: repeated rows on both sides, levels that share
an input, columns that are constant or almost empty, and what one side has alone. Of
sealed rows only counts are told, and none under 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.config.sections import SPLITS
from safescale_ammt.data.audit_warnings import AuditWarning, named, percent
from safescale_ammt.data.counts import LEAST_SHOWN, Withheld, told_part
from safescale_ammt.data.relations import SEALED_CODE
from safescale_ammt.data.schema import CategoricalFeature, Schema
from safescale_ammt.data.table import Filling, PlaceCounts, PlacedTable
from safescale_ammt.data.typed_entries import TypedEntries
from safescale_ammt.data.typing_columns import PlacedColumns

ALMOST_EMPTY = 0.95
"""Share of missing values from which a column is almost empty: the 95 to 5 of caret's
`nearZeroVar` (Kuhn & Johnson 2013, Applied Predictive Modeling, section 3.5)."""
NOTABLE = 0.01
"""Share of the rows from which pooled levels and repeated inputs are told."""
BY_CHANCE = 2.0
"""Repeated inputs are told if there are so many times more pairs than by chance."""


def column_facts(
    schema: Schema, columns: PlacedColumns, typed: Mapping[str, TypedEntries]
) -> list[AuditWarning]:
    """Finds inputs that are almost empty, or whose levels share an input.

    Args:
        schema: inputs with what was learnt of them.
        columns: with the development rows.
        typed: the inputs.
    """
    found = []
    for feature in schema.features:
        name, column = feature.name, columns.development[feature.name]
        gaps = typed[name].gaps[columns.rows(name, *SPLITS) > 0]
        rows, empty = int(column.counts.sum()), column.rows(gaps)
        if (share := empty / rows) >= ALMOST_EMPTY:
            sentence = (
                f"{name!r} is empty in {empty} of {rows} "
                f"development rows ({percent(share)})."
            )
            found.append(AuditWarning("almost_empty", (name,), share, sentence))
        if not isinstance(feature, CategoricalFeature) or not feature.pooled:
            continue
        rare = column.rows(~column.among(feature.levels) & ~gaps)
        if rare >= NOTABLE * rows:
            share, many = rare / rows, len(column.take(~gaps).values)
            sentence = (
                f"{len(feature.levels)} of {many} values of {name!r} have an input of "
                f"their own; the others, in {rare} of {rows} development rows "
                f"({percent(share)}), share one."
            )
            found.append(AuditWarning("pooled", (name,), share, sentence))
    return found


def sharing(counts: NDArray[np.int64]) -> tuple[int, float]:
    """Counts the rows that share their value, and the pairs of such rows.

    Args:
        counts: rows of each value.
    """
    rows = counts.astype(np.float64)
    return int(counts[counts > 1].sum()), float((rows * (rows - 1)).sum() / 2)


def repeated_rows(
    schema: Schema,
    rows: PlacedTable,
    placement: PlaceCounts,
    filling: Filling,
    columns: PlacedColumns,
) -> list[AuditWarning]:
    """Counts rows whose inputs another row has, if chance does not explain them.

    By chance: were inputs, sensitive columns and label independent, a pair of rows
    would agree in all of them with the product of the chances to agree in each.
    """
    sizes, people = placement.sizes, filling.composition
    n = placement.developed
    alike, across = 0, 0
    for times, developed in rows.times():
        alike += sharing(developed)[0]
        across += int((times - developed)[developed > 0].sum())
    if alike < NOTABLE * n:
        return []
    by_group = [people.groups[name][1] for name in schema.sensitive]
    possible = n * (n - 1) / 2
    chances = [
        sharing(typed.counts(columns.rows(name, *SPLITS)))[1] / possible
        for name, typed in filling.typed.items()
    ]
    counts = placement.counts[:, :SEALED_CODE].sum(axis=1)
    for codes in (*by_group, people.label + 1):
        sums = np.bincount(codes, counts).astype(np.int64)
        chances.append(sharing(sums)[1] / possible)
    same = rows.times(beside=[*by_group, people.label])
    pairs = sum(sharing(developed)[1] for _, developed in same)
    if pairs <= BY_CHANCE * np.prod(chances) * possible:
        return []
    labelled = rows.times(beside=[people.label])
    same_label = sum(sharing(developed)[0] for _, developed in labelled)
    whole = sum(sharing(developed)[0] for _, developed in rows.whole_times())
    judged = sizes[SEALED_CODE]
    told = str(told_part(across, judged)).replace("<", "under ")
    sentence = (
        f"{alike} of {n} development rows have the inputs of another ({same_label} its "
        f"label too, {whole} its whole row), {told} of {judged} sealed rows those of a "
        f"development row: each {'entity' if schema.entity else 'row'} counts as "
        f"independent{repeats_advice(schema, whole / n)}."
    )
    return [AuditWarning("duplicates", (), alike, sentence)]


def repeats_advice(schema: Schema, whole: float) -> str:
    """Says what to declare if repeated rows are no independent people.

    Args:
        schema: with what is declared.
        whole: share of the rows that another equals in every column.
    """
    if schema.entity:
        return ""
    advice = "; if some are one person, data.entity should say who"
    if whole >= NOTABLE and not schema.drop_duplicates:
        advice += "; if equal rows are copies of one record, data.drop_duplicates: true"
    return advice


def note_facts(
    notes: Mapping[str, Any], sealed: int, respelled: Mapping[str, int]
) -> list[AuditWarning]:
    """Puts what the preparation has noted into sentences.

    Args:
        notes: `Prepared.notes`.
        sealed: number of sealed rows.
        respelled: number of development values by column that changed their spelling.
    """
    found = unseen_facts(notes.get("sealed_rows_with_unseen_values", {}), sealed)
    if gone := notes.get("repeated_rows_dropped"):
        sentence = (
            f"{gone} rows of the source repeat another and are left out, as "
            "data.drop_duplicates says: the promises are about distinct records, and "
            "hold if equal rows are copies of one record and no two people."
        )
        found.append(AuditWarning("duplicates", (), gone, sentence))
    gone = notes.get("development_rows_also_sealed_removed", 0)
    if gone and gone >= NOTABLE * sealed:
        sentence = (
            f"{gone} development rows equal a sealed row and are left out: right if "
            "they are copies of it. If they are other people, the model is trained on "
            "rows that depend on the sealed ones, and the guarantee does not speak of "
            "it: a column that tells people apart, such as an id in data.drop, keeps "
            "them."
        )
        found.append(AuditWarning("duplicates", (), gone, sentence))
    for name, why in notes.get("columns_unclear", {}).items():
        found.append(
            AuditWarning("unclear", (name,), 1, f"{name!r} stays text: {why}.")
        )
    if lost := notes.get("label_map_names_without_rows"):
        sentence = (
            f"No row has {named(lost)}, which data.label_map names: a label that is "
            "spelled otherwise belongs to the class of data.label_other."
        )
        found.append(AuditWarning("lost_label", (), len(lost), sentence))
    found += look_alike_facts(notes.get("look_alikes", {}))
    if constant := notes["constant_columns_dropped"]:
        sentence = (
            f"Left out, as all development rows agree in them: {named(constant)}."
        )
        found.append(AuditWarning("constant", tuple(constant), len(constant), sentence))
    for group, sides in notes.get("groups_on_one_side", {}).items():
        alone = len(sides.get("sealed_only", ()))
        rare = sum(map(len, sides.values())) - alone
        words = {
            f"{alone} that no development row has": alone,
            f"{rare} that many have but under {LEAST_SHOWN} sealed rows": rare,
        }
        told = " and ".join(text for text, count in words.items() if count)
        sentence = f"{group!r} has values on one side: {told}."
        found.append(AuditWarning("one_sided_group", (), alone + rare, sentence, group))
    if many := sum(respelled.values()):
        sentence = (
            f"{many} development values are read as another spelling of the same value "
            f"(True for true, 1.0 for 1), in {named(list(respelled))}."
        )
        found.append(AuditWarning("spelling", tuple(respelled), many, sentence))
    return found


def look_alike_facts(
    look_alikes: Mapping[str, Mapping[str, Any]],
) -> list[AuditWarning]:
    """Tells by column how many pairs of levels may be one value in two spellings."""
    found = []
    for name, noted in look_alikes.items():
        shown = f" ({', '.join(noted['levels'])})" if "levels" in noted else ""
        sentence = (
            f"Pairs of values of {name!r} that look alike: {noted['pairs']}{shown}; "
            "each is a value of its own until data.merges, data.label_map or the file "
            "makes them one."
        )
        found.append(AuditWarning("look_alike", (name,), noted["pairs"], sentence))
    return found


def unseen_facts(unseen: Mapping[str, int | str], sealed: int) -> list[AuditWarning]:
    """Tells the share of sealed rows with unseen values, those under 10 together."""
    found, few = [], []
    for name, count in unseen.items():
        if count == Withheld.SMALL:
            few.append(name)
            continue
        if isinstance(count, str):
            sentence = (
                f"All but under {LEAST_SHOWN} of the sealed rows with a value of "
                f"{name!r} have one that no development row has."
            )
            found.append(AuditWarning("unseen", (name,), 1.0, sentence))
            continue
        sentence = (
            f"{count} of {sealed} sealed rows ({percent(count / sealed)}) have a value "
            f"of {name!r} that no development row has."
        )
        found.append(AuditWarning("unseen", (name,), count / sealed, sentence))
    if few:
        sentence = (
            f"Under {LEAST_SHOWN} sealed rows have a value that no development row "
            f"has, in {'each of ' * (len(few) > 1)}{named(few)}."
        )
        found.append(AuditWarning("unseen", tuple(few), 0.0, sentence))
    return found
