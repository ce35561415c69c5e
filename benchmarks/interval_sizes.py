"""True one-sided error of the gate's tests, worst case over the nuisance rate.

    python -m benchmarks interval-sizes [--write]

For each pair of sample sizes, line and level: the rejection region is found with
the gate's own test, its probability is computed afresh (scipy's binomial) on a grid
of 400 rates on the null line, and the largest is the true size. Exact: no
simulation, no seed. `--write` stores benchmarks/results/interval-sizes.json and
the table in docs/mathematical_foundations.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from scipy.special import ndtri
from scipy.stats import binom

from benchmarks.provenance import origin
from safescale_ammt.binomial.exact import Line, rejects
from safescale_ammt.binomial.intervals import tango_statistic
from safescale_ammt.binomial.two_rates import MIETTINEN_NURMINEN, method

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "interval-sizes.json"
PAGE = ROOT / "docs" / "mathematical_foundations.md"
SIZES = ((60, 120), (118, 900), (300, 300), (300, 3_000), (590, 3_256), (1_000, 1_000))
LARGE = ((5_421, 10_860),)
LEVELS = (0.05, 0.01)
GAPS = (0.02, 0.05, 0.1)
PAIRED = ((1_000, -0.02), (16_281, -0.01))
GRID = 400


def least_hits(line: Line, z: float) -> np.ndarray:
    """Least x0 for every x1 with a statistic <= z, n0 + 1 if there is none."""
    x1 = np.arange(line.n1 + 1)
    # Bisection for all x1 at once: the statistic falls with x0.
    outside, inside = np.full(line.n1 + 1, -1), np.full(line.n1 + 1, line.n0 + 1)
    while np.any(inside - outside > 1):
        middle = (inside + outside) // 2
        within = line.statistic(x1, np.minimum(middle, line.n0)) <= z
        within |= middle > line.n0
        inside = np.where(within, middle, inside)
        outside = np.where(within, outside, middle)
    return inside


def critical(line: Line, alpha: float) -> float:
    """Largest z that the exact test rejects, to 1e-4."""
    low, high = -10.0, 0.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if rejects(line, middle, alpha) else (low, middle)
    return low


def true_size(line: Line, z: float) -> float:
    """Largest P(statistic <= z) on the null line."""
    p0 = line.nuisance(np.linspace(0, 1, GRID + 1))
    x1, least = np.arange(line.n1 + 1)[:, None], least_hits(line, z)[:, None]
    hit = binom.pmf(x1, line.n1, line.p1(p0)) * binom.sf(least - 1, line.n0, p0)
    return float(np.sum(hit, axis=0).max())


def tango_size(n: int, delta: float, alpha: float, discordant: float) -> float:
    """P(Tango shows a difference above delta | it is delta), at this discordance."""
    only_twin = (discordant - delta) / 2
    only_model = discordant - only_twin
    # Twelve standard deviations beyond the mean: what lies there is below 1e-30.
    most = int(n * discordant + 12 * np.sqrt(n * discordant) + 20)
    b, c = np.arange(min(n, most) + 1)[:, None], np.arange(min(n, most) + 1)[None]
    shown = (tango_statistic(b, c, n, delta) >= -ndtri(alpha)) & (b + c <= n)
    fewer = shown.sum(axis=1) - 1
    rest = binom.cdf(fewer, n - b[:, 0], only_twin / (1 - only_model))
    chance = binom.pmf(b[:, 0], n, only_model) * np.where(fewer >= 0, rest, 0.0)
    return float(chance.sum())


def pair_rows() -> Iterator[dict[str, Any]]:
    """Measures the two tests of two rates."""
    for n1, n0 in (*SIZES, *LARGE):
        for alpha in LEVELS:
            lines = [Line("difference", gap, n1, n0) for gap in GAPS]
            normal = max(true_size(line, float(ndtri(alpha))) for line in lines)
            # The large samples are those where the gate itself takes the normal law.
            exact = None
            if (n1, n0) in SIZES:
                exact = max(true_size(line, critical(line, alpha)) for line in lines)
            yield {
                "test": "two rates",
                "n1": n1,
                "n0": n0,
                "alpha": alpha,
                "normal": normal,
                "exact": exact,
                "gate": method(n1, n0, alpha),
            }


def paired_rows() -> Iterator[dict[str, Any]]:
    """Measures Tango's test at 2 to 10 % discordance."""
    for n, delta in PAIRED:
        for alpha in LEVELS:
            # A discordance below |delta| cannot hold the difference delta.
            shares = np.linspace(max(0.021, -delta + 0.001), 0.1, 9)
            worst = max(tango_size(n, delta, alpha, float(s)) for s in shares)
            yield {
                "test": "model against twin",
                "n1": n,
                "n0": n,
                "alpha": alpha,
                "normal": worst,
                "exact": None,
                "gate": "Tango",
            }


def table(rows: list[dict[str, Any]]) -> str:
    """Writes the rows as Markdown."""
    lines = [
        "| test | n1 | n0 | alpha | normal law | exact law | the gate takes |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        exact = "–" if r["exact"] is None else f"{r['exact']:.4f}"
        sizes = f"{r['n1']:,} | {r['n0']:,}"
        lines.append(
            f"| {r['test']} | {sizes} | {r['alpha']:g} | {r['normal']:.4f} | {exact} | "
            f"{r['gate']} |"
        )
    return "\n".join(lines)


def result(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Puts the rows into the form of all benchmark results."""
    excess = [
        (r["normal"] if r["exact"] is None else r["exact"]) / r["alpha"]
        for r in rows
        if r["gate"] not in (MIETTINEN_NURMINEN, "Tango")
    ]
    normal = [r["normal"] / r["alpha"] for r in rows if r["exact"] is None]
    return {
        "name": "interval-sizes",
        "command": "python -m benchmarks interval-sizes --write",
        **origin("interval-sizes"),
        "machine": platform.machine(),
        "versions": {"numpy": np.__version__, "scipy": scipy.__version__},
        "seeds": [],
        "rows": rows,
        "goals": [
            {
                "what": "true error / alpha of the exact test, worst case",
                "op": "<=",
                "goal": 1.0,
                "value": max(excess),
                "spread": [min(excess), max(excess)],
            },
            {
                "what": "true error / alpha where the gate takes a normal law",
                "op": "<=",
                "goal": 1.05,
                "value": max(normal),
                "spread": [min(normal), max(normal)],
            },
        ],
        "raw": [],
    }


def main() -> None:
    """Prints the table; stores it with `--write`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    rows = [*pair_rows(), *paired_rows()]
    print(table(rows))
    if parser.parse_args().write:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(result(rows), indent=1) + "\n")
        start, end = "<!-- interval-sizes -->", "<!-- /interval-sizes -->"
        text = f"{start}\n{table(rows)}\n{end}"
        page = PAGE.read_text(encoding="utf-8")
        page = re.sub(f"{start}.*?{end}", lambda _: text, page, flags=re.DOTALL)
        PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
