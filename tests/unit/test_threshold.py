"""The decision threshold: chosen by a rule, one half without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_world import (
    GENOME,
    TPR,
    brief,
    prepared_three_classes,
    promises,
    searched,
)

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.errors import ConfigError
from safescale_ammt.launch.task import TrainingTask
from safescale_ammt.training.threshold import (
    BALANCED,
    MOST,
    ranked_thresholds,
    right_weights,
)

COST = {"objective": "cost", "false_negative": 5.0, "false_positive": 1.0}


def rows(n: int = 4_000, base: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are the chance to be positive, and whether the row is."""
    rng = np.random.default_rng(0)
    score = rng.beta(1, 1 / base - 1, n)
    return score, rng.random(n) < score


def test_without_a_rule_one_half_decides() -> None:
    assert ranked_thresholds(*rows(), {}) == [0.5]
    assert right_weights(np.array([True, False]), {}).tolist() == [1, 1]


def test_for_a_rare_class_the_threshold_lies_near_its_base_rate() -> None:
    score, positive = rows()
    best = ranked_thresholds(score, positive, BALANCED)[0]
    # Of calibrated scores that is where a chance beats the average one.
    assert best == pytest.approx(0.05, abs=0.03)
    says = score >= best
    assert (says[positive].mean() + (~says)[~positive].mean()) / 2 > 0.65


def test_a_stated_cost_moves_the_threshold_to_where_the_costs_are_even() -> None:
    score, positive = rows(40_000, 0.3)
    best = ranked_thresholds(score, positive, COST)[0]
    # 5 p = 1 (1 - p) at p = 1 / 6.
    assert best == pytest.approx(1 / 6, abs=0.04)


def test_no_threshold_answers_all_rows_alike_and_scores_lie_between() -> None:
    score, positive = rows(500)
    ranked = ranked_thresholds(score, positive, BALANCED)
    assert len(ranked) <= MOST
    for at in ranked:
        assert 0 < (score >= at).mean() < 1
        assert at not in score
    few = ranked_thresholds(np.array([0.2, 0.2, 0.8]), np.array([0, 0, 1]) > 0, COST)
    assert few == [0.5]
    assert ranked_thresholds(np.full(9, 0.3), np.arange(9) > 4, BALANCED) == [0.5]


@pytest.mark.parametrize(
    "rule",
    [
        {"objective": "cost"},
        {"objective": "cost", "false_negative": 5},
        {"objective": "cost", "false_negative": 5, "false_positive": 0},
        {"objective": "balanced_accuracy", "false_positive": 1},
        {"false_negative": 5, "false_positive": 1},
        {"objective": "f1"},
        {"objective": "cost", "false_negative": 5, "fp": 1},
    ],
)
def test_a_rule_that_says_too_little_or_too_much_is_refused(rule: Any) -> None:
    with pytest.raises(ConfigError, match=r"training\.threshold"):
        TrainingConfig.from_params({"threshold": rule})


def test_a_section_without_a_threshold_keeps_its_digest() -> None:
    assert brief(threshold={}).digest == brief().digest
    assert brief(threshold=COST).digest != brief().digest
    # As KFP gives it back.
    again = TrainingConfig.from_params(json.loads(json.dumps(brief().to_params())))
    assert again == brief()


def test_three_classes_have_no_threshold_and_training_says_so_first(
    tmp_path: Path,
) -> None:
    dataset = prepared_three_classes(tmp_path)
    rule = promises({**TPR, "threshold": 0.9})
    architecture = searched(tmp_path, dataset, rule, GENOME)
    section = brief(threshold=BALANCED).to_params()
    with pytest.raises(ConfigError, match="parts two classes, but approved has 3"):
        TrainingTask.load(dataset, architecture, rule, section)
