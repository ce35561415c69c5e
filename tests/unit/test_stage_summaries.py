"""What Kubeflow's page shows of each stage agrees with what the stage decided."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from report_world import SEARCH
from safety_world import constitution, evidence, submission

from safescale_ammt.judging.assembly import assemble
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.model.genome import Genome
from safescale_ammt.releasing.card import summary
from safescale_ammt.reporting.stage_summaries import (
    search_summary,
    training_summary,
    version_summary,
)
from safescale_ammt.stages.evaluate_safety import summarise

POWER = {
    "sentence": "A model passes with probability 0.93.",
    "sealed": 700,
    "principles": [
        {
            "principle": "equal-opportunity",
            "spread": {"passes": 0.93},
            "too_small": ["<b>few | fewer</b>"],
        },
        {"principle": "useful", "spread": {"passes": None}, "too_small": []},
    ],
}
FACTS = {
    "form": "soup",
    "members": 3,
    "steps": 400,
    "accuracy": 0.86,
    "feasible": True,
    "doubts": [],
    "left_out": [],
}


def judged(floor: float) -> Verdict:
    """Returns a verdict whose principle `useful` has this floor."""
    raw = constitution().to_dict()
    for principle in raw["principles"]:
        if principle["id"] == "useful":
            principle["constraint"]["floor"] = floor
    rule = type(constitution()).from_dict(raw)
    return assemble(rule, evidence(), submission("sha256:m"), "sha256:e")


def shown(verdict: Verdict) -> dict[str, float]:
    figures = summarise(verdict, constitution(), evidence(), "report.html")["metrics"]
    return {k: v for k, v in figures.items() if k.startswith("useful.")}


def test_a_kept_and_a_missed_floor_differ_in_the_metrics() -> None:
    kept, missed = shown(judged(0.7)), shown(judged(0.99))
    assert (kept["useful.holds"], missed["useful.holds"]) == (1.0, 0.0)
    assert (kept["useful.floor"], missed["useful.floor"]) == (0.7, 0.99)
    assert kept["useful.threshold"] == missed["useful.threshold"] == -0.02
    # The figure that missed it stands beside the one that did not.
    assert kept["useful.value"] == missed["useful.value"]
    assert 0.7 < missed["useful.floor_value"] < 0.99


def test_the_table_shows_the_floor_that_failed() -> None:
    verdict = judged(0.99)
    rows = [r for r in summary(verdict, constitution()).splitlines() if "floor" in r]
    (row,) = [r for r in rows if r.startswith("|")]
    assert "| accuracy ≥ 0.99 |" in row
    assert row.endswith("| fails |")
    assert "floor |" not in summary(_without_floor(verdict), constitution())


def _without_floor(verdict: Verdict) -> Verdict:
    findings = tuple(replace(f, floor=None) for f in verdict.findings)
    return replace(verdict, findings=findings)


def test_a_search_tells_its_power_and_its_winner() -> None:
    more = {"genome": Genome().to_dict(), "violation": 0.0, "steps": 80}
    tried = [{**c, **more, "fitness": c["loss"]} for c in SEARCH["candidates"]]
    budget = {"unit": "optimizer steps", "planned": 1440, "spent": 1440}
    log = {**SEARCH, "candidates": tried, "budget": budget}
    page = search_summary(log, POWER, {"checked": False}, constitution(0.08))
    gap = "| equal-opportunity | true-positive-rate gap by sex ≤ 0.08 | 93 % |"
    assert f"{gap} &lt;b&gt;few &#124; fewer&lt;/b&gt; |" in page
    # A line beside the twin is a difference, and says so.
    assert "| useful | accuracy ≥ the twin's − 0.02" in page
    winner = SEARCH["winner"]
    assert f"candidate **{winner}** won" in page
    rows = [line for line in page.splitlines() if line.startswith("| **")]
    assert len(rows) == 1
    assert "short runs" not in page
    unread = {"checked": False, "unread": ["finds <b>them</b>"]}
    page = search_summary(log, POWER, unread, constitution(0.08))
    assert "finds &lt;b&gt;them&lt;/b&gt; is enforced in training, and neither" in page


def trained(folder: Path, *events: dict[str, object]) -> Path:
    """Returns a model whose log has these events."""
    lines = [json.dumps(event) for event in ({"event": "plan"}, *events)]
    (folder / "training.jsonl").write_text("\n".join([*lines, ""]))
    return folder


def test_a_training_tells_its_last_round_whatever_is_left_out(tmp_path: Path) -> None:
    rounds = [
        {"event": "round", "step": n, "violation": {"p": n / 1000}} for n in range(95)
    ]
    page = training_summary(FACTS, trained(tmp_path, *rounds))
    rows = [line for line in page.splitlines() if line.startswith("| 9")]
    assert rows[-1] == "| 94 | +0.0940 |"
    assert 10 <= page.count("\n| ") <= 15
    assert "How far" not in training_summary(FACTS, trained(tmp_path))


def test_a_training_whose_agents_were_not_enough_shows_those_that_followed(
    tmp_path: Path,
) -> None:
    reason = "8 agents: they are enough."
    few, more = (
        [{"event": "round", "step": n, "violation": {"p": v}} for n in (400, 420)]
        for v in (0.5, 0.1)
    )
    events = [*few, {"event": "more_agents", "reason": "4 agents: more."}, *more]
    model = trained(tmp_path, *events, {"event": "agents", "reason": reason})
    page = training_summary({**FACTS, "decided": [reason]}, model)
    assert "+0.5000" not in page
    assert "| 420 | +0.1000 |" in page
    assert reason in page


@pytest.mark.parametrize("feasible", [True, False])
def test_a_training_that_misses_a_promise_says_so(
    feasible: bool, tmp_path: Path
) -> None:
    facts = {**FACTS, "feasible": feasible, "accuracy": None}
    page = training_summary(facts, trained(tmp_path))
    assert ("does not keep every promise" in page) is not feasible


def test_a_version_names_the_commands_and_a_rehearsal_none() -> None:
    facts = {
        "registry": "adult",
        "version": 3,
        "status": "lost_race",
        "decision": "pass",
        "model": "sha256:m",
        "verdict": "sha256:v",
        "bundle": "s3://a/b",
        "bundle_digest": "sha256:b",
    }
    page = version_summary(facts)
    assert page.startswith("# adult version 3: lost race")
    assert "safescale registry show adult 3" in page
    rehearsal = {**facts, "version": 0, "status": "not_registered", "bundle": ""}
    page = version_summary(rehearsal)
    assert page.startswith("# Not registered")
    assert "registry show" not in page
