"""The first stage: the same rows give the same artifacts, bad ones a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import preparing
import pytest
from preparing import run
from small_tables import GROUPS, HEADER, config, loans, officially_sealed, save, spell

from safescale_ammt.config.sections import SPLITS, DataConfig
from safescale_ammt.data.coding import encode, width
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.data.splitting import row_hex
from safescale_ammt.errors import ConfigError, DataError, IntegrityError
from safescale_ammt.files.artifacts import read_manifest
from safescale_ammt.files.canonical import read_json
from safescale_ammt.reading.sources import content_digest

Rows = list[list[str]]
AGE, GAIN, CITY, GENDER, ORIGIN, ID, LABEL = range(7)


def prepare(
    folder: Path, rows: Rows, sealed: Rows | None = None, **changes: Any
) -> Dataset:
    section: dict[str, Any] = {
        "source": save(folder / "loans.csv", spell(rows)),
        **changes,
    }
    if sealed is None:
        section = config(**section)
    else:
        official = save(folder / "sealed.csv", spell(sealed))
        section = officially_sealed(sealed_source=official, **section)
    run(section, folder / "dataset", folder / "holdout")
    return Dataset.load(folder / "dataset")


def refused(
    folder: Path, rows: Rows, sealed: Rows | None = None, **changes: Any
) -> str:
    with pytest.raises((DataError, ConfigError)) as caught:
        prepare(folder, rows, sealed, **changes)
    assert not (folder / "dataset").exists()
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
    return str(caught.value)


def changed(rows: Rows, column: int, change: Callable[[int, str], str]) -> Rows:
    return [
        [change(i, cell) if j == column else cell for j, cell in enumerate(row)]
        for i, row in enumerate(rows)
    ]


def hashes(dataset: Dataset) -> dict[str, set[str]]:
    return {name: set(row_hex(split.rows)) for name, split in dataset.splits.items()}


def test_the_same_work_twice_has_the_same_identity(tmp_path: Path) -> None:
    first = prepare(tmp_path / "a", loans())
    second = prepare(tmp_path / "b", loans())
    assert first.identity == second.identity
    holdouts = [read_manifest(tmp_path / x / "holdout").identity for x in "ab"]
    assert holdouts[0] == holdouts[1]


def test_the_summary_and_the_source_record_say_what_was_read(tmp_path: Path) -> None:
    source = save(tmp_path / "loans.csv", spell(loans()))
    section = config(source=source)
    summary = run(section, tmp_path / "dataset", tmp_path / "holdout")
    record = read_json(tmp_path / "dataset" / "source.json")
    assert sum(summary["rows"].values()) == 600
    assert summary["source_digest"] == record["source_digest"] == content_digest(source)
    assert record["holdout"] == summary["holdout"]
    manifest = read_manifest(tmp_path / "dataset", "dataset")
    assert manifest.config_digest == DataConfig.from_params(section).digest
    assert manifest.parents == {}


def test_a_pipeline_that_makes_floats_of_whole_numbers_changes_nothing(
    tmp_path: Path,
) -> None:
    source = save(tmp_path / "loans.csv", spell(loans()))
    section = DataConfig.from_params(config(source=source)).to_params()
    floats = json.loads(json.dumps(section), parse_int=float)
    summaries = [
        run(s, tmp_path / "dataset", tmp_path / "holdout") for s in (section, floats)
    ]
    assert summaries[0] == summaries[1]


def test_the_order_of_rows_moves_none_to_another_split(tmp_path: Path) -> None:
    rows = loans()
    order = np.random.default_rng(0).permutation(len(rows))
    first = prepare(tmp_path / "a", rows)
    second = prepare(tmp_path / "b", [rows[i] for i in order])
    assert hashes(first) == hashes(second)


def test_splits_are_stratified_by_the_first_group_and_the_label(tmp_path: Path) -> None:
    dataset = prepare(tmp_path, loans(3000))
    shares = [
        [np.mean(s.label == 1), np.mean(s.groups["gender"] == 0)]
        for s in dataset.splits.values()
    ]
    assert np.ptp(shares, axis=0).max() < 0.01


def test_equal_rows_may_lie_in_several_splits_and_are_counted(tmp_path: Path) -> None:
    rows = loans(300)
    dataset = prepare(tmp_path, rows + rows)
    sealed = preparing.sealed(tmp_path / "holdout").split
    development = [row for split in hashes(dataset).values() for row in split]
    assert len(set(development)) < len(development)
    assert set(row_hex(sealed.rows)) & set(development)
    record = read_json(tmp_path / "dataset" / "source.json")
    assert record["development_rows_repeated"] == sum(
        len(split) for split in dataset.splits.values()
    ) - len(set(development))


def test_records_that_share_all_features_are_counted(tmp_path: Path) -> None:
    rows = changed(loans(400), GAIN, lambda i, _: str(i // 2))
    for column in (AGE, CITY):
        rows = changed(rows, column, lambda _, __: "1" if _ < 2 else str(_))
    # Rows 0 and 1 agree in every input, and differ in id: two records.
    prepare(tmp_path, rows, loans(200, 1, 1000), categorical=["city"])
    record = read_json(tmp_path / "dataset" / "source.json")
    assert record["records_sharing_features"] == 2


def test_sealed_rows_come_from_the_official_file_and_copies_are_removed(
    tmp_path: Path,
) -> None:
    rows, sealed = loans(500), loans(300, seed=1, first_id=1000)
    dataset = prepare(tmp_path, rows + sealed[:40], sealed)
    holdout = preparing.sealed(tmp_path / "holdout")
    assert len(holdout.split) == 300
    assert sum(len(split) for split in dataset.splits.values()) == 500
    record = read_json(tmp_path / "dataset" / "source.json")
    assert record["development_rows_also_sealed_removed"] == 40
    assert not set(row_hex(holdout.split.rows)) & set.union(*hashes(dataset).values())


def test_spellings_of_a_class_are_merged_and_copies_still_found(tmp_path: Path) -> None:
    rows, sealed = loans(400), loans(200, seed=1, first_id=1000)
    dotted = changed(sealed, LABEL, lambda _, text: text + ".")
    label_map = {"yes.": "yes", "no.": "no"}
    dataset = prepare(tmp_path, rows + sealed[:10], dotted, label_map=label_map)
    assert dataset.schema.classes == ("no", "yes")
    assert sum(len(split) for split in dataset.splits.values()) == 400


def test_all_other_labels_are_one_class_by_one_word(tmp_path: Path) -> None:
    # Amounts, as many tables of outcomes have: none, or some.
    def amount(i: int, text: str) -> str:
        return "0.0" if text == "no" else f"{i}.5"

    rows = changed(loans(400), LABEL, amount)
    sealed = changed(loans(200, 1, 1000), LABEL, amount)
    words = {"label_map": {"0": "no"}, "label_other": "yes", "positive": "yes"}
    dataset = prepare(tmp_path, rows, sealed, **words)
    assert dataset.schema.classes == ("no", "yes")
    total = sum(int(s.label.sum()) for s in dataset.splits.values())
    assert total == sum(row[LABEL] == "yes" for row in loans(400))


def test_a_missing_label_is_no_other_label(tmp_path: Path) -> None:
    rows = changed(loans(400), LABEL, lambda i, text: "" if i == 3 else text)
    words = {"label_map": {"no": "no"}, "label_other": "yes"}
    assert "no label" in refused(tmp_path, rows, **words)


def test_columns_of_the_sealed_file_may_stand_in_another_order(tmp_path: Path) -> None:
    sealed = loans(200, seed=1, first_id=1000)
    section = officially_sealed(
        source=save(tmp_path / "a.csv", spell(loans(400))),
        sealed_source=save(
            tmp_path / "b.csv", spell([row[::-1] for row in sealed], HEADER[::-1])
        ),
    )
    run(section, tmp_path / "dataset", tmp_path / "holdout")
    first = row_hex(preparing.sealed(tmp_path / "holdout").split.rows)
    prepare(tmp_path / "straight", loans(400), sealed)
    straight = preparing.sealed(tmp_path / "straight" / "holdout").split
    assert first == row_hex(straight.rows)


def test_encodings_are_learnt_on_train_alone(tmp_path: Path) -> None:
    first = prepare(tmp_path / "a", loans())
    kept = hashes(first)["train"]
    raw = loans()
    rows = changed(raw, AGE, lambda _, text: text)
    train_ages = set(first.splits["train"].features["age"].to_pylist())
    sealed = preparing.sealed(tmp_path / "a" / "holdout")
    assert kept
    feature = first.schema.features[0]
    numbers = [age for age in train_ages if age is not None]
    assert feature.edges[0] == min(numbers)
    assert feature.edges[-1] == max(numbers)
    values = first.splits["train"].features["age"].drop_null().to_numpy()
    assert feature.mean == pytest.approx(values.mean())
    assert encode(sealed.schema, sealed.split.features).shape[1] == width(first.schema)
    assert rows == raw


def test_sensitive_columns_are_inputs_only_on_demand(tmp_path: Path) -> None:
    out = prepare(tmp_path / "out", loans())
    assert out.schema.names == ("age", "gain", "city")
    inside = prepare(tmp_path / "in", loans(), sensitive_in_model=True)
    assert inside.schema.names == ("age", "gain", "city", "gender", "origin")


def test_a_merge_may_name_the_rows_without_a_value(tmp_path: Path) -> None:
    rows = changed(loans(), ORIGIN, lambda i, text: "?" if i % 10 == 0 else text)
    known = {"column": "origin", "values": {"(missing)": "south"}}
    merged = {**GROUPS, "merges": {**GROUPS["merges"], "known": known}}
    groups = prepare(tmp_path, rows, **merged).schema.groups
    assert groups["known"] == ("north", "south", "west")
    assert groups["origin"] == ("(missing)", "north", "south", "west")


def test_merges_and_crosses_follow_their_columns(tmp_path: Path) -> None:
    rows = changed(loans(), ORIGIN, lambda i, text: "?" if i % 10 == 0 else text)
    dataset = prepare(tmp_path, rows, **GROUPS)
    groups = dataset.schema.groups
    assert groups["origin"] == ("(missing)", "north", "south", "west")
    assert groups["north"] == ("(missing)", "else", "north")
    train = dataset.splits["train"].groups
    merged = np.array(groups["north"])[train["north"]]
    origin = np.array(groups["origin"])[train["origin"]]
    np.testing.assert_array_equal(merged == "north", origin == "north")
    gender = np.array(groups["gender"])[train["gender"]]
    both = np.array(groups["both"])[train["both"]]
    assert (both == np.char.add(np.char.add(gender, " & "), merged)).all()


def test_a_merge_without_other_keeps_what_it_does_not_name(tmp_path: Path) -> None:
    merges = {"west": {"column": "origin", "values": {"west": "south"}}}
    dataset = prepare(tmp_path, loans(), merges=merges)
    assert dataset.schema.groups["west"] == ("north", "south")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"merges": {"g": {"column": "city", "values": {"a": "b"}}}},
            "g.column is 'city'",
        ),
        (
            {"merges": {"g": {"column": "origin", "values": {"east": "b"}}}},
            "names 'east'",
        ),
        ({"merges": {"g": {"column": "origin"}}}, "g lacks the key 'values'"),
        ({"merges": {"g": {"values": {"west": "b"}}}}, "g lacks the key 'column'"),
        (
            {"merges": {"g": {"column": "origin", "values": {}}}},
            "must map old to new",
        ),
        ({"merges": {"g": {"by": "origin"}}}, "Unknown key 'by'"),
        (
            {"merges": {"gender": {"column": "origin", "values": {"west": "b"}}}},
            "Two groups",
        ),
        ({"crosses": {"g": ["gender"]}}, "at least two"),
        ({"crosses": {"g": ["gender", "gender"]}}, "each once"),
        ({"crosses": {"g": ["gender", "origin", "gender"]}}, "each once"),
        ({"crosses": {"g": ["gender", "age"]}}, "names 'age'"),
    ],
)
def test_groups_of_something_unknown_are_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    assert said in refused(tmp_path, loans(), **changes)


def test_classes_are_coded_with_the_positive_one_last(tmp_path: Path) -> None:
    dataset = prepare(tmp_path, loans(), positive="no")
    assert dataset.schema.classes == ("yes", "no")
    assert dataset.counts.positive == "no"
    default = prepare(tmp_path / "default", loans(), positive="")
    assert (default.schema.classes, default.schema.positive) == (("no", "yes"), "yes")


def test_more_than_two_classes_are_coded_in_order(tmp_path: Path) -> None:
    rows = changed(loans(), LABEL, lambda i, text: "maybe" if i % 3 == 0 else text)
    dataset = prepare(tmp_path, rows, positive="")
    assert dataset.schema.classes == ("maybe", "no", "yes")
    assert dataset.schema.positive == ""
    assert set(dataset.splits["train"].label) == {0, 1, 2}


def test_a_constant_column_is_dropped_and_recorded(tmp_path: Path) -> None:
    dataset = prepare(tmp_path, changed(loans(), CITY, lambda _, __: "oslo"))
    assert dataset.schema.names == ("age", "gain")
    record = read_json(tmp_path / "dataset" / "source.json")
    assert record["constant_columns_dropped"] == ["city"]


def test_a_table_of_constant_columns_is_refused(tmp_path: Path) -> None:
    rows = loans()
    for column in (AGE, GAIN, CITY):
        rows = changed(rows, column, lambda _, __: "1")
    assert "no column left" in refused(tmp_path, rows)


def test_a_group_that_a_split_lacks_is_recorded(tmp_path: Path) -> None:
    rows = changed(loans(), ORIGIN, lambda i, text: "isle" if i < 2 else text)
    prepare(tmp_path, rows)
    record = read_json(tmp_path / "dataset" / "source.json")
    lacking = [
        s
        for s in SPLITS
        if "isle" in record["empty_groups"].get(s, {}).get("origin", [])
    ]
    assert len(lacking) >= 3


def test_small_sealed_cells_are_not_told(tmp_path: Path) -> None:
    rows = changed(loans(), ORIGIN, lambda i, text: "isle" if i < 9 else text)
    dataset = prepare(tmp_path, rows)
    cell = read_json(tmp_path / "dataset" / "counts.json")["splits"]["sealed"]
    assert cell["groups"]["origin"]["isle"]["rows"] == "<10"
    assert cell["rows"] == dataset.counts.split("sealed").rows


def test_declared_kinds_overrule_what_values_look_like(tmp_path: Path) -> None:
    dataset = prepare(tmp_path / "a", loans(), categorical=["age"])
    assert dataset.schema.features[0].kind == "categorical"
    rows = changed(loans(), AGE, lambda i, text: "old" if i == 4 else text)
    assert prepare(tmp_path / "b", rows).schema.features[0].kind == "categorical"
    said = refused(tmp_path / "c", rows, numeric=["age"])
    assert "'age' has a text that is no number at data row 5" in said


def test_a_sealed_text_in_a_numeric_column_names_the_sealed_file(
    tmp_path: Path,
) -> None:
    sealed = changed(loans(200, 1, 1000), AGE, lambda i, t: "old" if i == 2 else t)
    assert "data row 3 of" in (said := refused(tmp_path, loans(400), sealed))
    assert "sealed.csv" in said


def test_an_infinite_number_is_refused_with_its_row(tmp_path: Path) -> None:
    rows = changed(loans(), GAIN, lambda i, text: "inf" if i == 7 else text)
    assert "'gain' has 1 NaN, infinite or huge" in (said := refused(tmp_path, rows))
    assert "data row 8" in said


def test_a_nan_that_is_no_declared_missing_value_is_refused(tmp_path: Path) -> None:
    rows = changed(loans(), GAIN, lambda i, text: "nan" if i == 7 else text)
    assert "NaN, infinite or huge" in refused(tmp_path, rows, missing=["", "?"])


@pytest.mark.parametrize(
    ("changes", "role"),
    [
        ({"label": "income"}, "label"),
        ({"sensitive": ["race"]}, "sensitive"),
        ({"drop": ["weight"]}, "drop"),
        ({"entity": "person"}, "entity"),
        ({"numeric": ["height"]}, "numeric"),
    ],
)
def test_an_unknown_column_is_refused_and_told_where_a_similar_one_is(
    tmp_path: Path, changes: dict[str, Any], role: str
) -> None:
    said = refused(tmp_path, loans(), **changes)
    assert f"(data.{role})" in said
    assert f"of its {len(HEADER)}" in said
    near = refused(tmp_path, loans(), label="Aproved")
    assert "column 7 is spelled nearly like 'Aproved'" in near


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    rows = changed(loans(), LABEL, lambda _, __: "yes")
    assert "single class, 'yes'" in refused(tmp_path, rows)


def test_a_label_that_is_a_number_or_name_is_refused(tmp_path: Path) -> None:
    said = refused(tmp_path, loans(), label="id", drop=[], positive="")
    assert "600 distinct values" in said


def test_an_unknown_positive_class_is_refused_with_the_known_ones(
    tmp_path: Path,
) -> None:
    said = refused(tmp_path, loans(), positive="approved")
    assert "data.positive is 'approved'" in said
    assert "no, yes" in said


def test_rows_without_a_label_are_counted_and_refused(tmp_path: Path) -> None:
    rows = changed(loans(), LABEL, lambda i, text: "?" if i in (5, 9) else text)
    said = refused(tmp_path, rows)
    assert "2 rows have no label 'approved', the first is data row 6" in said


def test_a_class_of_the_sealed_file_alone_is_refused(tmp_path: Path) -> None:
    sealed = changed(loans(200, 1, 1000), LABEL, lambda i, t: "yes." if i == 3 else t)
    said = refused(tmp_path, loans(400), sealed)
    assert "label of data row 4" in said
    assert "label_map" in said


def test_a_sealed_file_with_other_columns_is_refused(tmp_path: Path) -> None:
    section = officially_sealed(
        source=save(tmp_path / "a.csv", spell(loans())),
        sealed_source=save(
            tmp_path / "b.csv", spell([r[1:] for r in loans()], HEADER[1:])
        ),
    )
    with pytest.raises(DataError, match="1 of them are in one only"):
        run(section, tmp_path / "dataset", tmp_path / "holdout")


def test_a_sensitive_column_of_numbers_is_refused(tmp_path: Path) -> None:
    said = refused(tmp_path, loans(), sensitive=["id"], drop=[])
    assert "'id' of" in said
    assert "600 values" in said


def test_too_few_rows_for_all_splits_are_refused(tmp_path: Path) -> None:
    rows = changed(loans(14), LABEL, lambda i, _: "yes" if i % 2 else "no")

    def every_seed() -> None:
        for seed in range(20):
            prepare(tmp_path / str(seed), rows, seed=seed)

    with pytest.raises(DataError, match="gets no row of the 14"):
        every_seed()


def test_a_label_that_the_end_of_a_file_cuts_is_no_new_class(tmp_path: Path) -> None:
    source = save(tmp_path / "loans.csv", spell(loans())[:-2])
    with pytest.raises(DataError, match=r"only 1 rows of a class.*truncated"):
        run(config(source=source), tmp_path / "dataset", tmp_path / "holdout")


def test_a_train_split_without_one_class_is_refused(tmp_path: Path) -> None:
    rows = changed(loans(300), LABEL, lambda i, _: "yes" if i < 12 else "no")
    rows = changed(rows, ID, lambda i, text: "one" if i < 12 else text)

    def every_seed() -> None:
        for seed in range(20):
            folder = tmp_path / str(seed)
            prepare(folder, rows, seed=seed, drop=[], entity="id")

    # All positive rows are of one entity, which some seed sets outside of train.
    with pytest.raises(DataError, match="lacks a class altogether"):
        every_seed()


def test_an_entity_stays_in_one_split(tmp_path: Path) -> None:
    rows = changed(loans(900), ID, lambda i, _: str(i // 3))
    prepare(tmp_path, rows, drop=[], entity="id")
    dataset = Dataset.load(tmp_path / "dataset")
    assert "id" not in dataset.schema.names
    sizes = [len(split) for split in dataset.splits.values()]
    assert all(size % 3 == 0 for size in sizes)


def test_an_entity_on_both_sides_is_refused(tmp_path: Path) -> None:
    said = refused(tmp_path, loans(400), loans(200, 1, 390), drop=[], entity="id")
    assert "10 entities of 'id'" in said


def test_a_row_without_an_entity_is_refused(tmp_path: Path) -> None:
    rows = changed(loans(), ID, lambda i, text: "" if i == 2 else text)
    said = refused(tmp_path, rows, drop=[], entity="id")
    assert "1 rows have no entity 'id', the first is data row 3" in said


def test_a_bare_name_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'adult' is no URI"):
        run(config(source="adult"), tmp_path / "dataset", tmp_path / "holdout")


def test_no_source_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.source is empty"):
        run({}, tmp_path / "dataset", tmp_path / "holdout")


def test_changed_raw_bytes_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    source = save(tmp_path / "loans.csv", spell(loans()))
    section = config(source=source, source_digest=content_digest(source))
    run(section, tmp_path / "dataset", tmp_path / "holdout")
    save(tmp_path / "loans.csv", spell(loans(seed=1)))
    with pytest.raises(IntegrityError, match=r"data\.source_digest is sha256:"):
        run(section, tmp_path / "dataset2", tmp_path / "holdout2")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"loans.csv", "dataset", "holdout", "store"}
    kept = {path.parent for path in (tmp_path / "store").rglob("*.parquet")}
    assert kept == {preparing.rows_of(tmp_path / "holdout")}


def test_a_table_without_sensitive_columns_is_prepared(tmp_path: Path) -> None:
    dataset = prepare(tmp_path, loans(), sensitive=[])
    assert dataset.schema.groups == {}
    assert "gender" in dataset.schema.names
