#!/bin/sh
# fairlearn calls a perfect predictor as unfair as can be where a group has no positives.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
  fairlearn==0.15.0
cd "$work"
cat >finding.py <<'PYTHON'
import warnings
from importlib.metadata import version

import numpy as np
from fairlearn.metrics import (
    MetricFrame,
    equal_opportunity_difference,
    equalized_odds_difference,
    true_positive_rate,
)

# Twenty people of group a, ten with the outcome; ten of group b, none with it.
group = np.array(["a"] * 20 + ["b"] * 10)
labels = np.array([1, 0] * 10 + [0] * 10)
predictions = labels.copy()

with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    rates = MetricFrame(
        metrics=true_positive_rate,
        y_true=labels,
        y_pred=predictions,
        sensitive_features=group,
    ).by_group.to_dict()
    odds, opportunity = (
        difference(labels, predictions, sensitive_features=group)
        for difference in (equalized_odds_difference, equal_opportunity_difference)
    )

print("fairlearn", version("fairlearn"))
print("guess: 0.0, as every prediction is right, or nan, as group b has no such rate")
print("seen: true positive rates", rates)
print("seen: equalized odds", odds, "- equal opportunity", opportunity)
print("seen: warnings", len(said))
if (odds, opportunity, rates, len(said)) != (1.0, 1.0, {"a": 1.0, "b": 0.0}, 0):
    raise SystemExit("changed: another value, or a warning")
PYTHON
PATH="$work/venv/bin:$PATH" python finding.py

# Seen:
# fairlearn 0.15.0
# seen: true positive rates {'a': 1.0, 'b': 0.0}
# seen: equalized odds 1.0 - equal opportunity 1.0
# seen: warnings 0
