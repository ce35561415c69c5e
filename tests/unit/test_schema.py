"""The schema: round trips, and refusals of what is not one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from safescale_ammt.data.schema import CategoricalFeature, NumericFeature, Schema
from safescale_ammt.errors import InputError
from safescale_ammt.files.canonical import write_json

SCHEMA = Schema(
    features=(
        NumericFeature("age", True, 30.0, 31.5, 9.0, (18.0, 30.0, 70.0), (0.0,)),
        CategoricalFeature("city", False, ("oslo", "rome"), True, {"bonn": 0.25}),
    ),
    label="approved",
    classes=("no", "yes"),
    positive="yes",
    sensitive=("gender",),
    groups={"gender": ("f", "m")},
    merges={"g": {"column": "gender", "values": {"f": "f"}, "other": "rest"}},
    crosses={"x": ("gender", "g")},
    drop=("id",),
    entity="",
    columns=("age", "city", "gender", "id", "approved"),
    missing=("", "?"),
    label_map={"yes.": "yes"},
    comment="|",
)


def test_a_schema_survives_json_and_disk(tmp_path: Path) -> None:
    write_json(tmp_path / "schema.json", SCHEMA.to_dict())
    for path in (tmp_path, tmp_path / "schema.json"):
        read = Schema.load(path)
        assert read == SCHEMA
        assert read.digest == SCHEMA.digest


def test_a_schema_survives_a_pipeline_that_makes_floats_of_whole_numbers() -> None:
    raw = json.loads(json.dumps(SCHEMA.to_dict()), parse_int=float)
    assert Schema.from_dict(raw) == SCHEMA


def test_the_digest_follows_what_was_learnt() -> None:
    first = dataclasses.replace(SCHEMA.features[0], median=31.0)
    other = dataclasses.replace(SCHEMA, features=(first, SCHEMA.features[1]))
    assert other.digest != SCHEMA.digest


def test_the_names_are_those_that_a_prediction_needs() -> None:
    assert SCHEMA.names == ("age", "city")


def test_another_version_is_refused() -> None:
    with pytest.raises(InputError, match="version 2, this release reads version 1"):
        Schema.from_dict({**SCHEMA.to_dict(), "schema": 2})


@pytest.mark.parametrize("key", ["features", "classes", "groups", "schema"])
def test_a_missing_part_is_one_sentence(key: str) -> None:
    raw = {k: v for k, v in SCHEMA.to_dict().items() if k != key}
    with pytest.raises(InputError, match=r"form of schema\.json"):
        Schema.from_dict(raw)


def test_an_unknown_kind_of_feature_is_refused() -> None:
    raw = SCHEMA.to_dict()
    raw["features"][0]["kind"] = "image"
    with pytest.raises(InputError, match=r"form of schema\.json"):
        Schema.from_dict(raw)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        Schema.load(tmp_path / "absent.json")
