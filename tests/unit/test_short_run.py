"""Short runs of the search: the user's training section with its time compressed."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from safescale_ammt.config.sections import SearchConfig, TrainingConfig
from safescale_ammt.search.trials import SHORT, short_run

SHORT_RUN = TrainingConfig(
    num_agents=1,
    agent_specializations=("generalist",),
    steps=80,
    trunk_steps=80,
    learning_rate=1e-2,
    batch_size=256,
    warmup_steps=10,
    ema=0.9,
    dual_every=5,
)


def test_the_default_section_gives_the_settings_that_were_measured() -> None:
    assert short_run(TrainingConfig(), SearchConfig()) == SHORT_RUN


CHANGED = [
    ({"batch_size": 1024}, {"batch_size": 512}),
    ({"batch_size": 1}, {"batch_size": 1}),
    ({"learning_rate": 0.003}, {"learning_rate": 0.02}),
    ({"learning_rate": 0.00015}, {"learning_rate": 0.001}),
    ({"learning_rate": 0.01}, {"learning_rate": 0.02}),
    ({"learning_rate": 0.5}, {"learning_rate": 0.5}),
    # A rate that tunes itself is no candidate's: none diverges by a user's wild guess.
    ({"learning_rate": 0.5, "tune": "population", "tune_budget": 9}, {}),
    (
        {"batch_size": 8, "tune": "population", "tune_also": ["batch_size", "roles"]},
        {},
    ),
    (
        {"batch_size": 1024, "tune": "population", "tune_also": ["self_weight"]},
        {"batch_size": 512},
    ),
    ({"budget_seconds": 60.0, "budget_steps": 500}, {}),
    ({"warmup_steps": 0}, {"warmup_steps": 0}),
    ({"ema": 0.999}, {"ema": 0.99}),
    ({"ema": 0.5}, {"ema": 0.0}),
    ({"dual_every": 1}, {"dual_every": 1}),
    ({"dual_every": 40}, {"dual_every": 10}),
    ({"steps": 50, "trunk_steps": 0, "max_epochs": 3}, {}),
    ({"seed": 9, "threads": 8}, {}),
]


@pytest.mark.parametrize(("asked", "given"), CHANGED)
def test_what_the_user_changed_stays_changed_in_proportion(
    asked: dict[str, Any], given: dict[str, Any]
) -> None:
    found = short_run(TrainingConfig(**asked), SearchConfig()).to_params()
    for key, value in {**SHORT_RUN.to_params(), **given}.items():
        near = pytest.approx(value) if isinstance(value, float) else value
        assert found[key] == near, key


def test_every_other_key_of_the_training_section_reaches_a_short_run() -> None:
    settled = {
        *TrainingConfig.how,
        *SHORT,
        *("num_agents", "agent_specializations", "max_epochs", "steps"),
        *("trunk_steps", "seed", "threads", "budget_seconds"),
    }
    for field in fields(TrainingConfig):
        default = getattr(TrainingConfig(), field.name)
        if field.name in settled or not isinstance(default, float):
            continue
        changed = TrainingConfig(**{field.name: default * 0.5 + 0.25})
        found = short_run(changed, SearchConfig())
        assert getattr(found, field.name) == getattr(changed, field.name)
    assert short_run(TrainingConfig(sharing="median"), SearchConfig()).sharing == (
        "median"
    )


def test_seed_and_threads_of_a_short_run_are_the_searches() -> None:
    found = short_run(TrainingConfig(seed=5), SearchConfig(seed=3, threads=2))
    assert (found.seed, found.threads) == (3, 2)
