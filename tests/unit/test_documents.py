"""What the documents show is what the product reads; their tables are up to date."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks import claims, configuration
from benchmarks.pages import cell, replaced, table
from benchmarks.provenance import WHOLE, measured_code
from pipelines.cli import _COMMANDS, run_command
from pipelines.workload import Workload
from safescale_ammt.config.section import Section
from safescale_ammt.config.sections import SECTIONS
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.principles import (
    JUDGED,
    REFERENCES,
    SKILL_METRICS,
    TIERS,
)
from safescale_ammt.data.local_table import prepare_here
from safescale_ammt.errors import ConfigError
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.reading.sources import parse_bytes
from safescale_ammt.reading.spool import Spool

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
PAGE = (DOCS / "configuration.md").read_text(encoding="utf-8")


def blocks(page: Path) -> list[str]:
    """Returns the YAML blocks of a page, as a reader would copy them."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def block(page: Path, title: str) -> str:
    """Returns the block whose first line is this comment."""
    (found,) = [b for b in blocks(page) if b.startswith(f"# {title}")]
    return found


def loans(path: Path, count: int = 12_000) -> Path:
    """Writes the table that the examples speak of."""
    rng = np.random.default_rng(1)
    income = rng.normal(30, 8, count)
    repaid = income + rng.normal(0, 6, count) > 27
    spelled = np.where(rng.random(count) < 0.1, "Repaid.", "repaid")
    columns = {
        "application_id": np.arange(count),
        "income": income.round(2),
        "district": rng.choice(["north", "south", "east", "isle"], count),
        "sex": rng.choice(["f", "m"], count),
        "outcome": np.where(repaid, spelled, "lost"),
    }
    if path.name != "with-spellings.csv":
        columns["outcome"] = np.where(repaid, "repaid", "lost")
    rows = zip(*(column.astype(str) for column in columns.values()), strict=True)
    text = "\n".join([",".join(columns), *(",".join(row) for row in rows)])
    path.write_text(text + "\n", encoding="utf-8")
    return path


def test_the_pair_in_the_readme_is_checked_from_raw_rows(tmp_path, monkeypatch, capsys):
    for name in ("my.yaml", "my.constitution.yaml"):
        (tmp_path / name).write_text(block(README, name), encoding="utf-8")
    loans(tmp_path / "loans.csv")
    monkeypatch.chdir(tmp_path)
    # As the README has it, word for word.
    command = "constitution check --config my.yaml"
    assert f"safescale {command}" in README.read_text(encoding="utf-8")
    assert run_command(command.split()) == 0
    told = capsys.readouterr().out
    for promise in ("equal-opportunity", "useful"):
        assert re.search(rf"  {promise} \(.*\): certifiable", told)


def test_too_few_rows_for_the_pair_in_the_readme_are_refused_as_it_says(
    tmp_path, monkeypatch, capsys
):
    for name in ("my.yaml", "my.constitution.yaml"):
        (tmp_path / name).write_text(block(README, name), encoding="utf-8")
    loans(tmp_path / "loans.csv", 2_500)
    monkeypatch.chdir(tmp_path)
    assert run_command(["constitution", "check", "--config", "my.yaml"]) == 2
    assert "equal-opportunity (tpr_gap by sex <= 0.1)" in capsys.readouterr().err


