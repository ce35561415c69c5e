"""Results say which code they measured, and the table of claims which are old."""

from __future__ import annotations

import json
import platform
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.__main__ import names
from benchmarks.claims import RESULTS, line, staleness
from benchmarks.provenance import (
    changes,
    code_lines,
    in_form,
    measured_code,
    origin,
    reach,
    store,
)

ROOT = Path(__file__).parents[2]
TREE = {
    "benchmarks/__init__.py": "",
    "benchmarks/provenance.py": "",
    "benchmarks/speed_test.py": (
        "from benchmarks.provenance import origin\n"
        "from safescale_ammt.search.steps import LENGTH\n"
        "CHILD = 'from safescale_ammt.launch.child import run; run()'\n"
        "def late():\n"
        "    from safescale_ammt import model\n"
    ),
    "safescale_ammt/__init__.py": "VERSION = 1\n",
    "safescale_ammt/errors.py": "class Bad(Exception): ...\n",
    "safescale_ammt/search/__init__.py": "",
    "safescale_ammt/search/steps.py": (
        '"""Steps."""\n'
        "import safescale_ammt.errors\n"
        "from safescale_ammt.reporting.page import show\n"
        "LENGTH = 3\n"
    ),
    "safescale_ammt/search/other.py": "",
    "safescale_ammt/launch/child.py": "def run(): ...\n",
    "safescale_ammt/model/__init__.py": "",
    "safescale_ammt/reporting/page.py": "from safescale_ammt.data import rows\n",
    "safescale_ammt/data/rows.py": "",
}
REACHED = {
    "benchmarks/__init__.py",
    "benchmarks/speed_test.py",
    "safescale_ammt/search/__init__.py",
    "safescale_ammt/search/steps.py",
    "safescale_ammt/launch/child.py",
    "safescale_ammt/model/__init__.py",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return tmp_path


def rooms_changed_by(root: Path, file: str, text: str) -> list[str]:
    before = measured_code("speed-test", root)
    (root / file).write_text(text, encoding="utf-8")
    return changes(before, measured_code("speed-test", root))


# --- what counts as the measured code ---


def test_imports_are_followed_wherever_they_stand_and_in_texts(root: Path) -> None:
    assert reach("benchmarks/speed_test.py", root) == REACHED


def test_a_room_that_makes_no_figure_is_left_out_with_what_lies_behind_it(
    root: Path,
) -> None:
    assert set(measured_code("speed-test", root)) == {
        *("benchmarks", "launch", "model", "search")
    }
    assert rooms_changed_by(root, "safescale_ammt/errors.py", "X = 1\n") == []
    assert rooms_changed_by(root, "safescale_ammt/reporting/page.py", "X = 1\n") == []


def test_a_changed_value_changes_its_room_alone(root: Path) -> None:
    file = "safescale_ammt/search/steps.py"
    longer = TREE[file].replace("LENGTH = 3", "LENGTH = 4")
    assert rooms_changed_by(root, file, longer) == ["search"]


def test_a_file_that_the_benchmark_does_not_reach_changes_nothing(root: Path) -> None:
    assert rooms_changed_by(root, "safescale_ammt/search/other.py", "X = 1\n") == []


def test_words_do_not_make_a_figure_old(root: Path) -> None:
    file = "safescale_ammt/search/steps.py"
    told = TREE[file].replace('"""Steps."""', '"""How many\n\nsteps."""\n\n# Why.')
    assert rooms_changed_by(root, file, f"{told}'''Length of a run.'''\n") == []


def test_a_new_import_brings_its_room(root: Path) -> None:
    file = "safescale_ammt/search/steps.py"
    more = f"{TREE[file]}from safescale_ammt.data import rows\n"
    assert rooms_changed_by(root, file, more) == ["data", "search"]


def test_texts_within_expressions_are_code() -> None:
    assert code_lines("x = 1\n# why\n'''\nno\n'''\ny = '''a\n\nb'''\n") == (
        "x = 1\ny = '''a\nb'''"
    )


def test_the_count_of_the_code_depends_on_all_of_it_comments_too(root: Path) -> None:
    (root / "benchmarks" / "house.py").write_text("")
    before = measured_code("house", root)
    assert {"search", "reporting", "data", "safescale_ammt"} <= set(before)
    (root / "safescale_ammt" / "search" / "other.py").write_text("# A comment.\n")
    assert changes(before, measured_code("house", root)) == ["search"]


def test_the_searches_table_depends_on_search_and_training_and_not_on_reports() -> None:
    code = measured_code("search-table")
    assert {"search", "training", "model", "data", "config"} <= set(code)
    assert not {"reporting", "store", "judging", "releasing", "cluster"} & set(code)


def test_code_that_changes_while_it_is_measured_has_no_digest() -> None:
    began = time.time()
    assert set(origin("interval-sizes", since=began)) == {"commit", "code"}
    assert set(origin("interval-sizes", since=0.0)) == {"commit"}


# --- the form of a result ---


def test_results_have_one_form_with_what_is_their_own_in_its_place() -> None:
    found = in_form(
        "interval-sizes",
        "python -m benchmarks interval-sizes --write",
        packages=("python", "numpy"),
        cores=", one thread",
        against={"before": "5109587"},
        own={"budget": 3},
        seeds=range(2),
        rows=[{"loss": 0.5}],
        goals=[],
    )
    names = ["name", "command", "commit", "code", "before", "machine", "versions"]
    assert [*found] == [*names, "seeds", "budget", "rows", "goals", "raw"]
    assert found["machine"].endswith(" cores, one thread")
    assert found["versions"]["python"] == platform.python_version()
    assert found["versions"]["numpy"] == np.__version__
    assert (found["seeds"], found["raw"]) == ([0, 1], [])


def test_a_figure_that_no_core_changes_names_the_machine_alone(tmp_path: Path) -> None:
    words = ("gate-sampling", "python -m benchmarks gate-sampling --write")
    found = in_form(*words, packages=(), cores=None, rows=[], goals=[])
    assert found["machine"] == platform.machine()
    store(tmp_path / "results" / "x.json", found)
    assert json.loads((tmp_path / "results" / "x.json").read_text()) == found


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*.json")), ids=lambda f: f.stem)
def test_every_stored_result_has_that_form(file: Path) -> None:
    keys = in_form("house", "", packages=(), rows=[], goals=[]).keys() - {"code"}
    found = json.loads(file.read_text())
    assert keys <= found.keys()
    assert found["name"] == file.stem


# --- what the table says of it ---

GOAL = {"what": "loss", "op": "<", "goal": 1.0, "value": 0.5, "spread": [0.4, 0.6]}
STORED = {
    "name": "speed-test",
    "command": "python -m benchmarks speed-test --write",
    "commit": "0123456789abcdef",
    "code": {"search": "aa", "model": "bb"},
}


def test_a_result_of_todays_code_is_not_marked() -> None:
    assert staleness(STORED, STORED["code"]) == ""  # type: ignore[arg-type]
    assert line("speed-test", GOAL, stale=False).endswith("| met |")


def test_a_result_of_older_code_is_marked_goal_by_goal_and_says_what_changed() -> None:
    now = {"search": "aa", "model": "cc", "training": "dd"}
    assert staleness(STORED, now) == (
        "`speed-test` was measured at 0123456; changed since: model, training. "
        "Run it again: `python -m benchmarks speed-test --write`."
    )
    assert line("speed-test", GOAL, stale=True).endswith("| met, on older code |")
    missed = line("speed-test", {**GOAL, "value": 2.0}, stale=True)
    assert missed.endswith("| **missed**, on older code |")


def test_a_result_without_a_digest_is_old() -> None:
    unknown = {k: v for k, v in STORED.items() if k != "code"}
    assert "does not say which code it measured" in staleness(unknown, {})


# --- the results that are stored ---


def stored_results() -> list[dict[str, Any]]:
    return [json.loads(file.read_text("utf-8")) for file in RESULTS.glob("*.json")]


def test_every_benchmark_that_stores_a_result_says_which_code_it_measured() -> None:
    for name in names():
        text = (ROOT / "benchmarks" / f"{name.replace('-', '_')}.py").read_text()
        if "\nRESULT = " in text:
            assert re.search(rf'in_form\(\s+"{name}",', text), name
            assert "store(RESULT, " in text


def test_every_stored_digest_is_of_rooms() -> None:
    for stored in stored_results():
        for room, digest in stored.get("code", {}).items():
            assert re.fullmatch(r"\w+", room)
            assert re.fullmatch(r"[0-9a-f]{12}", digest)
