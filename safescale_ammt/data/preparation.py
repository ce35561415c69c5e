"""From raw tables to typed splits, with encodings learnt on train only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from safescale_ammt.config.sections import SPLITS, DataConfig
from safescale_ammt.data.associations import joint
from safescale_ammt.data.audit_warnings import AuditWarning
from safescale_ammt.data.counts import told_part
from safescale_ammt.data.data_facts import column_facts, note_facts, repeated_rows
from safescale_ammt.data.dataset import Split
from safescale_ammt.data.encoding import (
    learn_categorical,
    learn_date,
    learn_numeric,
)
from safescale_ammt.data.groups import group_columns
from safescale_ammt.data.joining import (
    ALL_SPLITS,
    SEALED,
    Cut,
    Joined,
    class_codes,
    cut,
)
from safescale_ammt.data.look_alikes import look_alikes
from safescale_ammt.data.narrowing import narrowed
from safescale_ammt.data.raw_rows import as_form, as_levels, as_numbers
from safescale_ammt.data.row_keys import RowKeys, row_keys, written_cells
from safescale_ammt.data.schema import CategoricalFeature, Feature, Schema
from safescale_ammt.data.splitting import row_hashes
from safescale_ammt.data.two_sides import sealed_notes
from safescale_ammt.data.unseen import refuse_mostly_missing, refuse_near_unique
from safescale_ammt.errors import DataError
from safescale_ammt.reading.cells import Cells
from safescale_ammt.reading.columns import Column, RawTable
from safescale_ammt.reading.date_forms import DateForm
from safescale_ammt.reading.readings import (
    Readings,
    learn_readings,
    settled_commas,
)
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
            unseen sealed values and groups on one side, what columns of text were read
            as, which are unclear, and pairs of levels that look alike, if any.
        facts: what of it a reader of figures should know, as warnings.
        sealed: sealed rows before one of each entity was drawn.
        keys: what the sealed rows are known by.
    """

    schema: Schema
    splits: Mapping[str, Split]
    notes: Mapping[str, Any]
    facts: tuple[AuditWarning, ...]
    sealed: int
    keys: RowKeys


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
    # What the config declares is read as it stands, whatever it looks like.
    kinds |= dict.fromkeys([*config.numbers, *config.dates], "text")
    config = spelled_config(config, kinds)
    spelled = spelled_table(source, kinds)
    if sealed:
        sealed = settled_commas(spelled_table(sealed, kinds), spelled, config.missing)
    joined = Joined.of(config, spelled, sealed)
    classes, label = class_codes(config, joined)
    groups = group_columns(config, joined.table)
    cells = written_cells(config, joined, kinds)
    # Copies are found whatever their label is called.
    same = {**cells, config.label: Cells.of(joined.table.columns[config.label])}
    cuts = cut(config, joined, label, groups, row_hashes(same))
    rows = row_hashes(cells)
    development = joined.table.take(cuts.among(*SPLITS))
    readings = learn_readings(config, development, kinds)
    typed, constant = _typed_columns(config, joined, readings, development)
    # JSON sorts keys: written and read groups have one order.
    ranked = {name: groups[name].ranked() for name in sorted(groups)}
    inputs = _learn(config, joined, typed, readings, cuts.among("train"))
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
        readings={
            f.name: asdict(readings.forms[f.name])
            for f in inputs
            if f.name in readings.forms and not readings.forms[f.name].is_iso
        },
        dialect={
            key: value
            for key in ("delimiter", "decimal", "encoding")
            if (value := getattr(config, key))
        },
        ids=config.ids,
        drop_duplicates=config.drop_duplicates,
    )
    features, splits = pa.table(typed), {}
    for name in ALL_SPLITS:
        index = np.flatnonzero(cuts.among(name))
        codes_by_group = {group: codes[index] for group, (_, codes) in ranked.items()}
        splits[name] = Split(
            features.take(pa.array(index)),
            label[index],
            codes_by_group,
            rows[index],
            # Renumbered: a number of the whole table would tell of rows elsewhere.
            None
            if cuts.entity is None
            else np.unique(cuts.entity[index], return_inverse=True)[1],
        )
    schema = narrowed(schema, [splits["train"]])
    if joined.sealed_origin:
        known = f"the train rows of {source.origin}"
        sealed_rows = splits[SEALED].features
        refuse_mostly_missing(schema, sealed_rows, joined.sealed_origin, known)
    levels = [f.name for f in inputs if isinstance(f, CategoricalFeature)]
    notes = _notes(joined, cuts, schema, splits, constant)
    notes |= sealed_notes(config, joined, cuts, levels, groups)
    # Of numbers the spelling does not matter; a level, a class and a group are texts.
    texts = dict.fromkeys([*levels, *config.sensitive, config.label])
    said: dict[str, Mapping[str, Any]] = {
        "columns_read": {
            f.name: str(readings.forms[f.name])
            + (f" ({', '.join(p.name for p in f.parts)})" if f.kind == "date" else "")
            for f in inputs
            if f.name in readings.forms
        },
        "columns_unclear": {n: w for n, w in readings.unclear.items() if n in typed},
        "look_alikes": look_alikes(
            {name: development.columns[name] for name in texts}, config.text_columns
        ),
    }
    notes |= {key: columns for key, columns in said.items() if columns}
    features = pa.concat_tables([splits[name].features for name in SPLITS])
    # Rows that became sealed are left out: with them, what development rows do not
    # explain would be a count of a sealed group.
    developed = joined.source_rows(cuts.among(*SPLITS))
    facts = (
        *column_facts(schema, features),
        *repeated_rows(schema, splits),
        *note_facts(
            notes, len(splits[SEALED]), respelled(source, spelled, texts, developed)
        ),
    )
    digests = (sealed or source).digests.values()
    keys = row_keys(config, cells, cuts.among(SEALED), cuts.among(*SPLITS), digests)
    before = len(splits[SEALED]) + cuts.thinned
    return Prepared(schema, splits, notes, facts, before, keys)


