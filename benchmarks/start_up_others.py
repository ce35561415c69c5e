"""How other libraries answer the rows of `start-up`: models, and pandas scripts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from safescale_ammt.files.canonical import write_json

SCIKIT_LEARN = """
import sys, joblib, pandas as pd
model, rows = joblib.load(sys.argv[1] + ".joblib"), pd.read_csv(sys.argv[2])
score = model.predict_proba(rows)[:, 1]
out = pd.DataFrame({"prediction": score >= .5, "score": score})
out.to_csv(sys.argv[3])
"""
LIGHTGBM = """
import sys, lightgbm, pandas as pd
model = lightgbm.Booster(model_file=sys.argv[1] + ".txt")
rows = pd.read_csv(sys.argv[2])
names = rows.columns[rows.dtypes != "float64"]
score = model.predict(rows.astype({name: "category" for name in names}))
pd.DataFrame({"prediction": score >= .5, "score": score}).to_csv(sys.argv[3])
"""
ONNXRUNTIME = """
import json, sys, numpy as np, onnxruntime, pandas as pd
session = onnxruntime.InferenceSession(sys.argv[1] + ".onnx")
known, rows = json.load(open(sys.argv[1] + ".json")), pd.read_csv(sys.argv[2])
x = (rows[known["numbers"]].to_numpy() - known["mean"]) / known["scale"]
hot = [rows[[name]].to_numpy() == np.array(of) for name, of in known["levels"].items()]
score = session.run(None, {"x": np.hstack([x, *hot]).astype(np.float32)})[0][:, 0]
pd.DataFrame({"prediction": score >= .5, "score": score}).to_csv(sys.argv[3])
"""
SCRIPTS = {
    "scikit-learn": SCIKIT_LEARN,
    "lightgbm": LIGHTGBM,
    "onnxruntime": ONNXRUNTIME,
}


def save_others(base: Path, table: pd.DataFrame, which: Sequence[str]) -> None:
    """Fits and saves models; `base` begins their names.

    Args:
        base: path without an ending.
        table: rows with the label `rich`; texts are names, all else is numbers.
        which: keys of `SCRIPTS`.
    """
    import lightgbm

    x, y = table.drop(columns="rich"), table["rich"] == "yes"
    numbers = [name for name in x if x[name].dtype == "float64"]
    names = [name for name in x if name not in numbers]
    if "lightgbm" in which:
        coded = x.astype(dict.fromkeys(names, "category"))
        booster = lightgbm.LGBMClassifier(verbose=-1).fit(coded, y).booster_
        booster.save_model(f"{base}.txt")
    inputs, net = fitted_net(base, x, y, numbers, names)
    if "onnxruntime" in which:
        scaler, hot = (inputs.named_transformers_[k] for k in ("numbers", "names"))
        pairs = zip(names, hot.categories_, strict=True)
        known = {
            "numbers": numbers,
            "mean": scaler.mean_.tolist(),
            "scale": scaler.scale_.tolist(),
            "levels": {name: list(levels) for name, levels in pairs},
        }
        write_json(Path(f"{base}.json"), known)
        save_onnx(Path(f"{base}.onnx"), net.coefs_, net.intercepts_)


def fitted_net(
    base: Path, x: pd.DataFrame, y: Any, numbers: list[str], names: list[str]
) -> tuple[Any, Any]:
    """Fits and saves scikit-learn's network of the same size; returns both parts."""
    import joblib
    from sklearn.compose import ColumnTransformer
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    hot = OneHotEncoder(handle_unknown="ignore")
    inputs = ColumnTransformer(
        [("numbers", StandardScaler(), numbers), ("names", hot, names)],
        sparse_threshold=0,
    )
    net = MLPClassifier((64, 64), max_iter=3, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It has not converged, and need not.
        made = make_pipeline(inputs, net).fit(x, y)
    # Its users have no other form; who loads it runs what it holds.
    joblib.dump(made, f"{base}.joblib")
    return inputs, net


def save_onnx(path: Path, matrices: Sequence[Any], biases: Sequence[Any]) -> None:
    """Writes a network of ReLUs and one sigmoid as an ONNX graph of float32."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, before = [], [], "x"
    for i, (matrix, bias) in enumerate(zip(matrices, biases, strict=True)):
        for name, values in ((f"w{i}", matrix), (f"b{i}", bias)):
            array = np.asarray(values, np.float32)
            constants.append(numpy_helper.from_array(array, name))
        nodes.append(helper.make_node("Gemm", [before, f"w{i}", f"b{i}"], [f"a{i}"]))
        last = i == len(matrices) - 1
        before = "score" if last else f"h{i}"
        kind = "Sigmoid" if last else "Relu"
        nodes.append(helper.make_node(kind, [f"a{i}"], [before]))
    row = [None, matrices[0].shape[0]]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, row)
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])
    graph = helper.make_graph(nodes, "net", [x], [score], constants)
    opset = [helper.make_opsetid("", 18)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=9)
    path.write_bytes(made.SerializeToString())
