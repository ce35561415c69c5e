#!/bin/sh
# A LightGBM model text without row counts predicts the same bits, and its SHAP values are silently NaN.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
  lightgbm==4.7.0 numpy==2.4.6
cd "$work"
cat >finding.py <<'PYTHON'
import re
import warnings
from importlib.metadata import version

import lightgbm
import numpy as np

warnings.simplefilter("error")
rng = np.random.default_rng(0)
x = rng.normal(size=(500, 4))
y = (x[:, 0] + 0.5 * x[:, 1] > 0).astype(int)
settings = {"objective": "binary", "num_leaves": 7, "verbosity": 1}
whole = lightgbm.train(settings | {"verbosity": -1}, lightgbm.Dataset(x, y), 5)

# The counts say how many rows trained each leaf and node; a file that is handed on may
# leave them out, as they are no part of the answer. Sizes of trees are in the head.
text = whole.model_to_string()
head, *trees = re.split(r"(?=Tree=\d+\n)", text.split("end of trees")[0])
trees = [re.sub(r"(leaf|internal)_count=.*\n", "", tree) for tree in trees]
sizes = " ".join(str(len(tree.encode())) for tree in trees)
head = re.sub(r"tree_sizes=.*", f"tree_sizes={sizes}", head)
lean = lightgbm.Booster(model_str=head + "".join(trees) + "end of trees\n")

same = np.array_equal(whole.predict(x), lean.predict(x))
shap = whole.predict(x, pred_contrib=True)
told = np.allclose(shap.sum(1), whole.predict(x, raw_score=True))
lost = np.isnan(lean.predict(x, pred_contrib=True))

print("lightgbm", version("lightgbm"), "numpy", version("numpy"))
print("guess: without counts the SHAP values are refused, or as they were")
print("predictions are the same bits:", same)
print("with counts the SHAP values add up to the score:", told)
print("without counts they are NaN:", f"{lost.sum()} of {lost.size}")
if not (same and told and lost.any()):
    raise SystemExit("changed: the SHAP values do without the counts, or are refused")
PYTHON
PATH="$work/venv/bin:$PATH" python finding.py

# Seen:
# lightgbm 4.7.0 numpy 2.4.6
# guess: without counts the SHAP values are refused, or as they were
# predictions are the same bits: True
# with counts the SHAP values add up to the score: True
# without counts they are NaN: 1500 of 2500