def respelled(
    before: RawTable, after: RawTable, names: Iterable[str], rows: NDArray[np.int64]
) -> dict[str, int]:
    """Counts the values of some rows that spelling has changed; 0 is left out."""
    counts: dict[str, int] = {}
    for name in names:
        old, new = before.columns[name], after.columns[name]
        # A column that needs no other spelling is the very same one.
        if old is not new:
            unlike = np.asarray(pc.not_equal(old.texts(), new.texts()), bool)
            counts |= {name: changed} if (changed := int(unlike[rows].sum())) else {}
    return counts


def feature_columns(config: DataConfig, columns: Mapping[str, Column]) -> list[str]:
    """Names the columns that may be model inputs, in source order."""
    # An entity's name says nothing of the next entity; a net would learn it by heart.
    excluded = {config.label, config.entity, *config.drop, *config.ids}
    if not config.sensitive_in_model:
        excluded |= set(config.sensitive)
    return [name for name in columns if name not in excluded]


def _typed_columns(
    config: DataConfig, joined: Joined, readings: Readings, development: RawTable
) -> tuple[dict[str, pa.Array], list[str]]:
    """Types the input columns; returns them and the names of constant ones.

    What a column holds is decided on the development rows alone.

    Raises:
        DataError: a text among numbers or dates, near-unique texts, or no column left.
    """
    columns, missing, typed, constant = joined.table.columns, config.missing, {}, []
    for name in feature_columns(config, columns):
        column, form = development.columns[name], readings.forms.get(name)
        # Missing spellings are one value: a column of "?" and "NA" is constant.
        if len(column.renamed(dict.fromkeys(missing, "")).values) == 1:
            constant.append(name)
        elif form:
            typed[name] = as_form(
                columns[name],
                name,
                form,
                missing,
                joined.row_name,
                border=joined.border,
            )
        elif name in config.numeric or (
            name not in config.categorical and column.numbers(missing) is not None
        ):
            # A sealed text in a column of numbers is an error here, not a new type.
            typed[name] = as_numbers(columns[name], name, missing, joined.row_name)
        else:
            if name not in config.text_columns:
                why = readings.unclear.get(name, "")
                refuse_near_unique(name, column, missing, why)
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
    readings: Readings,
    train: NDArray[np.bool_],
) -> tuple[Feature, ...]:
    """Learns the encoding of every input column from the train rows alone."""
    features: list[Feature] = []
    for name, values in typed.items():
        if pa.types.is_floating(values.type):
            numbers = values.to_numpy(zero_copy_only=False)[train]
            features.append(learn_numeric(name, numbers, config.numeric_bins))
        elif pa.types.is_timestamp(values.type):
            form = readings.forms[name]
            times = values.filter(pa.array(train))
            zoned = isinstance(form, DateForm) and form.zoned
            bins, most = config.numeric_bins, config.max_levels
            features.append(learn_date(name, times, zoned, bins, most))
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
        **({"unlabelled_rows_dropped": gone} if (gone := joined.unlabelled[0]) else {}),
        **(
            {"unlabelled_sealed_rows_dropped": told_part(gone, joined.table.rows)}
            if (gone := joined.unlabelled[1])
            else {}
        ),
        **(
            {"label_map_names_without_rows": list(joined.strangers)}
            if joined.strangers
            else {}
        ),
        **({"repeated_rows_dropped": gone} if (gone := cuts.dropped[0]) else {}),
        **(
            {"repeated_sealed_rows_dropped": told_part(gone, joined.table.rows)}
            if (gone := cuts.dropped[1])
            else {}
        ),
        # Told of every table with entities: that there are none is a count too.
        **(
            {
                "sealed_rows_beside_one_of_their_entity": told_part(
                    cuts.thinned, cuts.thinned + len(splits[SEALED])
                )
            }
            if schema.entity
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
