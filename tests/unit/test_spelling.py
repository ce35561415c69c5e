"""One value has one spelling, whatever file it came in."""

from __future__ import annotations

import datetime as dt
import decimal
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars
import preparing
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from preparing import run
from small_tables import config, loans, officially_sealed, save

from safescale_ammt.config.sections import SPLITS, DataConfig
from safescale_ammt.data.coding import encode
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.data.raw_rows import read_raw
from safescale_ammt.data.schema import Schema
from safescale_ammt.data.splitting import row_hashes, row_hex
from safescale_ammt.errors import ConfigError, DataError
from safescale_ammt.files.canonical import digest_file, digest_json, read_json
from safescale_ammt.reading.cells import cells_of
from safescale_ammt.reading.columns import Column
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.reading.sources import parse_bytes
from safescale_ammt.reading.spelling import (
    canonical,
    canonical_alone,
    kind_of,
    learn_kinds,
    spelled_as,
    spelled_config,
    spelled_table,
)


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["True", "false"], "boolean"),
        (["TRUE"], "boolean"),
        (["true", "maybe"], "text"),
        (["1.0", "2", "+3", "1e3", ".5", "-0.0", "inf"], "number"),
        (["1", "007"], "text"),
        (["1,5", "2"], "text"),
        (["1.10", "1.1"], "text"),
        (["1.10", "1.20"], "number"),
        (["1_000"], "text"),
        (["2020-01-01", "2020-02-03T04:05:06.7Z"], "time"),
        (["2020-01-01", "2020-02-30"], "text"),
        (["2020-13-01"], "text"),
        ([], "text"),
    ],
)
def test_a_column_is_of_the_kind_that_all_its_texts_spell(
    texts: list[str], kind: str
) -> None:
    assert kind_of(pa.array(texts, pa.string())) == kind


@pytest.mark.parametrize(
    ("one", "spellings"),
    [
        ("true", ["True", "TRUE", "true"]),
        ("1", ["1", "1.0", "+1", "1e0", "1.", "10e-1"]),
        ("0", ["0", "-0.0", "0e7", "+0", "1e-400"]),
        ("0.5", [".5", "0.50", "5e-1"]),
        ("1e-05", ["0.00001", "1E-5"]),
        ("0.1", ["0.1", "0.10000000000000001"]),
        ("1200000", ["1.2e6", "1200000.00"]),
        ("9007199254740993", ["9007199254740993", "9007199254740993.0"]),
        ("123456789012345680", ["1.2345678901234568e+17", "123456789012345680"]),
        ("inf", ["inf", "Infinity", "+INF"]),
        ("2020-01-01", ["2020-01-01T00:00:00.000", "2020-01-01 00:00"]),
        ("2020-01-01 10:00:00.5", ["2020-01-01T10:00:00.500", "2020-01-01 10:00:00.5"]),
        (
            "2020-01-01 00:00:00Z",
            ["2020-01-01T00:00:00Z", "2020-01-01 01:00:00.000+0100"],
        ),
    ],
)
def test_spellings_of_one_value_become_one(one: str, spellings: list[str]) -> None:
    assert {canonical_alone(text) for text in spellings} == {one}
    assert canonical_alone(one) == one


def test_a_missing_value_is_of_no_kind_however_it_is_spelled() -> None:
    texts = pa.array(["True", "false", "?", "-999.0"])
    assert kind_of(texts, ("?", "-999")) == "boolean"
    assert kind_of(texts, ("?",)) == "text"
    assert kind_of(pa.array(["?"]), ("?",)) == "text"


@given(st.lists(st.floats() | st.floats(0, 1e-3) | st.integers().map(float)))
def test_a_column_is_spelled_as_its_texts_are_one_by_one(numbers: list[float]) -> None:
    # Arrow picks those that need no change; it must pick them by the same rule.
    texts = [repr(x) for x in numbers] + pa.array(numbers).cast(pa.string()).to_pylist()
    column = Column.of(pa.chunked_array([pa.array(texts, pa.string())]))
    assert spelled_as(column, "number").texts().to_pylist() == [
        canonical(text, "number") for text in texts
    ]


def test_versions_and_codes_stay_what_they_are() -> None:
    for text in ("1.10", "007", "0x10", "1.10.2", "True story", "2020-1-1"):
        assert canonical(text, "text") == text
    assert canonical("007", "number") == "007"
    assert canonical("1", "boolean") == "1"


@given(st.floats() | st.floats(width=32) | st.integers().map(float))
def test_a_float_keeps_its_value_and_its_canonical_text(x: float) -> None:
    text = canonical_alone(repr(x))
    assert np.isnan(x) or float(text) == x or abs(x) < 1e-300
    assert canonical_alone(text) == text