def test_every_form_of_a_principle_is_shown_and_judged_on_the_mappings_example(
    tmp_path, capsys
):
    loans(tmp_path / "with-spellings.csv")
    raw = yaml.safe_load(block(DOCS / "configuration.md", "loans.yaml"))
    raw["data"] |= {"source": "with-spellings.csv", "drop": ["application_id"]}
    raw |= {"schema": 1, "constitution_file": "c.yaml"}
    rules = block(DOCS / "configuration.md", "every-form")
    (tmp_path / "c.yaml").write_text(rules, encoding="utf-8")
    (tmp_path / "w.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    arguments = ["--config", str(tmp_path / "w.yaml"), "--draws", "200"]
    assert run_command(["constitution", "check", *arguments]) == 0
    told = capsys.readouterr().out
    constraints = [
        p.constraint for p in Constitution.from_dict(yaml.safe_load(rules)).principles
    ]
    assert {c.tier for c in constraints} == set(TIERS)
    assert {c.reference for c in constraints} == {None, *REFERENCES}
    assert {c.metric for c in constraints} & set(SKILL_METRICS)
    for principle in yaml.safe_load(rules)["principles"]:
        assert f"\n  {principle['id']} (" in told


def test_the_mappings_come_to_what_the_page_says(tmp_path):
    raw = yaml.safe_load(block(DOCS / "configuration.md", "loans.yaml"))["data"]
    path = loans(tmp_path / "with-spellings.csv")
    config = SECTIONS["data"].from_params({**raw, "source": path.as_uri()})
    rows = parse_bytes(path.read_bytes(), "loans.csv", Layout("csv"))
    schema = prepare_here(config, [Spool.of(rows)]).schema
    assert (set(schema.classes), schema.positive) == ({"lost", "repaid"}, "repaid")
    assert set(schema.groups) == {"sex", "district", "region", "sex_by_region"}
    for group in ("region", "sex_by_region", "district", "sex"):
        for value in schema.groups[group]:
            assert f"`{value}`" in PAGE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_constitution_and_config_in_a_document_is_read(page):
    for text in blocks(page):
        raw = yaml.safe_load(text)
        if not isinstance(raw, dict):
            continue
        if "principles" in raw:
            Constitution.from_dict(raw)
        for name in SECTIONS.keys() & raw.keys():
            SECTIONS[name].from_params(raw[name])


def test_the_page_of_the_configuration_is_up_to_date():
    assert configuration.page(PAGE) == PAGE, "run `make docs`"


MARK = ", on older code |"


def claimed():
    """The lines of the claims' page, and each stored result with today's code."""
    lines = claims.PAGE.read_text(encoding="utf-8").splitlines()
    for file in sorted(claims.RESULTS.glob("*.json")):
        stored = json.loads(file.read_text(encoding="utf-8"))
        yield lines, stored, measured_code(stored["name"])


def test_the_page_of_the_measurements_has_the_stored_claims():
    for lines, stored, _ in claimed():
        plain = [line.replace(MARK, " |") for line in lines]
        for goal in stored["goals"]:
            line = claims.line(stored["name"], goal, stale=False)
            assert line in plain, "run `make docs`"


def test_the_page_of_the_measurements_calls_nothing_fresh_that_is_old():
    for lines, stored, now in claimed():
        # The count of the code is of the commit that it names: any commit makes it old.
        if stored["name"] in WHOLE or not claims.staleness(stored, now):
            continue
        for goal in stored["goals"]:
            line = claims.line(stored["name"], goal, stale=True)
            assert line in lines, "run `make docs`"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("| `1200` |", "| `1000` |"),
        ("Column to predict.", "Column to foretell."),
        ("| 2 to 4096 |", "| 2 to 64 |"),
        ("| `gate.alpha` |", "| `gate.level` |"),
        ("| selection-rate gap |", "| selection gap |"),
    ],
)
def test_a_page_that_says_something_else_is_out_of_date(before, after):
    assert before in PAGE
    stale = PAGE.replace(before, after)
    assert configuration.page(stale) == PAGE != stale


def test_every_key_has_a_row_with_a_meaning_and_an_example():
    for name, section in SECTIONS.items():
        part = PAGE.split(f"### `{name}`\n")[1].split("\n###")[0]
        for field in fields(section):
            (row,) = [x for x in part.splitlines() if x.startswith(f"| `{field.name}`")]
            *_, meaning, example, _ = re.split(r"(?<!\\)\|", row)
            assert len(meaning.split()) >= 3, row
            assert f"`{field.name}:" in example, row


