"""Entries and hashes of rows in Spark: those of the preparation on one machine."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
from spark_server import SPARK, partitions

from safescale_ammt.config.sections import DataConfig
from safescale_ammt.data.buckets import Buckets
from safescale_ammt.data.coded_rows import CodedRows
from safescale_ammt.data.composition import Composition, groups_of, strata_of
from safescale_ammt.data.entry_cells import hashed_rows, written_cells, written_forms
from safescale_ammt.data.joining import Joined, class_codes
from safescale_ammt.data.placement import place
from safescale_ammt.data.preparation import spelled_sides
from safescale_ammt.data.relations import ALL_SPLITS, REMOVED, Rule
from safescale_ammt.data.shelf import KeptColumns, Shelf
from safescale_ammt.data.splitting import ROW
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.reading.sources import read_table
from safescale_ammt.reading.spelling import learn_kinds, spelled_config
from safescale_ammt.reading.spool import Spool

pytestmark = SPARK
CONFIG = DataConfig(label="y", sensitive=("sex",), missing=("?", "n. a."))
WORDS = ["a", "A", "a ", "é", "e\u0301", "x  y", "", "?", "n. a.", "1", "01", "yes"]


def write(folder: Path, files: int, *labels: str) -> None:
    """Writes rows whose cells have many spellings, in files of unlike sizes."""
    folder.mkdir()
    draw = random.Random(4)
    for i in range(files):
        lines = ["y,sex,n,euro,day,code,flag,word"]
        for _ in range(37 * (i % 3 + 1)):
            cells = [
                draw.choice([">50K", "<=50K", ">50K.", *labels]),
                draw.choice(["F", "M"]),
                draw.choice(["39", "39.0", "+39", "3.9e1", "-0.0", "0", "nan", "?"]),
                f'"{draw.choice(["1.234,5", "7,25", "0,5"])}"',
                draw.choice(["31.12.2023", "01.02.2024", "?"]),
                draw.choice(["007", "7", "B12", ""]),
                draw.choice(["true", "TRUE", "yes", "F", "0"]),
                draw.choice(WORDS),
            ]
            lines.append(",".join(cells))
        (folder / f"{i}.csv").write_text("\n".join(lines) + "\n")


def test_entries_and_hashes_of_spark_are_those_of_one_machine(
    spark, tmp_path: Path
) -> None:
    from safescale_ammt.spark.hashing import HASHED, RowHashing

    from safescale_ammt.spark.entries import entries_of
    from safescale_ammt.spark.keys import unsigned
    from safescale_ammt.spark.reading import spark_rows

    write(tmp_path / "rows", 5)
    uri, shelf = (tmp_path / "rows").as_uri(), Shelf()
    coded = CodedRows([Spool.of(read_table(uri, Layout()))], shelf)
    kinds = learn_kinds(coded.tables[0], CONFIG.missing)
    config = spelled_config(CONFIG, kinds)
    joined = Joined.of(config, coded, spelled_sides(config, coded, kinds), shelf)
    Composition.of(config, joined, *class_codes(config, joined), shelf)
    hashes = hashed_rows(coded, written_cells(config, joined, kinds, shelf), shelf)
    expected = np.concatenate([hashes(batch) for batch in coded.batches])

    with partitions(spark, 3):
        rows = spark_rows(spark, uri, Layout())
        entries = entries_of(spark, rows)
        for name, column in coded.tables[0].columns.items():
            found = entries.columns[name]
            assert found.values.to_pylist() == column.values.to_pylist(), name
            assert found.counts.tolist() == column.counts.tolist(), name
        written = joined.written
        source = KeptColumns(written.table.columns, written.of_source)
        table = replace(written.table, columns=source)
        forms, missing = written_forms(config, table, kinds)
        hashing = RowHashing(tuple(entries.columns), kinds, forms, missing)
        frame = rows.frame.mapInArrow(hashing.hashed, HASHED).orderBy("at").toArrow()
    halves = [unsigned(frame[name].to_numpy()) for name in ("high", "low")]
    assert len({row.tobytes() for row in expected}) > 100
    np.testing.assert_array_equal(np.stack(halves, 1).view(ROW)[:, 0], expected)


def test_spark_combines_and_places_rows_as_one_machine_does(
    spark, tmp_path: Path
) -> None:
    from safescale_ammt.spark.combining import Combining
    from safescale_ammt.spark.hashing import RowHashing

    from safescale_ammt.spark.entries import entries_of
    from safescale_ammt.spark.placing import Drawing
    from safescale_ammt.spark.reading import spark_rows

    splits = dict(zip(ALL_SPLITS, (0.4, 0.1, 0.1, 0.1, 0.1, 0.2), strict=True))
    rest = replace(CONFIG, unlabelled="drop", splits=splits)
    write(tmp_path / "rows", 5, "?", "")
    uri, shelf = (tmp_path / "rows").as_uri(), Shelf()
    coded = CodedRows([Spool.of(read_table(uri, Layout()))], shelf)
    kinds = learn_kinds(coded.tables[0], rest.missing)
    config = spelled_config(rest, kinds)
    joined = Joined.of(config, coded, spelled_sides(config, coded, kinds), shelf)
    classes, label = class_codes(config, joined)
    composition = Composition.of(config, joined, classes, label, shelf)
    hashes = hashed_rows(coded, written_cells(config, joined, kinds, shelf), shelf)

    with partitions(spark, 3):
        rows = spark_rows(spark, uri, Layout())
        entries, table = entries_of(spark, rows), joined.table
        names = list(entries.columns)
        source = KeptColumns(joined.written.table.columns, joined.written.of_source)
        written = replace(joined.written.table, columns=source)
        hashing = RowHashing(
            tuple(names), kinds, *written_forms(config, written, kinds)
        )
        roles = (config.label, *config.sensitive)
        combining = Combining(
            hashing,
            tuple(names.index(name) for name in roles),
            tuple(entries.columns[name].values for name in roles),
            (label + 1, *(table.columns[n].codes.astype(np.int64) for n in roles[1:])),
        )
        frame = combining.rows(rows.frame)
        combinations, counts = combining.combinations(spark, frame)
        groups = groups_of(config, table, combinations, counts)
        strata = strata_of(config, combinations[:, 0] - 1, len(classes), groups)
        facts = combining.facts(spark, frame, combinations, strata)
        fractions = tuple(config.splits.get(name, 0.0) for name in ALL_SPLITS)
        drawing = Drawing(spark, Rule(fractions, config.seed, False), 3)
        found = drawing.drawn(drawing.fates(facts)).orderBy("at").toArrow()

    held = composition.count(lambda i: np.zeros(len(hashes(i)), np.int64), 1)[:, 0]

    def told(label, groups, counts):
        codes = [groups[name][1] for name in sorted(groups)]
        texts = [groups[name][0] for name in sorted(groups)]
        return texts, sorted(zip(label.tolist(), *codes, counts.tolist(), strict=True))

    assert {*groups} == {*composition.groups}
    assert (combinations[:, 0] == 0).any()
    assert told(combinations[:, 0] - 1, groups, counts) == told(
        composition.label, composition.groups, held
    )
    absent = np.concatenate(
        [composition.label[composition.of_rows(i)] < 0 for i in coded.batches]
    )
    expected = place(config, joined, composition, hashes, Buckets(coded.rows))
    at = found["at"].to_numpy()
    np.testing.assert_array_equal(at, np.flatnonzero(~absent))
    assert len({*found["split"].to_pylist()} - {REMOVED}) > 3
    np.testing.assert_array_equal(found["split"].to_numpy(), expected.split[at])
    np.testing.assert_array_equal(found["first"].to_numpy(), expected.first[at])
