"""The benchmark of a short run: its parts, on a command that takes no time."""

from __future__ import annotations

import json
import shutil

import pytest

from benchmarks.provenance import ROOT
from benchmarks.short_run import (
    COMMANDS,
    STORED,
    Spent,
    costs,
    goals,
    ratios,
    result,
    run_of,
    spent,
    stored_medians,
)

FOUND = {
    "fresh, before": [Spent(40.0, 50.0), Spent(20.0, 40.0)],
    "cached, before": [Spent(10.0, 10.0), Spent(10.0, 10.0)],
    "fresh, now": [Spent(10.0, 25.0), Spent(10.0, 10.0)],
    "cached, now": [Spent(5.0, 2.0), Spent(2.0, 3.0)],
    **{f"{name}, now": [Spent(0.1, 0.2), Spent(0.2, 0.3)] for name in COMMANDS},
}
SEEDS = [
    {"seed": 1, "decision": "pass", "accuracy": 0.875, "gap": -0.5},
    {"seed": 2, "decision": "needs_human", "accuracy": 0.872, "gap": 0.1},
]


def test_a_command_costs_what_its_process_took(tmp_path) -> None:
    took = spent(ROOT, tmp_path, "--help")
    assert 0 < took.cpu_s < 30
    assert took.wall_s > 0


def test_a_command_that_fails_is_no_measurement(tmp_path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)safescale fly: .*No such command"):
        spent(ROOT, tmp_path, "fly")
    assert spent(ROOT, tmp_path, "fly", codes=(2,)).wall_s > 0


def test_each_turn_is_held_against_the_other_of_its_turn() -> None:
    assert ratios(FOUND, "fresh", "cpu_s") == [0.25, 0.5]
    assert ratios(FOUND, "cached", "wall_s") == [0.2, 0.3]


def test_every_figure_of_the_issue_is_a_goal() -> None:
    told = {g["what"]: g for g in goals(FOUND, SEEDS)}
    fresh = told["fresh run, CPU seconds, now / before"]
    assert (fresh["op"], fresh["goal"], fresh["value"]) == ("<=", 0.45, 0.375)
    assert told["cached run, wall time, now / before"]["goal"] == 0.4
    assert told["CPU seconds of `--help`"]["goal"] == 0.15
    assert told["tau 0.08: share of seeds that pass"]["value"] == 0.5
    accuracy, gap = stored_medians()
    more = told["median accuracy minus that of constraint-first"]
    assert more["value"] == pytest.approx(0.8735 - accuracy)
    wider = told["median |sealed gap| minus that of constraint-first"]
    assert wider["value"] == pytest.approx(0.3 - gap)
    assert len(goals(FOUND, [])) == 4 + len(COMMANDS)


@pytest.mark.parametrize("known", [True, False])
def test_light_commands_of_both_sides_take_turns_where_both_know_them(
    tmp_path, known
) -> None:
    package = tmp_path / "code" / "pipelines"
    package.mkdir(parents=True)
    others = "" if known else "assert sys.argv[1] != 'verify', 'No such command.'\n"
    (package / "__main__.py").write_text(
        "import json, os, pathlib, shutil, sys\n"
        f"{others}"
        "if sys.argv[1] == 'run':\n"
        "    place = pathlib.Path('runs/latest')\n"
        "    place.mkdir(parents=True, exist_ok=True)\n"
        "    (place / 'run.json').write_text(json.dumps({'bundle': 's3://b/1'}))\n"
        "assert 'BUNDLE' not in sys.argv\n"
    )
    code = {"before": package.parent, "now": package.parent}
    if not known:
        with pytest.raises(RuntimeError, match="No such command"):
            costs(code, tmp_path / "both", None, 1)
        code["now"] = tmp_path / "whole"
        shutil.copytree(package.parent, code["now"])
        file = code["now"] / "pipelines" / "__main__.py"
        file.write_text(file.read_text().replace(others, ""))
    found = costs(code, tmp_path / "told", None, 2)
    assert {len(took) for took in found.values()} == {2}
    for command in COMMANDS:
        assert f"{command}, now" in found
        assert (f"{command}, before" in found) == (known or "verify" not in command)


def test_the_result_has_the_form_of_the_others() -> None:
    told = result(FOUND, SEEDS, "python -m benchmarks short-run --write", "5109587")
    other = json.loads(STORED.read_text())
    assert {*other} - {"genome"} <= {*told}
    assert told["seeds"] == [1, 2]
    assert len(told["raw"]) == sum(map(len, FOUND.values())) + len(SEEDS)


def test_each_side_runs_its_own_adult(tmp_path) -> None:
    assert run_of(tmp_path, None)[-1] == f"{tmp_path}/pipelines/adult.yaml"
    assert run_of(tmp_path, tmp_path / "my.yaml")[-1] == f"{tmp_path}/my.yaml"
