"""Does the live monitor see a broken promise, how soon, and does the ladder mend it?

    python -m benchmarks monitor [--seeds 5] [--flips .02 .05 .1] [--agents 4]
                                 [--streams 300] [--write]

Adult, `tpr_gap by sex <= .05`, alpha .01 in all. Half of the development rows are the
split *monitor*: the fresh stream, with trusted labels. A share of the women's negative
labels in the rows that train is turned positive: loss and multipliers see qualified
women who are none, and the model that is fair by them favours women. The *realised gap*
is that of the soup on the audit pool (the official test file) at the alarm, or at the
end without one. A pair is a fresh row of either group that counts in the promise.

1. `observe`: pairs until the first alarm, in runs whose realised gap is >= .15.
2. `correct`: the same runs with the ladder. *Escalated*: a person was called, by the
   last rung or, where fresh rows after the last correction do not look well, at the end
   of the training; *corrected*: nobody was called, and the last soup's gap on the pool
   is <= tau + two standard errors; *left*: nobody was called, and it is not.
3. Streams at the boundary: the lower rate of a real model above, the other tau above
   it, in the blocks of a run; and the trainings without flips.

About 7 CPU seconds a training and two trainings for each seed and share.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.audit_pool import Run, audited, flip, prepared, promise
from benchmarks.provenance import ROOT, figure, in_form, store, told
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.training.bets import Bets

RESULT = ROOT / "benchmarks" / "results" / "monitor.json"
TAU, ALPHA = 0.05, 0.01
SPLITS = {
    "train": 0.3,
    "validation": 0.05,
    "constraint": 0.1,
    "monitor": 0.5,
    "select": 0.05,
}
REALISED, PAIRS = 0.15, 300
"""Gap from which detection is asked for, and the most pairs that it may take."""
LOOKS = 30
_BLOCK = (20, 110)
"""Rows of either group in a look of such a run: positive women and men."""


def trainings(
    seeds: Sequence[int], flips: Sequence[float], agents: int
) -> Iterator[dict[str, Any]]:
    """Yields a raw row for each training."""
    constitution = promise("tpr_gap", TAU)
    for seed in seeds:
        for share in (0.0, *flips):
            with tempfile.TemporaryDirectory() as folder:
                encoded, pool = prepared(Path(folder), seed, SPLITS)
                flipped = flip(encoded, share, seed)
                # Two standard errors of the difference, at rates of one half.
                sizes = [0.25 / n for n in (590, 3256)]
                for how in ("observe", "correct"):
                    config = TrainingConfig(
                        seed=seed, num_agents=agents, monitor=how, monitor_alpha=ALPHA
                    )
                    run = audited(encoded, pool, constitution, config)
                    head = {"seed": seed, "share": share, "flipped": flipped}
                    yield {
                        **head,
                        "how": how,
                        **row(run, TAU + 2 * math.sqrt(sum(sizes))),
                    }


def row(run: Run, bound: float) -> dict[str, Any]:
    """Returns what a training shows.

    Args:
        run: the training.
        bound: of the last gap, up to which a promise counts as kept.
    """
    alarms = run.of("alarm")
    at = alarms[0]["step"] if alarms else run.gaps[-1][0]
    realised = next(gap for step, gap, _ in run.gaps if step == at)
    called = run.refused or bool(run.of("escalated"))
    kept = "corrected" if run.last <= bound else "left"
    return {
        "realised_gap": realised,
        "pairs": alarms[0]["fresh_pairs"] if alarms else None,
        "looked_at": run.of("monitor")[-1]["fresh_pairs"],
        "alarms": len(alarms),
        "rungs": [event["rung"] for event in run.of("correction")],
        "last_gap": None if run.refused else run.last,
        "rates": run.rates,
        "end": "escalated" if called else kept,
    }


def streams(rates: Sequence[float], number: int, seed: int) -> int:
    """Returns the alarms of streams whose gap is tau exactly.

    Args:
        rates: of the group with the lower one in real models; one is drawn each.
        number: of streams.
        seed: of the draws.
    """
    rng, alarms = np.random.default_rng(seed), 0
    sides = np.array([(0, 1), (1, 0)], np.intp)
    sizes = np.array(_BLOCK, np.float64)
    for _ in range(number):
        low = float(rng.choice(np.array(rates)))
        bets = Bets(sides, 2, np.full(2, TAU))
        for _ in range(LOOKS):
            hits = rng.binomial(_BLOCK, (low + TAU, low)).astype(np.float64)
            bets.add(hits, sizes)
            # The first process of a run: half of alpha.
            if bets.wealth >= 2 / ALPHA:
                alarms += 1
                break
    return alarms


def figures(raw: Sequence[dict[str, Any]], alarms: int, number: int) -> list[Any]:
    """Returns what the runs say, three of it beside a goal."""
    broken = [r for r in raw if r["realised_gap"] >= REALISED and r["share"]]
    seen = [r for r in broken if r["how"] == "observe"]
    pairs = sorted(math.inf if r["pairs"] is None else r["pairs"] for r in seen)
    incidents = [r for r in raw if r["how"] == "correct" and r["share"] and r["alarms"]]
    plain = [r for r in raw if r["how"] == "observe" and not r["share"]]
    ends = [r["end"] for r in incidents]
    found: list[Any] = []
    if pairs:
        middle, spread = statistics.median_high(pairs), (pairs[0], pairs[-1])
        what = f"median fresh pairs to the alarm, {len(pairs)} runs, gap >= {REALISED}"
        found.append(figure(what, middle, spread, op="<=", goal=PAIRS))
    what = f"false alarms in {number} streams at the boundary, alpha {ALPHA}"
    found.append(figure(what, alarms, op="<=", goal=0))
    if plain:
        what = f"alarms in {len(plain)} trainings without flips"
        found.append(figure(what, sum(r["alarms"] > 0 for r in plain)))
    for end in ("corrected", "escalated", "left"):
        what = f"share of {len(ends)} incidents that end {end}"
        if ends:
            found.append(figure(what, ends.count(end) / len(ends)))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Prints figures and goals; stores them with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--flips", type=float, nargs="*", default=[0.02, 0.05, 0.1])
    parser.add_argument("--agents", type=int, default=4)
    parser.add_argument("--streams", type=int, default=300)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(argv)
    raw = []
    for found in trainings(range(options.seeds), options.flips, options.agents):
        print(found, flush=True)
        raw.append(found)
    rates = [min(r["rates"]) for r in raw if r["rates"]]
    alarms = streams(rates, options.streams, seed=0)
    rows = figures(raw, alarms, options.streams)
    goals = told(rows)
    if options.write:
        flips = " ".join(f"{share:g}" for share in options.flips)
        found = in_form(
            "monitor",
            f"python -m benchmarks monitor --seeds {options.seeds} --flips {flips} "
            f"--agents {options.agents} --streams {options.streams} --write",
            packages=("torch", "numpy"),
            cores=", one thread",
            seeds=list(range(options.seeds)),
            rows=rows,
            goals=goals,
            raw=raw,
        )
        store(RESULT, found)


if __name__ == "__main__":
    main()
