"""From raw rows to typed splits, with encodings learnt on train only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from safescale_ammt.config.sections import SPLITS, DataConfig
from safescale_ammt.data.audit_warnings import AuditWarning
from safescale_ammt.data.buckets import BUCKET_ROWS, Buckets
from safescale_ammt.data.coded_rows import CodedRows
from safescale_ammt.data.composition import Composition
from safescale_ammt.data.data_facts import column_facts, note_facts, repeated_rows
from safescale_ammt.data.dataset import Split
from safescale_ammt.data.entry_cells import (
    EntryCells,
    Hashes,
    hashed_rows,
    written_cells,
)
from safescale_ammt.data.joining import Joined, class_codes
from safescale_ammt.data.key_parts import row_keys
from safescale_ammt.data.look_alikes import look_alikes
from safescale_ammt.data.narrowing import narrowed
from safescale_ammt.data.placed_rows import PlacedRows
from safescale_ammt.data.placement import place
from safescale_ammt.data.relations import ALL_SPLITS, SEALED
from safescale_ammt.data.row_keys import RowKeys
from safescale_ammt.data.row_notes import development_notes, sharing_features
from safescale_ammt.data.schema import CategoricalFeature, Feature, Schema
from safescale_ammt.data.shelf import MEMORY, KeptColumns, Shelf
from safescale_ammt.data.splitting import ROW, words
from safescale_ammt.data.two_sides import sealed_notes
from safescale_ammt.data.typing_columns import (
    PlacedColumns,
    learnt_features,
    typed_columns,
)
from safescale_ammt.data.unseen import refuse_gaps
from safescale_ammt.files.parquet import ROW_GROUP
from safescale_ammt.files.shards import SHARD_ROWS
from safescale_ammt.reading.blocks import BATCH_ROWS
from safescale_ammt.reading.columns import Column, RawTable
from safescale_ammt.reading.readings import Readings, learn_readings, settled_commas
from safescale_ammt.reading.spelling import (
    Kinds,
    learn_kinds,
    spelled_config,
    spelled_table,
)
from safescale_ammt.reading.spool import Spool


@dataclass(frozen=True)
class Held:
    """How much is held at once.

    Attributes:
        batch_rows: rows of a batch, at most.
        bucket_rows: rows among which equal ones are looked for, about.
        memory: bytes of arrays that stay in memory.
        audited_rows: development rows that are audited; of more, about so many.
        shard_rows: rows of a file of a development split: the dataset depends on it.

    Raises:
        ValueError: a shard has no whole number of row groups.
    """

    batch_rows: int = BATCH_ROWS
    bucket_rows: int = BUCKET_ROWS
    memory: int = MEMORY
    audited_rows: int = 2_000_000
    shard_rows: int = SHARD_ROWS

    def __post_init__(self) -> None:
        if self.shard_rows > ROW_GROUP and self.shard_rows % ROW_GROUP:
            raise ValueError(f"{self.shard_rows} is no multiple of {ROW_GROUP}")


HELD = Held()


@dataclass(frozen=True)
class Prepared:
    """Typed splits and counts of what an auditor asks about them.

    Attributes:
        schema: with encodings learnt on train.
        rows: in their splits, `sealed` among them.
        notes: counts of removed and repeated rows, constant columns, empty groups;
            unseen sealed values and groups on one side, what columns of text were read
            as, which are unclear, and pairs of levels that look alike, if any.
        facts: what of it a reader of figures should know, as warnings.
        sealed: sealed rows before one of each entity was drawn.
        keys: gives what the sealed rows are known by; 16 bytes for each of them.
    """

    schema: Schema
    rows: PlacedRows
    notes: Mapping[str, Any]
    facts: tuple[AuditWarning, ...]
    sealed: int
    keys: Callable[[], RowKeys]

    @cached_property
    def splits(self) -> Mapping[str, Split]:
        """All rows in memory, by split."""
        return {name: self.rows.split(name) for name in ALL_SPLITS}


def prepare(
    config: DataConfig,
    source: RawTable | Spool,
    sealed: RawTable | Spool | None,
    held: Held = HELD,
    scratch: Path | None = None,
) -> Prepared:
    """Types and splits raw rows.

    Args:
        config: roles of the columns, fractions, seed.
        source: the development rows.
        sealed: rows of an official test file; None cuts them from the source.
        held: how much is held at once; what is made does not depend on it.
        scratch: private folder for what is too much for memory; None = nothing is.

    Raises:
        DataError: the tables do not fit their description.
        StorageError: the scratch folder's disk is full.
    """
    shelf = Shelf(scratch, held.memory)
    sides = [s if isinstance(s, Spool) else Spool.of(s) for s in (source, sealed) if s]
    coded = CodedRows(sides, shelf, held.batch_rows)
    kinds = learn_kinds(coded.tables[0], config.missing)
    # What the config declares is read as it stands, whatever it looks like.
    kinds |= dict.fromkeys([*config.numbers, *config.dates], "text")
    config = spelled_config(config, kinds)
    spelled = spelled_sides(config, coded, kinds)
    joined = Joined.of(config, coded, spelled, shelf)
    classes, label = class_codes(config, joined)
    composition = Composition.of(config, joined, classes, label, shelf)
    cells = written_cells(config, joined, kinds, shelf)
    hashes = hashed_rows(coded, cells, shelf)
    relations = Buckets(coded.rows, scratch, held.bucket_rows)
    same = with_merged_labels(joined, cells, hashes, shelf)
    placement = place(config, joined, composition, same, relations)
    columns = PlacedColumns(joined, placement, shelf)
    table = replace(joined.table, columns=columns.development)
    readings = learn_readings(config, table, kinds)
    typed, constant = typed_columns(config, columns, readings, shelf)
    inputs = learnt_features(config, columns, typed, readings)
    schema = schema_of(config, composition, inputs, readings, kinds)
    schema = replace(schema, columns=tuple(joined.table.columns))
    entity = joined.table.columns[config.entity] if config.entity else None
    rows = PlacedRows(
        coded,
        placement,
        typed,
        composition,
        hashes,
        (config.entity, entity.codes.astype(np.int64)) if entity else None,
    )
    schema = narrowed(schema, rows.parts("train", held.batch_rows))
    if joined.sealed_origin:
        gaps = {
            name: int(columns.rows(name, SEALED)[entries.gaps].sum())
            for name, entries in typed.items()
        }
        known, judged = f"the train rows of {sides[0].origin}", rows.size(SEALED)
        refuse_gaps(schema, gaps, judged, joined.sealed_origin, known)
    notes = development_notes(joined, placement, composition, schema, constant)
    notes["records_sharing_features"] = sharing_features(
        joined, placement, schema, relations, shelf
    )
    notes |= sealed_notes(config, columns, composition, rows.counts, levels_of(schema))
    notes |= column_notes(config, columns, schema, readings, typed)
    facts = (
        *column_facts(schema, columns, typed),
        *repeated_rows(schema, rows, columns, relations, shelf),
        *note_facts(
            notes, rows.size(SEALED), respelled(config, columns, spelled[0], schema)
        ),
    )
    digests = sides[-1].digests.values()
    keys = partial(
        row_keys,
        config,
        joined,
        cells,
        hashes=hashes,
        placement=placement,
        digests=tuple(digests),
        relations=relations,
    )
    before = rows.size(SEALED) + placement.thinned
    return Prepared(schema, rows, notes, facts, before, keys)


def spelled_sides(
    config: DataConfig, coded: CodedRows, kinds: Kinds
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

    source, *sealed = coded.tables
    return side(source), side(sealed[0]) if sealed else None


def with_merged_labels(
    joined: Joined, cells: Mapping[str, EntryCells], hashes: Hashes, shelf: Shelf
) -> Hashes:
    """Returns hashes that are equal for copies, whatever a file calls their label."""
    name, coded = joined.name, joined.coded
    merged = EntryCells.of(name, joined.table.columns[name], shelf)
    change = merged.named() - cells[name].named()
    if not change.any():
        return hashes

    def rows(batch: int) -> NDArray[np.void]:
        both = np.stack(words(hashes(batch)), axis=1)
        both += change[coded.codes(name, batch)]
        return both.view(ROW)[:, 0]

    return rows


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
        drop=config.drop,
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
            for key in ("delimiter", "decimal", "encoding")
            if (value := getattr(config, key))
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
    before = columns.joined.coded.tables[0]
    for name in texts_of(config, schema):
        old, new = before.columns[name], spelled.columns[name]
        unlike = np.asarray(pc.not_equal(old.texts(), new.texts()), bool)
        changed = int(columns.rows(name, *SPLITS)[: len(old)][unlike].sum())
        counts |= {name: changed} if changed else {}
    return counts
