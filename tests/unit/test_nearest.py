"""A name that nobody knows is answered with the name that is spelled most like it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipelines.cli import run_command
from pipelines.kubeflow.cron import six_fields
from pipelines.workload import Workload
from safescale_ammt.config.sections import SECTIONS
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.principles import JUDGED
from safescale_ammt.data.shown import shown_values
from safescale_ammt.errors import InputError, SafescaleError, nearest, one_of
from safescale_ammt.reading.columns import RawTable
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.reading.sources import parse_bytes

KEYS = [(name, f.name) for name, kind in SECTIONS.items() for f in fields(kind)]
PRINCIPLE = {
    "id": "fair",
    "constraint": {"metric": "tpr_gap", "group": "sex", "threshold": 0.1},
}


def said(act: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(SafescaleError) as error:
        act(*arguments, **named)
    return str(error.value)


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_a_slip_in_any_key_of_any_section_is_answered_with_the_key(section, key):
    names = {f.name for f in fields(SECTIONS[section])}
    for slip in (key.upper(), key.replace("_", "-"), key[1:], key + "s"):
        if slip not in names:
            sentence = said(SECTIONS[section].from_params, {slip: 1})
            assert f"; the nearest is {key!r}." in sentence


@given(st.sampled_from(sorted({key for _, key in KEYS})), st.integers(0, 40))
def test_a_name_without_one_of_its_letters_is_nearest_to_itself(key: str, place: int):
    names = {key for _, key in KEYS}
    slip = key[: place % len(key)] + key[place % len(key) + 1 :]
    if len(key) > 3 and slip not in names:
        assert nearest(slip, {key, "zzzz"}) == key


@pytest.mark.parametrize("found", ["quux", "", True, None, 5, ["sex"], "x" * 10**6])
def test_what_is_near_to_nothing_is_given_no_suggestion(found):
    assert one_of(["sex", "race"], found) == "expected one of race, sex"


def workload(tmp_path: Path, **parts: Any) -> Path:
    raw = {
        "schema": 1,
        "constitution": {"schema": 1, "principles": [PRINCIPLE]},
        "data": {"source": "x.csv", "label": "y", "sensitive": ["sex"]},
    }
    raw["data"]["splits"] = dict(
        zip(
            ("train", "validation", "constraint", "monitor", "select", "sealed"),
            (0.4, 0.1, 0.1, 0.1, 0.1, 0.2),
            strict=True,
        )
    )
    file = tmp_path / "w.yaml"
    file.write_text(yaml.safe_dump({**raw, **parts}))
    return file


@pytest.mark.parametrize(
    ("parts", "near"),
    [
        ({"trainings": {}}, "; the nearest is 'training'"),
        ({"Data": {}}, "; the nearest is 'data'"),
        ({"constitution-file": "c.yaml"}, "; the nearest is 'constitution_file'"),
        ({"label": "y"}, "; 'label' is a key of section data"),
        ({"seed": 1}, "; 'seed' is a key of section data and search and training"),
        ({"data": {"merge": {}}}, "'merges'; 'merge' is a key of section training"),
        ({"data": {"steps": 5}}, "; 'steps' is a key of section training"),
        ({"training": {"label": "y"}}, "; 'label' is a key of section data"),
    ],
)
def test_a_workload_says_what_is_near_and_where_a_key_belongs(tmp_path, parts, near):
    assert f"{near}." in said(Workload.load, workload(tmp_path, **parts))


@pytest.mark.parametrize(
    ("override", "near"),
    [
        ("trainng.steps=5", "'training'"),
        ("training.step=5", "'steps'"),
        ("data.merge.m=5", "'merges'"),
        ("safety.Rehearse=true", "'rehearse'"),
    ],
)
def test_a_slip_in_an_override_is_answered_with_the_name(tmp_path, override, near):
    sentence = said(Workload.load, workload(tmp_path), overrides=[override])
    assert f"; the nearest is {near}" in sentence


def test_an_override_of_a_key_in_another_section_names_its_section(tmp_path):
    sentence = said(Workload.load, workload(tmp_path), overrides=["data.steps=5"])
    assert sentence.endswith("; 'steps' is a key of section training.")


def test_a_slip_in_a_nested_key_is_answered_with_the_key():
    raw = {"merges": {"who": {"column": "sex", "value": {"a": "b"}}}}
    sentence = said(SECTIONS["data"].from_params, raw)
    assert "data.merges.who" in sentence
    assert sentence.endswith("; the nearest is 'values'.")
    sentence = said(SECTIONS["data"].from_params, {"splits": {"sealled": 0.5}})
    assert sentence.endswith("; the nearest is 'sealed'.")


@pytest.mark.parametrize(
    ("raw", "near"),
    [
        ({"principals": []}, "principles"),
        ({"gate": {"alfa": 0.1}}, "alpha"),
        ({"gate": {"on_uncertifiable": "Refuse"}}, "refuse"),
        ({"groups": {"min-n": 3}}, "min_n"),
        ({"human": {"quorums": 1}}, "quorum"),
        ({"constitution": {"ID": "x"}}, "id"),
        ({"principles": [{**PRINCIPLE, "texts": "x"}]}, "text"),
        ({"principles": [{**PRINCIPLE, "train": {"enforced": True}}]}, "enforce"),
    ],
)
def test_a_slip_in_a_constitution_is_answered_with_the_name(raw, near):
    whole = {"schema": 1, "principles": [PRINCIPLE], **raw}
    assert f"; the nearest is {near!r}" in said(Constitution.from_dict, whole)


@pytest.mark.parametrize("metric", JUDGED)
def test_a_slip_in_a_metric_is_answered_with_the_metric(metric):
    for slip in (metric.upper(), metric.replace("_", "-") + "s", metric[:-1]):
        constraint = {**PRINCIPLE["constraint"], "metric": slip}
        whole = {"schema": 1, "principles": [{"id": "p", "constraint": constraint}]}
        assert f"; the nearest is {metric!r}" in said(Constitution.from_dict, whole)


def test_a_promise_about_a_group_that_is_spelled_otherwise_names_the_group(tmp_path):
    constraint = {**PRINCIPLE["constraint"], "group": "Sex"}
    rules = {"schema": 1, "principles": [{"id": "p", "constraint": constraint}]}
    sentence = said(Workload.load, workload(tmp_path, constitution=rules))
    assert sentence.endswith("; the nearest is 'sex'.")


def table(header: str, **layout: Any) -> RawTable:
    rows = f"{header}\n1,a\n2,b\n".encode()
    return parse_bytes(rows, "t.csv", Layout("csv", **layout))


def test_a_column_that_the_data_spell_otherwise_is_told_without_a_cell():
    sentence = said(table("age,Sex").column, "sex", "data.sensitive")
    assert sentence.endswith("and column 2 is spelled nearly like 'sex'.")
    assert "Sex" not in sentence
    declared = table("9,x", columns=("age", "gender"))
    assert declared.near("Gender") == "; the nearest is 'gender'"


def test_a_column_that_has_a_name_of_its_own_is_no_slip_of_another():
    assert table("age,dep").near("emp") == ", and column 2 is spelled nearly like 'emp'"
    assert table("age,dep").near("emp", ("dep", "emp")) == ""


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["rum"], "; the nearest is 'run'"),
        (["regestry"], "; the nearest is 'registry'"),
        (["run", "--parm", "cpu=1"], "--param"),
        (["run", "--param", "CPU=1"], "; the nearest is 'cpu'"),
        (["registry", "verfy"], "'verify'"),
        (["data", "fetch", "Adult"], "; the nearest is 'adult'"),
        (["stage", "prepare-data"], "; the nearest is 'prepare_data'"),
        (["run", "--runner", "Docker"], "; the nearest is 'docker'"),
    ],
)
def test_a_slip_on_the_command_line_is_answered_with_the_name(arguments, near, capsys):
    assert run_command(arguments) == 2
    assert near in capsys.readouterr().err


def test_a_built_in_data_set_that_is_spelled_otherwise_is_named(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAFESCALE_STORE", (tmp_path / "store").as_uri())
    file = workload(tmp_path)
    source = ["--set", "data.source=adlt", "--output", str(tmp_path / "runs")]
    assert run_command(["run", "--config", str(file), *source]) == InputError.exit_code
    assert "; the nearest is 'adult'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("1e-3", "found '1e-3', a text to YAML; write 0.001 without quotes."),
        ("-.01", "found '-.01', a text to YAML; write -0.01 without quotes."),
        ("8", "found '8', a text to YAML; write 8 without quotes."),
        ("fast", "found 'fast'."),
        ("nan", "found 'nan'."),
        (True, "found True."),
        ([1], "found [1]."),
    ],
)
def test_a_number_that_yaml_takes_for_text_is_answered_with_its_spelling(value, says):
    for section, key in (("training", "learning_rate"), ("training", "steps")):
        sentence = said(SECTIONS[section].from_params, {key: value})
        assert sentence.endswith(says)
    constraint = {**PRINCIPLE["constraint"], "threshold": value}
    whole = {"schema": 1, "principles": [{"id": "p", "constraint": constraint}]}
    assert said(Constitution.from_dict, whole).endswith(says)


def test_a_value_of_a_column_is_only_near_if_many_rows_share_it():
    assert shown_values({"repaid": 50, "lost": 40}, "Repayed").endswith(
        ", expected one of lost, repaid; the nearest is 'repaid'"
    )
    # One of a kind may be a person's.
    rare = shown_values({"repaid": 50, "Repayed.": 3}, "Repayed")
    assert rare.endswith("; the nearest is 'repaid'")
    assert "Repayed." not in rare
    assert shown_values({f"name{i}": 50 for i in range(11)}, "name3") == (
        ", found 11 other values"
    )


def test_a_cron_word_that_is_spelled_otherwise_is_answered_with_the_word():
    assert "; the nearest is '@daily', or --every" in said(six_fields, "@dayly")