def columns_of(array: pa.Array, **layout: Any) -> list[str]:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"x": array}), buffer)
    table = parse_bytes(buffer.getvalue(), "x.parquet", Layout(**layout))
    table = spelled_table(table, learn_kinds(table, ("",)))
    texts: list[str] = table.columns["x"].texts().to_pylist()
    return texts


SECOND = pa.array([0, 86400], pa.timestamp("s"))


@pytest.mark.parametrize(
    ("array", "texts"),
    [
        (pa.array([True, None]), ["true", ""]),
        (pa.array([1, None], pa.int8()), ["1", ""]),
        (
            pa.array([2**53 + 1, 2**64 - 1], pa.uint64()),
            [str(2**53 + 1), str(2**64 - 1)],
        ),
        (pa.array(np.array([0.1, 2.0, np.nan], np.float16)), ["0.1", "2", ""]),
        (pa.array([0.1, 2.0, float("nan")], pa.float32()), ["0.1", "2", ""]),
        (pa.array([0.1, -0.0, 1e22, None]), ["0.1", "0", "1" + "0" * 22, ""]),
        (pa.array([decimal.Decimal("1.10"), decimal.Decimal("2.00")]), ["1.1", "2"]),
        (pa.array([dt.date(2020, 1, 1)]), ["2020-01-01"]),
        (pa.array([dt.date(2020, 1, 1)], pa.date64()), ["2020-01-01"]),
        *(
            (SECOND.cast(pa.timestamp(unit)), ["1970-01-01", "1970-01-02"])
            for unit in ("s", "ms", "us", "ns")
        ),
        *(
            (
                SECOND.cast(pa.timestamp("us", zone)),
                ["1970-01-01 00:00:00Z", "1970-01-02 00:00:00Z"],
            )
            for zone in ("UTC", "Europe/Paris", "+02:00")
        ),
        (pa.array(["a", None], pa.large_string()), ["a", ""]),
        (pa.array(["a", None], pa.string_view()), ["a", ""]),
        (pa.array([None, None]), ["", ""]),
        *(
            (
                pa.DictionaryArray.from_arrays(pa.array([1, 0, None], width), values),
                [second, first, ""],
            )
            for width in (pa.int8(), pa.uint16(), pa.int64())
            for values, first, second in (
                (pa.array(["a", "b"]), "a", "b"),
                (pa.array([1.0, 2.0]), "1", "2"),
                (SECOND, "1970-01-01", "1970-01-02"),
            )
        ),
    ],
    ids=lambda x: str(x.type) if isinstance(x, pa.Array) else "",
)
def test_typed_values_of_parquet_have_the_spelling_of_text(
    array: pa.Array, texts: list[str]
) -> None:
    assert columns_of(array) == texts


def test_a_time_that_has_no_text_is_refused_with_its_column() -> None:
    with pytest.raises(DataError, match=r"Column 'x' .* 1 times outside the years"):
        columns_of(pa.array([2**50], pa.timestamp("s")))


def section(**changes: Any) -> DataConfig:
    return DataConfig.from_params({"label": "y", **changes})


def test_values_in_the_config_follow_the_spelling_of_their_column() -> None:
    kinds: Any = {"y": "boolean", "owner": "number"}
    spelled = spelled_config(
        section(
            positive="True",
            label_map={"FALSE": "false"},
            sensitive=["owner"],
            merges={"o": {"column": "owner", "values": {"1.0": "one"}, "other": "two"}},
            missing=["", "-999.0"],
        ),
        kinds,
    )
    assert spelled.positive == "true"
    assert spelled.label_map == {"false": "false"}
    assert spelled.merges["o"]["values"] == {"1": "one"}
    assert spelled.missing == ("", "-999.0", "-999")


def test_two_names_for_one_value_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"data.label_map maps '1.0' to 'b', and another"
    ):
        spelled_config(section(label_map={"1": "a", "1.0": "b"}), {"y": "number"})


def test_a_row_hash_does_not_depend_on_the_table_around_it() -> None:
    def hashes(*rows: str) -> list[str]:
        return row_hex(
            row_hashes(cells_of({"x": Column.of(pa.chunked_array([list(rows)]))}))
        )

    # "1.10" and "1.1" are versions in one column, and numbers in another.
    assert hashes("1.10", "1.1")[0] == hashes("1.1", "2")[0]
    assert hashes("True", "x")[0] == hashes("true")[0]
    assert hashes("nan", "1.0") == hashes("", "1")
    assert hashes("2020-01-01T00:00:00") == hashes("2020-01-01")


