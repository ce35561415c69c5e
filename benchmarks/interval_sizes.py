"""True one-sided error of the gate's tests, worst case over the nuisance rate.

    python -m benchmarks interval-sizes [--small] [--write]

For each test, pair of sizes, line and level: which tables the gate's own test rejects,
and how probable these are on the null line, computed afresh (scipy's binomial) on a
grid of nuisance rates that is dense near 0 and 1. Exact: no simulation; what lies
outside a window of five standard deviations counts as rejected, and the critical
statistics are known to .001, and tables between are asked of the gate, the most
probable first, or count as rejected. Tables
next to the border are asked of the gate one by one as well. Beside it Miettinen and
Nurminen's or Tango's normal law, and the time that 40 pairs of large groups take.
`--write` stores benchmarks/results/interval-sizes.json and the table in
docs/mathematical_foundations.md; `--small` measures a few sizes at one level, unstored.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtri
from scipy.stats import binom

from benchmarks.provenance import in_form, store
from safescale_ammt.binomial.cells import Span
from safescale_ammt.binomial.exact import Line
from safescale_ammt.binomial.paired import (
    EXACT_PAIRED,
    Discordant,
    discordance,
    shows_gain,
    tango_statistic,
)
from safescale_ammt.binomial.region import TwoRates
from safescale_ammt.binomial.supremum import RegionAt, rejects
from safescale_ammt.binomial.two_rates import method, shows_below
from safescale_ammt.constitution.principles import Constraint
from safescale_ammt.judging.bounds import bounds
from safescale_ammt.judging.certify import GroupHits, inside
from safescale_ammt.judging.group_rates import Rates

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "interval-sizes.json"
PAGE = ROOT / "docs" / "mathematical_foundations.md"
LEVELS = (0.05, 0.025, 0.01, 0.005)
LINES = (("difference", 0.005), ("difference", 0.05), ("ratio", 1.25))
WHOLE = (
    *((60, 120), (118, 900), (900, 118), (300, 300), (300, 3_000), (3_000, 300)),
    *((590, 3_256), (1_000, 1_000), (2_500, 2_500)),
)
LARGE = (
    *((60, 200_000), (200_000, 60), (300, 20_000), (5_421, 10_860)),
    *((200_000, 5_001), (5_001, 200_000), (200_000, 200_000)),
)
SMALL = ((60, 120), (900, 118), (1_000, 1_000), (60, 6_000), (4_000, 3_000))
PAIRED = (1_000, 16_281, 200_000)
DELTAS = (-0.02, -0.01, -0.001, 0.0, 0.01)
GRID = 400
PRECISION = 8 / 2**13
ASKED = 24
DEVIATIONS = 5.0
PAIRS = 40
WORKERS = 3


def critical(region_at: RegionAt, hull: Span, level: float) -> np.ndarray:
    """Largest z at which each cell's ceiling is within the level, from above."""
    highest = np.zeros(hull.last - hull.first)
    # Cells between two statistics: within the level at the first, not at the second.
    open_ = [(-8.0, 0.0, np.arange(int(hull.first), int(hull.last)))]
    while open_:
        low, high, cells = open_.pop()
        if high - low <= PRECISION or not len(cells):
            highest[cells - hull.first] = high
            continue
        middle = (low + high) / 2
        ends = cells / hull.grid, (cells + 1) / hull.grid
        within = region_at(middle, hull).ceiling(*ends) <= level - hull.spent
        open_ += [(middle, high, cells[within]), (low, middle, cells[~within])]
    return highest


