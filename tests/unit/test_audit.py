"""The audit of raw data: right where truth is known, quiet where nothing is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import mutual_info_score
from test_schema import SCHEMA

from safescale_ammt.config.sections import SPLITS
from safescale_ammt.data.associations import (
    binned,
    joint,
    proxies,
    spread_p_value,
    twin_pairs,
)
from safescale_ammt.data.audit import LEVEL, audit
from safescale_ammt.data.dataset import Split
from safescale_ammt.data.schema import CategoricalFeature, NumericFeature, Schema


def schema_of(numeric: list[str], categorical: list[str], **changes: Any) -> Schema:
    features = (
        *(NumericFeature(n, False, 0, 0, 1, (0.0, 1.0), ()) for n in numeric),
        *(CategoricalFeature(n, False, ("a",), False, {}) for n in categorical),
    )
    groups = {"sex": ("f", "m"), "tribe": ("x", "y", "z")}
    changes = {"sensitive": ("sex", "tribe"), "groups": groups, **changes}
    return dataclasses.replace(SCHEMA, features=features, **changes)


def splits_of(
    schema: Schema,
    columns: Mapping[str, Any],
    label: np.ndarray,
    groups: Mapping[str, np.ndarray],
) -> dict[str, Split]:
    """Cuts rows evenly into the five development splits."""
    where = np.arange(len(label)) * 5 // len(label)
    table = pa.table({name: columns[name] for name in schema.names})
    whole = Split(
        table,
        label.astype(np.int64),
        {name: codes.astype(np.int64) for name, codes in groups.items()},
        np.arange(2 * len(label)).view("V16"),
    )
    return {name: whole.take(where == i) for i, name in enumerate(SPLITS)}


def random_case(n: int, seed: int) -> tuple[dict[str, Any], np.ndarray, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    groups = {"sex": rng.integers(0, 2, n), "tribe": rng.integers(0, 3, n)}
    columns = {"x": rng.normal(size=n), "c": rng.choice(["p", "q", "r"], n)}
    return columns, rng.integers(0, 2, n), groups


def run(schema: Schema, *case: Any, seed: int = 0) -> dict[str, Any]:
    return audit(schema, splits_of(schema, *case), seed).to_dict()


def test_base_rates_and_gaps_are_those_of_the_rows() -> None:
    n = 4000
    schema = schema_of(["x"], ["c"])
    columns, label, groups = random_case(n, 0)
    label = (np.random.default_rng(1).random(n) < 0.3 + 0.3 * groups["sex"]).astype(int)
    found = run(schema, columns, label, groups)
    rates = {e["group"]: e for e in found["base_rates"]}["sex"]
    for code, value in enumerate(("f", "m")):
        mine = label[groups["sex"] == code]
        assert rates["values"][value]["rows"] == len(mine)
        assert rates["values"][value]["rate"] == pytest.approx(mine.mean())
        assert (
            rates["values"][value]["lower"]
            < mine.mean()
            < rates["values"][value]["upper"]
        )
    other = "m" if rates["reference"] == "f" else "f"
    gap = rates["values"][other]["gap"]
    assert gap["differs"]
    assert gap["lower"] < gap["value"] < gap["upper"]
    assert abs(abs(gap["value"]) - 0.3) < 0.05
    (told,) = [w for w in found["warnings"] if w["kind"] == "base_rate"]
    assert (told["group"], told["figure"]) == ("sex", abs(gap["value"]))


def test_small_and_empty_groups_are_flagged() -> None:
    schema = schema_of(["x"], [])
    columns, label, groups = random_case(2000, 0)
    groups["tribe"] = np.where(np.arange(2000) < 30, 1, 0)
    rates = run(schema, columns, label, groups)["base_rates"][1]["values"]
    assert [rates[v]["under_represented"] for v in "xyz"] == [False, True, True]
    assert "rate" not in rates["z"]


def test_without_a_positive_class_every_class_has_rates() -> None:
    schema = schema_of(["x"], [], classes=("a", "b", "c"), positive="")
    columns, _, groups = random_case(900, 0)
    found = run(schema, columns, np.arange(900) % 3, groups)
    assert [(e["group"], e["outcome"]) for e in found["base_rates"]] == [
        (group, outcome) for group in ("sex", "tribe") for outcome in "abc"
    ]


def test_a_copy_of_a_sensitive_column_is_the_strongest_proxy() -> None:
    schema = schema_of(["x"], ["c", "copy"])
    columns, label, groups = random_case(1000, 0)
    columns["copy"] = np.array(["p", "q"])[groups["sex"]]
    features = run(schema, columns, label, groups)["proxies"]["features"]
    assert (features[0]["feature"], features[0]["group"]) == ("copy", "sex")
    assert features[0]["strength"] > 0.99
    flagged = [(e["feature"], e["group"]) for e in features if e["flagged"]]
    assert flagged == [("copy", "sex")]


def test_a_proxy_that_lies_in_missing_values_is_seen() -> None:
    schema = schema_of(["x"], [])
    columns, label, groups = random_case(600, 0)
    columns["x"] = pa.array(columns["x"], mask=groups["sex"] == 1)
    assert (
        run(schema, columns, label, groups)["proxies"]["features"][0]["strength"] > 0.9
    )


def test_strength_is_the_mutual_information_of_sklearn() -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(0, 3, 5000)
    feature = np.where(rng.random(5000) < 0.6, target, rng.integers(0, 4, 5000))
    (proxy,) = proxies([feature], [target], 100, 0)
    expected = mutual_info_score(feature, target) / mutual_info_score(target, target)
    assert proxy.strength == pytest.approx(expected, abs=0.002)


def test_false_alarms_among_all_features_are_bounded() -> None:
    alarms = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        targets = [rng.integers(0, 2, 200), rng.integers(0, 3, 200)]
        features = [rng.integers(0, k, 200) for k in (2, 5, 9)]
        found = proxies(features, targets, 99, seed)
        alarms += min(proxy.p_value for proxy in found) <= LEVEL
    # 60 x .05 = 3 expected; over 9 has a chance of .1 %.
    assert alarms <= 9


def test_a_constant_feature_is_no_proxy() -> None:
    target = np.arange(100) % 2
    (proxy,) = proxies([np.zeros(100, np.int64)], [target], 50, 0)
    assert proxy.strength == 0
    assert proxy.p_value == 1


def twins(noise: Mapping[int, float], seed: int) -> tuple[Any, np.ndarray, Any]:
    """Forty feature vectors with a fixed label each, flipped at a rate per group."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 40, 3000)
    sex = rng.integers(0, 2, 3000)
    rate = np.array([noise[0], noise[1]])[sex]
    label = (x % 2) ^ (rng.random(3000) < rate)
    tribe = rng.integers(0, 3, 3000)
    return {"x": x.astype(float)}, label, {"sex": sex, "tribe": tribe}