def frame(rows: int = 600, seed: int = 0) -> pd.DataFrame:
    """The loans with a boolean, a gapped whole number, a float and a time."""
    table = pd.DataFrame(
        loans(rows, seed),
        columns=["age", "gain", "city", "gender", "origin", "id", "approved"],
    )
    rng = np.random.default_rng(seed)
    table["owner"] = rng.random(rows) < 0.5
    table["branch"] = np.where(rng.random(rows) < 0.1, np.nan, rng.integers(1, 5, rows))
    table["since"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(
        rng.integers(0, 4, rows), "D"
    )
    return table


def written(table: pd.DataFrame, path: Path) -> str:
    """Writes a table in the form of the file's name."""
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, index=False)
    return path.as_uri()


def learnt(folder: Path, **changes: Any) -> Dataset:
    run(
        {"categorical": ["branch"], **changes},
        folder / "dataset",
        folder / "holdout",
    )
    return Dataset.load(folder / "dataset")


def test_a_sealed_file_of_another_format_is_sealed_the_same(tmp_path: Path) -> None:
    schemas = []
    for i, (first, second) in enumerate(
        [("csv", "csv"), ("csv", "parquet"), ("parquet", "csv")]
    ):
        folder = tmp_path / str(i)
        folder.mkdir()
        source = written(frame(), folder / f"dev.{first}")
        sealed = written(frame(200, seed=1), folder / f"sealed.{second}")
        data = learnt(folder, **officially_sealed(source=source, sealed_source=sealed))
        split = preparing.sealed(folder / "holdout").split.features
        schemas.append((data.schema.digest, split))
    assert schemas[0][0] == schemas[1][0] == schemas[2][0]
    assert schemas[0][1].equals(schemas[1][1])
    assert schemas[0][1].equals(schemas[2][1])


def test_files_of_one_folder_are_spelled_alike(tmp_path: Path) -> None:
    whole = frame()
    # Without a gap its branches are whole numbers, and no day has a time.
    parts = [whole.iloc[:300], whole.iloc[300:].dropna()]
    assert whole.iloc[:300]["branch"].isna().any()
    parts[1] = parts[1].astype({"branch": int})
    save(tmp_path / "in" / "a.csv", parts[0].to_csv(index=False).encode())
    save(tmp_path / "in" / "b.csv", parts[1].to_csv(index=False).encode())
    section = config(source=(tmp_path / "in").as_uri())
    data = learnt(tmp_path, **section | {"categorical": ["branch", "since"]})
    levels = {f.name: f.levels for f in data.schema.features if f.kind != "numeric"}
    assert levels["branch"] == ("1", "2", "3", "4")
    assert levels["owner"] == ("false", "true")
    assert levels["since"][0] == "2020-01-01"


@pytest.mark.parametrize("rows", [1, 50])
def test_rows_to_predict_are_spelled_as_the_source_was(
    tmp_path: Path, rows: int
) -> None:
    source = written(frame(), tmp_path / "dev.csv")
    section = config(source=source) | {"categorical": ["branch", "since"]}
    schema = learnt(tmp_path, **section).schema
    assert dict(schema.spellings) == {
        "branch": "number",
        "owner": "boolean",
        "since": "time",
    }
    inputs = []
    for name in ("new.csv", "new.parquet"):
        written(frame(rows, seed=2), tmp_path / name)
        inputs.append(encode(schema, read_raw(schema, tmp_path / name)))
    np.testing.assert_array_equal(inputs[0], inputs[1])
    assert Schema.from_dict(schema.to_dict()) == schema


def test_a_table_of_text_and_numbers_has_the_schema_it_always_had(
    tmp_path: Path,
) -> None:
    source = written(
        frame().drop(columns=["owner", "branch", "since"]), tmp_path / "dev.csv"
    )
    run(config(source=source), tmp_path / "dataset", tmp_path / "holdout")
    form = Schema.load(tmp_path / "dataset").to_dict()
    assert "spellings" not in form
    assert not any("expected_unseen" in feature for feature in form["features"])


