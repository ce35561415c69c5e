"""The counts of the code's plan, on small made trees with known answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.counting.figures import Figure, figures
from benchmarks.counting.lines import comment_share, function_lengths
from benchmarks.counting.loading import ours, seconds
from benchmarks.counting.rooms import circles, imports, mutual_rooms, sizes
from benchmarks.counting.source import Source, read
from benchmarks.counting.trip import trip
from benchmarks.counting.words import (
    bound,
    is_participle,
    lone_helpers,
    named_once,
    shared_classes,
)
from benchmarks.house import checkout, pairs, result

ROOT = Path(__file__).parents[2]
TREE = {
    "safescale_ammt/__init__.py": "",
    "safescale_ammt/loose.py": "from safescale_ammt.store.disk import put\n",
    "safescale_ammt/store/__init__.py": "",
    "safescale_ammt/store/disk.py": (
        "from safescale_ammt.store.uri import parse\n"
        "class Entry: ...\n"
        "def put() -> None:\n"
        "    from safescale_ammt import loose\n"
        "def _alone() -> None: ...\n"
        "_alone()\n"
    ),
    "safescale_ammt/store/uri.py": (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n"
        "    from safescale_ammt.store.disk import Entry\n"
        "def parse(): ...\n"
    ),
    "components/__init__.py": "",
    "pipelines/__init__.py": "",
    "pipelines/cli.py": (
        "from safescale_ammt.loose import put\nclass Entry: ...  # again\n"
    ),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return tmp_path


def one(text: str, module: str = "safescale_ammt.one") -> list[Source]:
    return [Source(module, False, text)]


def test_rooms_that_import_each_other_are_found_inside_functions_too(
    root: Path,
) -> None:
    graph = imports(root)
    assert mutual_rooms(graph) == [("safescale_ammt.loose", "safescale_ammt.store")]
    assert circles(graph) == [
        [
            "safescale_ammt.loose",
            "safescale_ammt.store.disk",
            "safescale_ammt.store.uri",
        ]
    ]


def test_a_circle_through_an_import_for_types_is_told_from_the_others(
    root: Path,
) -> None:
    assert circles(imports(root, typed=False)) == [
        ["safescale_ammt.loose", "safescale_ammt.store.disk"]
    ]


def test_loose_files_of_a_package_are_one_room_when_lines_are_counted(
    root: Path,
) -> None:
    assert sizes(read(root)) == {
        "safescale_ammt.store": (3, 10),
        "pipelines": (2, 2),
        "safescale_ammt": (2, 1),
        "components": (1, 0),
    }


def test_a_class_name_counts_once_it_stands_in_two_rooms(root: Path) -> None:
    assert shared_classes(read(root)) == {
        "Entry": ["safescale_ammt.store.disk", "pipelines.cli"]
    }
    twice = [*one("class A: ...", "p.room.x"), *one("class A: ...", "p.room.y")]
    assert shared_classes(twice) == {}


def test_a_helper_is_lone_if_it_is_called_once_and_mentioned_nowhere_else() -> None:
    text = """
def _once(): return _once()
def _twice(): ...
def _passed(): ...
def public(): ...
class A:
    def _method(self): ...
    def __len__(self): return self._method()
    @property
    def _field(self): return public()
    def use(self): return self._field
_once(), _twice(), _twice(), max(key=_passed)
"""
    assert lone_helpers(one(text)) == {"safescale_ammt.one": ["_once", "A._method"]}


def test_a_helper_that_another_module_imports_is_not_lone() -> None:
    used = one("def _h(): ...\n_h()")
    assert lone_helpers(used) == {"safescale_ammt.one": ["_h"]}
    other = one("from safescale_ammt.one import _h", "safescale_ammt.two")
    assert lone_helpers([*used, *other]) == {}


def test_helpers_of_one_name_hide_each_other_from_the_cruder_count() -> None:
    two = [*one("def _h(): ...\n_h()"), *one("def _h(): ...\n_h()", "p.two")]
    assert sum(map(len, lone_helpers(two).values())) == 2
    assert named_once(two) == 0


def test_the_trip_is_the_chain_and_what_its_bodies_mention() -> None:
    stage = """
