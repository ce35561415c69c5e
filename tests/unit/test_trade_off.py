"""The path: what else there was to choose, and how a page shows it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from training_world import DP, GENOME, TPR, USEFUL, brief, constitution, prepared

from safescale_ammt.data.dataset import Dataset
from safescale_ammt.judging.findings import Finding
from safescale_ammt.reporting.path_chart import path_chart
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.merge import Merged, merge
from safescale_ammt.training.trainer import Trained, train
from safescale_ammt.training.training_log import discard

LAW = (
    {**DP, "threshold": 0.1},
    {"metric": "recall", "threshold": 0.3},
    USEFUL,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = prepared(tmp_path_factory.mktemp("loans"), sensitive_in_model=True)
    nets = GenomeNets(EncodedDataset(Dataset.load(folder)), GENOME)
    return train(nets, brief(seed=2), constitution(TPR), log=discard)


@pytest.fixture(scope="module")
def merged(trained: Trained) -> Merged:
    return merge(trained, constitution(*LAW))


def test_the_path_holds_every_candidate_and_each_constant_once(
    merged: Merged,
    trained: Trained,
) -> None:
    names = [p.name for p in merged.path]
    assert len(names) == len(set(names))
    kinds = {kind: [p for p in merged.path if p.kind == kind] for kind in _KINDS}
    agents = {f"agent {i}" for i in range(3)}
    assert {p.name for p in kinds["agent"]} == agents
    assert {p.name for p in kinds["form"]} >= {*merged.scores, merged.choice} - agents
    steps = {f"{i}/8 from the soup to the twin" for i in (2, 4, 6)}
    assert {p.name for p in kinds["step"]} == steps - {merged.choice}
    y = trained.nets.rows("select").y.numpy()
    shares = {p.name: p.accuracy for p in kinds["constant"]}
    assert shares == {
        f"always {name}": pytest.approx(float((y == code).mean()))
        for code, name in enumerate(trained.nets.classes)
    }
    # One answer for everybody keeps a gap at 0, and finds all or none.
    assert all(p.values["dp-gap"] == 0 for p in kinds["constant"])
    assert [p.values["recall"] for p in kinds["constant"]] == [0.0, 1.0]


_KINDS = ("form", "agent", "step", "twin", "constant")


def test_a_point_is_measured_on_all_rows_of_select(
    merged: Merged,
    trained: Trained,
) -> None:
    (twin,) = [p for p in merged.path if p.kind == "twin"]
    rows = trained.nets.rows("select")
    answer = rows.answers(merged.twin).prediction
    assert twin.accuracy == pytest.approx(float((answer == rows.y.numpy()).mean()))
    rates = [
        answer[rows.groups["gender"].numpy() == code].mean()
        for code in range(len(trained.nets.groups["gender"]))
    ]
    assert twin.values["dp-gap"] == pytest.approx(float(np.ptp(rates)))
    # A promise against the twin is about no rate of its own.
    assert set(twin.values) == {"dp-gap", "recall"}


def test_the_same_agents_have_the_same_path(trained: Trained, merged: Merged) -> None:
    assert merge(trained, constitution(*LAW)).path == merged.path


def test_where_no_promise_is_about_rates_there_is_no_path(trained: Trained) -> None:
    nothing = merge(trained, constitution(USEFUL))
    assert nothing.path == ()
    assert nothing.to_dict()["path"] == []


# --- the page ---


def finding(**changes: Any) -> Finding:
    known = Finding(
        principle="dp-gap",
        metric="dp_gap",
        group="gender",
        tier="hard",
        op="<=",
        threshold=0.1,
        value=0.05,
        lower=0.0,
        upper=0.09,
        alpha=0.05,
        outcome="holds",
        p_violated=1.0,
        method="Chan-Zhang",
        reason="",
    )
    return replace(known, **changes)


def point(name: str, kind: str, accuracy: float, gap: float | None) -> dict[str, Any]:
    values = {"dp-gap": gap}
    return {"name": name, "kind": kind, "accuracy": accuracy, "values": values}


POINTS = [
    point("soup", "form", 0.80, 0.05),
    point("agent 0", "agent", 0.79, 0.08),
    point("2/8 from the soup to the twin", "step", 0.82, 0.12),
    point("twin", "twin", 0.85, 0.3),
    point("always no", "constant", 0.6, 0.0),
    point("always yes", "constant", 0.4, 0.0),
]


def events(points: list[dict[str, Any]], choice: str = "soup") -> list[dict[str, Any]]:
    return [{"event": "merge", "choice": choice, "path": points}]


def test_a_page_shows_the_choice_beside_constants_and_twin(merged: Merged) -> None:
    picture = path_chart(events(POINTS), [finding()])
    assert "The choice, soup, is right for 0.8000 of them" in picture.caption
    assert "the best constant answer for 0.6000" in picture.caption
    assert "the unconstrained twin for 0.8500" in picture.caption
    assert "more often" not in picture.caption
    for label in ("chosen", "one answer for everybody", "unconstrained twin"):
        assert label in picture.svg
    assert [p.title for p in picture.panels] == ["selection-rate gap by gender ≤ 0.1"]
    # What a training writes is what the page reads.
    written = json.loads(json.dumps(merged.to_dict()))
    picture = path_chart([written], [finding(threshold=0.1)])
    assert f"The choice, {merged.choice}, is right for" in picture.caption
    assert picture.panels


def test_a_page_names_a_candidate_that_is_better_in_every_way() -> None:
    better = point("best", "form", 0.83, 0.04)
    picture = path_chart(events([*POINTS, better]), [finding()])
    assert "best is right more often (0.8300) at values that are no worse" in (
        picture.caption
    )
    # Of a floor more is better.
    floor = finding(op=">=", metric="dp_ratio", threshold=0.8)
    assert "twin is right more often" in path_chart(events(POINTS), [floor]).caption


def test_what_has_no_value_has_no_place_and_an_older_log_no_picture() -> None:
    points = [*POINTS[:-1], point("always yes", "constant", 0.4, None)]
    picture = path_chart(events(points), [finding()])
    assert picture.svg.count("<path") < path_chart(
        events(POINTS), [finding()]
    ).svg.count("<path")
    old = [{"event": "merge", "choice": "soup"}]
    assert "no path of candidates" in path_chart(old, [finding()]).absent
    assert "no path of candidates" in path_chart([], [finding()]).absent
