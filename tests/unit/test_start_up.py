"""The benchmark of `safescale predict`, in its small form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.start_up import ROOT, apart, measure, people, result
from benchmarks.start_up_others import SCRIPTS, save_onnx


def test_a_small_form_measures_old_and_new_on_the_same_rows() -> None:
    found = measure(ROOT, [1, 3], repeats=1)
    assert found["apart"]["3"]["score"] <= 2.0**-20
    stored = json.loads(json.dumps(result(found, [1, 3], "python -m benchmarks x")))
    shown = [(row["rows"], row["who"]) for row in stored["rows"][:-1]]
    assert shown == [(1, "now"), (1, "before"), (3, "now"), (3, "before")]
    first, second = stored["goals"]
    assert (first["goal"], second["goal"]) == (0.33, 1.0)
    # This build in both places: neither is far from the other, whatever else runs.
    assert 0.2 < first["value"] < 5
    assert all(turn["cpu_s"] > 0 for turn in found["1"]["now"])


def test_rows_are_of_adult_s_shape_and_the_same_for_the_same_seed() -> None:
    table = people(50, 3)
    assert table.shape == (50, 15)
    assert (table.dtypes == "float64").sum() == 6
    assert table.equals(people(50, 3))


def test_differences_are_counted(tmp_path: Path) -> None:
    for name, text in (("a", "0,yes,0.5\n1,no,0.25\n"), ("b", "0,no,0.5\n1,no,0.5\n")):
        (tmp_path / name).write_text(f"row,prediction,score\n{text}")
    found = apart(tmp_path / "a", tmp_path / "b")
    assert found == {"predictions": 1, "score": 0.25}


def test_the_onnx_graph_beside_ours_is_the_network(tmp_path: Path) -> None:
    for name in ("onnx", "onnxruntime"):
        pytest.importorskip(name)
    import onnxruntime

    rng = np.random.default_rng(0)
    matrices = [rng.normal(size=(3, 4)), rng.normal(size=(4, 1))]
    biases = [rng.normal(size=4), rng.normal(size=1)]
    save_onnx(tmp_path / "net.onnx", matrices, biases)
    x = rng.normal(size=(5, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    found = session.run(None, {"x": x})[0]
    hidden = np.maximum(x @ matrices[0] + biases[0], 0)
    expected = 1 / (1 + np.exp(-(hidden @ matrices[1] + biases[1])))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert set(SCRIPTS) == {"scikit-learn", "lightgbm", "onnxruntime"}
