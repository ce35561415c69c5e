"""Warnings about the data: true, few, and in the same words wherever they are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import preparing
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats.contingency import association
from small_tables import config
from test_audit import random_case, run, schema_of

from safescale_ammt.config.sections import SPLITS
from safescale_ammt.data.associations import Association, cramers_v, equal_rows
from safescale_ammt.data.audit_warnings import (
    KINDS,
    MOST_TOLD,
    AuditWarning,
    in_lines,
    percent,
    ranked,
    read_warnings,
    save_warnings,
)
from safescale_ammt.data.counts import told_part
from safescale_ammt.data.data_facts import sharing, unseen_facts
from safescale_ammt.errors import DataError, InputError
from safescale_ammt.files.canonical import read_json, write_json

N = 2400
ROOT = Path(__file__).parents[2]


def people(rows: int = N, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    age, sex = rng.normal(40, 9, rows), rng.choice(["f", "m"], rows)
    paid = np.where(age + rng.normal(0, 9, rows) > 40, "yes", "no")
    city = rng.choice(["oslo", "rome", "bonn"], rows)
    return pd.DataFrame({"age": age, "city": city, "sex": sex, "paid": paid})


def told(
    frame: pd.DataFrame,
    folder: Path,
    sealed: pd.DataFrame | None = None,
    form: str = "csv",
    **changes: Any,
) -> dict[str, dict[str, Any]]:
    """Prepares a table; returns its warnings by kind, the last of each."""
    roles = {"label": "paid", "positive": "yes", "sensitive": ["sex"], "drop": []}
    files = {"source": frame, "sealed_source": sealed}
    for role, table in files.items():
        if table is not None:
            file = folder / f"{role}.{form}"
            write = table.to_csv if form == "csv" else table.to_parquet
            write(file, index=False)
            roles[role] = file.as_uri()
    if sealed is not None:
        roles["splits"] = dict.fromkeys(SPLITS, 0.2)
    preparing.run(config(**{**roles, **changes}), folder / "d", folder / "h")
    found = read_json(folder / "d" / "audit.json")["warnings"]
    # Neither a row of a person nor a value of one is in any sentence.
    values = {str(v) for name in ("city", "sex", "paid") for v in frame[name]}
    for warning in found:
        assert not [v for v in values if f"'{v}'" in warning["sentence"]]
        assert warning["kind"] in KINDS
    return {warning["kind"]: warning for warning in found}


def test_a_table_without_a_fault_has_no_warning(tmp_path: Path) -> None:
    found = [told(people(seed=seed), tmp_path) for seed in range(6)]
    # Statistical flags have a chance of 5 % each; everything else is counted.
    assert sum(map(len, found)) <= 2
    assert set().union(*found) <= {"base_rate"}


PROXIES = {
    "a title": lambda sex, rng: np.where(sex == "f", "Mrs", "Mr"),
    "a boolean": lambda sex, rng: sex == "f",
    "a number": lambda sex, rng: 165 + 13 * (sex == "m") + rng.normal(0, 5, len(sex)),
    "a whole number": lambda sex, rng: rng.integers(0, 5, len(sex)) * 2 + (sex == "f"),
    "a gap": lambda sex, rng: np.where(sex == "f", rng.normal(size=len(sex)), np.nan),
    "hundreds of names": lambda sex, rng: [
        f"{s}{i}" for s, i in zip(sex, rng.integers(0, 100, len(sex)), strict=True)
    ],
}


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("kind", PROXIES)
def test_a_column_that_stands_in_for_a_sensitive_one_is_told(
    tmp_path: Path, kind: str, form: str
) -> None:
    frame = people()
    frame["proxy"] = PROXIES[kind](frame["sex"].to_numpy(), np.random.default_rng(1))
    found = told(frame, tmp_path, form=form)
    # A boolean of CSV is spelled anew, and a hundred names share an input.
    assert next(iter(found)) == "proxy"
    assert (found["proxy"]["columns"], found["proxy"]["group"]) == (["proxy"], "sex")
    assert found["proxy"]["figure"] > 0.6
    assert "'proxy' stands in for 'sex' (Cramér's V " in found["proxy"]["sentence"]


def test_a_column_that_goes_a_little_with_a_sensitive_one_is_no_proxy(
    tmp_path: Path,
) -> None:
    # Significant by far, and of medium effect (Cohen's w .3).
    frame, rng = people(), np.random.default_rng(1)
    other = np.where(frame["sex"] == "f", "left", "right")
    frame["part"] = np.where(
        rng.random(N) < 0.3, other, rng.choice(["left", "right"], N)
    )
    assert "proxy" not in told(frame, tmp_path)


def test_a_rare_groups_proxy_is_told_though_most_rows_lack_it(tmp_path: Path) -> None:
    frame, rng = people(), np.random.default_rng(1)
    frame["origin"] = rng.choice([*"abcd"], N, p=[0.5, 0.3, 0.17, 0.03])
    frame["wears"] = np.where(frame["origin"] == "d", "yes", "no")
    found = told(frame, tmp_path, sensitive=["sex", "origin"])
    assert found["proxy"]["group"] == "origin"


def test_what_is_an_input_itself_has_no_stand_in(tmp_path: Path) -> None:
    frame = people()
    frame["title"] = np.where(frame["sex"] == "f", "Mrs", "Mr")
    assert "proxy" not in told(frame, tmp_path, sensitive_in_model=True)


def test_cramers_v_is_that_of_scipy_less_what_chance_gives() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, 400_000), rng.integers(0, 3, 400_000)
    b = np.where(rng.random(400_000) < 0.5, a % 3, b)
    table = np.histogram2d(a, b, bins=(4, 3))[0].astype(int)
    found = cramers_v(a, b)
    v, w = found.v, found.w
    assert v == pytest.approx(association(table, method="cramer"), abs=1e-4)
    assert w == pytest.approx(v * 2**0.5, abs=1e-4)
    free = [cramers_v(rng.integers(0, 200, 2000), rng.integers(0, 5, 2000)).v]
    free += [cramers_v(rng.permutation(2000), rng.integers(0, 5, 2000)).v]
    assert max(free) < 0.1
    assert cramers_v(a, a).v == 1.0
    assert cramers_v(a, a).w == pytest.approx(3**0.5, abs=1e-4)
    assert cramers_v(a * 0, b) == Association()


def test_copies_of_people_are_counted_with_and_without_their_label(
    tmp_path: Path,
) -> None:
    frame = people().assign(id=np.arange(N))
    again = frame.sample(300, random_state=1).assign(id=np.arange(N, N + 300))
    again["paid"] = again["paid"].where(np.arange(300) < 200, "no")
    whole = pd.concat([frame, again])
    found = told(whole, tmp_path, drop=["id"])["duplicates"]
    source = read_json(tmp_path / "d" / "source.json")
    assert found["figure"] == source["records_sharing_features"]
    assert "data.entity should say who" in found["sentence"]
    # The same, counted from the parts: pairs of which both rows are before the seal.
    numbers = [int(word) for word in found["sentence"].split() if word.isdigit()]
    assert numbers[0] == found["figure"]
    assert " sealed rows those of a development row" in found["sentence"]


def test_rows_of_one_entity_are_told_without_the_advice_to_name_it(
    tmp_path: Path,
) -> None:
    frame = people().assign(who=[f"p{i}" for i in range(N)])
    found = told(pd.concat([frame, frame.sample(300)]), tmp_path, entity="who")
    assert "data.entity" not in found["duplicates"]["sentence"]


def test_rows_that_agree_by_chance_are_no_copies(tmp_path: Path) -> None:
    # One input of ten values: nearly every row has another one's inputs.
    frame = people().assign(age=lambda f: f["age"].round(-1))
    found = told(frame[["age", "sex", "paid", "city"]], tmp_path, drop=["city"])
    assert "duplicates" not in found


def test_a_table_that_is_there_twice_is_told_though_it_has_one_input(
    tmp_path: Path,
) -> None:
    frame = people()
    twice = pd.concat([frame, frame])
    assert "duplicates" in told(twice, tmp_path, drop=["city"])


def test_under_ten_copies_across_the_seal_are_not_counted(tmp_path: Path) -> None:
    frame, sealed = people().assign(id="a"), people(800, seed=1).assign(id="b")
    frame = pd.concat([frame, frame.head(200).assign(id="c")])
    sealed = pd.concat([sealed, frame.head(4).assign(id="d")])
    sentence = told(frame, tmp_path, sealed, drop=["id"])["duplicates"]["sentence"]
    assert "under 10 of 804 sealed rows" in sentence


def test_pairs_of_equal_rows_are_counted() -> None:
    frame = pd.DataFrame({"a": [1, 1, 2, None, None], "b": [*"xxxyy"]})
    codes = equal_rows(pa.Table.from_pandas(frame))
    assert codes[0] == codes[1] != codes[2]
    assert codes[3] == codes[4]
    assert sharing(np.bincount(codes)) == (4, 2.0)
    assert sharing(np.array([3, 1])) == (3, 3.0)


def test_levels_that_share_an_input_are_counted(tmp_path: Path) -> None:
    frame, rng = people(), np.random.default_rng(3)
    frame["charge"] = [f"charge {i}" for i in rng.integers(0, 40, N)]
    found = told(frame, tmp_path, max_levels=10)["pooled"]
    assert found["columns"] == ["charge"]
    assert found["sentence"].startswith("10 of 40 values of 'charge' have an input of")
    assert found["figure"] == pytest.approx(0.75, abs=0.1)
    assert "pooled" not in told(frame, tmp_path)


def test_columns_that_say_nothing_are_named(tmp_path: Path) -> None:
    frame, rng = people(), np.random.default_rng(3)
    frame["state"] = "open"
    frame["remark"] = np.where(rng.random(N) < 0.03, rng.random(N), np.nan)
    frame["half"] = np.where(rng.random(N) < 0.5, rng.random(N), np.nan)
    found = told(frame, tmp_path)
    assert list(found) == ["almost_empty", "constant"]
    assert found["constant"]["columns"] == ["state"]
    assert found["almost_empty"]["columns"] == ["remark"]
    assert "(97 %)" in found["almost_empty"]["sentence"]


def test_values_and_groups_of_one_side_are_told_by_number(tmp_path: Path) -> None:
    frame, sealed = people(), people(900, seed=1)
    frame["race"] = np.random.default_rng(1).choice([*"abc"], N)
    sealed["race"] = np.random.default_rng(2).choice([*"abd"], 900)
    sealed.loc[:80, "city"] = "ulm"
    found = told(frame, tmp_path, sealed, sensitive=["sex", "race"], crosses={})
    assert found["unseen"]["sentence"] == (
        "81 of 900 sealed rows (9 %) have a value of 'city' that no development row "
        "has."
    )
    assert found["one_sided_group"]["group"] == "race"
    assert found["one_sided_group"]["figure"] == 2
    sentence = found["one_sided_group"]["sentence"]
    assert "1 that no development row has and 1 that many have" in sentence


def test_unseen_values_of_under_ten_sealed_rows_are_told_together() -> None:
    few = unseen_facts({"city": "<10", "job": 30, "title": "<10"}, 1000)
    assert [w.columns for w in few] == [("job",), ("city", "title")]
    assert few[1].sentence == (
        "Under 10 sealed rows have a value that no development row has, in each of "
        "'city', 'title'."
    )


def test_spellings_that_were_made_one_are_counted(tmp_path: Path) -> None:
    frame = people().assign(owner=lambda f: f["age"] > 45)
    found = told(frame, tmp_path)["spelling"]
    rows = sum(len(pq.read_table(f)) for f in (tmp_path / "d").glob("*.parquet"))
    assert (found["columns"], found["figure"]) == (["owner"], rows)
    assert rows < N
    assert "spelling" not in told(frame, tmp_path, form="parquet")


@pytest.mark.parametrize("labels", [1.0, 0.7])
def test_a_count_of_spellings_is_of_development_rows_and_tells_no_sealed_group(
    tmp_path: Path, labels: float
) -> None:
    frame, rng = people(), np.random.default_rng(5)
    # One of the group's values is spelled anew: to count it in all rows would tell the
    # sealed ones of it, whatever the counts hide.
    frame["veteran"] = np.where(rng.random(N) < 0.01, "True", "false")
    frame["paid"] = frame["paid"].where(rng.random(N) < labels)
    roles = {"sensitive": ["veteran"], "drop": ["sex"], "unlabelled": "drop"}
    found = told(frame, tmp_path, **roles)["spelling"]
    counts = read_json(tmp_path / "d" / "counts.json")["splits"]
    development = [counts[name]["groups"]["veteran"]["true"]["rows"] for name in SPLITS]
    assert found["figure"] == sum(development)
    assert counts["sealed"]["groups"]["veteran"]["true"]["rows"] == "<10"


@pytest.mark.parametrize(
    ("part", "told_as"),
    [(0, "<10"), (9, "<10"), (10, 10), (90, 90), (91, "all but <10"), (100, "all but")],
)
def test_neither_a_small_part_of_the_sealed_rows_nor_a_small_rest_is_told(
    part: int, told_as: int | str
) -> None:
    found = told_part(part, 100)
    assert str(found).startswith(str(told_as))
    assert isinstance(found, type(told_as))


def test_a_value_that_nearly_all_sealed_rows_have_anew_is_told_without_their_number(
    tmp_path: Path,
) -> None:
    frame, sealed = people(), people(900, seed=1)
    for table, start in ((frame, 0), (sealed, N)):
        table["who"] = [f"p{start + i}" for i in range(len(table))]
    sealed.loc[:2, "who"] = "p1"
    found = told(frame, tmp_path, sealed, categorical=["who"])["unseen"]
    assert found["sentence"].startswith("All but under 10 of the sealed rows with")
    assert "897" not in found["sentence"]
    noted = read_json(tmp_path / "d" / "source.json")["sealed_rows_with_unseen_values"]
    assert noted == {"who": "all but <10"}


@pytest.mark.parametrize(("gone", "noted"), [(4, "<10"), (30, 30)])
def test_rows_without_a_label_are_counted_on_either_side_of_the_seal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], gone: int, noted: int | str
) -> None:
    frame, sealed = people(), people(800, seed=1)
    frame.loc[:6, "paid"] = None
    sealed.loc[: gone - 1, "paid"] = None
    told(frame, tmp_path, sealed, unlabelled="drop")
    source = read_json(tmp_path / "d" / "source.json")
    assert source["unlabelled_rows_dropped"] == 7
    assert source["unlabelled_sealed_rows_dropped"] == noted
    said = capsys.readouterr().out
    assert f"Rows without a label that are left out: 7 of {N}." in said
    assert f"Sealed rows without a label that are left out: {noted}." in said


def test_copies_across_the_seal_are_not_counted_if_there_are_none(
    tmp_path: Path,
) -> None:
    frame, sealed = people(), people(800, seed=1)
    frame = pd.concat([frame, frame.head(200)])
    sentence = told(frame, tmp_path, sealed)["duplicates"]["sentence"]
    assert "under 10 of 800 sealed rows" in sentence


def test_a_misspelt_name_in_the_label_map_is_told(tmp_path: Path) -> None:
    frame, rng = people(), np.random.default_rng(7)
    frame["paid"] = rng.choice(["paid", "paid late", "sold", ""], N)
    words = {"label_other": "no", "unlabelled": "drop"}
    names = {"paid": "yes", "payed late": "yes"}
    found = told(frame, tmp_path, label_map=names, **words)["lost_label"]
    assert found["sentence"].startswith("No row has 'payed late', which data.label_map")
    assert found["figure"] == 1
    names = {"paid": "yes", "paid late": "yes"}
    assert "lost_label" not in told(frame, tmp_path, label_map=names, **words)
    # Without a class for all others no row becomes another's.
    names = {"sold": "paid late", "lost": "paid"}
    assert "lost_label" not in told(
        frame, tmp_path, label_map=names, positive="paid", unlabelled="drop"
    )
    with pytest.raises(DataError, match="names 'Paid', which no row has"):
        told(frame, tmp_path, label_map={"Paid": "yes"}, **words)


def test_small_groups_and_unequal_shares_are_told_once_for_each_group() -> None:
    schema = schema_of(["x"], [])
    columns, label, groups = random_case(2000, 0)
    groups["tribe"] = np.where(np.arange(2000) < 30, 1, 0)
    label = (np.random.default_rng(1).random(2000) < 0.3 + 0.3 * groups["sex"]) * 1
    found = run(schema, columns, label, groups)["warnings"]
    assert [(w["kind"], w["group"]) for w in found] == [
        ("small_group", "tribe"),
        ("base_rate", "sex"),
    ]
    assert found[0]["sentence"].startswith("2 of 3 values of 'tribe' have under 200")


def warning(kind: str = "pooled", figure: float = 1.0) -> AuditWarning:
    return AuditWarning(kind, ("a",), figure, f"{kind} by {figure}.")


def test_the_gravest_kind_comes_first_then_the_greatest_figure() -> None:
    some = [warning(kind, figure) for figure in (0.1, 0.9) for kind in reversed(KINDS)]
    order = [(w.kind, w.figure) for w in ranked(some)]
    assert order == [(kind, figure) for kind in KINDS for figure in (0.9, 0.1)]


def test_a_terminal_has_a_line_each_and_says_how_many_are_left() -> None:
    assert in_lines([]) == []
    assert in_lines([warning()]) == ["1 warning about the data:", "- pooled by 1.0."]
    many = [warning(figure=i) for i in range(MOST_TOLD + 3)]
    lines = in_lines(many)
    assert lines[0] == f"{MOST_TOLD + 3} warnings about the data:"
    assert len(lines) == MOST_TOLD + 2
    assert lines[-1] == "- and 3 more in the dataset's audit.json"
    assert in_lines(many[:MOST_TOLD])[-1] == f"- {many[MOST_TOLD - 1].sentence}"


def test_warnings_that_are_saved_are_those_that_are_read(tmp_path: Path) -> None:
    some = (warning(), AuditWarning("proxy", ("b",), 0.5, "b is a.", "a"))
    save_warnings(tmp_path, some)
    assert read_warnings(tmp_path / "warnings.json") == some
    assert read_warnings(tmp_path / "none.json") == ()


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"warnings": ["A sentence."]},
        {"warnings": [{"kind": "leak"}]},
        {"warnings": [{**warning().to_dict(), "more": 1}]},
        {"warnings": [{**warning().to_dict(), "sentence": 1}]},
        {"warnings": 3},
    ],
)
def test_a_file_of_another_form_is_a_sentence(tmp_path: Path, content: Any) -> None:
    write_json(tmp_path / "audit.json", content)
    with pytest.raises(InputError, match="prepare the data again"):
        read_warnings(tmp_path / "audit.json")


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (0.001, "under 1 %"),
        (0.5, "50 %"),
        (0.999, "over 99 %"),
        (1, "100 %"),
    ],
)
def test_a_share_is_not_rounded_to_none_or_all(share: float, text: str) -> None:
    assert percent(share) == text


def test_the_document_says_what_each_kind_means() -> None:
    text = (ROOT / "docs" / "raw_data.md").read_text(encoding="utf-8")
    for kind, figure in KINDS.items():
        assert f"| `{kind}` |" in text
        assert figure in text


def test_columns_that_stand_in_for_one_column_are_one_sentence() -> None:
    def proxy(column: str, group: str, figure: float) -> AuditWarning:
        return AuditWarning("proxy", (column,), figure, f"{column} tells.", group)

    street = [proxy(f"street{i}", "district", 0.9 - i / 10) for i in range(8)]
    lines = in_lines([*street[:2], proxy("title", "sex", 0.8), warning()])
    assert lines[0] == "3 warnings about the data:"
    assert lines[1] == (
        "- 'street0' (0.90), 'street1' (0.80) stand in for 'district' (Cramér's V): "
        "leaving 'district' out does not hide it."
    )
    assert lines[2:] == ["- title tells.", "- pooled by 1.0."]
    assert "'street5' (0.40) and 2 more stand in" in in_lines(street)[1]
