"""Every key of a config is read by some line, or said not to apply."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from policy.config_reads import Code

from safescale_ammt.config.section import Section
from safescale_ammt.config.sections import SECTIONS, TrainingConfig
from safescale_ammt.config.unapplied import (
    unapplied_to_modules,
    unapplied_to_tables,
)
from safescale_ammt.constitution.constitution import (
    Constitution,
    GateRule,
    GroupRule,
    HumanRule,
)
from safescale_ammt.constitution.principles import Constraint, Principle

ROOT = Path(__file__).parents[2]
HOUSE = ("safescale_ammt", "components", "pipelines")
KEYS = [(kind, f.name) for kind in SECTIONS.values() for f in fields(kind)]


SAID = {"architecture_mutation_rate", "evolution_frequency"}
"""Public names of training that nothing reads, and that say so where they are given."""


def reads(root: Path, folders: Iterable[str] = HOUSE) -> set[tuple[str, str]]:
    files = [f for folder in folders for f in sorted((root / folder).rglob("*.py"))]
    return Code.parse(files).reads()


@pytest.fixture(scope="module")
def found() -> set[tuple[str, str]]:
    return reads(ROOT)


@pytest.mark.parametrize(
    ("kind", "key"), KEYS, ids=[f"{kind.section}.{key}" for kind, key in KEYS]
)
def test_a_key_is_read_by_a_line_or_said_not_to_apply(
    found: set[tuple[str, str]], kind: type[Section], key: str
) -> None:
    said = kind is TrainingConfig and key in SAID
    assert ((kind.__name__, key) in found) != said


@pytest.mark.parametrize("key", sorted(SAID))
def test_a_name_that_nobody_reads_is_said_not_to_apply(key: str) -> None:
    config = TrainingConfig(**{key: 1})
    for unapplied in (unapplied_to_tables, unapplied_to_modules):
        (reason,) = unapplied(config)
        assert f"training.{key} is 1" in reason


PROMISES = (Constitution, GateRule, GroupRule, HumanRule, Constraint, Principle)


@pytest.mark.parametrize("kind", PROMISES)
def test_every_entry_of_a_constitution_is_read_outside_of_its_own_file_form(
    found: set[tuple[str, str]], kind: Any
) -> None:
    for entry in fields(kind):
        assert (kind.__name__, entry.name) in found, entry.name


# --- the ruler itself ---

CONFIG = """
class Asked:
    seed: int = 0
    steps: int = 1
    size: int = 2
    rate: float = 0.1
    def __post_init__(self) -> None:
        assert self.seed + self.steps + self.size + self.rate
    @property
    def twice(self) -> int:
        return 2 * self.steps
    @classmethod
    def parse(cls, raw: dict) -> "Self": ...
class Other:
    seed: int = 0
"""
LOOP = "K = ('seed', 'size')\ndef f(a: Asked): return [getattr(a, k) for k in K]"
KEPT = """
class Keeper:
    def __init__(self, asked: Asked):
        self.asked = asked
    def f(self): return self.asked.rate
"""
CHAIN = """
class Inner:
    asked: Asked
class Outer:
    inner: Inner
    def f(self): return self.inner.asked.rate
"""


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(other: Other): return other.seed", set()),
        ("def f(asked: Asked): return asked.seed", {"seed"}),
        ("def f(asked: 'Asked | None'): return asked.seed", {"seed"}),
        ("def f(): return Asked().seed", {"seed"}),
        ("def f(raw):\n    asked = Asked.parse(raw)\n    return asked.size", {"size"}),
        ("def f(a: Asked):\n    b = replace(a, seed=1)\n    return b.rate", {"rate"}),
        ("def f(a: Asked): a.seed = 3", set()),
        ("def f(a: Asked): return getattr(a, 'seed')", {"seed"}),
        (LOOP, {"seed", "size"}),
        ("def g() -> Asked: ...\ndef f(): return g().size", {"size"}),
        (KEPT, {"rate"}),
        (CHAIN, {"rate"}),
        ("def f(many: Sequence[Asked]): return [a.size for a in many]", {"size"}),
        ("def f(anything): return anything.seed", set()),
    ],
)
def test_an_attribute_counts_where_its_owner_is_known(
    tmp_path: Path, code: str, expected: set[str]
) -> None:
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "config.py").write_text(CONFIG)
    (tmp_path / "house" / "code.py").write_text(code)
    read = {n for c, n in reads(tmp_path, ["house"]) if c == "Asked"}
    # `twice` reads `steps` for whoever asks; the check at the start reads nothing.
    assert read - {"steps"} == expected


def test_a_reader_that_goes_away_is_missed(tmp_path: Path) -> None:
    copy = tmp_path / "safescale_ammt"
    shutil.copytree(ROOT / "safescale_ammt", copy)
    file = copy / "search" / "evolution.py"
    text = file.read_text(encoding="utf-8")
    assert "config.population" in text
    file.write_text(text.replace("config.population", "rungs"), encoding="utf-8")
    assert ("SearchConfig", "population") not in reads(tmp_path, ["safescale_ammt"])
