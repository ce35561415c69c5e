"""A report with more and longer names than any real one, for tests of its look."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from safety_world import TRAINING, constitution, evidence, submission

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.judging.assembly import assemble
from safescale_ammt.reporting.provenance import Provenance
from safescale_ammt.reporting.report import render

LONG = "W" * 70
SEARCH = {
    "candidates": [
        {
            "id": i,
            "origin": "random" if i % 2 else "mutation",
            "loss": None if i == 5 else 0.4 - 0.01 * i,
            "flops": 1000 * (i + 1),
            "parameters": 900 * (i + 1),
            "feasible": i != 3,
        }
        for i in range(8)
    ],
    "front": [0, 4, 6],
    "winner": 6,
    "strategy": "local",
    "budget": {"unit": "optimizer steps", "spent": 1440},
}
ODDS = [{"scale": s, "passes": max(0.0, 1 - s)} for s in (0.0, 0.25, 0.5, 1.0, 1.5)]


def rule() -> Constitution:
    """A promise of every metric, the first of one word without end."""
    base = constitution(0.05, text="x" * 150)
    equal, parity, useful = base.principles
    constraint = replace(equal.constraint, group=LONG)
    more = [
        replace(
            parity,
            id=f"{metric}-promise-number-one-hundred",
            constraint=replace(
                parity.constraint,
                metric=metric,
                tier="hard",
                op=">=" if metric == "dp_ratio" else "<=",
                group=None if metric == "calibration_error" else "race",
            ),
        )
        for metric in (
            "dp_ratio",
            "fpr_gap",
            "eo_difference",
            "worst_group_error",
            "calibration_error",
        )
    ]
    first = replace(equal, id=LONG, constraint=constraint)
    return replace(
        base, id=LONG, owner="O" * 80, principles=(first, parity, useful, *more)
    )


@cache
def crowded() -> str:
    """The page of such a constitution, with names and URIs as long as can be."""
    promises = rule()
    rows = evidence(gap=0.1)
    groups = {LONG: (("F" * 60, "M"), rows.groups["sex"][1])}
    rows = replace(rows, groups={**groups, "race": rows.groups["race"]})
    about = replace(submission("sha256:" + "m" * 64), classes=("no", "yes" * 30))
    verdict = assemble(promises, rows, about, "sha256:" + "e" * 64)
    ids = [p.id for p in promises.principles]
    training = [
        {
            **event,
            "violation": {name: 0.1 * i for i, name in enumerate(ids)},
            "multiplier": {
                name: {f"{'F' * 60}<M": 0.1 * i} for i, name in enumerate(ids)
            },
        }
        for event in TRAINING
    ]
    power = {
        "principles": [{"principle": name, "table": ODDS} for name in ids],
        "table": ODDS,
        "spread": {"scale": None, "passes": 0.93},
        "required": 0.8,
    }
    known = replace(
        Provenance.of(verdict),
        judged="2026-01-02T03:04:05+00:00",
        run="r" * 40,
        name="n" * 63,
        source=f"s3://{'b' * 63}/{'k' * 150}.csv",
        rows={"train": 10_000_000, "validation": 1_000_000},
    )
    return render(
        verdict,
        promises,
        training=training,
        search=SEARCH,
        power=power,
        provenance=known,
        open_points=[
            {"what": f.principle, "kind": "undecided_hard"}
            for f in verdict.findings
            if f.outcome != "holds"
        ]
        + [
            {"what": name, "kind": "undecided_hard"}
            for name in ("guarantee", "decision")
        ],
    )
