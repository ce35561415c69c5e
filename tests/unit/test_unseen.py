"""Values that the model never saw are counted, named by column, and never silent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import preparing
import pyarrow as pa
import pytest
from small_tables import config, loans, officially_sealed, save, spell
from training_world import BRIEF, promises, searched

from pipelines.predict import write_predictions
from safescale_ammt.data.counts import Withheld
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.data.encoding import learn_categorical
from safescale_ammt.data.raw_rows import read_raw
from safescale_ammt.data.schema import Schema
from safescale_ammt.data.unseen import count_unseen, differences, unseen_inputs
from safescale_ammt.errors import DataError
from safescale_ammt.files.canonical import read_json
from safescale_ammt.model.predictor import Predictor
from safescale_ammt.reading.columns import Column
from safescale_ammt.stages import evaluate_safety, train_agents

GENDER, CITY, ORIGIN = 3, 2, 4
Rows = list[list[str]]


@pytest.mark.parametrize(
    ("known", "strange", "kind"),
    [
        (["F", "M"], ["f", "m"], "case"),
        (["a b"], ["ab"], "white space"),
        (["007", "042"], ["7", "42"], "leading zeros"),
        (["007", "042"], ["7.0", "42.0"], "leading zeros"),
        (["1.5", "2"], ["1,5", "2,0"], "decimal point"),
        (["yes", "no"], ["True", "False"], "boolean word"),
        (["2020-01-01"], ["2020-01-01T00:00"], "form of a time"),
    ],
)
def test_a_difference_of_spelling_is_named_by_its_kind(
    known: list[str], strange: list[str], kind: str
) -> None:
    assert kind in differences(known, strange)


def test_values_that_differ_altogether_have_no_kind() -> None:
    assert differences(["oslo", "rome"], ["bonn", "ROME", "paris"]) == ()


@pytest.mark.parametrize(
    ("texts", "expected", "mostly"),
    [
        (["x"] * 11 + ["a"] * 9, 0.0, True),
        (["x"] * 10 + ["a"] * 10, 0.0, False),
        (["x"] * 14 + ["a"] * 6, 0.45, False),
        # Every name is new: that is what names are like.
        ([str(i) for i in range(100)], 0.9, False),
        # One row of a new place, and one row of a known place that was shouted.
        (["x"], 0.0, False),
        (["A"], 0.0, True),
    ],
)
def test_most_values_are_unseen_beyond_what_is_to_be_expected(
    texts: list[str], expected: float, mostly: bool
) -> None:
    unseen = count_unseen("c", pa.array([*texts, None]), ["a", "b"], expected)
    assert unseen is not None
    assert unseen.mostly is mostly


@pytest.mark.parametrize(
    ("strange", "known", "share"),
    [(5, 0, "100 %"), (18, 4, "over half"), (295, 5, "over half"), (70, 30, "70 %")],
)
def test_a_refusal_of_sealed_rows_counts_none_of_them(
    strange: int, known: int, share: str
) -> None:
    unseen = count_unseen("c", pa.array(["A"] * strange + ["a"] * known), ["a", "b"])
    assert unseen is not None
    assert unseen.mostly
    said = unseen.clause(sealed=True)
    assert said.startswith(f"column 'c' has {share} of its values unknown (known")
    # Of rows to predict people may know everything.
    assert f"{strange} of {strange + known} values" in str(unseen)


def changed(rows: Rows, column: int, change: Callable[[str], str]) -> Rows:
    return [
        [change(cell) if j == column else cell for j, cell in enumerate(row)]
        for row in rows
    ]


def prepared(folder: Path, sealed: Rows, **changes: Any) -> dict[str, Any]:
    """Prepares loans with official sealed rows; returns summary and source.json."""
    section = officially_sealed(
        source=save(folder / "dev.csv", spell(loans())),
        sealed_source=save(folder / "sealed.csv", spell(sealed)),
        **changes,
    )
    summary = preparing.run(section, folder / "dataset", folder / "holdout")
    record: dict[str, Any] = read_json(folder / "dataset" / "source.json")
    return {**record, "summary": summary}


SEALED = loans(400, seed=1)


@pytest.mark.parametrize(("column", "name"), [(CITY, "city"), (GENDER, "gender")])
def test_sealed_rows_of_another_spelling_are_refused_with_column_share_and_kind(
    tmp_path: Path, column: int, name: str
) -> None:
    with pytest.raises(DataError) as caught:
        prepared(tmp_path, changed(SEALED, column, str.upper))
    said = str(caught.value)
    assert f"column '{name}' has 100 % of its values unknown" in said
    assert "differ from them in case" in said
    for value in ("OSLO", "oslo", "ROME"):
        assert value not in said
    assert not (tmp_path / "dataset").exists()


def test_a_few_unseen_sealed_values_are_counted_in_record_and_summary(
    tmp_path: Path,
) -> None:
    some = [
        [*row[:CITY], "paris" if i < 30 else row[CITY], *row[CITY + 1 :]]
        for i, row in enumerate(SEALED)
    ]
    record = prepared(tmp_path, some)
    assert record["sealed_rows_with_unseen_values"] == {"city": 30}
    assert record["summary"]["sealed_rows_with_unseen_values"] == "city: 30"


def test_a_small_count_of_sealed_rows_is_not_told(tmp_path: Path) -> None:
    some = [[*row[:CITY], "paris", *row[CITY + 1 :]] for row in SEALED[:3]]
    record = prepared(tmp_path, some + SEALED[3:])
    assert record["sealed_rows_with_unseen_values"] == {"city": Withheld.SMALL.value}


def test_nothing_is_said_where_nothing_is_unseen(tmp_path: Path) -> None:
    record = prepared(tmp_path, SEALED)
    assert "sealed_rows_with_unseen_values" not in record
    assert "groups_on_one_side" not in record


def test_a_group_that_one_side_lacks_is_named(tmp_path: Path) -> None:
    new = {"south": "south", "north": "north", "west": "east"}
    record = prepared(
        tmp_path,
        changed(changed(SEALED, ORIGIN, new.__getitem__), GENDER, lambda _: "m"),
    )
    assert record["groups_on_one_side"] == {
        "gender": {f"development_but_{Withheld.SMALL.value}_sealed": ["f"]},
        "origin": {
            "sealed_only": ["east"],
            f"development_but_{Withheld.SMALL.value}_sealed": ["west"],
        },
    }
    assert "east" in record["summary"]["groups_on_one_side"]


def test_names_are_no_surprise_in_rows_of_the_same_table(tmp_path: Path) -> None:
    named = [
        [*row[:CITY], hashlib.sha256(row[-2].encode()).hexdigest(), *row[CITY + 1 :]]
        for row in loans()
    ]
    source = save(tmp_path / "dev.csv", spell(named))
    # Asked for: nobody takes names for inputs without being told to.
    section = config(source=source, categorical=["city"])
    preparing.run(section, tmp_path / "dataset", tmp_path / "holdout")
    schema = Schema.load(tmp_path / "dataset")
    city = next(f for f in schema.features if f.name == "city")
    assert city.kind == "categorical"
    assert city.expected_unseen == 1.0
    found = unseen_inputs(schema, read_raw(schema, spell(loans(50, seed=3))))
    assert [(u.column, u.rows, u.mostly) for u in found] == [("city", 50, False)]


def levels(texts: list[str], most: int = 64) -> Any:
    column = Column.of(pa.chunked_array([pa.array(texts, pa.string())]))
    return learn_categorical("c", column, ("",), most)


def test_pooled_values_of_a_wide_column_are_known() -> None:
    many = levels([f"v{i % 40}" for i in range(400)], most=8)
    assert len(many.levels) == 8
    assert many.known == {f"v{i}" for i in range(40)}
    assert many.expected_unseen == 0.0


def test_the_schema_says_how_often_a_pooled_value_looks_unseen() -> None:
    few = levels(["a"] * 90 + [f"rare{i}" for i in range(10)])
    assert few.known == {"a"}
    assert few.expected_unseen == pytest.approx(0.1)
    # Below 5 % it decides nothing, and takes no place.
    assert levels(["a"] * 98 + ["b", "c"]).expected_unseen == 0.0


# Owners pay back, which a model learns only if it can read who is one.
def accounts(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    owner = rng.random(rows) < 0.5
    branch = rng.integers(1, 5, rows).astype(float)
    x = rng.normal(size=rows)
    odds = 1 / (1 + np.exp(-(3 * owner - 1.5 + 0.8 * (branch - 2.5) + 0.5 * x)))
    repaid = (rng.random(rows) < odds).astype(int)
    branch[rng.random(rows) < 0.05] = np.nan
    return pd.DataFrame(
        {
            "owner": owner,
            "branch": branch,
            "x": x,
            "sex": rng.choice(["F", "M"], rows),
            "repaid": repaid,
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a CSV file, with the sealed rows in Parquet."""
    folder = tmp_path_factory.mktemp("accounts")
    accounts(2000, 0).to_csv(folder / "dev.csv", index=False)
    accounts(800, 1).to_parquet(folder / "sealed.parquet", index=False)
    section = {
        "source": (folder / "dev.csv").as_uri(),
        "sealed_source": (folder / "sealed.parquet").as_uri(),
        "label": "repaid",
        "positive": "1",
        "sensitive": ["sex"],
        "categorical": ["branch"],
    }
    preparing.run(section, folder / "dataset", folder / "holdout")
    rules = promises({"metric": "tpr_gap", "group": "sex", "threshold": 0.3})
    architecture = searched(folder, folder / "dataset", rules)
    brief = {**BRIEF, "steps": 120}
    train_agents.run(folder / "dataset", architecture, rules, brief, folder / "model")
    return folder


