"""From raw tables to typed splits, with encodings learnt on train only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from safescale_ammt.config.sections import SPLITS, DataConfig
from safescale_ammt.data.associations import joint
from safescale_ammt.data.audit_warnings import AuditWarning
from safescale_ammt.data.data_facts import column_facts, note_facts, repeated_rows
from safescale_ammt.data.dataset import Split
from safescale_ammt.data.encoding import learn_categorical, learn_numeric
from safescale_ammt.data.groups import group_columns
from safescale_ammt.data.joining import (
    ALL_SPLITS,
    SEALED,
    Cut,
    Joined,
    class_codes,
    cut,
)
from safescale_ammt.data.raw_rows import as_levels, as_numbers
from safescale_ammt.data.schema import CategoricalFeature, Feature, Schema
from safescale_ammt.data.two_sides import sealed_notes
from safescale_ammt.errors import DataError
from safescale_ammt.reading.columns import Column, RawTable
from safescale_ammt.reading.spelling import (
    learn_kinds,
    spelled_config,
    spelled_table,
)


@dataclass(frozen=True)
class Prepared:
    """Typed splits and counts of what an auditor asks about them.

    Attributes:
        schema: with encodings learnt on train.
        splits: by name, `sealed` among them.
        notes: counts of removed and repeated rows, constant columns, empty groups;
            unseen sealed values and groups on one side, if any.
        facts: what of it a reader of figures should know, as warnings.
    """

    schema: Schema
    splits: Mapping[str, Split]
    notes: Mapping[str, Any]
    facts: tuple[AuditWarning, ...]


def prepare(config: DataConfig, source: RawTable, sealed: RawTable | None) -> Prepared:
    """Types and splits raw tables.

    Args:
        config: roles of the columns, fractions, seed.
        source: the development rows.
        sealed: rows of an official test file; None cuts them from the source.

    Raises:
        DataError: the tables do not fit their description.
    """
    kinds = learn_kinds(source, config.missing)
    config = spelled_config(config, kinds)
    spelled = spelled_table(source, kinds)
    joined = Joined.of(
        config, spelled, spelled_table(sealed, kinds) if sealed else None
    )
    classes, label = class_codes(config, joined)
    groups = group_columns(config, joined.table)
    cuts = cut(config, joined, label, groups)
    typed, constant = _typed_columns(config, joined, cuts.among(*SPLITS))
    # JSON sorts keys: written and read groups have one order.
    ranked = {name: groups[name].ranked() for name in sorted(groups)}
    inputs = _learn(config, joined, typed, cuts.among("train"))
    schema = Schema(
        features=inputs,
        label=config.label,
        classes=classes,
        positive=config.positive or (classes[1] if len(classes) == 2 else ""),
        sensitive=config.sensitive,
        groups={name: values for name, (values, _) in ranked.items()},
        merges=config.merges,
        crosses=config.crosses,
        drop=config.drop,
        entity=config.entity,
        columns=tuple(joined.table.columns),
        missing=config.missing,
        label_map=config.label_map,
        comment=config.comment,
        # The kinds that a row to predict cannot be spelled without.
        spellings={
            f.name: kinds[f.name]
            for f in inputs
            if isinstance(f, CategoricalFeature) and kinds[f.name] != "text"
        },
        dialect={
            key: value
            for key in ("delimiter", "decimal", "encoding")
            if (value := getattr(config, key))
        },
        ids=config.ids,
    )
    features, splits = pa.table(typed), {}
    for name in ALL_SPLITS:
        index = np.flatnonzero(cuts.among(name))
        codes_by_group = {group: codes[index] for group, (_, codes) in ranked.items()}
        splits[name] = Split(
            features.take(pa.array(index)),
            label[index],
            codes_by_group,
            cuts.rows[index],
        )
    levels = [f.name for f in inputs if isinstance(f, CategoricalFeature)]
    notes = _notes(joined, cuts, schema, splits, constant)
    notes |= sealed_notes(config, joined, cuts, levels, groups)
    # Of numbers the spelling does not matter; a level, a class and a group are texts.
    texts = dict.fromkeys([*levels, *config.sensitive, config.label])
    development = pa.concat_tables([splits[name].features for name in SPLITS])
    facts = (
        *column_facts(schema, development),
        *repeated_rows(schema, splits),
        *note_facts(notes, len(splits[SEALED]), respelled(source, spelled, texts)),
    )
    return Prepared(schema, splits, notes, facts)


def respelled(
    before: RawTable, after: RawTable, names: Iterable[str]
) -> dict[str, int]:
    """Counts the values that spelling has changed, by column; 0 is left out."""
    counts: dict[str, int] = {}
    for name in names:
        old, new = before.columns[name], after.columns[name]
        # A column that needs no other spelling is the very same one.
        if old is not new:
            changed = pc.sum(pc.not_equal(old.texts(), new.texts())).as_py()
            counts |= {name: int(changed)} if changed else {}
    return counts


def feature_columns(config: DataConfig, columns: Mapping[str, Column]) -> list[str]:
    """Names the columns that may be model inputs, in source order."""
    # An entity's name says nothing of the next entity; a net would learn it by heart.
    excluded = {config.label, config.entity, *config.drop, *config.ids}
    if not config.sensitive_in_model:
        excluded |= set(config.sensitive)
    return [name for name in columns if name not in excluded]


def _typed_columns(
    config: DataConfig, joined: Joined, development: NDArray[np.bool_]
) -> tuple[dict[str, pa.Array], list[str]]:
    """Types the input columns; returns them and the names of constant ones.

    Which columns are constant or numeric is decided on the development rows alone.

    Raises:
        DataError: a numeric column holds a text, or no column is left.
    """
    columns, missing = joined.table.columns, config.missing
    typed, constant = {}, []
    for name in feature_columns(config, columns):
        column = columns[name].take(development)
        # Missing spellings are one value: a column of "?" and "NA" is constant.
        if len(column.renamed(dict.fromkeys(missing, "")).values) == 1:
            constant.append(name)
        elif name in config.numeric or (
            name not in config.categorical and column.numbers(missing) is not None
        ):
            # A sealed text in a column of numbers is an error here, not a new type.
            typed[name] = as_numbers(columns[name], name, missing, joined.row_name)
        else:
            typed[name] = as_levels(columns[name], missing)
    if not typed:
        raise DataError(
            f"{joined.table.origin} has no column left that could be a model input."
        )
    return typed, constant


def _learn(
    config: DataConfig,
    joined: Joined,
    typed: Mapping[str, pa.Array],
    train: NDArray[np.bool_],
) -> tuple[Feature, ...]:
    """Learns the encoding of every input column from the train rows alone."""
    features: list[Feature] = []
    for name, values in typed.items():
        if pa.types.is_floating(values.type):
            numbers = values.to_numpy(zero_copy_only=False)[train]
            features.append(learn_numeric(name, numbers, config.numeric_bins))
        else:
            column = joined.table.columns[name].take(train)
            features.append(
                learn_categorical(name, column, config.missing, config.max_levels)
            )
    return tuple(features)


def _notes(
    joined: Joined,
    cuts: Cut,
    schema: Schema,
    splits: Mapping[str, Split],
    constant: list[str],
) -> dict[str, object]:
    """Counts what an auditor wants to know of the rows that became the splits."""
    mask = cuts.among(*SPLITS)
    columns = joined.table.columns
    same, _ = joint([columns[name].codes[mask] for name in schema.names])
    # Repeated raw rows are counted by themselves: here one of each is enough.
    _, first = np.unique(cuts.rows[mask], return_index=True)
    _, counts = np.unique(same[first], return_counts=True)
    empty: dict[str, dict[str, list[str]]] = {}
    for split in SPLITS:
        for name, codes in splits[split].groups.items():
            values = schema.groups[name]
            sizes = np.bincount(codes, minlength=len(values))
            unused = [v for v, n in zip(values, sizes, strict=True) if n == 0]
            if unused:
                empty.setdefault(split, {})[name] = unused
    return {
        # A plain table, as before the key existed, says nothing of it.
        **(
            {"unlabelled_rows_dropped": gone}
            if (gone := sum(joined.unlabelled))
            else {}
        ),
        "constant_columns_dropped": constant,
        "development_rows_also_sealed_removed": cuts.copies,
        "development_rows_repeated": cuts.repeated,
        # Distinct records whose features another one has too: no model tells them
        # apart, so their labels bound what any model can reach.
        "records_sharing_features": int(counts[counts > 1].sum()),
        "empty_groups": empty,
    }
