"""Columns that are not what they seem: one dataset, one prediction, from any dress."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import preparing
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from preparing import run
from small_tables import config, officially_sealed, save

from safescale_ammt.config.sections import SPLITS, DataConfig
from safescale_ammt.data.coding import encode, width
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.data.feature_codes import date_parts
from safescale_ammt.data.raw_rows import read_raw
from safescale_ammt.data.schema import Schema
from safescale_ammt.errors import ConfigError, DataError, InputError
from safescale_ammt.files.canonical import digest_file, read_json

ROLES = {"label": "y", "positive": "yes", "sensitive": ["g"], "drop": []}


def frame(rows: int = 400, seed: int = 0) -> pd.DataFrame:
    """A table of programs: a price, a rate, a day and an instant."""
    rng = np.random.default_rng(seed)
    first = pd.Timestamp("2020-01-01")
    table = pd.DataFrame({
        "y": rng.choice(["no", "yes"], rows),
        "g": rng.choice(["f", "m"], rows),
        "price": np.round(rng.normal(0, 5000, rows), 2),
        "rate": rng.integers(0, 100, rows) / 100,
        "day": first + pd.to_timedelta(rng.integers(0, 900, rows), "D"),
        "at": first + pd.to_timedelta(rng.integers(0, 24 * 900, rows), "h"),
    })  # fmt: skip
    table.loc[::17, ["price", "day"]] = None
    return table


def written(column: pd.Series, spell: Callable[[Any], str]) -> pd.Series:
    return column.map(lambda value: "" if pd.isna(value) else spell(value))


def german(number: float) -> str:
    return f"{number:,.2f}".replace(",", "g").replace(".", ",").replace("g", ".")


def american(number: float) -> str:
    return f"(${-number:,.2f})" if number < 0 else f"${number:,.2f}"


def in_germany(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(
        price=written(table["price"], lambda x: f"{german(x)} €"),
        rate=written(table["rate"], lambda x: f"{100 * x:.0f} %"),
        day=written(table["day"], "{:%d.%m.%Y}".format),
        at=written(table["at"], "{:%d.%m.%Y %H:%M}".format),
    )


def in_america(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(
        price=written(table["price"], american),
        rate=written(table["rate"], lambda x: f"{100 * x:.1f}%"),
        day=written(table["day"], "{:%m/%d/%Y}".format),
        at=written(table["at"], "{:%b %d, %Y %I:%M %p}".format),
    )


def in_texts(table: pd.DataFrame) -> pa.Table:
    texts = in_germany(table)
    return pa.table({name: texts[name].tolist() for name in texts})


def typed(table: pd.DataFrame, day: Any = None, at: str = "ms") -> pa.Table:
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    columns = {name: arrow[name] for name in arrow.column_names}
    columns["day"] = pc.cast(columns["day"], day or pa.date32())
    columns["at"] = pc.cast(columns["at"], pa.timestamp(at))
    return pa.table(columns)


def csv(table: pd.DataFrame, path: Path, **options: Any) -> str:
    return save(path, table.to_csv(index=False, **options).encode())


def parquet(table: pa.Table, path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path.as_uri()


WRITERS: dict[str, Callable[[pd.DataFrame, Path], str]] = {
    "plain.csv": csv,
    "german.csv": lambda t, p: csv(in_germany(t), p),
    "semicolon.csv": lambda t, p: csv(in_germany(t), p, sep=";"),
    "decimal.csv": lambda t, p: csv(t, p, sep=";", decimal=","),
    "american.csv": lambda t, p: csv(in_america(t), p),
    "american.tsv": lambda t, p: csv(in_america(t), p, sep="\t"),
    "texts.parquet": lambda t, p: parquet(in_texts(t), p),
    "typed.parquet": lambda t, p: parquet(typed(t), p),
    "units.parquet": lambda t, p: parquet(typed(t, pa.date64(), "us"), p),
    "stamps.parquet": lambda t, p: parquet(typed(t, pa.timestamp("ns"), "s"), p),
    "pandas.parquet": lambda t, p: parquet(pa.Table.from_pandas(t), p),
}
FORMS: dict[str, dict[str, Any]] = {
    "price": {"decimal": ",", "unit": "EUR"},
    "rate": {"decimal": ".", "unit": "%"},
    "day": {"order": "dmy", "zoned": False, "short": False},
    "at": {"order": "dmy", "zoned": False, "short": False},
}


def prepared(folder: Path, source: str, **changes: Any) -> Dataset:
    section = changes if "splits" in changes else config()
    run({**section, **ROLES, "source": source, **changes}, folder / "d", folder / "h")
    return Dataset.load(folder / "d")


def refused(folder: Path, source: str, **changes: Any) -> str:
    with pytest.raises((DataError, ConfigError)) as caught:
        prepared(folder, source, **changes)
    return str(caught.value)


def sealed_by(folder: Path, source: str, sealed: str) -> dict[str, Any]:
    return {"source": source, **officially_sealed(sealed_source=sealed)} | ROLES


def test_a_table_is_one_dataset_in_every_dress(tmp_path: Path) -> None:
    seen = {}
    for name, write in WRITERS.items():
        folder = tmp_path / name
        data = prepared(folder, write(frame(), folder / "in" / name))
        form = data.schema.to_dict()
        readings = form.pop("readings", {})
        if name in ("german.csv", "semicolon.csv", "texts.parquet"):
            assert readings == FORMS
        elif "american" not in name:
            assert not readings
        files = [folder / "d" / f"{split}.parquet" for split in SPLITS]
        files += [folder / "d" / "counts.json", folder / "d" / "audit.json"]
        files += [preparing.rows_of(folder / "h") / "sealed.parquet"]
        seen[name] = (json.dumps(form), *map(digest_file, files))
    assert len(set(seen.values())) == 1, {k: hash(v) for k, v in seen.items()}


def test_a_column_that_is_dropped_makes_no_row_another(tmp_path: Path) -> None:
    hashes = []
    for name in ("german.csv", "typed.parquet"):
        source = WRITERS[name](frame(), tmp_path / name)
        data = prepared(tmp_path, source, drop=["price", "at"])
        hashes.append(data.splits["train"].rows.tobytes())
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("rows", [1, 60])
@pytest.mark.parametrize("first", ["german.csv", "american.csv", "typed.parquet"])
def test_rows_to_predict_are_read_as_the_development_rows(
    tmp_path: Path, first: str, rows: int
) -> None:
    schema = prepared(tmp_path, WRITERS[first](frame(), tmp_path / first)).schema
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema
    table = frame(100, seed=1).iloc[1 : rows + 1]
    expected = encode(schema, read_raw(schema, WRITERS[first](table, tmp_path / "x")))
    assert expected.shape == (rows, width(schema))
    assert not np.isnan(expected).any()
    # A percentage that has lost its sign is refused, not taken for another number.
    texts = {"german.csv", "texts.parquet", "semicolon.csv"}
    also = {"german.csv": texts, "typed.parquet": {*WRITERS} - texts}.get(first, set())
    for name in also - {"american.csv", "american.tsv"}:
        source = WRITERS[name](table, tmp_path / name)
        np.testing.assert_array_equal(
            encode(schema, read_raw(schema, source)), expected
        )


def test_numbers_of_programs_are_read_beside_a_form_of_texts(tmp_path: Path) -> None:
    table = frame().drop(columns=["rate"])
    table["price"] = np.round(table["price"] / 1000, 3)
    texts = table.assign(price=written(table["price"], "{:.3f}".format))
    texts["price"] = texts["price"].str.replace(".", ",")
    schema = prepared(tmp_path, csv(texts, tmp_path / "dev.csv")).schema
    assert schema.readings["price"] == {"decimal": ",", "unit": ""}
    plain = read_raw(schema, parquet(pa.Table.from_pandas(table), tmp_path / "new"))
    # 1.234 of Parquet is no thousand, though `1.234` would be one in this form.
    assert plain.equals(read_raw(schema, csv(texts, tmp_path / "a.csv")))
    assert plain.equals(read_raw(schema, csv(texts, tmp_path / "b.csv", sep=";")))
    one = save(tmp_path / "one.csv", b"y;g;price;day;at\nno;f;1,234;2020-01-01;\n")
    assert read_raw(schema, one)["price"].to_pylist() == [1.234]


@pytest.mark.parametrize("beside", ["0.5", "1234.5", ".5", "12.34"])
def test_a_point_that_may_part_thousands_is_refused_where_programs_wrote_the_rows(
    tmp_path: Path, beside: str
) -> None:
    table = in_germany(frame()).drop(columns=["rate", "day", "at"])
    table["price"] = table["price"].str.removesuffix(" €")
    source = csv(table, tmp_path / "dev.csv")
    schema = prepared(tmp_path, source).schema
    assert schema.readings["price"] == {"decimal": ",", "unit": ""}
    rows = table.head(40).assign(price="1.234")
    # Alone it is read as all of this column are.
    plain = csv(rows, tmp_path / "new.csv")
    assert {*read_raw(schema, plain)["price"].to_pylist()} == {1234}
    rows.loc[rows.index[5:], "price"] = beside
    plain = csv(rows, tmp_path / "new.csv")
    with pytest.raises(DataError) as caught:
        read_raw(schema, plain)
    said = str(caught.value)
    assert "Column 'price' has 5 values of which nobody knows whether" in said
    assert "the first at data row 1 of" in said
    assert "1.234" not in said
    with pytest.raises(DataError, match="Column 'price' has 5 values of which nobody"):
        run(sealed_by(tmp_path, source, plain), tmp_path / "d2", tmp_path / "h2")
    # What programs write and nobody takes for thousands is a number beside any form.
    rows["price"] = beside
    fine = csv(rows, tmp_path / "new.csv")
    assert {*read_raw(schema, fine)["price"].to_pylist()} == {float(beside)}
    run(sealed_by(tmp_path, source, fine), tmp_path / "d2", tmp_path / "h2")


@pytest.mark.parametrize("odd", ["unknown", "0000-00-00", "2021-02-30"])
@pytest.mark.parametrize("form", ["{:%Y-%m-%d}", "{:%d.%m.%Y}", "{:%b %d, %Y}"])
def test_dates_beside_a_few_other_texts_are_counted_and_the_remedy_is_said(
    tmp_path: Path, form: str, odd: str
) -> None:
    table = frame()[["y", "g", "at"]]
    table["at"] = written(table["at"], form.format)
    table.loc[::25, "at"] = odd
    source = csv(table, tmp_path / "a.csv")
    said = refused(tmp_path, source)
    assert "values are dates and the others are not; data.missing names" in said
    assert odd not in said
    data = prepared(tmp_path, source, missing=["", odd])
    assert [f.kind for f in data.schema.features] == ["date"]


def test_a_column_of_two_forms_stays_text_and_says_why(tmp_path: Path) -> None:
    rng, table = np.random.default_rng(6), frame()[["y", "g", "day", "price"]]
    day, price = table["day"].fillna(table["day"][1]), table["price"].fillna(0)
    first = rng.random(400) < 0.5
    days = {
        "dmy and mdy": day.dt.strftime("%d/%m/%Y").where(
            first, day.dt.strftime("%m/%d/%Y")
        ),
        "zones": day.dt.strftime("%d.%m.%Y 10:00").where(
            first, day.dt.strftime("%d.%m.%Y 10:00Z")
        ),
    }
    for texts in days.values():
        said = refused(tmp_path, csv(table.assign(day=texts), tmp_path / "a.csv"))
        assert "all of its values are dates, and no one form reads them all" in said
    texts = price.map(german).where(first, price.map("{:,.2f}".format))
    said = refused(tmp_path, csv(table.assign(price=texts), tmp_path / "a.csv"))
    assert "all of its values are numbers, and no one form reads them all" in said


def test_a_value_of_another_form_is_one_sentence_without_it(tmp_path: Path) -> None:
    schema = prepared(tmp_path, WRITERS["german.csv"](frame(), tmp_path / "a")).schema
    for column, text in {
        "price": "7777 $",
        "rate": "0.7777",
        "day": "7777",
        "at": "12/31/2020 07:77",
    }.items():
        table = in_germany(frame(50, seed=1))
        table.loc[[3, 8], column] = text
        with pytest.raises(DataError) as caught:
            read_raw(schema, csv(table, tmp_path / "b.csv"))
        said = str(caught.value)
        assert f"Column {column!r} has 2 values of another form than" in said
        assert "data row 4" in said
        assert "77" not in said.replace(str(tmp_path), "")


def test_sealed_rows_are_read_as_the_development_rows(tmp_path: Path) -> None:
    holdouts = set()
    source = WRITERS["german.csv"](frame(), tmp_path / "dev.csv")
    for name in ("german.csv", "semicolon.csv", "texts.parquet"):
        sealed = WRITERS[name](frame(200, seed=1), tmp_path / name)
        run(sealed_by(tmp_path, source, sealed), tmp_path / "d", tmp_path / "h")
        file = preparing.rows_of(tmp_path / "h") / "sealed.parquet"
        holdouts.add(digest_file(file))
    assert len(holdouts) == 1


def test_sealed_rows_never_decide_how_a_column_is_read(tmp_path: Path) -> None:
    table = frame().drop(columns=["price", "rate", "day"])
    unclear = table.assign(at=written(table["at"], "{:01/%m/%Y}".format))
    source = csv(unclear, tmp_path / "dev.csv")
    sealed = csv(unclear.assign(at="25/12/2020"), tmp_path / "sealed.csv")
    with pytest.raises(DataError, match=r"'at' has .* unknown"):
        run(sealed_by(tmp_path, source, sealed), tmp_path / "d", tmp_path / "h")
    # What is clear there is refused where the sealed rows say otherwise.
    clear = table.assign(at=written(table["at"], "{:%d/%m/%Y}".format))
    source = csv(clear, tmp_path / "dev.csv")
    sealed = csv(clear.assign(at="12/25/2020"), tmp_path / "sealed.csv")
    with pytest.raises(DataError, match=r"'at' has 400 values of another form .* day"):
        run(sealed_by(tmp_path, source, sealed), tmp_path / "d", tmp_path / "h")


def test_a_row_that_becomes_sealed_does_not_decide_either(tmp_path: Path) -> None:
    table = in_germany(frame()).drop(columns=["rate", "day", "at"])
    kinds = set()
    for i in range(20):
        odd = table.copy()
        odd.loc[1, "price"] = f"odd {i}"
        said = refused(tmp_path, csv(odd, tmp_path / "a.csv"))
        # One row in five is sealed: where this one is, all the others are numbers.
        sealed = "'price' has 1 values of another form than numbers" in said
        assert sealed or "values are numbers and the others are not" in said
        kinds.add(sealed)
    assert kinds == {True, False}


def test_what_was_assumed_is_recorded_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared(tmp_path, WRITERS["german.csv"](frame(), tmp_path / "a"))
    assert read_json(tmp_path / "d" / "source.json")["columns_read"] == {
        "price": "numbers with a decimal comma and the sign EUR",
        "rate": "numbers with a decimal point and the sign % (1 % is 1e-2)",
        "day": "dates, day first (elapsed, year, month, weekday)",
        "at": "dates, day first (elapsed, year, month, weekday, hour)",
    }
    assert (
        "Column 'day' is read as dates, day first (elapsed," in capsys.readouterr().out
    )


def test_what_is_unclear_stays_text_and_names_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(3)
    table = frame()[["y", "g"]].assign(
        amount=rng.choice(["1,234", "5,678", "2,500"], 400),
        born=rng.choice(["01/02/2020", "03/04/2020"], 400),
        number=["n.k." if i % 50 == 0 else str(i % 30) for i in range(400)],
    )
    source = csv(table, tmp_path / "a.csv")
    schema = prepared(tmp_path, source).schema
    assert [f.kind for f in schema.features] == ["categorical"] * 3
    said = capsys.readouterr().out
    assert "- 'amount' stays text" in said
    assert 'data.numbers: {amount: "."} or {amount: ","} says which' in said
    assert "data.dates: {born: dmy}, mdy or ymd says which" in said
    assert "'number' stays text" in said
    assert "values are numbers and the others are not; data.missing" in said
    assert "n.k." not in said
    declared = {"numbers": {"amount": "."}, "dates": {"born": "mdy"}}
    data = prepared(tmp_path, source, **declared, missing=["", "n.k."])
    assert [f.kind for f in data.schema.features] == ["numeric", "date", "numeric"]
    train = data.splits["train"].features
    assert set(train["amount"].to_pylist()) == {1234, 5678, 2500}
    assert {day.month for day in train["born"].to_pylist()} == {1, 3}
    other = prepared(tmp_path, source, numbers={"amount": ","}, missing=["", "n.k."])
    assert max(other.splits["train"].features["amount"].to_pylist()) == 5.678
    levels = prepared(tmp_path, source, categorical=["amount", "born", "number"])
    assert "columns_unclear" not in read_json(tmp_path / "d" / "source.json")
    assert [f.kind for f in levels.schema.features] == ["categorical"] * 3


def test_times_of_which_some_name_a_zone_stay_text_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = np.where(np.arange(400) % 2, "Z", "")
    table = frame()[["y", "g"]].assign(
        at=[f"2020-01-0{1 + i % 3} 10:00:00{end}" for i, end in enumerate(ends)]
    )
    schema = prepared(tmp_path, csv(table, tmp_path / "a.csv")).schema
    assert schema.features[0].kind == "categorical"
    assert "some of its times name a zone and some do not" in capsys.readouterr().out
    zoned = table.assign(at=table["at"].str.removesuffix("Z") + "+02:00")
    data = prepared(tmp_path, csv(zoned, tmp_path / "b.csv"))
    assert data.splits["train"].features["at"].to_pylist()[0].hour == 8
    plain = csv(zoned.assign(at="2020-01-01 10:00:00"), tmp_path / "c.csv")
    with pytest.raises(DataError, match=r"another form than dates, year first, in UTC"):
        read_raw(data.schema, plain)


def test_a_declared_form_that_does_not_fit_is_one_sentence(tmp_path: Path) -> None:
    source = csv(in_germany(frame()), tmp_path / "a.csv")
    said = refused(tmp_path, source, numbers={"price": "."})
    assert "values of another form than numbers with a decimal point" in said
    said = refused(tmp_path, source, dates={"day": "mdy"})
    assert "values of another form than dates, month first" in said
    said = refused(tmp_path, source, dates={"when": "mdy"})
    assert "no column 'when' (data.dates)" in said


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"numbers": {"a": "."}, "categorical": ["a"]}, "numeric and categorical"),
        ({"dates": {"a": "dmy"}, "categorical": ["a"]}, "categorical and dates"),
        ({"dates": {"a": "dmy"}, "numbers": {"a": "."}}, "numeric and dates"),
        ({"dates": {"a": "dmy"}, "sensitive": ["a"]}, "dates and label, group"),
        ({"numbers": {"a": "."}, "label": "a"}, "numeric and label, group"),
        ({"numbers": {"a": ";"}}, "data.numbers.a is ';'"),
        ({"dates": {"a": "d/m/y"}}, "data.dates.a is 'd/m/y'"),
    ],
)
def test_a_form_that_cannot_be_is_refused(
    changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        DataConfig.from_params(changes)


def test_forms_of_the_config_are_not_in_the_digest_where_there_are_none() -> None:
    plain = DataConfig()
    assert DataConfig(numbers={"a": "."}).digest != plain.digest
    assert {"numbers", "dates"} <= DataConfig.later


def test_columns_with_a_role_keep_their_texts(tmp_path: Path) -> None:
    table = frame()[["rate"]].assign(
        y=np.where(np.arange(400) % 2, "10%", "20%"),
        g=np.where(np.arange(400) % 3, "1,5", "2,5"),
        level=np.where(np.arange(400) % 5, "2020-01-01", "2021-01-01"),
    )
    source = csv(table, tmp_path / "a.csv")
    data = prepared(tmp_path, source, positive="20%", categorical=["level"])
    assert data.schema.classes == ("10%", "20%")
    assert data.schema.groups["g"] == ("1,5", "2,5")
    assert data.schema.features[1].kind == "categorical"


def test_near_unique_texts_are_no_input_unless_asked_for(tmp_path: Path) -> None:
    table = frame()[["y", "g", "rate"]].assign(
        name=[f"ada {i}" if i % 3 else "bob" for i in range(400)]
    )
    source = csv(table, tmp_path / "a.csv")
    said = refused(tmp_path, source)
    assert "Column 'name' has a text of its own in 65 %" in said
    assert "data.drop leaves it out, and data.categorical keeps it." in said
    assert "ada" not in said
    assert prepared(tmp_path, source, drop=["name"]).schema.names == ("rate",)
    asked = prepared(tmp_path, source, categorical=["name"])
    assert asked.schema.names == ("rate", "name")
    often = table.assign(name=[f"ada {i // 2}" for i in range(400)])
    prepared(tmp_path, csv(often, tmp_path / "b.csv"))
    unclear = table.assign(name=[f"{1 + i % 9},{i:03}" for i in range(400)])
    said = refused(tmp_path, csv(unclear, tmp_path / "c.csv"))
    assert 'data.numbers: {name: "."}' in said


def test_files_of_a_folder_are_read_alike(tmp_path: Path) -> None:
    table = in_germany(frame())
    whole = prepared(tmp_path / "a", csv(table, tmp_path / "whole.csv"))
    for i, part in enumerate((table.iloc[:10], table.iloc[10:])):
        csv(part, tmp_path / "in" / f"{i}.csv", sep=";" if i else ",")
    parts = prepared(tmp_path / "b", (tmp_path / "in").as_uri())
    assert whole.schema == parts.schema
    assert whole.splits["train"].features.equals(parts.splits["train"].features)


def test_commas_of_a_folder_are_settled_by_its_clear_file(tmp_path: Path) -> None:
    rows = [f"{'yes' if i % 2 else 'no'};{'fm'[i % 3 % 2]}" for i in range(400)]
    clear = "\n".join(["y;g;x", *(f"{r};{i % 7},5" for i, r in enumerate(rows))])
    unclear = "\n".join(
        ["y;g;x", *(f"{r};{1 + i % 7},250" for i, r in enumerate(rows))]
    )
    save(tmp_path / "in" / "a.csv", unclear.encode())
    save(tmp_path / "in" / "b.csv", clear.encode())
    data = prepared(tmp_path, (tmp_path / "in").as_uri())
    assert max(data.splits["train"].features["x"].to_pylist()) == 7.25
    sealed = save(tmp_path / "sealed.csv", unclear.encode())
    source = save(tmp_path / "clear.csv", clear.encode())
    run(sealed_by(tmp_path, source, sealed), tmp_path / "d", tmp_path / "h")
    rows = preparing.sealed(tmp_path / "h").split.features
    values = rows["x"].to_pylist()
    assert max(values) == 7.25
    save(tmp_path / "in" / "b.csv", clear.replace(",5", ".5").encode())
    assert "data.decimal says which" in refused(tmp_path, (tmp_path / "in").as_uri())


def test_parts_of_a_date_are_of_its_own_row_and_learnt_on_train(
    tmp_path: Path,
) -> None:
    data = prepared(tmp_path, csv(frame()[["y", "g", "day", "at"]], tmp_path / "a.csv"))
    day, at = data.schema.features
    assert [p.name for p in day.parts] == ["elapsed", "year", "month", "weekday"]
    assert [p.name for p in at.parts][-1] == "hour"
    train = data.splits["train"].features
    elapsed = np.array([
        np.nan if d is None else (d - pd.Timestamp("1970-01-01")).days
        for d in train["day"].to_pylist()
    ])  # fmt: skip
    assert day.parts[0].edges[0] == np.nanmin(elapsed)
    assert day.parts[0].edges[-1] == np.nanmax(elapsed)
    assert day.parts[0].has_missing
    assert not day.parts[1].has_missing
    assert day.parts[3].levels == tuple("1234567")
    every = encode(data.schema, train)
    for i in range(0, len(every), 29):
        np.testing.assert_array_equal(
            encode(data.schema, train.slice(i, 1)), every[i : i + 1]
        )
    missing = np.isnan(elapsed)
    # The median day, its year, an indicator, and neither a month nor a weekday.
    before = width(replace(data.schema, features=day.parts[:2]))
    months = len(day.parts[2].levels) + len(day.parts[3].levels)
    assert not every[missing][:, before : before + months].any()
    assert every[~missing][:, before : before + months].sum(axis=1).max() == 2
    assert encode(data.schema, train.slice(0, 0)).shape == (0, width(data.schema))


def test_a_monday_is_a_monday_in_any_form_and_century(tmp_path: Path) -> None:
    days = pa.array(["2024-02-26", "0001-01-01", "9999-12-27"]).cast(pa.timestamp("us"))
    parts = date_parts(days)
    assert parts["weekday"].to_pylist() == ["1"] * 3
    assert parts["month"].to_pylist() == ["2", "1", "12"]
    assert parts["elapsed"].to_pylist() == [19779, -719162, 2932892]


def test_a_schema_with_an_impossible_form_is_refused(tmp_path: Path) -> None:
    schema = prepared(tmp_path, csv(in_germany(frame()), tmp_path / "a.csv")).schema
    for broken in ({"decimal": ";"}, {"order": "xyz"}, {"sign": "."}, {}):
        form = {**schema.to_dict(), "readings": {"price": broken}}
        with pytest.raises(InputError, match=r"form of schema\.json"):
            Schema.from_dict(form)
