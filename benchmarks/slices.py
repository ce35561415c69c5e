"""Are groups that nobody named found, and are the found ones groups?

    python -m benchmarks slices [--cases 200] [--nulls 100] [--first 0]
                                [--methods NAME ...] [--packages FOLDER] [--write]

Tables of 9,768 development and 16,281 sealed rows are drawn from Adult's rows
(`benchmarks.slice_tables`), where a model that has not seen them errs as it does. In a
*planted* table one slice errs more: one or two conditions on columns drawn at random,
ranges between the values of two rows, 2 to 10 % of the rows, 10 to 30 points of error
above the higher of its own error before and that of all other rows. In a *null* every
row has the same chance of an error. Both tables of a case are independent draws.

What counts, fixed before anything was measured:

    found     a confirmed slice has a Jaccard index of at least .5 with the planted one,
              over the population: it shares more rows with it than either has alone
    false     a confirmed slice in which the population errs no more than elsewhere: the
              hypothesis that the e-value is of. What the model itself gets wrong more
              often is no false discovery, planted or not
    rate      mean over tables of false / confirmed, 0 where none is confirmed

Beside ours, on the same tables: *unconfirmed*, our proposals all told as they are;
*point-estimate*, those that err more inside than elsewhere on the sealed rows; if
`--methods` names it, *select-alone*, ours with a third of the development rows; and
*sliceline*, from `--packages FOLDER` (`benchmarks/peers/slices_requirements.txt`):
its 20 best slices of two conditions at most, all told, of the same development rows in
quantile bins. Its weight of errors and the bins were looked at on tables 5000 to 5019,
as our search was on others that are no part of the result. About 1.5 CPU seconds a
table. `--write` stores benchmarks/results/slices.json.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.provenance import ROOT, figure, in_form, store, told
from benchmarks.slice_tables import (
    DEVELOPMENT,
    SEALED,
    SELECT,
    Floats,
    Mask,
    Population,
    adult,
    drawn,
    excess,
    overlap,
    planted,
)
from safescale_ammt.config.sections import SafetyConfig
from safescale_ammt.data.associations import bin_codes, edges_of, levels, numbers_of
from safescale_ammt.data.condition import Condition
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.slice_forms import Proposal, Slices
from safescale_ammt.judging.slices import confirmed, members, propose

RESULT = ROOT / "benchmarks" / "results" / "slices.json"
MIN_N = 200
"""Sealed rows of a group that is judged, by default."""
FOUND = 0.5
RECALL, RATE = 0.8, 0.1
ROUNDING = 1e-9
"""Equal chances have means that differ by less."""
PEER_BINS, PEER_ALPHA = 10, 0.99
DEFAULT = ("ours", "unconfirmed", "point-estimate")
Found = list[tuple[Condition, ...]]
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """Tables of one population.

    Attributes:
        features: raw columns of the development rows.
        wrong: which of them the model gets wrong.
        sealed: raw columns of the sealed rows.
        evidence: what the model answers to those.
    """

    features: pa.Table
    wrong: Mask
    sealed: pa.Table
    evidence: Evidence

    @classmethod
    def of(cls, population: Population, chance: Floats, seed: Sequence[int]) -> Case:
        """Draws development and sealed rows."""
        rng = np.random.default_rng([*seed, 1])
        rows, seen = drawn(population, chance, DEVELOPMENT, rng)
        judged, evidence = drawn(population, chance, SEALED, rng)
        features, sealed = (
            population.features.take(pa.array(index)) for index in (rows, judged)
        )
        return cls(features, seen.prediction != seen.label, sealed, evidence)

    @cached_property
    def of_select(self) -> Case:
        """The same with the development rows of *select* alone."""
        return replace(
            self, features=self.features.slice(0, SELECT), wrong=self.wrong[:SELECT]
        )

    @cached_property
    def proposals(self) -> tuple[Proposal, ...]:
        """What the development rows propose, at the defaults."""
        asked, rows = SafetyConfig().searched, len(self.wrong)
        return propose(
            self.features,
            self.wrong,
            most=asked["most"],
            conditions=asked["conditions"],
            least=math.ceil(MIN_N * rows / SEALED),
        )


def ours(case: Case) -> Found:
    """Returns what the product confirms."""
    given, rows, wrong = case.proposals, len(case.wrong), int(case.wrong.sum())
    about = Slices(SafetyConfig().searched["fdr"], rows, wrong, len(given))
    inside = [members(p.conditions, case.sealed) for p in given]
    found, _ = confirmed(case.evidence, inside, about, given, MIN_N)
    return [own.proposal.conditions for own in found.confirmed]


def select_alone(case: Case) -> Found:
    """Returns what the product would confirm if *select* alone proposed."""
    return ours(case.of_select)


def unconfirmed(case: Case) -> Found:
    """Returns all proposals."""
    return [p.conditions for p in case.proposals]


def point_estimate(case: Case) -> Found:
    """Returns the proposals whose point estimate on the sealed rows is larger."""
    wrong = (case.evidence.prediction != case.evidence.label).astype(float)
    given = [(c, members(c, case.sealed)) for c in unconfirmed(case)]
    return [c for c, inside in given if inside.any() and excess(wrong, inside) > 0]


def sliceline(case: Case) -> Found:
    """Returns SliceLine's best slices of the development rows."""
    from sliceline.slicefinder import (  # type: ignore[import-not-found]
        Slicefinder,
    )

    codes, asked = [], []
    for name in case.features.column_names:
        column = case.features[name]
        x = numbers_of(column)
        if x is None:
            code = levels(column, len(column))
            first = np.unique(code, return_index=True)[1]
            values = column.take(pa.array(first)).to_pylist()
            asked.append([Condition(name, value) for value in values])
        else:
            edges = edges_of(x, PEER_BINS)
            ends = [None, *map(float, edges), None]
            code = bin_codes(x, edges)
            bins = [
                Condition(name, above=above, up_to=up_to)
                for above, up_to in pairwise(ends)
            ]
            # Code 0 are the rows without a value.
            asked.append([Condition(name), *bins])
        codes.append(code)
    least = math.ceil(MIN_N * DEVELOPMENT / SEALED)
    finder = Slicefinder(
        alpha=PEER_ALPHA,
        k=SafetyConfig().searched["most"],
        max_l=2,
        min_sup=least,
        verbose=False,
    )
    finder.fit(np.column_stack(codes), case.wrong.astype(float))
    return [
        tuple(asked[i][int(code)] for i, code in enumerate(slice_) if code is not None)
        for slice_ in finder.top_slices_
    ]