def least_over(values: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Least of `values[first:last]`, 0 (every table is shown) where it is empty."""
    # Two stretches of a power of 2 cover any one between them.
    levels = [values]
    while 2 ** len(levels) <= len(values):
        half = 2 ** (len(levels) - 1)
        levels.append(np.minimum(levels[-1][:-half], levels[-1][half:]))
    power = np.floor(np.log2(np.maximum(last - first, 1))).astype(int)
    result = np.zeros(first.shape)
    for k, of in enumerate(levels):
        at = (power == k) & (last > first)
        result[at] = np.minimum(of[first[at]], of[last[at] - 2**k])
    return result


def around(n: int, p: float) -> np.ndarray:
    """The hits that nearly all samples have."""
    reach = DEVIATIONS * np.sqrt(n * p * (1 - p)) + 12
    ends = max(0, int(n * p - reach)), min(n, int(n * p + reach) + 1)
    return np.arange(ends[0], ends[1] + 1, dtype=np.int64)


def size_at(line: Line, level: float, p0: float) -> tuple[float, float, int]:
    """P(shown) on the line at p0: by the normal law, by the gate; disagreements."""
    p1 = float(line.p1(np.array([p0]))[0])
    x1, x0 = around(line.n1, p1), around(line.n0, p0)
    mass = np.outer(binom.pmf(x1, line.n1, p1), binom.pmf(x0, line.n0, p0))
    table = [t.ravel() for t in np.meshgrid(x1, x0, indexing="ij")]
    z, chance = line.statistic(*table), mass.ravel()
    rest = 1 - mass.sum()
    normal = chance[z <= ndtri(level)].sum() + rest
    # Beyond five standard errors all count as shown.
    rest += chance[z <= -5].sum()
    open_ = (z < 0) & (z > -5)
    table, z, chance = [t[open_] for t in table], z[open_], chance[open_]
    if not len(z):
        return float(normal), float(rest), 0
    spans = line.spans(*table)
    hull = spans.of(z < 0)
    highest = critical(partial(TwoRates, line), hull, level)
    least = least_over(highest, spans.first - hull.first, spans.last - hull.first)
    gate = partial(shows_below, line=line, alpha=level)
    shown = asked(gate, table, z, least, chance)
    wrong = disagreements(gate, table, z, least)
    return float(normal), float(chance[shown].sum() + rest), wrong


def asked(
    gate: Callable[..., Any],
    table: list[np.ndarray],
    z: np.ndarray,
    least: np.ndarray,
    chance: np.ndarray,
) -> np.ndarray:
    """Tells which tables are shown; asks the gate for those on the border itself.

    Of many of these the most probable are asked, and the others count as shown.
    """
    shown = z <= least
    border = np.flatnonzero(shown & (z > least - PRECISION))
    for i in border[np.argsort(-chance[border], kind="stable")][:ASKED]:
        shown[i] = bool(gate(int(table[0][i]), int(table[1][i])))
    return shown


def disagreements(
    gate: Callable[..., Any], table: list[np.ndarray], z: np.ndarray, least: np.ndarray
) -> int:
    """Of tables next to the border, how many the gate judges otherwise."""
    near = np.argsort(np.abs(z - least), kind="stable")
    picked = near[: 200 : max(1, min(200, len(near)) // 2)]
    # The critical statistic is known up to the precision, below which it may err.
    clear = [i for i in picked if not 0 <= least[i] - z[i] <= PRECISION]
    return sum(
        bool(gate(int(table[0][i]), int(table[1][i]))) != bool(z[i] <= least[i])
        for i in clear
    )


def least_hits(line: Line, z: float) -> np.ndarray:
    """Least x0 for every x1 with a statistic <= z, n0 + 1 if there is none."""
    x1 = np.arange(line.n1 + 1)
    # Bisection for all x1 at once: the statistic falls with x0.
    outside, inside_ = np.full(line.n1 + 1, -1), np.full(line.n1 + 1, line.n0 + 1)
    while np.any(inside_ - outside > 1):
        middle = (inside_ + outside) // 2
        within = line.statistic(x1, np.minimum(middle, line.n0)) <= z
        within |= middle > line.n0
        inside_ = np.where(within, middle, inside_)
        outside = np.where(within, outside, middle)
    return inside_


def whole_size(line: Line, level: float) -> tuple[float, float, int]:
    """Largest P(shown) on the line, where all nuisance rates are searched."""
    span = line.spans(np.array([0]), np.array([0])).of(np.array([True]))
    low, high = -8.0, 0.0
    # So near to the first table that is not rejected that none lies between.
    while high - low > 1e-8:
        middle = (low + high) / 2
        shows = rejects(TwoRates(line, middle, span), span, level)
        low, high = (middle, high) if shows else (low, middle)
    p0 = line.nuisance(np.linspace(0, 1, GRID + 1))
    x1, sizes = np.arange(line.n1 + 1)[:, None], []
    for z in (float(ndtri(level)), low):
        least = least_hits(line, z)[:, None]
        hit = binom.pmf(x1, line.n1, line.p1(p0)) * binom.sf(least - 1, line.n0, p0)
        sizes.append(float(np.sum(hit, axis=0).max()))
    return sizes[0], sizes[1], 0


def rates_of(line: Line) -> np.ndarray:
    """Nuisance rates from a handful of expected hits to a handful of misses."""
    low, high = line.nuisance(np.array([0.0, 1.0]))
    few = np.array([1, 3, 12, 60]) / min(line.n1, line.n0)
    rates = [*(low + few), 0.1, *(high - few[:1])]
    # Of the largest samples alike millions of tables are probable at such a rate.
    if min(line.n1, line.n0) < 100_000:
        rates.append(0.5)
    return np.unique([p for p in rates if low < p < high])


def measured(test: str, n1: int, n0: int, at: float, level: float) -> dict[str, Any]:
    """Measures one test at one level, the worst of all nuisance rates."""
    gate, found = EXACT_PAIRED, []
    if test == "two models":
        few = np.array([1, 3, 8, 20, 60]) / n1
        shares = np.unique([*(abs(at) + few), 0.02, 0.03, 0.1, 0.5])
        found = [paired_at(n1, at, level, float(d)) for d in shares if d > abs(at)]
    else:
        line = Line("ratio" if test == "ratio" else "difference", at, n1, n0)
        gate = method(line)
        if line.whole:
            found = [whole_size(line, level)]
        else:
            found = [size_at(line, level, float(p)) for p in rates_of(line)]
    normal, exact, wrong = np.array(found).T
    return {
        "test": test,
        "n1": n1,
        "n0": n0,
        "line": at,
        "alpha": level,
        "normal": float(normal.max()),
        "exact": float(exact.max()),
        "disagreements": int(wrong.sum()),
        "gate": gate,
    }


def paired_at(n: int, delta: float, level: float, d: float) -> tuple[float, float, int]:
    """P(a gain above delta is shown | it is delta) at discordance d, as `size_at`."""
    s = around(n, d)
    mass = binom.pmf(s, n, d)
    spans = discordance(s, n, delta)
    hull = spans.of(s >= 0)
    highest = critical(partial(Discordant, n, delta), hull, level)
    least = least_over(highest, spans.first - hull.first, spans.last - hull.first)
    share = min(1.0, max(0.0, (1 + delta / d) / 2))
    limits = np.full(len(s), ndtri(level)), least - PRECISION, least
    borders = [least_b(s, n, delta, limit) for limit in limits]
    sizes = [float((mass * binom.sf(b - 1, s, share)).sum()) for b in borders[:2]]
    rest = 1 - mass.sum()
    low, high = borders[2], borders[1]
    between = [(i, b) for i in range(len(s)) for b in range(low[i], high[i])]
    at = np.array(between, dtype=np.int64).reshape(-1, 2)
    chance = mass[at[:, 0]] * binom.pmf(at[:, 1], s[at[:, 0]], share)
    table = [at[:, 1], s[at[:, 0]] - at[:, 1]]
    z = -tango_statistic(table[0], table[1], n, delta)
    gate = partial(shows_gain, n=n, delta=delta, alpha=level)
    shown = asked(gate, table, z, z, chance)
    near = [np.minimum(low, s), s - np.minimum(low, s)]
    wrong = disagreements(
        gate, near, -tango_statistic(near[0], near[1], n, delta), least
    )
    return sizes[0] + rest, sizes[1] + float(chance[shown].sum()) + rest, wrong


def least_b(s: np.ndarray, n: int, delta: float, limit: np.ndarray) -> np.ndarray:
    """Least b of each s with a statistic of at most `limit`, s + 1 if there is none."""
    out, in_ = np.full(len(s), -1), s + 1
    # The statistic, its sign changed, falls in b for one s.
    while np.any(in_ - out > 1):
        b = (in_ + out) // 2
        z = -tango_statistic(b, s - b, n, delta)
        within = (z <= limit) & (z < 0) & (b > out)
        in_, out = np.where(within, b, in_), np.where(within, out, b)
    return in_


def cases(*, small: bool = False) -> Iterator[tuple[str, int, int, float, float]]:
    """Yields tests, sizes, lines and levels: the arguments of `measured`."""
    pairs = SMALL if small else (*WHOLE, *LARGE)
    two = [(*line, *sizes) for sizes in pairs for line in LINES]
    rows = PAIRED[:1] if small else PAIRED
    paired = [("two models", at, n, n) for n in rows for at in DELTAS]
    for test, at, n1, n0 in (*two, *paired):
        for level in LEVELS[:1] if small else LEVELS:
            yield test, n1, n0, at, level


def seconds() -> float:
    """CPU s of judging one principle over 40 ordered pairs of large groups."""
    rng, sizes = np.random.default_rng(0), np.array([200_000, 5_001])
    rates = rng.uniform(0.1, 0.5, (PAIRS // 2, 1)) + np.array([0.0, 0.004])
    counted = tuple(
        Rates(f"tpr of class {k}", rng.binomial(sizes, p), sizes)
        for k, p in enumerate(rates)
    )
    promise = Constraint("tpr_gap", "<=", group="g", threshold=0.02)
    hits = GroupHits(counted, np.zeros(2, dtype=bool))
    begin = time.process_time()
    for at in (0.02, 0.005):
        line = replace(promise, threshold=at)
        bounds(line, hits, 0.05)
        inside(line, hits, 0.05)
    return (time.process_time() - begin) / 2


def table(rows: list[dict[str, Any]]) -> str:
    """Writes the worst rows over lines and rates as Markdown."""
    lines = [
        "| test | n1 | n0 | alpha | normal law | the gate's test | it is |",
        "|---|---|---|---|---|---|---|",
    ]
    keys = ("test", "n1", "n0", "alpha", "gate")
    for key in dict.fromkeys(tuple(r[k] for k in keys) for r in rows):
        same = [r for r in rows if tuple(r[k] for k in keys) == key]
        normal, exact = (max(r[k] for r in same) for k in ("normal", "exact"))
        test, n1, n0, alpha, gate = key
        lines.append(
            f"| {test} | {n1:,} | {n0:,} | {alpha:g} | {normal:.4f} | {exact:.4f} | "
            f"{gate} |"
        )
    return "\n".join(lines)


def goal(what: str, limit: float, values: list[float]) -> dict[str, Any]:
    """A goal that the largest value must keep."""
    return {
        "what": what,
        "op": "<=",
        "goal": limit,
        "value": max(values),
        "spread": [min(values), max(values)],
    }


def result(rows: list[dict[str, Any]], judged_in: float) -> dict[str, Any]:
    """Puts the rows into the form of all benchmark results."""
    goals = [
        goal(
            f"true error / alpha of the gate's test, worst case: {name}",
            1.0,
            [r["exact"] / r["alpha"] for r in rows if r["test"] == test],
        )
        for test, name in (
            ("difference", "differences of two rates"),
            ("ratio", "ratios of two rates"),
            ("two models", "two models on the same rows"),
        )
    ]
    wrong = [float(r["disagreements"]) for r in rows]
    goals += [
        goal("tables next to the border that the gate judges otherwise", 0, wrong),
        goal(f"CPU s to judge {PAIRS} pairs of 200,000 and 5,001", 10.0, [judged_in]),
    ]
    return in_form(
        "interval-sizes",
        "python -m benchmarks interval-sizes --write",
        packages=("numpy", "scipy"),
        cores=None,
        rows=rows,
        goals=goals,
    )


def main() -> None:
    """Prints the table; stores it with `--write`."""
    parser = argparse.ArgumentParser(description=__doc__)
    some = parser.add_mutually_exclusive_group()
    some.add_argument("--write", action="store_true")
    some.add_argument("--small", action="store_true")
    options = parser.parse_args()
    judged_in = seconds()
    with ProcessPoolExecutor(WORKERS) as pool:
        rows = list(pool.map(measured, *zip(*cases(small=options.small), strict=True)))
    print(table(rows))
    found = result(rows, judged_in)
    for g in found["goals"]:
        print(f"{g['what']}: {g['value']:.4g} ({g['op']} {g['goal']:g})")
    if options.write:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        store(RESULT, found)
        start, end = "<!-- interval-sizes -->", "<!-- /interval-sizes -->"
        text = f"{start}\n{table(rows)}\n{end}"
        page = PAGE.read_text(encoding="utf-8")
        page = re.sub(f"{start}.*?{end}", lambda _: text, page, flags=re.DOTALL)
        PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
