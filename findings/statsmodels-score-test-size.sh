#!/bin/sh
# statsmodels' score test that a gap is small errs 2.4 times as often as its level says.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
  statsmodels==0.14.6 scipy==1.17.1
cd "$work"
cat >finding.py <<'PYTHON'
import warnings
from importlib.metadata import version

import numpy as np
from scipy.stats import binom
from statsmodels.stats.proportion import test_proportions_2indep

# Is the rate of the first group, 900 people, less than half a point above that of the
# second, 118 people? Here it is exactly half a point above: every "yes" is an error.
first, second, line, level = 900, 118, 0.005, 0.01
# Counts beyond these have a chance of less than 1e-12 at the rates below.
hits, others = np.arange(80), np.arange(30)


def says_yes(x1: int, x0: int) -> bool:
    found = test_proportions_2indep(
        x1,
        first,
        x0,
        second,
        value=line,
        method="score",
        compare="diff",
        alternative="smaller",
    )
    return bool(found.pvalue <= level)


shown = np.zeros((len(hits), len(others)), dtype=bool)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # no variance where nobody is hit
    for x1 in hits:
        # More hits in the second group only speak more for "yes".
        low, high = 0, len(others)
        while low < high:
            middle = (low + high) // 2
            low, high = (
                (low, middle) if says_yes(x1, middle) else (middle + 1, high)
            )
        shown[x1, low:] = True

# Enumerated, not simulated: the chance of a "yes", summed over all tables.
rates = np.arange(1, 151) / 10_000
errors = np.array(
    [
        binom.pmf(hits, first, rate + line) @ shown @ binom.pmf(others, second, rate)
        for rate in rates
    ]
)
worst = int(np.argmax(errors))

print("statsmodels", version("statsmodels"), "- scipy", version("scipy"))
print(f"guess: about {level:g}, and groups of 118 and 900 are large enough for that")
print(f"seen: {errors[worst]:.4f}, where the rates are {rates[worst]:.4f} and {rates[worst] + line:.4f}")
if not 0.024 < errors[worst] < 0.0242:
    raise SystemExit("changed: another error")
PYTHON
PATH="$work/venv/bin:$PATH" python finding.py

# Seen:
# statsmodels 0.14.6 - scipy 1.17.1
# seen: 0.0241, where the rates are 0.0051 and 0.0101
