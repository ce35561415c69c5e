"""The sums of `agents`: paired differences over re-splits, and what they say.

Re-splits share rows, so that their differences vary less than those of new data would:
the corrected resampled t-test (Nadeau and Bengio 2003, equation 12) takes

    se^2 = s^2 (1 / J + n_test / n_train)

for the mean of J differences with variance s^2.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from scipy.stats import t as student_t

from benchmarks.provenance import figure

Row = dict[str, Any]
MARGIN = 0.003
"""Accuracy that does not count: .3 point."""
ALPHA = 0.05
REFERENCE = "single"
MERGED = "best merge"
MERGES = (
    *("branched", "soup", "best of k", "student", "relearnt", "graduate"),
    "plain soup",
)
"""Forms of one net that k trainings can be merged to; *select* takes one of them."""
PAIRS = (
    *((MERGED, other) for other in ("single", "best of k", "plain soup")),
    *(("student", other) for other in ("single", "soup", "relearnt")),
    *(("relearnt", other) for other in ("single", "soup")),
    *(("branched", other) for other in ("single", "soup", "relearnt")),
    *(("branched together", other) for other in ("branched", "ensemble", "tabm")),
    *(("graduate", other) for other in ("single", "best of k", "relearnt")),
    *(("whole soup", "soup"), ("together", "ensemble"), ("together", "tabm")),
    *(("together", "soup"), ("student", "tabm")),
    *(("ensemble", "tabm"), ("heads", "tabm")),
)
"""What is held against what, each on equal terms of inference but `relearnt`'s."""


def corrected(differences: Sequence[float], test_to_train: float) -> tuple[float, ...]:
    """Returns the mean, and its two-sided 1 - 2 alpha bounds, of paired differences.

    Args:
        differences: of J re-splits.
        test_to_train: rows tested / rows trained on.
    """
    count, mean = len(differences), statistics.mean(differences)
    if count < 2:
        return mean, -math.inf, math.inf
    spread = statistics.stdev(differences)
    error = spread * math.sqrt(1 / count + test_to_train)
    reach = float(student_t.ppf(1 - ALPHA, count - 1)) * error
    return mean, mean - reach, mean + reach


def said(lower: float, upper: float) -> str:
    """Says what bounds of a difference mean at the margin."""
    if lower > 0:
        return "better"
    if upper < 0:
        return "worse" if lower <= -MARGIN else "worse, within the margin"
    return "no worse" if lower > -MARGIN else "undecided"


def with_merges(raw: Sequence[Row]) -> list[Row]:
    """Adds, for each re-split, the form of one net with the least held loss."""
    found = list(raw)
    for data, split in dict.fromkeys((r["data"], r["split"]) for r in raw):
        forms = [
            r
            for r in raw
            if (r["data"], r["split"]) == (data, split) and r.get("method") in MERGES
        ]
        if forms:
            best = min(forms, key=lambda r: r["held_loss"])
            spent = {"cpu_s": round(sum({r["cpu_s"] for r in forms}), 3)}
            found.append(best | spent | {"method": MERGED, "chosen": best["method"]})
    return found


def summaries(raw: Sequence[Row]) -> list[Row]:
    """Takes means over the re-splits, by data set and method."""
    full, rows = with_merges([r for r in raw if r["part"] == "cost"]), []
    for data, method in dict.fromkeys((r["data"], r["method"]) for r in full):
        of = [r for r in full if (r["data"], r["method"]) == (data, method)]
        row = {"data": data, "method": method, "splits": len(of)}
        row["members"] = of[0]["members"]
        for name in ("accuracy", "loss", "steps", "cpu_s"):
            row[name] = statistics.mean(r[name] for r in of)
        if data in known_bayes(raw):
            row["excess_error"] = 1 - row["accuracy"] - known_bayes(raw)[data]
        rows.append(row)
    return rows


def known_bayes(raw: Sequence[Row]) -> dict[str, float]:
    """Returns the least possible error by data set, where it is known."""
    return {r["data"]: r["bayes"] for r in raw if r.get("bayes") is not None}


