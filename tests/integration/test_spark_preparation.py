"""A whole table prepared on a real Spark: the artifacts of one machine, to the byte."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prepared_tables import SEALED, SPLITS, put
from spark_server import SPARK, address

from safescale_ammt.config.kubernetes_names import SPARK_ADDRESS
from safescale_ammt.data import narrowing
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.data.local_table import Held
from safescale_ammt.errors import EngineError, SafescaleError
from safescale_ammt.files.artifacts import read_manifest
from safescale_ammt.files.canonical import digest_json, read_json
from safescale_ammt.spark import engine
from safescale_ammt.stages import prepare_data

pytestmark = SPARK
GOLDEN = json.loads(
    (Path(__file__).parent.parent / "golden" / "prepared.json").read_text()
)
# Each has something that the others have not: entities with an official file, copies
# that are left out, labels that lack, and columns of measurements.
TABLES = ["visits", "equals", "unlabelled", "measured"]


@pytest.fixture(autouse=True)
def few_partitions(monkeypatch) -> None:
    """Lets shuffles make three partitions, however few rows they are."""
    reading = engine.spark_rows

    def read(session, *arguments):
        session.conf.set("spark.sql.shuffle.partitions", "3")
        session.conf.set("spark.sql.adaptive.coalescePartitions.enabled", "false")
        return reading(session, *arguments)

    monkeypatch.setattr(engine, "spark_rows", read)


def prepared(
    given: dict[str, Any], folder: Path, spark: Any = None, **held: Any
) -> dict[str, Any]:
    """Prepares a case, on Spark if there is one; returns what the stage tells."""
    environ = {"SAFESCALE_STORE": (folder / "store").as_uri()}
    if spark:
        given = {**given, "engine": "spark"}
        # A session's server, or one that is named.
        named = isinstance(spark, str)
        environ |= {SPARK_ADDRESS: spark} if named else address(spark)
    out = folder / "dataset", folder / "holdout"
    return prepare_data.run(given, *out, environ=environ, held=Held(**held))


def both(
    given: dict[str, Any], folder: Path, spark: Any, **held: Any
) -> tuple[Path, Path]:
    """Prepares on one machine and on Spark; returns the folders of the artifacts."""
    here, there = folder / "here", folder / "there"
    found = prepared(given, there, spark, **held)
    expected = prepared(given, here, **held)
    assert found == expected
    for kind in ("dataset", "holdout"):
        assert read_manifest(there / kind).identity == (
            read_manifest(here / kind).identity
        )
    audits = [read_json(folder / "dataset" / "audit.json") for folder in (here, there)]
    assert audits[0] == audits[1]
    return here, there


@pytest.mark.parametrize("name", TABLES)
def test_spark_makes_the_artifacts_of_one_machine(
    spark, tmp_path: Path, name: str
) -> None:
    given = put(tmp_path / "in", name, 700)
    # Keys are cut into many ranges, as those of a large table are.
    found = prepared(given, tmp_path, spark, bucket_rows=97)
    audit = digest_json(read_json(tmp_path / "dataset" / "audit.json"))
    whole = {"dataset": found["dataset"], "holdout": found["holdout"], "audit": audit}
    assert whole == GOLDEN[f"{name} 700"]
    manifest = read_manifest(tmp_path / "dataset")
    splits = Dataset.load(tmp_path / "dataset").splits
    apart = {name for name, entry in manifest.files.items() if entry.apart}
    assert apart == {f"{split}.parquet" for split in splits}


def test_shards_of_spark_are_those_of_one_machine(spark, tmp_path: Path) -> None:
    given = put(tmp_path / "in", "entities", 900)
    here, there = both(given, tmp_path, spark, shard_rows=90, audited_rows=200)
    local, apart = (read_manifest(folder / "dataset").files for folder in (here, there))
    assert {name: entry.sha256 for name, entry in local.items()} == {
        name: entry.sha256 for name, entry in apart.items()
    }
    assert "train-00003.parquet" in apart
    # Readers find each where its digest says.
    environ = {"SAFESCALE_STORE": (there / "store").as_uri()}
    mine, theirs = (
        Dataset.load(folder / "dataset", environ) for folder in (here, there)
    )
    for name in mine.splits:
        rows = [
            [batch.features.to_pylist() for batch in data.batches(name)]
            for data in (mine, theirs)
        ]
        assert rows[0] == rows[1], name


def test_a_wide_table_is_narrowed_alike(spark, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(narrowing, "MOST_INPUTS", 30)
    given = put(tmp_path / "in", "measured", 700)
    both(given, tmp_path, spark)


def test_a_folder_of_many_files_has_its_rows_in_their_order(
    spark, tmp_path: Path
) -> None:
    given = put(tmp_path / "in", "plain", 700)
    head, *lines = (tmp_path / "in" / "source.csv").read_text().splitlines()
    folder = tmp_path / "many"
    folder.mkdir()
    for i, start in enumerate(range(0, len(lines), 64)):
        part = [head, *lines[start : start + 64]]
        (folder / f"{i:02}.csv").write_text("\n".join(part) + "\n")
    both({**given, "source": folder.as_uri()}, tmp_path, spark)


def test_a_sealed_file_may_have_its_columns_in_another_order(
    spark, tmp_path: Path
) -> None:
    given = put(tmp_path / "in", "official", 700)
    file = tmp_path / "in" / "sealed_source.csv"
    lines = [line.split(",") for line in file.read_text().splitlines()]
    file.write_text("".join(",".join(reversed(cells)) + "\n" for cells in lines))
    both(given, tmp_path, spark)


def spelled(rows: int, seed: int, labels: list[str], euros: list[str]) -> str:
    """Writes a CSV of cells with many spellings of the same."""
    draw = random.Random(seed)
    cells = {
        "y": labels,
        "sex": ["F", "M"],
        "n": ["39", "39.0", "+39", "3.9e1", "-0.0", "0", "nan", "?"],
        "euro": [f'"{euro}"' for euro in euros],
        "day": ["31.12.2023", "01.02.2024", "?"],
        "code": ["007", "7", "B12", ""],
        "flag": ["true", "TRUE", "yes", "F", "0"],
        "word": ["a", "A", "a ", "é", "e\u0301", "x  y", "", "?", "n. a.", "1", "01"],
    }
    lines = [",".join(map(draw.choice, cells.values())) for _ in range(rows)]
    return "\n".join([",".join(cells), *lines]) + "\n"


def test_cells_are_read_alike_however_they_are_spelled(spark, tmp_path: Path) -> None:
    folder, labels = tmp_path / "rows", [">50K", "<=50K", "?", ""]
    folder.mkdir()
    for i in range(5):
        text = spelled(37 * (i % 3 + 1), i, labels, ["1.234,5", "7,25", "0,5"])
        (folder / f"{i}.csv").write_text(text)
    given = {
        "source": folder.as_uri(),
        "label": "y",
        "positive": ">50K",
        "sensitive": ["sex"],
        "missing": ["?", "n. a.", "nan"],
        "unlabelled": "drop",
        "splits": {**SPLITS, "train": 0.6},
        "label_map": {">50K.": ">50K", "<=50K.": "<=50K"},
    }
    # Its label ends in a point, and its commas alone would not say what they are.
    text = spelled(150, 9, [">50K.", "<=50K.", "?"], ["1,234", "7,250"])
    (tmp_path / "sealed.csv").write_text(text)
    given["sealed_source"] = (tmp_path / "sealed.csv").as_uri()
    both(given, tmp_path, spark)


def without(column: str, row: int) -> Callable[[str], str]:
    """Empties a cell of a CSV without quotes."""

    def change(text: str) -> str:
        lines = text.splitlines()
        cells = lines[row].split(",")
        cells[lines[0].split(",").index(column)] = ""
        lines[row] = ",".join(cells)
        return "\n".join(lines) + "\n"

    return change


def test_references_are_read_alike(spark, tmp_path: Path) -> None:
    draw, lines = random.Random(0), ["sex,income,city,y,checked,income_2,city_2"]
    for i in range(600):
        # A decimal comma: a repeat is read by the form of its input.
        income = f'"{draw.gauss(3, 1):.2f}"'.replace(".", ",")
        y, city = i % 5 // 2 % 2, draw.choice("abc")
        beside = f"{y}.0,{income},{city}" if i % 3 else ",,"
        lines.append(f"{'fm'[i % 2]},{income},{city},{y},{beside}")
    (tmp_path / "t.csv").write_text("\n".join([*lines, ""]), "utf-8")
    given = {
        "source": (tmp_path / "t.csv").as_uri(),
        "label": "y",
        "positive": "1",
        "sensitive": ["sex"],
        "splits": SEALED,
        "trusted_label": "checked",
        "repeats": {"income": "income_2", "city": "city_2"},
        "population": {"sex": {"f": 0.5, "m": 0.5}},
    }
    here, _ = both(given, tmp_path, spark)
    bias = read_json(here / "dataset" / "audit.json")["bias"]
    assert [kind["status"] for kind in bias if kind["kind"] != "proxy_leakage"] == [
        "not found",
        "not found",
        "not found",
    ]
    assert all(len(kind["findings"]) >= 2 for kind in bias)


@pytest.mark.parametrize("role", ["label", "entity", "numeric", "drop", "both sides"])
def test_what_is_wrong_is_the_same_sentence(spark, tmp_path: Path, role: str) -> None:
    case = "visits" if role == "both sides" else "entities"
    given = put(tmp_path / "in", case, 700)
    file = tmp_path / "in" / "source.csv"
    if role == "numeric":
        file.write_text(without("age", 431)(file.read_text()))
        given = {**given, "numeric": ["age", "city"]}
    elif role == "drop":
        given = {**given, "drop": ["no-such-column"]}
    elif role == "both sides":
        given = {**given, "sealed_source": given["source"]}
    else:
        file.write_text(without(given[role], 431)(file.read_text()))
    said = []
    for folder, there in ((tmp_path / "here", None), (tmp_path / "there", spark)):
        with pytest.raises(SafescaleError) as caught:
            prepared(given, folder, there)
        said.append((type(caught.value), str(caught.value)))
        assert not (folder / "dataset").exists()
    assert said[0] == said[1]


def test_a_store_that_takes_no_shard_is_one_sentence(spark, tmp_path: Path) -> None:
    given = put(tmp_path / "in", "plain", 700)
    environ = {"SAFESCALE_STORE": (tmp_path / "store").as_uri(), **address(spark)}
    (tmp_path / "store").mkdir()
    # Where shards belong, there is a file.
    (tmp_path / "store" / "datasets").write_text("")
    out = tmp_path / "dataset", tmp_path / "holdout"
    with pytest.raises(SafescaleError) as caught:
        prepare_data.run({**given, "engine": "spark"}, *out, environ=environ)
    assert not isinstance(caught.value, EngineError), caught.value
    assert "datasets" in str(caught.value)
    assert not out[0].exists()
