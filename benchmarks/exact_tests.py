"""CPU seconds of one exact bound at every size, now and in two earlier revisions.

    python -m benchmarks exact-tests [--sizes N ...] [--repeats N] [--write]

A bound is one-sided: the exact test inverted for one table. For each size n: both
groups of n / 2, of n, and n beside n / 10 and beside 20; few, some and most hits; two
levels. Kinds: differences and ratios of two rates, two models on the same rows (half
of the pair of bounds), one rate. Each revision answers all of them in one process, N
times in turn, so that a busy machine is busy for all; a case's seconds are its least.
Beside them power checks at Adult's sizes, with remedies; and p-values held against
the supremum that enumerating all tables of small samples gives. `--write` stores
benchmarks/results/exact-tests.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from scipy.stats import binom

from benchmarks.house import checkout
from benchmarks.provenance import ROOT, in_form, store
from safescale_ammt.binomial import exact
from safescale_ammt.binomial.exact import Line
from safescale_ammt.binomial.two_rates import difference_upper, p_below

RESULT = ROOT / "benchmarks" / "results" / "exact-tests.json"
NOW, BEFORE, ISSUE = "now", "b82994b", "5109587"
"""This code, the last before its exact tests were made cheap, and the issue's."""
SIZES = (300, 1_000, 3_000, 5_000, 20_000)
LEVELS = (0.05, 0.001)
RATES = (0.002, 0.1, 0.6)
ASKED_SIZE, LIMIT = 5_000, 0.1
ENUMERATED = ((1, 1), (3, 7), (20, 9), (25, 25))
BOTH_WAYS = ((300, 20_000), (10_000, 10_000), (20_000, 20_000))
LINES = (
    *(("difference", -0.1), ("difference", 0.0), ("difference", 0.2)),
    *(("ratio", 0.8), ("ratio", 1.25)),
)
CHECKS = (
    ("tpr_gap", "<=", 0.08),
    ("tpr_gap", "<=", 0.02),
    ("dp_gap", "<=", 0.2),
    ("dp_gap", "<=", 0.01),
    ("dp_ratio", ">=", 0.8),
    ("dp_ratio", ">=", 0.95),
)
ASKED = """
import json, sys, time
from importlib import import_module
# What a checkout lacks must not come from the one that is installed for editing.
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
def found(name, *modules):
    for module in modules:
        try:
            return getattr(import_module("safescale_ammt." + module), name)
        except (ImportError, AttributeError):
            pass
two = [found(f, "binomial.two_rates", "judging.two_rates")
       for f in ("difference_upper", "ratio_upper")]
bounds = dict(zip(("difference", "ratio"), two))
bounds["two models"] = found("gain_bounds", "binomial.paired")
bounds["one rate"] = found("clopper_pearson", "binomial.intervals", "judging.intervals")
def clocked(ask, *of):
    start = time.process_time()
    answer = ask(*of)
    return time.process_time() - start, answer
def bound(kind, *of):
    if bounds[kind] is None:
        return None
    spent, answer = clocked(bounds[kind], *of)
    return [spent / 2, answer[1]] if kind in ("two models", "one rate") else [
        spent, answer]
def check(metric, op, line):
    power = found("power_check", "judging.power.check", "judging.power")
    rules = found("Constitution", "constitution.constitution", "constitution")
    rules = rules.from_dict({
        "schema": 1, "groups": {}, "gate": {}, "principles": [{
            "id": "p", "train": {"enforce": False}, "constraint": {
                "metric": metric, "op": op, "group": "sex", "threshold": line}}]})
    label, cell, split, counts = (
        found(name, "data.counts")
        for name in ("LabelCounts", "Cell", "SplitCounts", "Counts"))
    label = label or cell
    def rows(share, sizes):
        cells = {}
        for value, (n, positives) in sizes.items():
            n, yes = round(n * share), round(positives * share)
            cells[value] = label(n, (n - yes, yes))
        return split(sum(c.rows for c in cells.values()), {"sex": cells})
    train = {"F": (10_771, 1_179), "M": (21_790, 6_662)}
    test = {"F": (5_421, 590), "M": (10_860, 3_256)}
    told = counts(("no", "yes"), "yes", {
        "train": rows(0.6, train), "constraint": rows(0.1, train),
        "sealed": rows(1, test)})
    spent, report = clocked(power, rules, told)
    return [spent, report.spread.passes]
cases, checks = json.load(sys.stdin)
for _, kind, *of in cases[-1:] + cases[:1]:
    bound(kind, *of)
answers = [bound(kind, *of) for _, kind, *of in cases]
checked = []
for each in checks:
    try:
        checked.append(check(*each))
    except Exception as error:
        checked.append(None)
        print(type(error).__name__, error, file=sys.stderr)
print(json.dumps([answers, checked]))
"""