def paired(raw: Sequence[Row]) -> list[Row]:
    """Holds methods against each other, on each data set and on the mean of all."""
    full = with_merges([r for r in raw if r["part"] == "cost"])
    at = {(r["data"], r["split"], r["method"]): r for r in full}
    found = []
    for one, other in PAIRS:
        means: dict[int, list[float]] = {}
        for data in dict.fromkeys(r["data"] for r in full):
            both = [
                (at[data, s, one], at[data, s, other])
                for s in dict.fromkeys(r["split"] for r in full if r["data"] == data)
                if (data, s, one) in at and (data, s, other) in at
            ]
            if not both:
                continue
            apart = [a["accuracy"] - b["accuracy"] for a, b in both]
            for (a, _), each in zip(both, apart, strict=True):
                means.setdefault(a["split"], []).append(each)
            found.append(difference(one, other, data, apart, both[0][0]))
            found[-1]["cpu_ratio"] = statistics.mean(
                a["cpu_s"] / b["cpu_s"] for a, b in both
            )
        most = max((len(m) for m in means.values()), default=0)
        whole = [statistics.mean(m) for m in means.values() if len(m) == most]
        if most > 1:
            found.append(difference(one, other, "all", whole, full[0]))
    return found


def difference(
    one: str, other: str, data: str, apart: Sequence[float], row: Row
) -> Row:
    """Returns what the differences of two methods on one data set say."""
    mean, lower, upper = corrected(apart, row["test_to_train"])
    return {
        "one": one,
        "other": other,
        "data": data,
        "splits": len(apart),
        "mean": mean,
        "lower": lower,
        "upper": upper,
        "said": said(lower, upper),
    }


def shares(raw: Sequence[Row], part: str) -> list[Row]:
    """Takes means of a sweep over the re-splits, by data set, alpha and H."""
    found = []
    of_part = [r for r in raw if r["part"] == part]
    for key in dict.fromkeys((r["data"], r["alpha"], r["every"]) for r in of_part):
        of = [r for r in of_part if (r["data"], r["alpha"], r["every"]) == key]
        base = {r["split"]: r for r in of_part if r["data"] == key[0]}
        alone = {
            r["split"]: r["soup"]
            for r in of_part
            if r["data"] == key[0] and r["alpha"] == 1
        }
        apart = [r["soup"] - alone[r["split"]] for r in of if r["split"] in alone]
        row = dict(zip(("data", "alpha", "every"), key, strict=True))
        row |= {"part": part, "splits": len(of)}
        for name in ("soup", "together", "mean_agent", "cpu_s"):
            row[name] = statistics.mean(r[name] for r in of)
        ratio = next(iter(base.values()))["test_to_train"]
        row["over_alone"] = list(corrected(apart, ratio)) if apart else None
        found.append(row)
    return found


def goals(raw: Sequence[Row]) -> list[Row]:
    """Holds the figures against what is asked of them."""
    found = []
    for row in paired(raw):
        if row["data"] == "all":
            bounds = [row["lower"], row["upper"]]
            what = f"accuracy, {row['one']} minus {row['other']}, mean of data sets"
            found.append(figure(what, row["lower"], bounds, op=">=", goal=-MARGIN))
    return found


def tables(raw: Sequence[Row]) -> str:
    """Writes all tables as Markdown."""
    lines = ["| data | method | nets | accuracy | log loss | CPU s |", "|---" * 6 + "|"]
    lines += [
        f"| {r['data']} | {r['method']} | {r['members']} | {r['accuracy']:.4f} "
        f"| {r['loss']:.4f} | {r['cpu_s']:.1f} |"
        for r in summaries(raw)
    ]
    lines += ["", "| one - other | data | points | 90 % bounds | says | CPU |"]
    lines += ["|---" * 6 + "|"]
    lines += [
        f"| {r['one']} - {r['other']} | {r['data']} | {100 * r['mean']:+.2f} "
        f"| {100 * r['lower']:+.2f} to {100 * r['upper']:+.2f} | {r['said']} "
        f"| {r.get('cpu_ratio', math.nan):.2f} |"
        for r in paired(raw)
    ]
    lines += ["", "| part | data | alpha | H | soup | together | agent | over alone |"]
    lines += ["|---" * 8 + "|"]
    for r in [*shares(raw, "sweep"), *shares(raw, "skew")]:
        mean, lower, upper = r["over_alone"] or [math.nan] * 3
        lines.append(
            f"| {r['part']} | {r['data']} | {r['alpha']:g} | {r['every']} "
            f"| {r['soup']:.4f} | {r['together']:.4f} | {r['mean_agent']:.4f} "
            f"| {100 * mean:+.2f} ({100 * lower:+.2f} to {100 * upper:+.2f}) |"
        )
    return "\n".join(lines)
