"""Config: what survives KFP, what is refused, and in which sentence."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safescale_ammt.config.roles import ROLES, Role
from safescale_ammt.config.section import MAX_BYTES, MAX_SEED, Section
from safescale_ammt.config.sections import (
    SECTIONS,
    SPLITS,
    DataConfig,
    RegistryConfig,
    SafetyConfig,
    SearchConfig,
    TrainingConfig,
)
from safescale_ammt.config.unapplied import unapplied_to_tables
from safescale_ammt.errors import ConfigError
from safescale_ammt.files.yaml_file import read_yaml

TABLE = {"source": "file:///data.csv", "label": "income"}
FIVE = dict.fromkeys(SPLITS, 0.2)
CUT = {"splits": dict.fromkeys((*SPLITS, "sealed"), 1 / 6)}
words = st.text("abcdefgh", min_size=1, max_size=6)
seeds = st.integers(0, MAX_SEED - 1)

sections: dict[str, st.SearchStrategy[Section]] = {
    "data": st.builds(
        DataConfig,
        seed=seeds,
        drop=st.lists(words, max_size=3).map(tuple),
        missing=st.lists(words, max_size=3).map(tuple),
        label_map=st.dictionaries(words, words, max_size=3),
        crosses=st.dictionaries(words, st.tuples(words, words), max_size=2),
        merges=st.dictionaries(
            words,
            st.fixed_dictionaries(
                {"column": words, "values": st.dictionaries(words, words)}
            ),
            max_size=2,
        ),
        numeric_bins=st.integers(2, 256),
        sensitive_in_model=st.booleans(),
        format=st.sampled_from(["auto", "csv", "parquet"]),
    ),
    "search": st.builds(
        SearchConfig,
        seed=seeds,
        candidates=st.integers(1, 1000),
        eta=st.integers(2, 5),
        architecture_mutation_rate=st.floats(0, 1),
        complexity_weight=st.floats(0, 10),
    ),
    "training": st.builds(
        TrainingConfig,
        seed=seeds,
        num_agents=st.integers(1, 256) | st.just("auto"),
        agent_specializations=st.lists(
            st.sampled_from(sorted(ROLES)), min_size=1, max_size=4
        ).map(tuple),
        learning_rate=st.floats(1e-9, 10),
        sharing=st.sampled_from(["mean", "median"]),
    ),
    "safety": st.builds(
        SafetyConfig, rehearse=st.booleans(), calibration_bins=st.integers(2, 100)
    ),
    "registry": st.builds(RegistryConfig, name=words, description=st.text("ab .,")),
}


def refused(section: type[Section], raw: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        section.from_params(raw)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def through_kfp(value: Any) -> Any:
    """What a dict parameter looks like on the other side: JSON, ints as floats."""
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, dict):
        return {key: through_kfp(item) for key, item in value.items()}
    if isinstance(value, list):
        return [through_kfp(item) for item in value]
    return value


def test_the_sections_are_those_of_the_pipeline_in_its_order() -> None:
    assert list(SECTIONS) == ["data", "search", "training", "safety", "registry"]
    assert set(SECTIONS) == set(sections)


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_the_defaults_of_a_section_are_valid(name: str) -> None:
    section = SECTIONS[name]
    assert section.from_params({}) == section.from_params(None) == section()


@pytest.mark.parametrize("name", sorted(SECTIONS))
@given(data=st.data())
def test_any_section_survives_kfp_with_its_digest(
    name: str, data: st.DataObject
) -> None:
    section = data.draw(sections[name])
    carried = through_kfp(json.loads(json.dumps(section.to_params())))
    again = type(section).from_params(carried)
    assert again == section
    assert again.digest == section.digest


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_parameters_are_plain_json_without_none_or_tuples(name: str) -> None:
    def check(value: Any) -> None:
        assert isinstance(value, str | int | float | bool | list | dict)
        for item in value.values() if isinstance(value, dict) else ():
            check(item)
        for item in value if isinstance(value, list) else ():
            check(item)

    check(SECTIONS[name]().to_params())


def test_a_changed_value_changes_the_digest() -> None:
    assert SearchConfig(seed=1).digest != SearchConfig(seed=2).digest
    assert SearchConfig(seed=1).digest == SearchConfig.from_params({"seed": 1}).digest


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_an_unknown_key_lists_the_known_ones(name: str) -> None:
    sentence = refused(SECTIONS[name], {"sede": 1})
    assert f"Unknown key 'sede' in section '{name}'" in sentence
    assert all(key in sentence for key in SECTIONS[name]().to_params())


@pytest.mark.parametrize("raw", [[1], "steps=3", 4])
def test_a_section_that_is_no_mapping_is_one_clear_sentence(raw: Any) -> None:
    assert "Section 'training' must be a mapping" in refused(TrainingConfig, raw)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({"num_agents": 2.5}, "training.num_agents must be a whole number, found 2.5"),
        ({"num_agents": "8"}, "training.num_agents must be a whole number, found '8'"),
        ({"num_agents": True}, "must be a whole number, found True"),
        ({"num_agents": None}, "must be a whole number, found None"),
        ({"num_agents": float("inf")}, "must be a whole number, found inf"),
        ({"num_agents": 0}, "training.num_agents is 0, expected 1 to 256, or auto"),
        ({"num_agents": 257}, "expected 1 to 256"),
        ({"num_agents": "Auto"}, "must be a whole number, found 'Auto'"),
        (
            {"num_agents": "auto", "backend": "torchrun", "processes": 6},
            "expected 1 to 5, a net for each: 4 agents and the twin",
        ),
        ({"seed": 2**53}, "at most 2^53 - 1 survives KFP"),
        ({"seed": float(2**53)}, "at most 2^53 - 1 survives KFP"),
        ({"seed": -1}, "training.seed is -1, expected a whole number in [0, 2^53)"),
        ({"learning_rate": "fast"}, "training.learning_rate must be a number"),
        ({"learning_rate": False}, "must be a number, found False"),
        ({"learning_rate": float("nan")}, "must be finite, found nan"),
        ({"learning_rate": 0}, "training.learning_rate is 0.0, expected a value > 0"),
        ({"human_oversight_enabled": 1}, "must be true or false, found 1"),
        ({"agent_specializations": "safety"}, "must be a list, found 'safety'"),
        ({"agent_specializations": []}, "expected at least one role"),
        ({"agent_specializations": [1.5]}, "[0] must be text, found 1.5"),
        ({"sharing": "max"}, "training.sharing is 'max', expected one of fitness"),
        ({"trunk_steps": 5000}, "training.trunk_steps is 5000, expected 0 to steps"),
        ({"folds": 1}, "training.folds is 1, expected a whole number >= 2"),
        ({"self_weight": 1.1}, "self_weight is 1.1, expected a value in [0, 1]"),
        ({"dual_ki": -0.1}, "training.dual_ki is -0.1, expected a value >= 0"),
        ({"steps": 0}, "training.steps is 0, expected a value > 0"),
    ],
)
def test_an_impossible_training_value_is_one_clear_sentence(
    raw: dict[str, Any], says: str
) -> None:
    assert says in refused(TrainingConfig, raw)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("precision_switching_enabled", True),
        ("mixed_precision", True),
        ("gradient_checkpointing", True),
        ("tpu_pods", 1),
        ("evolution_frequency", 100),
        ("human_oversight_enabled", False),
        ("memory_threshold", 0.5),
        ("architecture_mutation_rate", 0.3),
        ("execution", "auto"),
        ("sensitive", ["sex"]),
    ],
)
def test_what_does_not_apply_to_a_table_is_said(key: str, value: Any) -> None:
    (reason,) = unapplied_to_tables(TrainingConfig.from_params({key: value}))
    assert f"training.{key} is" in reason
    assert "which does not apply: " in reason
    assert list(unapplied_to_tables(TrainingConfig())) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("memory_threshold", 0.0),
        ("memory_threshold", 1.5),
        ("architecture_mutation_rate", 1.1),
        ("evolution_frequency", -1),
        ("tpu_pods", -1),
        ("device", "abacus"),
        ("execution", "fast"),
    ],
)
def test_a_value_that_means_nothing_is_refused(key: str, value: Any) -> None:
    assert f"training.{key} is {value!r}, expected" in refused(
        TrainingConfig, {key: value}
    )


def test_lists_are_taken_where_a_section_is_made_in_python() -> None:
    config = TrainingConfig(agent_specializations=["safety"])  # type: ignore[arg-type]
    assert config.agent_specializations == ("safety",)
    assert config == TrainingConfig(agent_specializations=("safety",))


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({"eta": 1}, "search.eta is 1, expected a whole number >= 2"),
        ({"sample": 0}, "search.sample is 0, expected 1 to population"),
        ({"sample": 21}, "search.sample is 21, expected 1 to population"),
        ({"architecture_mutation_rate": 2}, "expected a value in [0, 1]"),
        ({"candidates": 0}, "search.candidates is 0, expected a value > 0"),
        ({"complexity_weight": -1}, "expected >= 0"),
        ({"violation_weight": -1}, "expected >= 0"),
        ({"feasibility_steps": -1}, "expected >= 0"),
        ({"strategy": "grid"}, "search.strategy is 'grid', expected one of"),
        ({"control": "random", "strategy": "random"}, "expected none where strategy"),
        ({"population": 8}, "search.population is 8, expected 6: only strategy ageing"),
        ({"sample": 2, "strategy": "random"}, "only strategy ageing reads it"),
        (
            {"architecture_mutation_rate": 0.5, "strategy": "random"},
            "expected 0.1: only strategy local or ageing reads it",
        ),
        (
            {"strategy": "ageing", "candidates": 6},
            "search.candidates is 6, expected more than search.population (6) to age",
        ),
    ],
)
def test_an_impossible_search_value_is_one_clear_sentence(
    raw: dict[str, Any], says: str
) -> None:
    assert says in refused(SearchConfig, raw)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (TABLE, "neither a sealed_source nor splits.sealed"),
        ({**TABLE, "splits": {**FIVE, "test": 0.1}}, "data.splits names 'test'"),
        ({**TABLE, "splits": {"train": 1.0}}, "gives 'validation' no rows"),
        (
            {**TABLE, "splits": {**FIVE, "select": 0}},
            "gives 'select' no rows; every one of train, validation",
        ),
        (
            {**TABLE, "splits": {**FIVE, "sealed": 0.2}},
            "expected fractions that sum to 1, not 1.2",
        ),
        (
            {
                **TABLE,
                "sealed_source": "file:///test.csv",
                "splits": {**FIVE, "train": 0.1, "sealed": 0.1},
            },
            "are both given; the sealed rows come from one place",
        ),
        ({"source": "file:///data.csv", "sealed_source": "x"}, "data.label is empty"),
        ({"label": "a", "drop": ["a"]}, "'a' is named as data.label and as data.drop"),
        ({"label": "a", "sensitive": ["a"]}, "data.label and as data.sensitive"),
        ({"sensitive": ["a"], "drop": ["b", "a"]}, "data.drop and as data.sensitive"),
        ({"numeric": ["a"], "categorical": ["a"]}, "declared numeric and categorical"),
        ({"numeric_bins": 1}, "data.numeric_bins is 1, expected 2 to 256"),
        ({"max_levels": 1}, "data.max_levels is 1, expected 2 to 4096"),
        ({"format": "json"}, "data.format is 'json', expected one of auto"),
        ({"label_map": ["<=50K."]}, "data.label_map must be a mapping"),
        ({"label_map": {"a": 3.5}}, "label_map.a must be text, found 3.5; put it in"),
        ({"label": 1.1}, "data.label must be text, found 1.1; put it in quotes"),
        ({"label": MAX_SEED}, f"must be text, found {MAX_SEED}; put it in quotes"),
        ({"positive": date(2026, 11, 16)}, "2026, 11, 16); put it in quotes"),
        ({"label": ["y"]}, "data.label must be text, found ['y']."),
        ({"label_map": {3.5: "a"}}, "data.label_map key must be text, found 3.5"),
        ({"splits": {**FIVE, "train": "most"}}, "data.splits.train must be a number"),
    ],
)
def test_an_impossible_data_value_is_one_clear_sentence(
    raw: dict[str, Any], says: str
) -> None:
    assert says in refused(DataConfig, raw)


NAMED: tuple[tuple[str, Any], ...] = (
    ("label", "{}"),
    ("entity", "{}"),
    ("trusted_label", "{}"),
    *((key, ["age", "{}"]) for key in ("sensitive", "drop", "ids", "columns")),
    *((key, ["age", "{}"]) for key in ("numeric", "categorical", "allow_leak")),
    ("numbers", {"{}": "."}),
    ("dates", {"{}": "ymd"}),
    ("repeats", {"{}": "age"}),
    ("repeats", {"age": "{}"}),
    ("population", {"{}": {"a": 0.5, "b": 0.5}}),
    ("merges", {"{}": {"column": "age", "values": {"a": "b"}}}),
    ("merges", {"band": {"column": "{}", "values": {"a": "b"}}}),
    ("crosses", {"{}": ["age", "sex"]}),
    ("crosses", {"both": ["age", "{}"]}),
)
"""Every place of the data section where a column or a group is named."""


def with_name(form: Any, name: Any) -> Any:
    """Returns a value with a name in place of `{}`."""
    if isinstance(form, dict):
        return {with_name(k, name): with_name(v, name) for k, v in form.items()}
    if isinstance(form, list):
        return [with_name(item, name) for item in form]
    return name if form == "{}" else form


@pytest.mark.parametrize(("key", "form"), NAMED)
@pytest.mark.parametrize("name", ["", " ", "\t \n", "\u3000", 1.5, None, True])
def test_a_name_that_no_column_can_have_is_refused_where_the_section_is_read(
    key: str, form: Any, name: Any
) -> None:
    if form == "{}" and name == "":
        assert getattr(DataConfig.from_params({key: name}), key) == ""
        return
    sentence = refused(DataConfig, {key: with_name(form, name)})
    assert sentence.startswith(f"data.{key}")
    assert "is blank" in sentence if isinstance(name, str) else "be text" in sentence


def test_every_list_and_mapping_of_the_data_names_columns_or_says_otherwise() -> None:
    # Values, classes, spellings and splits: "" is one of them.
    others = {"label_map", "missing", "splits"}
    kept = {
        key
        for key, value in DataConfig().to_params().items()
        if isinstance(value, list | dict)
    }
    assert kept - others == {key for key, form in NAMED if form != "{}"}


@pytest.mark.parametrize("name", ["", " "])
def test_groups_of_a_users_dataset_have_names(name: str) -> None:
    sentence = refused(TrainingConfig, {"sensitive": ["sex", name]})
    assert "training.sensitive[1] is blank" in sentence


def test_sealed_rows_come_from_a_fraction_or_from_an_official_file() -> None:
    sixths = dict.fromkeys((*SPLITS, "sealed"), 1 / 6)
    assert DataConfig.from_params({**TABLE, "splits": sixths}).splits == sixths
    given_file = {**TABLE, "sealed_source": "file:///test.csv"}
    assert DataConfig.from_params(given_file).sealed_source == "file:///test.csv"


def test_a_section_over_64_kib_is_refused() -> None:
    sentence = refused(DataConfig, {"drop": ["x" * MAX_BYTES]})
    assert f"at most {MAX_BYTES} fit in a pipeline parameter" in sentence


@pytest.mark.parametrize(
    "name", ["", "Adult", "a_b", "-a", "a-", ".a", "a" * 64, "a/b", "a b", "a\n"]
)
def test_a_registry_name_that_no_store_would_take_is_refused(name: str) -> None:
    assert "1 to 63 lower-case letters" in refused(RegistryConfig, {"name": name})


@pytest.mark.parametrize("name", ["a", "adult-income", "v1.2", "a" * 63])
def test_a_plain_registry_name_is_accepted(name: str) -> None:
    assert RegistryConfig.from_params({"name": name}).name == name


def test_calibration_needs_at_least_two_bins() -> None:
    assert "expected 2 to 100" in refused(SafetyConfig, {"calibration_bins": 1})


def test_a_section_is_immutable() -> None:
    with pytest.raises(FrozenInstanceError):
        SearchConfig().seed = 3  # type: ignore[misc]


def test_a_key_that_the_strategy_reads_may_have_any_value_in_range() -> None:
    aged = {"strategy": "ageing", "candidates": 12, "population": 8, "sample": 5}
    assert SearchConfig.from_params(aged).population == 8
    mutating = SearchConfig.from_params({"architecture_mutation_rate": 0.5})
    assert mutating.strategy == "local"


def test_a_control_is_no_other_search() -> None:
    plain, measured = SearchConfig(), SearchConfig(control="random")
    assert plain.digest == measured.digest
    assert plain.digest != SearchConfig(strategy="random").digest


def test_the_digest_of_a_search_section_is_that_of_before_strategies() -> None:
    # Of the default section, by the version that had neither strategy nor control.
    before = "sha256:b30cb359fc0833d31e4cf280b70153cefc509608b5cf164269087f74dbfcde28"
    assert SearchConfig().digest == before


def test_rows_are_one_dataset_whichever_engine_prepares_them() -> None:
    here = DataConfig.from_params({"label": "y", "numeric_bins": 7})
    there = DataConfig.from_params({"label": "y", "numeric_bins": 7, "engine": "spark"})
    assert here.engine == "local"
    assert there.engine == "spark"
    assert there.digest == here.digest
    # Of the version that had no engine: what is stored by this name stays found.
    before = "sha256:1f93e28b5590eb944b2a9f5b2692ea270a037ceb7ea0928f3cc6c9152fdddea0"
    assert DataConfig(label="y").digest == before


def test_an_engine_that_nobody_has_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        DataConfig.from_params({"engine": "Spark"})
    assert str(caught.value) == (
        "data.engine is 'Spark', expected one of local, spark; the nearest is 'spark'."
    )


@pytest.mark.parametrize("name", ["visions", "poet", "Safety", ""])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_role_that_nobody_knows_is_refused_where_the_section_is_read(
    name: str, place: int
) -> None:
    roles = ["generalist", "safety", "robust"]
    roles.insert(place, name)
    sentence = refused(TrainingConfig, {"agent_specializations": roles})
    assert f"training.agent_specializations names {name!r}" in sentence
    assert "expected one of calibrated, efficiency" in sentence


@pytest.mark.parametrize("value", [-1.0, float("nan"), "s", None, True])
@pytest.mark.parametrize("name", ["attack", "brier", "weight_decay"])
def test_a_role_has_numbers_that_a_step_can_be_taken_with(
    name: str, value: Any
) -> None:
    numbers: dict[str, Any] = {name: value}
    with pytest.raises(ConfigError, match=f"has {name} {value!r}, expected a number"):
        Role("mine", "what I favour", **numbers)


@pytest.mark.parametrize(
    ("written", "text"),
    [("1", "1"), ("0", "0"), ("-1", "-1"), ("1.0", "1.0"), ("true", "True")]
    + [(text, text) for text in ("NO", "yes", "On", "off", "0123", "1:30", "0o17")],
)
def test_a_value_of_the_data_needs_no_quotes(
    written: str, text: str, tmp_path: Path
) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(
        f"positive: {written}\nlabel_map: {{{written}: {written}}}\n"
        f"missing: [{written}]\n"
    )
    data = DataConfig.from_params(read_yaml(file, ConfigError) | TABLE | CUT)
    assert data.positive == text
    assert data.label_map == {text: text}
    assert data.missing == (text,)


@pytest.mark.parametrize("written", ["yes", "On", "TRUE", "true"])
def test_a_flag_may_be_a_yes_of_yaml_1_1(written: str, tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(f"rehearse: {written}\n")
    assert SafetyConfig.from_params(read_yaml(file, ConfigError)).rehearse


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("budget_seconds", "ten"),
        ("branch", "often"),
        ("tune", "populaton"),
        ("merge", "soop"),
        ("tune_also", None),
        ("sensitive", "sex"),
        ("num_agents", 3.5),
        ("seed", 1.5),
    ],
)
def test_a_value_of_another_kind_that_is_written_in_python_is_refused(
    key: str, value: Any
) -> None:
    with pytest.raises(ConfigError, match=f"^training.{key} "):
        TrainingConfig(**{key: value})


def test_one_number_of_numpy_or_torch_is_a_number() -> None:
    config = TrainingConfig(steps=np.int64(500), learning_rate=torch.tensor(0.5))
    assert (config.steps, config.learning_rate) == (500, 0.5)
    assert type(config.steps) is int