METHODS: dict[str, Callable[[Case], Found]] = {
    "ours": ours,
    "select-alone": select_alone,
    "unconfirmed": unconfirmed,
    "point-estimate": point_estimate,
    "sliceline": sliceline,
}


def measured(
    population: Population,
    kinds: Sequence[tuple[str, int]],
    first: int,
    methods: Sequence[str],
) -> Iterator[Row]:
    """Yields a row for each table and method."""
    flat = np.full(len(population.label), population.wrong.mean())
    for number, (kind, cases) in enumerate(kinds):
        for i in range(first, first + cases):
            seed = (number, i)
            head: Row = {"kind": kind, "case": i}
            chance, target = flat, np.zeros(len(flat), bool)
            if kind == "planted":
                own = planted(population, np.random.default_rng([*seed, 0]))
                chance, target = own.chance, own.inside
                words = Proposal(own.conditions, 0, 0).words
                head |= {"slice": words, "conditions": len(own.conditions)}
                head |= {"rise": own.rise, "support": float(target.mean())}
            case = Case.of(population, chance, seed)
            for name in methods:
                start = time.process_time()
                found = METHODS[name](case)
                spent = time.process_time() - start
                inside = [members(c, population.features) for c in found]
                yield {
                    **head,
                    "method": name,
                    "told": len(found),
                    "false": sum(excess(chance, own) <= ROUNDING for own in inside),
                    "overlap": max((overlap(own, target) for own in inside), default=0),
                    "cpu_s": spent,
                }


def false_rate(row: Row) -> float:
    """Returns the share of false discoveries of a table, 0 where none is told.

    Of a null every one is false: no slice errs more than elsewhere.
    """
    return row["false"] / row["told"] if row["told"] else 0.0


def figures(raw: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns recall and false discovery rate of each method; ours have goals."""
    found = []
    for name in dict.fromkeys(row["method"] for row in raw):
        own = [row for row in raw if row["method"] == name]
        by_kind = {
            kind: [r for r in own if r["kind"] == kind] for kind in ("planted", "null")
        }
        ends: dict[str, Any] = {"op": ">=", "goal": RECALL} if name == "ours" else {}
        most: dict[str, Any] = {"op": "<=", "goal": RATE} if name == "ours" else {}
        hits = [float(r["overlap"] >= FOUND) for r in by_kind["planted"]]
        if hits:
            recall = statistics.fmean(hits)
            error = math.sqrt(recall * (1 - recall) / len(hits))
            spread = max(0.0, recall - 2 * error), min(1.0, recall + 2 * error)
            found.append(
                figure(f"{name}: planted slices found", recall, spread, **ends)
            )
        for kind, rows in by_kind.items():
            if rows:
                rates = [false_rate(row) for row in rows]
                what = f"{name}: false discovery rate, {kind} tables"
                mean = statistics.fmean(rates)
                error = statistics.pstdev(rates) / math.sqrt(len(rates))
                spread = max(0.0, mean - 2 * error), mean + 2 * error
                found.append(figure(what, mean, spread, **most))
                many = [float(row["told"]) for row in rows]
                what = f"{name}: slices told of, {kind} tables"
                mean = statistics.fmean(many)
                found.append(figure(what, mean, (min(many), max(many))))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Prints figures and goals; stores them with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--nulls", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=DEFAULT)
    parser.add_argument("--packages", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(argv)
    if options.packages:
        sys.path.append(str(options.packages))
    kinds = (("planted", options.cases), ("null", options.nulls))
    raw = []
    for row in measured(adult(), kinds, options.first, options.methods):
        raw.append(row)
        print(row, flush=True)
    rows = figures(raw)
    goals = told(rows)
    if options.write:
        beside = f" --methods {' '.join(options.methods)}"
        beside += " --packages FOLDER" if options.packages else ""
        found = in_form(
            "slices",
            f"python -m benchmarks slices --cases {options.cases} --nulls "
            f"{options.nulls} --first {options.first}{beside} --write",
            packages=("numpy", "scipy", "lightgbm"),
            cores=", one thread",
            seeds=[*range(options.first, options.first + options.cases)],
            rows=rows,
            goals=goals,
            raw=raw,
            own={"peers": {"sliceline": peer_version(options.packages)}},
        )
        store(RESULT, found)


def peer_version(packages: Path | None) -> str:
    """Returns the version of SliceLine in a folder of packages, "" without one."""
    if packages is None:
        return ""
    named = next(packages.glob("sliceline-*.dist-info"))
    return named.name.removeprefix("sliceline-").removesuffix(".dist-info")


if __name__ == "__main__":
    main()