from p.learn import Learner, Plan, far
def run(dataset):
    plan = Plan.load(dataset)
    return _train(plan, len)
def _train(plan: Plan, unused):
    learner = Learner(plan.rows)
    for part in plan.parts:
        part.deal()
    far()
    learner.step()
"""
    learn = """
class Part:
    def deal(self): ...
class Plan:
    rows: list[int]
    parts: list[Part]
    @classmethod
    def load(cls, where) -> "Plan": return cls()
class Learner:
    def __init__(self, rows):
        self._rows = rows
    def step(self): return self._rows, hidden
    def not_on_the_way(self): return far()
def far(): return deeper()
def deeper(): ...
def hidden(): ...
"""
    found = trip([*one(stage, "p.train_agents"), *one(learn, "p.learn")])
    assert found.chain == [
        "p.learn:Learner.step",
        "p.train_agents:_train",
        "p.train_agents:run",
    ]
    assert {title.split(":")[1] for title in found.names} == {
        *("run", "_train", "Learner.step", "Learner", "Learner._rows"),
        *("Plan", "Plan.load", "Plan.rows", "Plan.parts", "Part.deal"),
        *("far", "hidden"),
    }
    assert found.classes == ["p.learn:Learner", "p.learn:Plan"]


def test_a_trip_without_its_end_says_so() -> None:
    with pytest.raises(ValueError, match=r"Learner\.step"):
        trip(one("def run(): ...", "p.train_agents"))


def test_comments_after_code_count_and_docstrings_do_not() -> None:
    text = '"""Not # one."""\n# one\nx = "#"  # two\n\n'
    assert comment_share(one(text)) == 50


def test_a_function_is_as_long_as_from_its_def_to_its_end() -> None:
    text = '@d\ndef f():\n    """Says."""\n\n    return 1\ndef g(): ...\n'
    found = function_lengths(one(text))
    assert (found.functions, found.median, found.p90) == (2, 2.5, 1)


def test_participles_are_told_from_other_words() -> None:
    names = list(bound(one("def f(told): found = _joined = speed = need = seed = 1")))
    assert [n for n in names if is_participle(n)] == ["told", "found", "_joined"]


def test_modules_of_the_house_are_told_from_others() -> None:
    assert ours({"pipelines.cli", "pipelinesx", "kfp", "components"}) == {
        "pipelines.cli",
        "components",
    }


def test_a_command_is_timed_as_often_as_asked(tmp_path: Path) -> None:
    found = seconds(tmp_path, "-c", "pass", times=2)
    assert len(found) == 2
    assert min(found) > 0


def test_this_code_can_be_counted_and_stored() -> None:
    found = figures(ROOT, running=False)
    stored = result(found, found, "command", "revision")
    assert [row["before"] == row["now"] for row in stored["rows"]] == [True] * len(
        found
    )
    assert {"what", "op", "goal", "value", "spread"} == set(stored["goals"][0])


def test_a_figure_meets_all_its_goals_or_none_counts() -> None:
    goals = ((">=", 3.0), ("<=", 8.0))
    assert Figure("comments", "house", 5, goals).met
    assert not Figure("comments", "house", 9, goals).met


def test_figures_are_paired_by_what_they_count() -> None:
    old, new = Figure("lines", "house", 9), Figure("lines", "house", 8)
    other = Figure("lines", "library", 7)
    assert pairs([new, other], [old]) == [(new, old), (other, None)]


def test_a_folder_is_counted_where_it_is(tmp_path: Path) -> None:
    with checkout(str(tmp_path)) as folder:
        assert folder == tmp_path


def test_only_a_whole_count_of_this_checkout_is_stored() -> None:
    command = [sys.executable, "-m", "benchmarks", "house", "--static", "--write"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--write stores" in done.stderr