def cases(sizes: list[int]) -> Iterator[tuple[Any, ...]]:
    """Yields sizes, kinds of bounds, their tables and levels, as `ASKED` takes them."""
    for n in sizes:
        shapes = dict.fromkeys(
            [(n // 2, n // 2), (n, n), (n, n // 10), (n // 10, n), (n, 20), (20, n)]
        )
        for rate in RATES:
            for level in LEVELS:
                for n1, n0 in shapes:
                    table = round(n1 * rate), n1, min(n0, round(n0 * rate * 1.05)), n0
                    yield n, "difference", *table, level
                    yield n, "ratio", *table, level
                apart = round(n * rate * 0.5), round(n * rate * 0.45)
                yield n, "two models", *apart, n, level
                yield n, "one rate", round(n * rate), n, level


def answered(root: Path, asked: tuple[list[Any], list[Any]]) -> list[list[Any]]:
    """Lets the code of a checkout answer all cases and checks in one process."""
    done = subprocess.run(
        [sys.executable, "-c", ASKED],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
    )
    answers: list[list[Any]] = json.loads(done.stdout)
    return answers


def least(each: list[list[Any]]) -> list[Any]:
    """The least seconds of every answer over the repeats, with what was answered."""
    return [None if a[0] is None else min(a) for a in zip(*each, strict=True)]


def enumerated(n1: int, n0: int, kind: str, at: float) -> list[float]:
    """p-values over the largest probability at 400 nuisance rates, table by table."""
    line = Line("ratio" if kind == "ratio" else "difference", at, n1, n0)
    p0 = line.nuisance(np.linspace(0, 1, 401))
    x1, x0 = (t.ravel() for t in np.indices((n1 + 1, n0 + 1)))
    mass: Any = binom.pmf(x1[:, None], n1, line.p1(p0)) * binom.pmf(x0[:, None], n0, p0)
    z = line.statistic(x1, x0)
    order = np.argsort(z)
    below = np.asarray(np.cumsum(mass[order], axis=0)).max(axis=1)
    # Tables with one statistic are in the region together.
    last = np.searchsorted(z[order], z + 1e-9, side="right") - 1
    speaking = np.flatnonzero(z < -0.3)
    return [
        p_below(int(x1[i]), int(x0[i]), line) / float(below[last[i]])
        for i in speaking[:: max(1, len(speaking) // 30)]
        if below[last[i]] > 1e-6
    ]


def both_ways(n1: int, n0: int, rate: float = 0.3) -> dict[str, Any]:
    """Upper bounds of a difference with an interval of the rates, and with all."""
    table = round(n1 * rate), n1, round(n0 * rate), n0
    row: dict[str, Any] = {"both ways": f"{n1:,} beside {n0:,}, rate {rate:g}"}
    for name, limit in (("interval", 0), ("all_rates", n1 + n0)):
        with patch.object(exact, "WHOLE_UP_TO", limit):
            start = time.process_time()
            row[f"{name}_upper"] = difference_upper(*table, 0.05)
            row[f"{name}_cpu_s"] = time.process_time() - start
    return row


def rows_of(asked: list[Any], answers: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """One row for each kind and size: seconds of a bound by revision."""
    rows = []
    for n, kind in dict.fromkeys((case[0], case[1]) for case in asked):
        row: dict[str, Any] = {"bound": kind, "n": n}
        which = [i for i, c in enumerate(asked) if (c[0], c[1]) == (n, kind)]
        for revision, given in answers.items():
            seconds = [given[i][0] for i in which if given[i] is not None]
            if seconds:
                row[f"{revision}_median_cpu_s"] = statistics.median(seconds)
                row[f"{revision}_most_cpu_s"] = max(seconds)
        rows.append({**row, "cases": len(which)})
    return rows


def goal(what: str, op: str, limit: float, values: list[float]) -> dict[str, Any]:
    """A goal that all values must keep."""
    worst: Callable[[list[float]], float] = max if op == "<=" else min
    spread = [min(values), max(values)]
    return {"what": what, "op": op, "goal": limit, "value": worst(values)} | {
        "spread": spread
    }


def goals_of(
    asked: list[Any],
    answers: dict[str, list[Any]],
    checks: dict[str, list[Any]],
    ratios: list[float],
) -> list[dict[str, Any]]:
    """What the bounds and the power checks had to keep."""
    now, before = answers[NOW], answers[BEFORE]
    spent = [a[0] for a, c in zip(now, asked, strict=True) if c[0] == ASKED_SIZE]
    apart = [
        abs(a[1] - b[1]) if a[1] != b[1] else 0.0
        for a, b in zip(now, before, strict=True)
    ]
    faster, normal = (
        [a[0] / b[0] for a, b in zip(checks[NOW], checks[r], strict=True)]
        for r in (BEFORE, ISSUE)
    )
    found = [
        goal("CPU s of one exact bound, any size", "<=", LIMIT, [a[0] for a in now]),
        goal(f"bounds apart from those of {BEFORE}, largest", "<=", 0.0, apart),
        goal(f"CPU s of a power check, now / {BEFORE}", "<=", 1.0, faster),
        # That one took a normal law above 5,000 trials, which errs above its level.
        goal(f"CPU s of a power check, now / {ISSUE}", "<=", 1.0, normal),
        goal("p-value / largest probability by enumeration", ">=", 1 - 1e-9, ratios),
    ]
    if spent:
        found.insert(0, goal("CPU s of one exact bound, n = 5,000", "<=", LIMIT, spent))
    return found


def main() -> None:
    """Prints seconds and goals; stores them with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", metavar="N", type=int, nargs="+", default=SIZES)
    parser.add_argument("--repeats", metavar="N", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    asked = list(cases(list(options.sizes))), list(CHECKS)
    given: dict[str, list[list[list[Any]]]] = {NOW: [], BEFORE: [], ISSUE: []}
    with ExitStack() as stack:
        roots = {r: stack.enter_context(checkout(r)) for r in (BEFORE, ISSUE)}
        for _ in range(options.repeats):
            for revision, each in given.items():
                each.append(answered(roots.get(revision, ROOT), asked))
    answers = {r: least([a for a, _ in each]) for r, each in given.items()}
    checks = {r: least([c for _, c in each]) for r, each in given.items()}
    ratios = [v for n in ENUMERATED for line in LINES for v in enumerated(*n, *line)]
    rows = rows_of(asked[0], answers)
    for row in rows:
        print(", ".join(f"{k} {v:.4g}" for k, v in list(row.items())[1:]), row["bound"])
    for of, *seconds in zip(CHECKS, *checks.values(), strict=True):
        rows.append({"power check": " ".join(map(str, of))})
        for revision, answer in zip(checks, seconds, strict=True):
            if answer is not None:
                rows[-1][f"{revision}_cpu_s"] = answer[0]
                rows[-1][f"{revision}_passes"] = answer[1]
        print(rows[-1])
    for pair in BOTH_WAYS:
        rows.append(both_ways(*pair))
        print(rows[-1])
    goals = goals_of(asked[0], answers, checks, ratios)
    for g in goals:
        print(f"{g['what']}: {g['value']:.4g} ({g['op']} {g['goal']:g})")
    if options.write:
        sizes = " ".join(map(str, options.sizes))
        found = in_form(
            "exact-tests",
            f"python -m benchmarks exact-tests --sizes {sizes} "
            f"--repeats {options.repeats} --write",
            packages=("numpy", "scipy"),
            rows=rows,
            goals=goals,
            raw=[
                {"case": case, "each_cpu_s": [a and a[0] for a in of]}
                for case, *of in zip(asked[0], *answers.values(), strict=True)
            ],
        )
        store(RESULT, found)


if __name__ == "__main__":
    main()
