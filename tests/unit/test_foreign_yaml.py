"""YAML of others: bounded in size, levels and values, and nothing that JSON has not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from foreign_world import OTHERS, nested, within
from small_tables import config

from pipelines.workload import Workload
from safescale_ammt.config.sections import SECTIONS
from safescale_ammt.errors import ConfigError, SafescaleError
from safescale_ammt.files import yaml_file
from safescale_ammt.files.canonical import canonical_json
from safescale_ammt.files.yaml_file import parse_yaml, read_yaml

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
REFUSED = {
    "aliases of aliases": (LAUGHS, "more than 50,000 values"),
    "a long text again and again": (
        f"a: &a '{'x' * 100_000}'\nb: [{', '.join(['*a'] * 1000)}]",
        "more than 50,000 values",
    ),
    "an alias of itself": ("a: &a [1, *a]", "stands inside of what it names"),
    "an alias of itself as a key": ("&a {? *a : 1}", "stands inside of what it names"),
    "deep lists": (nested(500), "more than 32 levels"),
    "deep mappings": ("".join(" " * i + "a:\n" for i in range(500)), "32 levels"),
    "deep points": ("- " * 500, "32 levels"),
    "deep keys": ("? " * 500, "32 levels"),
    "a long number": ("a: " + "9" * 5000, "more than 64 bits"),
    "a long number of hex": ("a: 0x" + "f" * 5000, "more than 64 bits"),
    "beyond 64 bits": ("a: 9223372036854775808", "more than 64 bits"),
    "a merge": ("<<: {a: 1}", "could not determine a constructor"),
    "a program": ("a: !!python/object/apply:os.system [ls]", "could not determine"),
    "bytes": ("a: !!binary aGVsbG8=", "could not determine"),
    "a set": ("a: !!set {x, y}", "could not determine"),
    "pairs": ("a: !!omap [a: 1]", "could not determine"),
    "a tag that lies": ("a: !!bool abc", "not what its tag says"),
    "a time that lies": ("a: !!timestamp abc", "not what its tag says"),
    "no number": ("a: !!int abc", "invalid literal"),
    "a list as a key": ("? [a, b]\n: 1", "unhashable key"),
    "a key twice": ("a: 1\na: 2", "given twice"),
    "two documents": ("--- a\n--- b", "single document"),
    "no such day": ("a: 2026-02-30", "day is out of range"),
    "no such alias": ("a: *b", "undefined alias"),
    "no such character": ('a: "\\U00110000"', "chr"),
    "a raw control character": ("a: b\0", "special characters are not allowed"),
    "a large file": ("x" * (yaml_file.LARGEST + 1), "a file of its kind at most"),
}


@pytest.fixture(autouse=True)
def _nobody_waits() -> Iterator[None]:
    with within(30):
        yield


@pytest.mark.parametrize("kind", REFUSED)
def test_yaml_that_multiplies_or_lies_is_one_sentence(
    tmp_path: Path, kind: str
) -> None:
    text, said = REFUSED[kind]
    (tmp_path / "x.yaml").write_text(text)

    with pytest.raises(ConfigError, match=said) as caught:
        read_yaml(tmp_path / "x.yaml", ConfigError)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_bytes_that_are_no_text_are_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\0\0")

    with pytest.raises(ConfigError, match="is not YAML"):
        read_yaml(tmp_path / "x.yaml", ConfigError)


def test_an_alias_stands_for_what_it_names() -> None:
    text = "a: &a {x: [1, 2], y: é}\nb: *a\nc: [*a, *a]"

    read = parse_yaml(text)

    assert read["b"] == read["a"] == read["c"][1] == {"x": [1, 2], "y": "é"}


def test_a_list_of_many_values_is_read() -> None:
    assert parse_yaml(str(list(range(5000)))) == list(range(5000))


@pytest.mark.parametrize("kind", [k for k in REFUSED if k != "a large file"])
def test_an_override_is_read_with_the_same_care(tmp_path: Path, kind: str) -> None:
    (tmp_path / "my.yaml").write_text("schema: 1\n")

    with pytest.raises(ConfigError):
        Workload.load(
            tmp_path / "my.yaml", overrides=[f"data.merges={REFUSED[kind][0]}"]
        )


@pytest.mark.parametrize("section", SECTIONS)
def test_a_value_of_any_type_in_any_key_is_a_sentence(section: str) -> None:
    sound = config(source="file:///x.csv") if section == "data" else {}
    others: tuple[Any, ...] = (
        *(math.inf, math.nan, 10**400, date(2026, 1, 1), b"x", {1: 2}, {None: 1}),
        *("\x1b[2J", "a\u202eb", "\ud800", ["\x1b"], {"\x1b": "x"}, {"x": "\x9b"}),
        *OTHERS,
    )
    for key in SECTIONS[section]().to_params():
        for other in others:
            text = outcome_of(section, {**sound, key: other})
            assert not {"\x1b", "\u202e", "\x9b", "\n"} & set(text), key


def outcome_of(section: str, raw: dict[str, Any]) -> str:
    """Returns what a section holds, as JSON, or the sentence that refuses it."""
    try:
        made = SECTIONS[section].from_params(raw)
    except SafescaleError as error:
        return str(error)
    return canonical_json(made.to_params()).decode()


@pytest.mark.parametrize("text", ['"\\e[2J"', '"a\\u202eb"', '"\\x9b1m"', '"\\u200b"'])
def test_a_name_that_nobody_sees_is_no_name_of_a_config(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "my.yaml").write_text(f"schema: 1\ndata: {{label: {text}}}\n")

    with pytest.raises(ConfigError, match="holds a line break, a control character"):
        Workload.load(tmp_path / "my.yaml")