def test_sealed_rows_in_another_format_are_judged_as_in_the_same(
    trained: Path,
) -> None:
    split = preparing.sealed(trained / "holdout").split
    _, prediction = Predictor.load(trained / "model").predict_table(split.features)
    # A guess is right in .55 of these rows, the best rule in .79.
    assert np.mean(prediction == split.label) > 0.72


def test_predictions_do_not_depend_on_the_format_of_the_rows(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = accounts(500, 2)
    rows.to_csv(tmp_path / "new.csv", index=False)
    rows.to_parquet(tmp_path / "new.parquet", index=False)
    for name in ("new.csv", "new.parquet"):
        count = write_predictions(
            trained / "model", tmp_path / name, tmp_path / f"{name}.out.csv"
        )
        assert count == 500
    answers = [
        (tmp_path / f"{n}.out.csv").read_text() for n in ("new.csv", "new.parquet")
    ]
    assert answers[0] == answers[1]
    assert "unknown" not in capsys.readouterr().err


def test_rows_to_predict_with_some_unseen_values_are_counted_on_stderr(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = accounts(100, 3)
    rows["branch"] = np.where(np.arange(100) < 20, 7, 1)
    rows.to_csv(tmp_path / "new.csv", index=False)
    write_predictions(trained / "model", tmp_path / "new.csv", tmp_path / "out.csv")
    said = capsys.readouterr().err
    # One more line says what the score is.
    assert said.count("\n") == 2
    assert "column 'branch' has 20 of 100 values (20 %) that are unknown" in said


def test_unknown_values_of_a_sensitive_column_are_not_counted_when_it_is_judged(
    tmp_path: Path,
) -> None:
    rows, rng = accounts(2000, 0), np.random.default_rng(8)
    # Values that share an input are unknown by name: their number would be the sum of
    # groups whose counts are hidden.
    for name in ("sex", "branch"):
        rare = pd.Series([f"r{i}" for i in rng.integers(0, 90, 2000)])
        rows[name] = rows[name].astype(str).mask(rng.random(2000) < 0.05, rare)
    rows.to_csv(tmp_path / "dev.csv", index=False)
    section = config(
        source=(tmp_path / "dev.csv").as_uri(),
        label="repaid",
        positive="1",
        sensitive=["sex"],
        sensitive_in_model=True,
        categorical=["branch"],
        drop=[],
    )
    preparing.run(section, tmp_path / "d", tmp_path / "h")
    rules = promises({"metric": "tpr_gap", "group": "sex", "threshold": 0.3})
    found = searched(tmp_path, tmp_path / "d", rules)
    train_agents.run(tmp_path / "d", found, rules, BRIEF, tmp_path / "m")
    schema = Schema.load(tmp_path / "m")
    select = Dataset.load(tmp_path / "d").splits["select"].features
    told = [
        f"{u.column}: {u.shown}"
        for u in unseen_inputs(schema, select)
        if u.column != "sex"
    ]
    assert {u.column for u in unseen_inputs(schema, select)} == {"sex", "branch"}
    summary = evaluate_safety.run(
        tmp_path / "d",
        tmp_path / "h",
        found,
        tmp_path / "m",
        rules,
        {"rehearse": True},
        tmp_path / "v",
        environ=preparing.environ_of(tmp_path / "h"),
    )
    assert summary.get("unseen_values", "") == "; ".join(told)


@pytest.mark.parametrize("column", ["branch", "owner", "x"])
def test_rows_of_which_most_lack_what_all_train_rows_have_are_refused(
    trained: Path, tmp_path: Path, column: str
) -> None:
    schema, rows = Schema.load(trained / "model"), accounts(100, 3)
    rows[column] = rows[column].astype(object).where(np.arange(100) < 49)
    rows.to_csv(tmp_path / "new.csv", index=False)
    has_gaps = {f.name: f.has_missing for f in schema.features}[column]
    if has_gaps:
        write_predictions(trained / "model", tmp_path / "new.csv", tmp_path / "o.csv")
        return
    with pytest.raises(
        DataError, match=f"most rows have no value of column '{column}'"
    ):
        write_predictions(trained / "model", tmp_path / "new.csv", tmp_path / "o.csv")
    rows.tail(10).to_csv(tmp_path / "few.csv", index=False)
    write_predictions(trained / "model", tmp_path / "few.csv", tmp_path / "o.csv")


@pytest.mark.parametrize("column", [CITY, 1])
def test_sealed_rows_of_which_most_lack_a_value_are_refused(
    tmp_path: Path, column: int
) -> None:
    with pytest.raises(DataError, match="most rows have no value of column") as caught:
        prepared(tmp_path, changed(SEALED, column, lambda _: ""))
    assert "400" not in str(caught.value).replace(str(tmp_path), "")


def test_rows_to_predict_with_mostly_unseen_values_are_refused(
    trained: Path, tmp_path: Path
) -> None:
    rows = accounts(100, 3)
    rows["owner"] = np.where(rows["owner"], "yes", "no")
    rows.to_csv(tmp_path / "new.csv", index=False)
    with pytest.raises(DataError) as caught:
        write_predictions(trained / "model", tmp_path / "new.csv", tmp_path / "o.csv")
    assert "column 'owner' has 100 of 100 values (100 %)" in str(caught.value)
    assert "differ from them in boolean word" in str(caught.value)
    assert not (tmp_path / "o.csv").exists()