# Every column type as (values, pandas dtype): drawn with gaps, written by each writer.
COLUMNS: dict[str, tuple[st.SearchStrategy[Any], str]] = {
    "boolean": (st.booleans(), "boolean"),
    "whole": (st.integers(-3, 3), "Int64"),
    "large": (st.integers(2**53, 2**53 + 3), "Int64"),
    "float": (st.floats(-1e6, 1e6) | st.sampled_from([0.0, -0.0, 1.0]), "float64"),
    "single": (st.floats(-8, 8, width=32), "float32"),
    "time": (
        st.integers(0, 10**13).map(lambda t: pd.Timestamp(t, unit="ms")),
        "datetime64[ms]",
    ),
    "day": (
        st.integers(0, 9).map(lambda day: pd.Timestamp(day, unit="D")),
        "datetime64[ns, UTC]",
    ),
    "text": (st.sampled_from(["a", "b", "True", "1.10", "007", "ü, ü"]), "str"),
    "dictionary": (st.sampled_from(["x", "y"]), "category"),
}


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """Draws 120 rows with a label, a group and one to thirty columns of drawn types."""
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    table = pd.DataFrame(
        {"y": rng.choice(["no", "yes"], 120), "g": rng.choice(["f", "m"], 120)}
    )
    # A few columns may all be left out; of many each costs a tenth as much.
    few, many = (
        st.lists(st.sampled_from(sorted(COLUMNS)), min_size=least, max_size=most)
        for least, most in ((1, 3), (18, 30))
    )
    for i, kind in enumerate(draw(few | many)):
        values, dtype = COLUMNS[kind]
        pool = [*draw(st.lists(values, min_size=2, max_size=9, unique=True))]
        if draw(st.booleans()):
            pool.append(None)
        column = [pool[j] for j in rng.integers(0, len(pool), 120)]
        table[f"c{i}"] = pd.Series(column, dtype="object").astype(dtype)
    return table


def by_pandas_csv(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False)


def quoted_by_pandas(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False, quoting=1, lineterminator="\r\n")


def by_pyarrow_csv(table: pd.DataFrame, path: Path) -> None:
    pacsv.write_csv(_arrow(table), path)


def by_pandas_parquet(table: pd.DataFrame, path: Path) -> None:
    table.to_parquet(path, index=False)


def by_pyarrow_parquet(table: pd.DataFrame, path: Path) -> None:
    pq.write_table(_arrow(table), path)


def _arrow(table: pd.DataFrame) -> pa.Table:
    """The table as pyarrow would build it: gaps are nulls, dictionaries are text."""
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    arrays = [
        column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
        for column in arrow.columns
    ]
    return pa.table(arrays, names=arrow.column_names)


def by_polars_csv(table: pd.DataFrame, path: Path) -> None:
    polars.DataFrame(_arrow(table)).write_csv(path)


def by_polars_parquet(table: pd.DataFrame, path: Path) -> None:
    polars.DataFrame(_arrow(table)).write_parquet(path)


WRITERS: list[Callable[[pd.DataFrame, Path], None]] = [
    by_pandas_csv,
    quoted_by_pandas,
    by_pyarrow_csv,
    by_pandas_parquet,
    by_pyarrow_parquet,
    by_polars_csv,
    by_polars_parquet,
]


@given(table=tables(), declared=st.booleans())
@settings(
    # Some 450 columns by each writer; most of a preparation's cost is no column's.
    max_examples=36,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
def test_all_writers_of_a_table_give_one_dataset(
    tmp_path_factory: pytest.TempPathFactory, table: pd.DataFrame, declared: bool
) -> None:
    folder = tmp_path_factory.mktemp("writers")
    seen: set[Any] = set()
    inputs: set[bytes] = set()
    for write in WRITERS:
        place = folder / write.__name__
        place.mkdir()
        write(table, place / "table")
        changes: dict[str, Any] = {
            "source": (place / "table").as_uri(),
            "label": "y",
            "positive": "yes",
            "sensitive": ["g"],
            "drop": [],
            # Declared, a number is a level: its spelling is all there is to it.
            "categorical": [c for c in table if c[0] == "c"] if declared else [],
        }
        try:
            run(config(**changes), place / "dataset", place / "holdout")
        except DataError as error:
            # Too few rows of a class, or no column left: not for one writer alone.
            seen.add(str(error).replace(changes["source"], "SOURCE"))
            continue
        # All but source.json, which holds the digest of the raw bytes, and the warning
        # that values are spelled anew: both are about the file.
        audit = read_json(place / "dataset" / "audit.json")
        audit["warnings"] = [w for w in audit["warnings"] if w["kind"] != "spelling"]
        names = ["schema.json", "counts.json"]
        names += [f"{split}.parquet" for split in SPLITS]
        files = [place / "dataset" / name for name in names]
        files.append(preparing.rows_of(place / "holdout") / "sealed.parquet")
        seen.add((digest_json(audit), *(digest_file(file) for file in files)))
        # Other files of these rows, by the first writer's schema, as `predict` does.
        schema = Schema.load(folder / WRITERS[0].__name__ / "dataset" / "schema.json")
        inputs.add(encode(schema, read_raw(schema, place / "table")).tobytes())
    assert len(seen) == 1
    assert len(inputs) <= 1
