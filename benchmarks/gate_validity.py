"""How often the gate errs about real models that stand on the line of their promise.

    python -m benchmarks gate-validity [--models 200] [--draws 500] [--attacks 400]
        [--write]

200 models of Adult (boosted trees and logistic regressions on random rows and inputs)
answer the rows that they were not fitted on. These rows are the population: what is
true of a model there is known. Each model is shifted until it stands on the line of a
promise, or a number of standard errors away from it: women's answers are moved at
random until their rate is the one that is wanted, and of right answers that the twin
lacks or has alone as many are mended or spoilt. Sealed sets of the official size are
drawn from the population, and `certify`, which decides for the gate, judges each.

An adversary with 50 submissions to one sealed set sends models that all break the
promise, each shifted to just beyond the line of the population. It is told what the
gate tells: passed or not, at a fiftieth of alpha each (`planned_submissions`), or all
figures, by which it keeps the mixture of models and noise that looks best and changes
it a little. After figures were read the gate calls the rows spent, so that none but the
first can pass without a person; what would pass without that rule stands beside it, and
so does the gate of common tools, which compares the point value with the line.

`--write` stores benchmarks/results/gate-validity.json.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import lightgbm
import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression

from benchmarks.provenance import ROOT, in_form, store
from benchmarks.transfer_tasks import OFFICIAL, POOL, TASKS, Case, Rows, prepared
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.principles import Constraint
from safescale_ammt.files.canonical import digest_bytes
from safescale_ammt.judging.certify import (
    GroupHits,
    Hits,
    PairedHits,
    breaches,
    inside,
    outside,
)
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.gate import PASS, decide
from safescale_ammt.judging.group_rates import Rates
from safescale_ammt.judging.judge import judge
from safescale_ammt.releasing import ledger
from safescale_ammt.store.uri import open_store

RESULT = ROOT / "benchmarks" / "results" / "gate-validity.json"
ALPHA, SIZES, ROUNDS = 0.05, 5, 50
"""Level; draws of how many of each cell are sealed; submissions of an adversary."""
AWAY = (-3.0, 0.0, 3.0, 6.0)
"""Standard errors that a model stands beyond its line."""
TWIN_DELTA = -0.01
PROMISES = {
    "tpr gap": Constraint("tpr_gap", "<=", 0.08, group="sex"),
    "dp gap": Constraint("dp_gap", "<=", 0.08, group="sex"),
    "dp ratio": Constraint("dp_ratio", ">=", 0.8, group="sex"),
    "accuracy beside the twin": Constraint(
        "accuracy", ">=", reference="unconstrained_twin", delta=TWIN_DELTA
    ),
}
RULES = Constitution.from_dict(
    {
        "schema": 1,
        "principles": [
            {
                "id": "equal-opportunity",
                "constraint": {"metric": "tpr_gap", "group": "sex", "threshold": 0.08},
            }
        ],
        "gate": {"alpha": ALPHA},
    }
)
"""What the adversary's submissions are decided by, the whole way."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Population:
    """Rows that no model was fitted on, and what the models answer to them.

    Attributes:
        label: 0 or 1 (n,).
        female: which rows are women (n,).
        scores: chances of the positive class (models, n).
        twin: those of the reference (n,).
        sealed: rows of a sealed set.
    """

    label: NDArray[np.int64]
    female: NDArray[np.bool_]
    scores: Floats
    twin: Floats
    sealed: int

    def cell(self, kind: str) -> NDArray[np.bool_]:
        """Returns the rows (n,) that count in a rate: `tpr` or `selection`."""
        return self.label == 1 if kind == "tpr" else np.ones(len(self.label), bool)


def population(models: int) -> Population:
    """Fits the models, and lets them answer the rows that none was fitted on."""
    with tempfile.TemporaryDirectory(prefix="validity-") as folder:
        places = prepared(OFFICIAL, TASKS["tpr"], Path(folder))
        case = Case("tpr", OFFICIAL, 0.08, *places)
        fitted = case.rows(*POOL)
        others = case.rows("validation", "monitor", "select")
        people = Rows.joined([others, case.sealed])
        women = case.values.index("Female")
        sealed = len(case.sealed)
    rng = np.random.default_rng(0)
    scores = [model(fitted, people.x, i, rng) for i in range(models)]
    whole = boosted(100, 15, 1.0).fit(fitted.x, fitted.y)
    return Population(
        people.y,
        people.group == women,
        np.stack(scores),
        np.asarray(whole.predict_proba(people.x))[:, 1],
        sealed,
    )


