"""The benchmark of what settings of agents give: its sums, and a few steps of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_world import prepared

from benchmarks.agent_settings import FIGURES, measured, summary, table
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.training.encoded import EncodedDataset


def test_a_setting_is_held_against_the_first_one_seed_by_seed() -> None:
    accuracy = {"a": (0.8, 0.9), "b": (0.81, 0.93)}
    raw = [
        {"setting": s, "model": "soup", "seed": seed, "cpu_s": 1.0, "loss": 1, "gap": 0}
        | {"accuracy": accuracy[s][seed]}
        for seed in range(2)
        for s in "ab"
    ]
    first, second = summary(raw)
    assert first["accuracy_more"] == [0, 0]
    assert second["accuracy"] == pytest.approx(0.87)
    assert second["accuracy_more"] == pytest.approx([0.02, 0.01])
    lines = table([first, second]).splitlines()
    assert lines[3].startswith("| b | soup | 0.8700 (+0.0200 ± 0.0100) |")


def test_few_steps_are_measured_on_rows_that_nobody_trained_on(tmp_path: Path) -> None:
    encoded = EncodedDataset(Dataset.load(prepared(tmp_path, rows=400)))
    soup, twin = measured(encoded, "2x32x6", 0, group="gender")
    assert (soup["model"], twin["model"]) == ("soup", "twin")
    assert all(each[name] >= 0 for each in (soup, twin) for name in FIGURES)
    assert soup != {**twin, "model": "soup"}
