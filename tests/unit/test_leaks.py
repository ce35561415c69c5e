"""Leaks: a label among the inputs stops the run; what only looks like one does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from preparing import run
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from small_tables import config
from test_audit import random_case, schema_of, splits_of

from safescale_ammt.config.sections import SPLITS, DataConfig
from safescale_ammt.data.audit import Audit, audit
from safescale_ammt.data.leaks import cross_fitted_aucs, order_aucs
from safescale_ammt.errors import ConfigError, DataError
from safescale_ammt.files.artifacts import read_manifest
from safescale_ammt.files.canonical import read_json

N = 1600


def people(seed: int = 0) -> pd.DataFrame:
    """A table without a leak."""
    rng = np.random.default_rng(seed)
    age, sex = rng.integers(18, 80, N), rng.choice(["f", "m"], N)
    paid = np.where(age / 80 + rng.random(N) > 1, "yes", "no")
    frame = pd.DataFrame({"age": age, "city": rng.choice([*"abc"], N), "sex": sex})
    return frame.assign(number=rng.permutation(N), paid=paid)


def section(frame: pd.DataFrame, folder: Path, form: str, **changes: Any) -> Any:
    file = folder / f"people.{form}"
    if form == "csv":
        frame.to_csv(file, index=False)
    else:
        frame.to_parquet(file, index=False)
    roles = {"label": "paid", "positive": "yes", "sensitive": ["sex"], "drop": []}
    return config(source=file.as_uri(), **{**roles, **changes})


def prepared(
    frame: pd.DataFrame, folder: Path, form: str = "csv", **changes: Any
) -> list[dict[str, Any]]:
    """Prepares a table and returns its warnings of leaks."""
    run(section(frame, folder, form, **changes), folder / "d", folder / "h")
    warnings = read_json(folder / "d" / "audit.json")["warnings"]
    return [w for w in warnings if w["kind"] == "leak"]


def refused(
    frame: pd.DataFrame, folder: Path, form: str = "csv", **changes: Any
) -> str:
    with pytest.raises(DataError) as caught:
        prepared(frame, folder, form, **changes)
    # Nothing is spent on it and nothing is left of it.
    assert not (folder / "d").exists()
    assert not (folder / "h").exists()
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("part", ["year", "month", "weekday", "hour"])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_part_of_a_date_that_tells_the_label_is_a_leak(
    tmp_path: Path, part: str, form: str
) -> None:
    frame, rng = people(), np.random.default_rng(4)
    tells = {"year": (2000, 2001), "month": (3, 8), "weekday": (0, 3), "hour": (9, 14)}
    told = np.where(yes(frame), *tells[part])
    # The order of the days says next to nothing.
    days = pd.Timestamp("2000-01-03") + pd.to_timedelta(
        7 * rng.integers(0, 999, N), "D"
    )
    if part == "weekday":
        days += pd.to_timedelta(told, "D")
    elif part == "hour":
        days += pd.to_timedelta(told, "h")
    elif part == "month":
        days = pd.to_datetime(
            {"year": days.year, "month": told, "day": days.day % 28 + 1}
        )
    else:
        years = told + 2 * rng.integers(0, 9, N)
        days = pd.to_datetime({"year": years, "month": days.month, "day": 1})
    said = refused(frame.assign(paid_on=days), tmp_path, form)
    assert "'paid_on' (AUC 1.000)" in said


def yes(frame: pd.DataFrame) -> np.ndarray:
    return (frame["paid"] == "yes").to_numpy()


RNG = np.random.default_rng(5)
LEAKS: dict[str, Callable[[np.ndarray], Any]] = {
    "a code": lambda y: np.where(y, "Y", "N"),
    "the other direction": lambda y: np.where(y, 0, 1),
    "a number above a line": lambda y: y * 10 + RNG.random(len(y)),
    "a number below a line": lambda y: -7.5 * y + RNG.random(len(y)),
    "a number inside two lines": lambda y: (
        np.where(y, 0, RNG.choice([-9, 9], len(y))) + RNG.random(len(y))
    ),
    "a gap for one class": lambda y: np.where(y, "", RNG.choice([*"pqr"], len(y))),
    "a day for one class": lambda y: np.where(
        y, np.datetime_as_string(np.datetime64("2020-01-01") + np.arange(len(y))), ""
    ),
    "a number for one class": lambda y: np.where(y, RNG.normal(size=len(y)), np.nan),
    "one value for one class": lambda y: np.where(y, "sent to court", None),
    "dozens of codes of one class each": lambda y: [
        f"{'AB'[k]}{i}" for k, i in zip(y * 1, RNG.integers(0, 40, len(y)), strict=True)
    ],
    "dozens of numbers of one class each": lambda y: (
        2 * RNG.integers(0, 40, len(y)) + y
    ),
}


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("kind", LEAKS)
def test_a_column_that_tells_the_label_stops_the_run(
    tmp_path: Path, kind: str, form: str
) -> None:
    frame = people()
    frame["afterwards"] = LEAKS[kind](yes(frame))
    sentence = refused(frame, tmp_path, form)
    assert "told by 'afterwards' (AUC " in sentence
    assert "data.allow_leak" in sentence
    assert "\n" not in sentence
    assert "'age'" not in sentence


def test_a_boolean_column_of_parquet_that_tells_the_label_stops_the_run(
    tmp_path: Path,
) -> None:
    frame = people()
    frame["closed"] = yes(frame)
    assert "told by 'closed' (AUC 1.000)" in refused(frame, tmp_path, "parquet")


@pytest.mark.parametrize("positive", ["yes", "no"])
def test_a_leak_is_one_whichever_class_is_the_positive_one(
    tmp_path: Path, positive: str
) -> None:
    frame = people()
    frame["code"] = np.where(yes(frame), 1, 2)
    assert "'code'" in refused(frame, tmp_path, positive=positive)


def test_gaps_of_two_columns_that_tell_the_label_together_stop_the_run(
    tmp_path: Path,
) -> None:
    frame, rng = people(), np.random.default_rng(3)
    either, even = rng.random(N) < 0.5, rng.random(N)
    # Either both are there or none, unless the answer is yes.
    frame["left"] = np.where(either, even, np.nan)
    frame["right"] = np.where(either ^ yes(frame), even, np.nan)
    frame["innocent"] = np.where(rng.random(N) < 0.3, even, np.nan)
    sentence = refused(frame, tmp_path)
    assert "by the gaps of 'left', 'right' together (AUC 1.000)" in sentence
    assert "'innocent'" not in sentence
    assert prepared(frame, tmp_path, allow_leak=["left", "right"])
    assert "the gaps of" in refused_again(frame, tmp_path / "one", ["left"])


def refused_again(frame: pd.DataFrame, folder: Path, allowed: list[str]) -> str:
    folder.mkdir()
    return refused(frame, folder, allow_leak=allowed)


def test_all_leaks_are_named_in_one_sentence(tmp_path: Path) -> None:
    frame = people()
    frame["first"], frame["second"] = yes(frame) * 1, np.where(yes(frame), "a", "b")
    sentence = refused(frame, tmp_path)
    assert "told by 'first' (AUC 1.000), by 'second' (AUC 1.000) alone" in sentence


def test_a_leak_that_the_config_allows_is_warned_of_and_the_run_goes_on(
    tmp_path: Path,
) -> None:
    frame = people()
    frame["code"] = np.where(yes(frame), "Y", "N")
    (warning,) = prepared(frame, tmp_path, allow_leak=["code"])
    assert warning["columns"] == ["code"]
    assert warning["figure"] == 1
    assert warning["sentence"].startswith("The label is told by 'code' (AUC 1.000)")


def test_to_allow_one_leak_lets_in_no_other(tmp_path: Path) -> None:
    frame = people()
    frame["one"], frame["other"] = yes(frame) * 1, yes(frame) * 1
    sentence = refused(frame, tmp_path, allow_leak=["one"])
    assert "'other'" in sentence
    assert "'one'" not in sentence


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_an_unknown_column_cannot_be_allowed(tmp_path: Path, form: str) -> None:
    sentence = refused(people(), tmp_path, form, allow_leak=["cod"])
    assert "no column 'cod' (data.allow_leak)" in sentence


def test_what_is_allowed_is_a_list_of_names_and_changes_no_other_configs_digest() -> (
    None
):
    with pytest.raises(ConfigError, match="allow_leak"):
        DataConfig.from_params({"allow_leak": "code"})
    plain = DataConfig.from_params({})
    assert DataConfig.from_params({"allow_leak": []}).digest == plain.digest
    assert DataConfig.from_params({"allow_leak": ["code"]}).digest != plain.digest


@pytest.mark.parametrize("auc", [0.998, 0.995])
def test_what_nearly_tells_the_label_is_warned_of_and_runs(
    tmp_path: Path, auc: float
) -> None:
    frame = people()
    # Two normal laws that are so far apart that one lies above the other so often.
    noise = np.random.default_rng(11).normal(size=N)
    frame["score"] = yes(frame) * norm.ppf(auc) * np.sqrt(2) + noise
    (warning,) = prepared(frame, tmp_path)
    assert warning["figure"] == pytest.approx(auc, abs=0.0015)
    assert warning["figure"] < 0.999
    assert "nearly told by 'score'" in warning["sentence"]


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize(
    "ident",
    [
        lambda n: [f"customer {i}" for i in range(n)],
        lambda n: np.random.default_rng(1).permutation(n) + 10_000,
        lambda n: np.random.default_rng(1).random(n),
        lambda n: [f"customer {i // 2}" for i in range(n)],
    ],
    ids=["text", "whole numbers", "numbers", "two rows each"],
)
def test_an_identifier_is_no_leak(
    tmp_path: Path, ident: Callable[[int], Any], form: str
) -> None:
    frame = people().assign(ident=ident(N))
    # Names are an input only where the config asks for them.
    asked = ["ident"] if isinstance(frame["ident"].iloc[0], str) else []
    assert prepared(frame, tmp_path, form, categorical=asked) == []


def test_an_identifier_of_rows_that_are_all_there_twice_is_no_leak(
    tmp_path: Path,
) -> None:
    frame = people().assign(ident=[f"customer {i}" for i in range(N)])
    assert prepared(pd.concat([frame, frame]), tmp_path) == []


def test_a_number_of_the_row_in_a_file_that_its_label_sorts_is_a_leak(
    tmp_path: Path,
) -> None:
    frame = people().sort_values("paid").assign(ident=np.arange(N))
    assert "'ident'" in refused(frame, tmp_path)
    assert prepared(frame, tmp_path, drop=["ident"]) == []


def test_people_with_one_label_and_many_rows_are_named_as_an_entity(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(2)
    who, outcome = rng.integers(0, 110, N), rng.random(110) < 0.4
    frame = people().assign(customer=[f"c{i}" for i in who])
    frame["paid"] = np.where(outcome[who], "yes", "no")
    sentence = refused(frame, tmp_path)
    assert "'customer'" in sentence
    assert "data.entity" in sentence
    assert prepared(frame, tmp_path, entity="customer") == []


def test_a_leak_with_few_values_is_not_taken_for_an_entity(tmp_path: Path) -> None:
    frame = people().assign(code=lambda f: (f["paid"] == "yes") * 1)
    assert "data.entity" not in refused(frame, tmp_path)


def test_the_sealed_rows_have_no_say(tmp_path: Path) -> None:
    # In the sealed file the column is a copy of the label, before it is noise.
    frame, sealed = people(0), people(1)
    frame["code"] = np.random.default_rng(0).choice(["Y", "N"], N)
    sealed["code"] = np.where(yes(sealed), "Y", "N")
    sealed.to_csv(tmp_path / "sealed.csv", index=False)
    splits = dict.fromkeys(SPLITS, 0.2)
    official = {"sealed_source": (tmp_path / "sealed.csv").as_uri(), "splits": splits}
    assert prepared(frame, tmp_path, **official) == []
    # And the other way round.
    frame["code"] = np.where(yes(frame), "Y", "N")
    sealed["code"] = np.random.default_rng(0).choice(["Y", "N"], N)
    sealed.to_csv(tmp_path / "sealed.csv", index=False)
    (tmp_path / "again").mkdir()
    assert "'code'" in refused(frame, tmp_path / "again", **official)


def test_no_leak_is_found_where_there_is_none(tmp_path: Path) -> None:
    for seed in range(3):
        assert prepared(people(seed), tmp_path) == []


def audited(columns: dict[str, Any], label: np.ndarray, classes: int = 2) -> Audit:
    names = tuple("abc"[:classes])
    numeric = [n for n in columns if np.asarray(columns[n]).dtype.kind == "f"]
    schema = schema_of(
        numeric,
        [n for n in columns if n not in numeric],
        classes=names,
        positive=names[1] if classes == 2 else "",
        sensitive=(),
        groups={},
    )
    return audit(schema, splits_of(schema, columns, label, {}), 0)


def test_of_three_classes_all_have_to_be_told() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 1500)
    columns = {
        "all": np.array([*"pqr"])[label],
        "one": np.array([*"pqq"])[label],
        "none": rng.choice([*"pqr"], 1500),
    }
    found = {leak.columns[0]: leak for leak in audited(columns, label, 3).leaks}
    assert found["all"].stops(())
    assert not found["one"].stops(())
    assert found["one"].suspect
    assert not found["none"].suspect
    told = [w.sentence for w in audited(columns, label, 3).warnings if w.kind == "leak"]
    assert told[0].startswith("The label is told by 'all'")
    assert told[1].startswith("One class of the label is told by 'one' (AUC 1.000)")


def test_a_day_that_lies_behind_another_for_one_class_alone_is_a_leak() -> None:
    label = np.random.default_rng(0).integers(0, 2, 1500)
    days = np.random.default_rng(1).integers(0, 600, 1500)
    columns = {
        "after": pa.array(days + 700 * label, pa.int64()).cast(pa.timestamp("s")),
        "any": pa.array(days, pa.int64()).cast(pa.timestamp("s")),
    }
    after, some = audited(columns, label).leaks
    assert after.stops(())
    assert not some.suspect


def test_in_a_handful_of_rows_a_perfect_column_says_nothing() -> None:
    label = np.array([0, 1] * 5)
    columns = {f"x{i}": label + 0.0 for i in range(8)}
    assert audited(columns, label).leaks == ()
    many = np.tile(label, 10)
    assert audited(dict.fromkeys(columns, many + 0.0), many).leaks[0].stops(())


def test_the_cross_fitted_auc_is_that_of_sklearn() -> None:
    rng = np.random.default_rng(0)
    n, folds = 900, rng.integers(0, 5, 900)
    codes = rng.integers(0, 12, n)
    label = (rng.random(n) < codes / 12).astype(np.int64)
    codes[:40] = 12 + np.arange(40)  # seen once: they score like anybody
    score = np.empty(n)
    for i in range(n):
        others = label[(folds != folds[i]) & (codes == codes[i])]
        score[i] = others.mean() if len(others) else label.mean()
    aucs = cross_fitted_aucs(codes, label, folds, 2)
    assert aucs == pytest.approx([roc_auc_score(label, score)] * 2, abs=1e-12)


def test_a_value_of_one_fold_alone_tells_nothing() -> None:
    label = np.arange(100) % 2
    aucs = cross_fitted_aucs(np.arange(100), label, np.arange(100) % 5, 2)
    assert aucs.tolist() == [0.5, 0.5]


def test_the_auc_of_an_order_is_that_of_sklearn_in_the_better_direction() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 500)
    x = np.round(rng.normal(size=500) - label, 1)
    expected = [roc_auc_score(label == c, x) for c in range(3)]
    expected = [max(auc, 1 - auc) for auc in expected]
    assert order_aucs(x, label, 3) == pytest.approx(expected, abs=1e-12)
    x[label == 2] = np.nan
    assert order_aucs(x, label, 3)[2] == 1


def test_warnings_are_no_part_of_what_a_dataset_is(tmp_path: Path) -> None:
    frame = people()
    frame["code"] = np.where(yes(frame), "Y", "N")
    prepared(frame, tmp_path, allow_leak=["code"])
    files = read_manifest(tmp_path / "d").files
    assert [n for n, entry in files.items() if not entry.identity] == ["audit.json"]


def test_a_table_without_columns_that_differ_is_judged_too() -> None:
    columns, label, _ = random_case(400, 0)
    columns["x"] = pa.nulls(400, pa.float64())
    found = audited({"x": np.full(400, np.nan), "c": columns["c"]}, label)
    assert not any(leak.suspect for leak in found.leaks)