def boosted(rounds: int, leaves: int, inputs: float) -> lightgbm.LGBMClassifier:
    """Returns an unfitted booster."""
    return lightgbm.LGBMClassifier(
        n_estimators=rounds,
        num_leaves=leaves,
        colsample_bytree=inputs,
        num_threads=1,
        deterministic=True,
        verbose=-1,
    )


def model(
    rows: Rows, asked: NDArray[np.float32], number: int, rng: np.random.Generator
) -> Floats:
    """Fits one model to some rows and inputs; returns its chances (n,)."""
    chosen = rng.choice(len(rows), rng.integers(2_000, 8_000), replace=False)
    width = rows.x.shape[1]
    inputs = rng.choice(width, width // 2, replace=False)
    own: Any = LogisticRegression(C=float(10 ** rng.uniform(-3, 1)), max_iter=200)
    if number % 2:
        own = boosted(int(rng.integers(20, 120)), int(rng.integers(4, 32)), 0.7)
    own.fit(rows.x[np.ix_(chosen, inputs)], rows.y[chosen])
    return np.asarray(own.predict_proba(asked[:, inputs]))[:, 1]


# --- sealed draws ---


def judged(people: Population, promise: str, draws: int) -> Iterator[dict[str, Any]]:
    """Yields, by how far from the line models stand, what the gate says of draws."""
    c = PROMISES[promise]
    away = AWAY if c.metric in ("tpr_gap", "accuracy") else (0.0,)
    for far in away:
        rng = np.random.default_rng([list(PROMISES).index(promise), int(10 * far + 60)])
        counted = np.zeros(4)
        for score in people.scores:
            for _ in range(SIZES):
                hits = drawn(people, c, score, far, draws=draws // SIZES, rng=rng)
                if hits is None:
                    continue
                passes, fails = inside(c, hits, ALPHA), outside(c, hits, ALPHA)
                says = [passes.sum(), fails.sum(), (~breaches(c, hits)).sum()]
                counted += [len(passes), *says]
        yield {
            "promise": promise,
            "errors_beyond": far,
            "draws": int(counted[0]),
            "passes": float(counted[1] / counted[0]),
            "fails": float(counted[2] / counted[0]),
            "human": float(1 - (counted[1] + counted[2]) / counted[0]),
            "point_value_passes": float(counted[3] / counted[0]),
        }


def drawn(
    people: Population,
    c: Constraint,
    score: Floats,
    far: float,
    *,
    draws: int,
    rng: np.random.Generator,
) -> Hits | None:
    """Draws sealed hits of a model at a distance from its line; None: there is none."""
    right = (score >= 0.5) == people.label
    if c.reference:
        return paired(people, right, far, draws, rng)
    kind = "tpr" if c.metric == "tpr_gap" else "selection"
    cell, share = people.cell(kind), people.sealed / len(people.label)
    of = [cell & ~people.female, cell & people.female]
    men = float((score[of[0]] >= 0.5).mean())
    expected = [share * rows.sum() for rows in of]
    women = at_line(c, men, far, expected)
    if not 0 < women < 1:
        return None
    # How many of a group are sealed is chance as well.
    trials = rng.binomial(people.sealed, [rows.mean() for rows in of])
    hits = rng.binomial(trials, [men, women], (draws, 2))
    return GroupHits((Rates(kind, hits, trials),), np.zeros(2, bool))


def at_line(c: Constraint, men: float, far: float, trials: Sequence[float]) -> float:
    """Returns the women's rate at which a promise stands beyond its line."""
    threshold = c.threshold or 0.0
    women = men * threshold if c.metric == "dp_ratio" else men - threshold
    if not 0 < women < 1:
        return women
    rates = zip((men, women), trials, strict=True)
    return women - far * math.sqrt(sum(p * (1 - p) / n for p, n in rates))


def paired(
    people: Population,
    right: NDArray[np.bool_],
    far: float,
    draws: int,
    rng: np.random.Generator,
) -> PairedHits:
    """Draws right answers of a model and of the twin, a difference apart."""
    twin = (people.twin >= 0.5) == people.label
    alone, n = float((right & ~twin).mean()), people.sealed
    other = alone - TWIN_DELTA
    # Of rows that only the twin gets right some are mended or others spoilt.
    other += far * math.sqrt((alone + other - TWIN_DELTA**2) / n)
    both = float((right & twin).mean())
    shares = [alone, other, both]
    counts = rng.multinomial(n, [*shares, 1 - sum(shares)], draws)
    b, c, common = counts[:, 0], counts[:, 1], counts[:, 2]
    return PairedHits(b + common, b, c, n)


# --- an adversary ---


class Candidate(NamedTuple):
    """Shares of the models (models,) in a score, and what is added to it (n,)."""

    shares: Floats
    noise: Floats


class Sealed:
    """A sealed set, and what candidates show on it.

    Args:
        people: the population that it is drawn from.
        seed: of the draw.
    """

    def __init__(self, people: Population, seed: int) -> None:
        self.rng = np.random.default_rng([7, seed])
        self._people = people
        positives = people.label == 1
        men, women = positives & ~people.female, positives & people.female
        self._cells = np.flatnonzero(men), np.flatnonzero(women)
        # A row may be drawn more than once: rows are independent draws of people.
        times = self.rng.multinomial(
            people.sealed, np.full(len(positives), 1 / len(positives))
        )
        self._times = [times[cell] for cell in self._cells]
        self.trials = np.array([int(t.sum()) for t in self._times])

    def candidate(self, near: Candidate | None) -> Candidate:
        """Returns a mixture of models with some noise: any, or one near another."""
        shares = self.rng.dirichlet(np.full(len(self._people.scores), 0.02))
        noise = self.rng.normal(0, 0.2, len(self._people.label))
        if near is None:
            return Candidate(shares, noise)
        # Noise keeps its size.
        return Candidate(
            0.9 * near.shares + 0.1 * shares, (near.noise + noise / 2) / math.sqrt(1.25)
        )

    def hits(self, candidate: Candidate) -> GroupHits:
        """Returns what a candidate, shifted to just beyond the line, hits here."""
        own = np.flatnonzero(candidate.shares > 1e-3)
        scores = candidate.shares[own] @ self._people.scores[own] + candidate.noise
        threshold = PROMISES["tpr gap"].threshold or 0.0
        men, women = (scores[cell] for cell in self._cells)
        found = [men >= 0.5]
        # In the population the gap is no smaller than the line.
        most = math.floor(len(women) * (found[0].mean() - threshold))
        place = np.argsort(np.argsort(-women, kind="stable"), kind="stable")
        found.append(place < most)
        counted = [int(t[f].sum()) for t, f in zip(self._times, found, strict=True)]
        rates = Rates("tpr", np.array(counted), self.trials)
        return GroupHits((rates,), np.zeros(2, bool))


def attack(people: Population, seed: int) -> dict[str, bool]:
    """Sends 50 models that break the promise to one sealed set; says what passed."""
    sealed, c = Sealed(people, seed), PROMISES["tpr gap"]
    told_nothing = any(
        shown(c, sealed.hits(sealed.candidate(None)), ALPHA / ROUNDS)
        for _ in range(ROUNDS)
    )
    best, seen = None, []
    for _ in range(ROUNDS):
        tried = sealed.candidate(best)
        hits = sealed.hits(tried)
        seen.append((gap_of(hits), hits))
        if seen[-1][0] <= min(gap for gap, _ in seen):
            best = tried
    first, last = seen[0], min(seen, key=lambda each: each[0])
    threshold = c.threshold or 0.0
    return {
        "passed or not, alpha / 50": told_nothing,
        "figures, rows spent": any(in_the_book([first[1], last[1]])),
        "figures, no ledger": any(shown(c, hits, ALPHA) for _, hits in seen),
        "point value, one submission": first[0] <= threshold,
        "point value, figures": last[0] <= threshold,
    }


def shown(c: Constraint, hits: GroupHits, alpha: float) -> bool:
    """Says whether one draw shows the promise; the normal law where it leaves no doubt.

    At these sizes the exact test rejects between .7 and 1.04 times alpha of it.
    """
    draw = replace(hits, rates=tuple(replace(r, hits=r.hits[None]) for r in hits.rates))
    if not inside(c, draw, 1.6 * alpha, normal=True)[0]:
        return False
    return bool(inside(c, draw, alpha)[0])


def gap_of(hits: GroupHits) -> float:
    """Returns the difference of two groups' rates."""
    one, other = hits.rates[0].points
    return abs(float(one - other))


def in_the_book(submissions: Sequence[GroupHits]) -> list[bool]:
    """Says which submissions pass, one after the other, by ledger, judge and gate."""
    passes = []
    with tempfile.TemporaryDirectory(prefix="ledger-") as folder:
        book = open_store(Path(folder).as_uri())
        for number, hits in enumerate(submissions):
            use = ledger.reserve(
                book,
                rows=[bytes([i]) * 16 for i in range(20)],
                model=digest_bytes(b"model %d" % number),
                holdout=digest_bytes(b"holdout"),
                planned=1,
                constitution=digest_bytes(b"constitution"),
                ledger="benchmark",
            )
            finding = judge(RULES.principles[0], evidence(hits), RULES.groups, ALPHA)
            found = decide(RULES, [finding], guarantee=use.guarantee)
            passes.append(found.decision == PASS)
            # Its figures are read.
            read = digest_bytes(b"figures %d" % number)
            ledger.mark_opened(book, use, evidence=read, verdict=read)
    return passes


def evidence(hits: GroupHits) -> Evidence:
    """Returns positives of two groups as many of whom are found as were hit."""
    rates = hits.rates[0]
    group = np.repeat([0, 1], rates.trials)
    found = np.concatenate(
        [np.arange(n) < x for x, n in zip(rates.hits, rates.trials, strict=True)]
    ).astype(np.int64)
    groups = {"sex": (("Male", "Female"), group)}
    return Evidence(np.ones_like(found), found, found.astype(float), groups)


# --- the result ---


def measured(people: Population, draws: int, attacks: int) -> list[dict[str, Any]]:
    """Measures all: rows of sealed draws, and of the adversary's ways."""
    rows = []
    for promise in PROMISES:
        for row in judged(people, promise, draws):
            print(json.dumps(row), flush=True)
            rows.append(row)
    raw = [attack(people, seed) for seed in range(attacks)]
    for way in raw[0]:
        shares = [float(each[way]) for each in raw]
        rows.append(
            {"attack": way, "attacks": attacks, "passes": float(np.mean(shares))}
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def goals(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compares with what is promised of errors, beside what chance adds to a share."""
    drawn = [r for r in rows if "promise" in r]
    line = [r for r in drawn if not r["errors_beyond"]]
    far = [r for r in drawn if abs(r["errors_beyond"]) >= 3]
    by_way = {r["attack"]: r for r in rows if "attack" in r}
    bit, spent = by_way["passed or not, alpha / 50"], by_way["figures, rows spent"]

    def most(n: int) -> float:
        # What a share of so many draws exceeds one time in a thousand, at alpha.
        return float(binom.ppf(0.999, n, ALPHA) / n)

    least = min(r["draws"] for r in line)
    found = [
        ("false passes on the line, largest", "<=", most(least), "passes", line),
        ("false fails on the line, largest", "<=", most(least), "fails", line),
        ("left to a person 3 standard errors away", "<=", 0.2, "human", far),
        ("false passes of 50 told a bit", "<=", most(bit["attacks"]), "passes", [bit]),
        (
            "false passes of 50 told figures, rows spent",
            "<=",
            most(spent["attacks"]),
            "passes",
            [spent],
        ),
    ]
    return [
        {
            "what": what,
            "op": op,
            "goal": goal,
            "value": max(r[key] for r in of),
            "spread": [min(r[key] for r in of), max(r[key] for r in of)],
        }
        for what, op, goal, key, of in found
    ]


def main() -> None:
    """Prints all rows; stores them with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--attacks", type=int, default=400)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows = measured(population(options.models), options.draws, options.attacks)
    found = goals(rows)
    print(json.dumps(found, indent=1))
    if options.write:
        told = f"--models {options.models} --draws {options.draws}"
        stored = in_form(
            "gate-validity",
            f"python -m benchmarks gate-validity {told} --attacks {options.attacks} "
            "--write",
            packages=("numpy", "lightgbm", "scikit-learn"),
            cores=", one thread",
            seeds=range(options.attacks),
            rows=rows,
            goals=found,
        )
        store(RESULT, stored)


if __name__ == "__main__":
    main()