def test_label_noise_in_one_group_is_found() -> None:
    schema = schema_of(["x"], [])
    found = run(schema, *twins({0: 0.2, 1: 0.02}, 0))["label_noise"]
    sex, tribe = found
    assert sex["flagged"]
    assert not tribe["flagged"]
    assert sex["values"]["f"]["rate"] == pytest.approx(2 * 0.2 * 0.8, abs=0.06)
    assert sex["values"]["m"]["upper"] < sex["values"]["f"]["lower"]


def test_even_label_noise_is_not_flagged() -> None:
    schema = schema_of(["x"], [])
    flags = [
        entry["flagged"]
        for seed in range(5)
        for entry in run(schema, *twins({0: 0.1, 1: 0.1}, seed))["label_noise"]
    ]
    assert sum(flags) <= 1


def test_rows_without_twins_say_nothing_about_noise() -> None:
    schema = schema_of(["x"], [])
    found = run(schema, *random_case(500, 0))
    assert [entry["pairs"] for entry in found["label_noise"]] == [0, 0]
    assert not any(entry["flagged"] for entry in found["label_noise"])


def test_pairs_are_disjoint_and_agree_in_features_and_group() -> None:
    rng = np.random.default_rng(0)
    same, group = rng.integers(0, 50, 1000), rng.integers(0, 3, 1000)
    pairs = twin_pairs(same, group)
    assert len(np.unique(pairs)) == pairs.size
    for codes in (same, group):
        np.testing.assert_array_equal(codes[pairs[:, 0]], codes[pairs[:, 1]])
    counts = np.unique(same * 3 + group, return_counts=True)[1]
    assert len(pairs) == (counts // 2).sum()


def test_a_spread_of_rates_has_its_exact_p_value() -> None:
    group = np.repeat([0, 2], 6)
    hits = group == 0
    # Two of the C(12, 6) = 924 allocations are as extreme: all in one group.
    p = spread_p_value(hits, group, 20_000, 0)
    assert p == pytest.approx(2 / 924, abs=0.0015)
    assert spread_p_value(np.arange(12) % 2 == 0, group, 500, 0) == 1


def test_bins_keep_missing_rare_and_zero_inflated_values_apart() -> None:
    numbers = pa.chunked_array(
        [pa.array([None, *[0.0] * 90, *range(1, 60)], pa.float64())]
    )
    codes = binned(numbers, 5)
    assert codes[0] not in codes[1:]
    assert codes[1] not in codes[91:]
    levels = pa.chunked_array([pa.array([*"aabbcdef", None])])
    assert len(set(binned(levels, 2))) == 3


def test_many_columns_cross_without_overflow() -> None:
    rng = np.random.default_rng(0)
    columns = [rng.integers(0, 1000, 300) for _ in range(12)]
    codes, parts = joint(columns)
    for column, part in zip(columns, parts, strict=True):
        np.testing.assert_array_equal(part[codes], column)


def test_an_audit_looks_at_development_rows_only_and_repeats_itself() -> None:
    schema = schema_of(["x"], ["c"])
    case = random_case(500, 0)
    splits = splits_of(schema, *case)
    alone = audit(schema, splits, 3)
    assert alone == audit(schema, {**splits, "sealed": splits["train"]}, 3)
    assert alone.figures["rows"] == 500
    assert alone.to_dict()["bias"][0]["status"] == "not identifiable"


def test_a_large_table_is_sampled_for_the_permutations() -> None:
    schema = schema_of(["x"], [], sensitive=("sex",), groups={"sex": ("f", "m")})
    columns, label, groups = random_case(60_000, 0)
    found = run(schema, columns, label, {"sex": groups["sex"]})
    assert found["rows"] == 60_000
    assert found["proxies"]["rows"] == 50_000


def test_without_sensitive_columns_there_are_no_proxies() -> None:
    schema = schema_of(["x"], [], sensitive=(), groups={})
    columns, label, _ = random_case(300, 0)
    found = run(schema, columns, label, {})
    assert found["proxies"]["features"] == found["base_rates"] == []
