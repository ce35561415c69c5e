"""From raw rows to typed splits, with encodings learnt on train only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import pyarrow.compute as pc

from safescale_ammt.config.sections import SPLITS, DataConfig
from safescale_ammt.config.window import Window
from safescale_ammt.data.audit_warnings import AuditWarning
from safescale_ammt.data.composition import Composition
from safescale_ammt.data.counts import Counts
from safescale_ammt.data.data_facts import column_facts, note_facts, repeated_rows
from safescale_ammt.data.entry_cells import Written
from safescale_ammt.data.joining import Joined, class_codes
from safescale_ammt.data.look_alikes import look_alikes
from safescale_ammt.data.narrowing import narrowed
from safescale_ammt.data.placement import place
from safescale_ammt.data.references import reference_entries, reference_readings
from safescale_ammt.data.relations import SEALED, SEALED_CODE
from safescale_ammt.data.row_keys import RowKeys
from safescale_ammt.data.row_notes import (
    development_notes,
    shared_images,
    sharing_features,
)
from safescale_ammt.data.schema import CategoricalFeature, Feature, Schema
from safescale_ammt.data.shelf import KeptColumns, Shelf
from safescale_ammt.data.table import Filling, PlaceCounts, PlacedTable, Table
from safescale_ammt.data.two_sides import sealed_notes
from safescale_ammt.data.typing_columns import (
    PlacedColumns,
    learnt_features,
    typed_columns,
)
from safescale_ammt.data.unseen import refuse_gaps
from safescale_ammt.reading.columns import Column, RawTable
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.reading.readings import Readings, learn_readings, settled_commas
from safescale_ammt.reading.sources import Side
from safescale_ammt.reading.spelling import (
    Kinds,
    learn_kinds,
    spelled_config,
    spelled_table,
)


class Engine(Protocol):
    """What reads rows and prepares them."""

    def read(self, uri: str, layout: Layout, window: Window) -> Side:
        """Reads every row behind a URI.

        Args:
            uri: `s3://bucket/key` or `file:///path` of a file, or of a folder.
            layout: how the files are written.
            window: which of a folder's dated files.
        """

    def prepared(self, config: DataConfig, sides: Sequence[Any]) -> Prepared:
        """Types and splits the rows of a source, and of a sealed file if there is one.

        What is made does not depend on the engine.
        """


@dataclass(frozen=True)
class Prepared:
    """Typed splits and counts of what an auditor asks about them.

    Attributes:
        schema: with encodings learnt on train.
        rows: in their splits, `sealed` among them.
        audited: the same rows with the columns of references beside their inputs.
        placement: how many went where.
        counts: of every split; of the sealed one what may be told.
        notes: counts of removed and repeated rows, constant columns, empty groups;
            unseen sealed values and groups on one side, what columns of text were read
            as, which are unclear, and pairs of levels that look alike, if any.
        facts: what of it a reader of figures should know, as warnings.
        keys: gives what the sealed rows are known by; 16 bytes for each of them.
    """

    schema: Schema
    rows: PlacedTable
    audited: PlacedTable
    placement: PlaceCounts
    counts: Counts
    notes: Mapping[str, Any]
    facts: tuple[AuditWarning, ...]
    keys: Callable[[], RowKeys]

    @property
    def sealed(self) -> int:
        """Sealed rows before one of each entity was drawn."""
        return self.placement.sizes[SEALED_CODE] + self.placement.thinned


def prepare(
    config: DataConfig, rows: Table, shelf: Shelf, digests: Sequence[str]
) -> Prepared:
    """Types and splits raw rows.

    Args:
        config: roles of the columns, fractions, seed.
        rows: all of them, those of an official test file last; without one, sealed
            rows are cut from the source.
        shelf: for columns of entries.
        digests: `sha256:...` of the files that the sealed rows come from.

    Raises:
        DataError: the tables do not fit their description.
        StorageError: the scratch folder's disk is full.
    """
    kinds = learn_kinds(rows.tables[0], config.missing)
    # What the config declares is read as it stands, whatever it looks like.
    kinds |= dict.fromkeys([*config.numbers, *config.dates], "text")
    config = spelled_config(config, kinds)
    spelled = spelled_sides(config, rows.tables, kinds)
    joined = Joined.of(config, rows, spelled, shelf)
    classes, label = class_codes(config, joined)
    table, spelt = joined.table, joined.written
    composition = Composition.of(config, table, rows.combine, classes, label)
    written = Written.of(
        config,
        spelt.table,
        spelt.source,
        table.columns[config.label],
        kinds=kinds,
        shelf=shelf,
    )
    placement, entity = place(config, joined, composition, written)
    columns = PlacedColumns(joined, shelf)
    developed = replace(table, columns=columns.development)
    readings = learn_readings(config, developed, kinds)
    typed, constant = typed_columns(config, columns, readings, shelf)
    inputs = learnt_features(config, columns, typed, readings)
    schema = schema_of(config, composition, inputs, readings, kinds)
    schema = replace(schema, columns=tuple(table.columns))
    filling = Filling(
        table.columns,
        typed,
        readings.forms,
        config.missing,
        composition,
        entity,
    )
    filled, judged = rows.filled(filling), placement.sizes[SEALED_CODE]
    audited = filled
    if config.references:
        read = reference_readings(config, readings)
        more = reference_entries(config, columns, read, typed, shelf)
        with_more = replace(filling, typed={**typed, **more}, forms=read.forms)
        audited = rows.filled(with_more)
    schema = narrowed(schema, filled.code_counts)
    if joined.sealed_origin:
        gaps = {
            name: int(columns.rows(name, SEALED)[entries.gaps].sum())
            for name, entries in typed.items()
        }
        known = f"the train rows of {joined.table.origin}"
        refuse_gaps(schema, gaps, judged, joined.sealed_origin, known)
    notes = development_notes(joined, placement, composition, schema, constant)
    notes["records_sharing_features"] = sharing_features(filled, schema)
    if schema.image:
        notes |= shared_images(filled, judged)
    notes |= sealed_notes(
        config, columns, composition, placement.counts, levels_of(schema)
    )
    notes |= column_notes(config, columns, schema, readings, typed)
    facts = (
        *column_facts(schema, columns, typed),
        *repeated_rows(schema, filled, placement, filling, columns),
        *note_facts(notes, judged, respelled(config, columns, spelled[0], schema)),
    )
    counts = composition.told(placement.counts, schema.positive)
    keys = partial(filled.keys, config, digests)
    return Prepared(schema, filled, audited, placement, counts, notes, facts, keys)


def spelled_sides(
    config: DataConfig, tables: Sequence[RawTable], kinds: Kinds
) -> tuple[RawTable, RawTable | None]:
    """Spells the entries of both sides by the kinds of the source, as one asks."""

    def side(table: RawTable) -> RawTable:
        def spell(name: str) -> Column:
            one = replace(table, columns={name: table.columns[name]})
            one = spelled_table(one, kinds)
            if table is not source:
                one = settled_commas(one, source, config.missing)
            return one.columns[name]

        return replace(table, columns=KeptColumns(table.columns, spell))

    source, *sealed = tables
    return side(source), side(sealed[0]) if sealed else None


def levels_of(schema: Schema) -> list[str]:
    """Names the categorical inputs."""
    return [f.name for f in schema.features if isinstance(f, CategoricalFeature)]


def schema_of(
    config: DataConfig,
    composition: Composition,
    inputs: tuple[Feature, ...],
    readings: Readings,
    kinds: Kinds,
) -> Schema:
    """Puts together what was declared and learnt."""
    classes, forms = composition.classes, readings.forms
    return Schema(
        features=inputs,
        label=config.label,
        classes=classes,
        positive=config.positive or (classes[1] if len(classes) == 2 else ""),
        sensitive=config.sensitive,
        groups={name: tuple(v) for name, (v, _) in composition.groups.items()},
        merges=config.merges,
        crosses=config.crosses,
        # Nothing reads them but the audit; rows to predict have none.
        drop=(*config.drop, *config.references),
        entity=config.entity,
        columns=(),
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
            f.name: asdict(forms[f.name])
            for f in inputs
            if f.name in forms and not forms[f.name].is_iso
        },
        dialect={
            key: value
            for key in ("delimiter", "decimal", "encoding", "images", "channels")
            if (value := getattr(config, key)) and value != "last"
        },
        ids=config.ids,
        drop_duplicates=config.drop_duplicates,
    )


def texts_of(config: DataConfig, schema: Schema) -> list[str]:
    """Names the columns whose spelling matters: a level, a class, a group is a text."""
    return [*dict.fromkeys([*levels_of(schema), *config.sensitive, config.label])]


def column_notes(
    config: DataConfig,
    columns: PlacedColumns,
    schema: Schema,
    readings: Readings,
    typed: Mapping[str, object],
) -> dict[str, Mapping[str, Any]]:
    """Says how columns were read, which are unclear, and what levels look alike."""
    forms = readings.forms
    said: dict[str, Mapping[str, Any]] = {
        "columns_read": {
            f.name: str(forms[f.name])
            + (f" ({', '.join(p.name for p in f.parts)})" if f.kind == "date" else "")
            for f in schema.features
            if f.name in forms
        },
        "columns_unclear": {n: w for n, w in readings.unclear.items() if n in typed},
        "look_alikes": look_alikes(
            {name: columns.development[name] for name in texts_of(config, schema)},
            config.text_columns,
        ),
    }
    return {key: notes for key, notes in said.items() if notes}


def respelled(
    config: DataConfig, columns: PlacedColumns, spelled: RawTable, schema: Schema
) -> dict[str, int]:
    """Counts the development values that spelling has changed; 0 is left out.

    Rows that became sealed are left out: with them, what development rows do not
    explain would be a count of a sealed group.
    """
    counts: dict[str, int] = {}
    before = columns.joined.rows.tables[0]
    for name in texts_of(config, schema):
        old, new = before.columns[name], spelled.columns[name]
        unlike = np.asarray(pc.not_equal(old.texts(), new.texts()), bool)
        changed = int(columns.rows(name, *SPLITS)[: len(old)][unlike].sum())
        counts |= {name: changed} if changed else {}
    return counts