def test_every_key_of_a_canonical_constitution_has_a_row():
    rules = block(DOCS / "configuration.md", "every-form")
    canonical = Constitution.from_dict(yaml.safe_load(rules)).to_dict()

    def paths(value: Any, where: str) -> set[str]:
        # Below it stand columns of the author's own.
        if where.endswith(".threat.columns"):
            return {where.removeprefix(".")}
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return {path for item in value for path in paths(item, f"{where}[]")}
        if isinstance(value, dict) and value:
            return {p for k, v in value.items() for p in paths(v, f"{where}.{k}")}
        return {where.removeprefix(".")}

    for path in paths(canonical, "") - {"schema"}:
        assert f"\n| `{path}` |" in PAGE
    for metric in JUDGED:
        assert f"\n| `{metric}` |" in PAGE


@dataclass(frozen=True)
class PlannedConfig(Section):
    """A section that nobody wrote an example for."""

    speed: int = 3
    """How fast it goes."""
    names: tuple[str, ...] = ()
    """Whom it is for."""
    careful: bool = False
    """Whether it looks twice."""

    def __post_init__(self) -> None:
        """Checks ranges."""
        self.require_positive("speed")


def test_a_new_key_is_described_without_a_word_beside_its_docstring():
    rows = list(configuration.section_rows(PlannedConfig))
    assert rows[0][:5] == (
        *("`speed`", "whole number", "`3`"),
        *("a value > 0", "How fast it goes."),
    )
    assert [row[5] for row in rows] == ["`speed: 6`", "`names: []`", "`careful: true`"]


def test_an_example_that_a_section_refuses_is_not_printed(monkeypatch):
    lines = {**configuration.EXAMPLES, "planned.speed": {"speed": -1}}
    monkeypatch.setattr(configuration, "EXAMPLES", lines)
    with pytest.raises(ConfigError, match=r"planned\.speed is -1"):
        list(configuration.section_rows(PlannedConfig))


def test_a_cell_holds_one_line_and_no_bar():
    assert cell("a |\n b") == "a \\| b"
    assert table(("x", "y"), [(1, "a|b")]).splitlines()[-1] == "| 1 | a\\|b |"


@pytest.mark.parametrize("text", ["", "<!-- k: start -->\n", "<!-- k: end -->\n" * 2])
def test_a_page_without_both_marks_is_left_alone(text):
    with pytest.raises(ValueError, match="once each"):
        replaced(text, "k", "new")


def test_the_packaged_workloads_are_read():
    for name in ("adult", "compas"):
        Workload.load(ROOT / "pipelines" / f"{name}.yaml")


def test_every_test_that_the_security_page_names_exists():
    named = set(re.findall(r"`(test_\w+)`", (DOCS / "security.md").read_text("utf-8")))
    found = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        found |= set(re.findall(r"(?m)^def (test_\w+)", file.read_text("utf-8")))
    assert len(named) > 20
    assert sorted(named - found) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_names_is_there(page):
    # In code alone: prose has "safescale" as a word of its own.
    text = page.read_text(encoding="utf-8")
    code = re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL)
    named = re.findall(r"(?m)(?:^|`|\$ |&& )safescale ([a-z|]+)", "\n".join(code))
    for word in {w for words in named for w in words.split("|")}:
        assert word in _COMMANDS, word


def anchors(page: Path) -> set[str]:
    """Returns what a link may name in a page: its headings, as GitHub spells them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}


@pytest.mark.parametrize(
    "page",
    [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))],
    ids=lambda p: p.name,
)
def test_every_link_of_a_document_leads_to_a_file_and_a_heading(page):
    links = re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not heading or heading in anchors(target), link


NOT_YET = {"safescale_ammt/judging/attacks.py", "judging/attacks.py"}
"""Where something would go that is not there."""
# Decisions tell of files as they were.
OF_TODAY = [p for p in PAGES if p.name != "decisions.md"]


@pytest.mark.parametrize(
    "page", [*OF_TODAY, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name
)
def test_every_file_of_ours_that_a_document_names_is_there(page):
    folders = [p for p in ROOT.iterdir() if p.is_dir() and p.name[0] != "."]
    ours = [f"/{f.relative_to(ROOT)}" for p in folders for f in p.rglob("*.py")]
    named = set(re.findall(r"[\w/]+\.py\b", page.read_text(encoding="utf-8")))
    absent = {n for n in named if not any(file.endswith(f"/{n}") for file in ours)}
    assert absent <= NOT_YET
