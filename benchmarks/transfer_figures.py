"""Figures of `constraint-transfer`, derived from raw counts: no training is needed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.transfer_judged import gap_of
from benchmarks.transfer_methods import BOOSTED, FLOOR, METHODS, OURS, TREES, TWIN
from benchmarks.transfer_tasks import DEVELOPMENT, TASKS

Row = dict[str, Any]
KEY = ("task", "tau", "division", "method")
TEST_SHARE = 0.5
"""Sealed rows by development rows of a re-split: 16,281 by 32,561."""
FLOOR_APART = 0.003
"""How far unconstrained training through torch may be from the base, on the mean."""


def corrected_rms(gaps: Sequence[float], errors: Sequence[float]) -> float:
    """Returns the root mean square of true gaps, less what sampling adds to it.

    sqrt(max(0, mean(g^2) - mean(se^2))): the sealed rows' own chance is no failure to
    transfer.
    """
    square = statistics.mean(g * g for g in gaps)
    return math.sqrt(max(0.0, square - statistics.mean(e * e for e in errors)))


def paired_upper(losses: Sequence[float], alpha: float = 0.05) -> float:
    """Returns the one-sided 1 - alpha upper bound of the mean paired loss.

    The corrected resampled t-test (Nadeau & Bengio 2003): re-splits share rows, so that
    their variance is multiplied by 1/n + sealed/development rows and not by 1/n.

    Args:
        losses: accuracy of the reference minus that of the method, by re-split.
        alpha: level.
    """
    from scipy.stats import t

    n = len(losses)
    if n < 2:
        return math.inf
    error = math.sqrt((1 / n + TEST_SHARE) * statistics.variance(losses))
    return statistics.mean(losses) + float(t.ppf(1 - alpha, n - 1)) * error


def accuracy(row: Row) -> float:
    """Returns the share of right answers."""
    return float(row["right"] / row["rows"])


def loss(row: Row, reference: str) -> float:
    """Returns by how much the reference, `twin` or `base`, is more accurate."""
    only, other = row[reference]
    return float((other - only) / row["rows"])


def dominates(mine: Sequence[Row], theirs: Sequence[Row]) -> tuple[bool, bool]:
    """Says whether theirs dominates mine on the re-splits of both, and clearly so.

    At least as accurate on the mean, with at most the corrected gap, and one of the two
    strictly. Clearly: the upper bound of the paired difference of accuracy is below 0.
    """
    pairs = shared(mine, theirs)
    if not pairs:
        return False, False
    ahead = [accuracy(a) - accuracy(b) for a, b in pairs]
    own, peer = (rms([pair[i] for pair in pairs]) for i in (0, 1))
    better, no_worse = statistics.mean(ahead), own - peer
    found = better <= 0 <= no_worse and (better < 0 or no_worse > 0)
    return found, found and paired_upper(ahead) < 0


def shared(mine: Sequence[Row], theirs: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Pairs the rows of the re-splits that both have."""
    other = {row["split"]: row for row in theirs}
    return [(row, other[row["split"]]) for row in mine if row["split"] in other]


def rms(rows: Iterable[Row]) -> float:
    """Returns the corrected root mean square of the sealed gaps of some rows."""
    gaps = [gap_of(row["cells"]) for row in rows]
    return corrected_rms([g for g, _ in gaps], [e for _, e in gaps])


def groups(raw: Sequence[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """Groups rows by task, tau, division and method; development rows are left out."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in raw:
        if not row["split"].startswith(DEVELOPMENT):
            found.setdefault(tuple(row[k] for k in KEY), []).append(row)
    return found


def summaries(raw: Sequence[Row]) -> list[Row]:
    """Returns a row of figures for each task, tau, division and method."""
    by_key = groups(raw)
    rows = []
    for (task, tau, division, method), each in by_key.items():
        gaps = [gap_of(row["cells"])[0] for row in each]
        losses = {k: [loss(row, k) for row in each] for k in ("twin", "base")}
        mine = own_of(by_key, task, tau, division)
        beaten, clearly = dominates(mine, each)
        pairs = shared(mine, each)
        apart = [accuracy(b) - accuracy(a) for a, b in pairs]
        rows.append(
            {
                **dict(zip(KEY, (task, tau, division, method), strict=True)),
                "aware": METHODS[method].aware,
                "splits": len(each),
                "accuracy": statistics.mean(map(accuracy, each)),
                "median_accuracy": statistics.median(map(accuracy, each)),
                "rms": rms(each),
                "gap": [statistics.mean(gaps), min(gaps), max(gaps)],
                "greatest_upper": max(row["upper"] for row in each),
                **{
                    d: sum(row["decision"] == d for row in each)
                    for d in ("pass", "needs_human", "fail")
                },
                "loss": statistics.mean(losses["base"]),
                "loss_upper": bound(paired_upper(losses["base"])),
                "twin_loss": statistics.mean(losses["twin"]),
                "to_ours": statistics.mean(apart) if pairs else None,
                "rms_of_ours": rms([a for a, _ in pairs]) if pairs else None,
                "median_cpu_s": statistics.median(row["cpu_s"] for row in each),
                "dominates_ours": "clearly" if clearly else "yes" if beaten else "",
            }
        )
    return sorted(rows, key=order)


def own_of(
    by_key: Mapping[tuple[Any, ...], list[Row]], task: str, tau: float, division: str
) -> list[Row]:
    """Returns the rows of ours in a division: over trees in the open one, if any."""
    nets = by_key.get((task, tau, "closed", OURS), [])
    boosted = by_key.get((task, tau, "open", BOOSTED), [])
    return boosted if boosted and division == "open" else nets


def bound(value: float) -> float | None:
    """Returns a bound that JSON can hold; None where one re-split gives none."""
    return value if math.isfinite(value) else None


def order(row: Row) -> tuple[Any, ...]:
    """Returns where a row stands: by task, tau, division, awareness and method."""
    at = list(METHODS).index(row["method"])
    return list(TASKS).index(row["task"]), row["tau"], row["division"], row["aware"], at


def goals(raw: Sequence[Row]) -> list[Row]:
    """Compares with what issue 11 asks of the TPR gap by sex at .08."""
    by_key, tau = groups(raw), TASKS["tpr"].tau
    ours = own_of(by_key, "tpr", tau, "closed")
    best = own_of(by_key, "tpr", tau, "open")
    found = []
    if ours:
        hits = [accuracy(row) for row in ours]
        losses = [100 * loss(row, "twin") for row in ours]
        passes = [float(row["decision"] == "pass") for row in ours]
        gaps = [abs(gap_of(row["cells"])[0]) for row in ours]
        found += [
            ("corrected RMS sealed gap", "<=", 0.015, rms(ours), gaps),
            ("share that passes", ">=", 0.88, statistics.mean(passes), passes),
            ("median accuracy", ">=", 0.870, statistics.median(hits), hits),
        ]
        if len(ours) > 1:
            what = "paired loss of accuracy to the twin, points, upper bound"
            found.append((what, "<=", 0.3, paired_upper(losses), losses))
    if best and ("tpr", tau, "open", TREES) in by_key:
        hits = [accuracy(row) for row in best]
        uppers = [row["upper"] for row in best]
        found += [
            ("OPEN: mean accuracy", ">=", 0.873, statistics.mean(hits), hits),
            ("OPEN: greatest bound of the gap", "<=", tau, max(uppers), uppers),
        ]
    peers = [k for k in by_key if k[:2] == ("tpr", tau) and k[3] not in NO_PEERS]
    for division in ("closed", "open"):
        rivals = [k for k in peers if k[2] == division and not METHODS[k[3]].aware]
        own = own_of(by_key, "tpr", tau, division)
        if own and rivals:
            beaten = [float(dominates(own, by_key[k])[0]) for k in rivals]
            what = f"{division.upper()}: blind peers that dominate ours"
            found.append((what, "<=", 0.0, sum(beaten), beaten))
    floor = floor_apart(by_key)
    if floor:
        what = "distance of the peers' unconstrained accuracy from the base, mean"
        found.append((what, "<=", FLOOR_APART, abs(statistics.mean(floor)), floor))
    names = ("what", "op", "goal", "value", "spread")
    return [
        dict(zip(names, (*f[:4], [min(f[4]), max(f[4])]), strict=True)) for f in found
    ]


NO_PEERS = (OURS, BOOSTED, TWIN, TREES, FLOOR)


def floor_apart(by_key: Mapping[tuple[Any, ...], Sequence[Row]]) -> list[float]:
    """Returns, by re-split, how far training through torch is below the base."""
    rows = [r for k, each in by_key.items() if k[3] == FLOOR for r in each]
    return [loss(row, "base") for row in rows]


HEAD = (
    "method",
    "re-splits",
    "accuracy",
    "points to ours",
    "RMS gap (ours)",
    "greatest bound",
    "pass / human / fail",
    "loss to its base, points (bound)",
    "dominates ours",
    "CPU s*",
)


def table(rows: Sequence[Row], task: str, tau: float, division: str) -> list[str]:
    """Writes one division of a task as Markdown, blind methods before aware ones."""
    lines = [
        f"| {' | '.join(HEAD)} |",
        "|---" * len(HEAD) + "|",
    ]
    chosen = [r for r in rows if (r["task"], r["tau"]) == (task, tau)]
    for row in chosen:
        own = division == "open" and row["method"] == OURS
        if row["division"] != division and not own:
            continue
        most = row["loss_upper"]
        upper = "" if most is None else f" ({100 * most:+.2f})"
        name = row["method"] + (" (nets)" if own else "")
        lines.append(
            f"| {name}{', told the group' if row['aware'] else ''} "
            f"| {row['splits']} | {row['accuracy']:.4f} | {beside(row)} "
            f"| {row['greatest_upper']:.3f} "
            f"| {row['pass']} / {row['needs_human']} / {row['fail']} "
            f"| {100 * row['loss']:+.2f}{upper} | {row['dominates_ours'] or '-'} "
            f"| {row['median_cpu_s']:.1f} |"
        )
    return lines


def beside(row: Row) -> str:
    """Writes accuracy and gap beside ours on the same re-splits."""
    if row["to_ours"] is None:
        return f"- | {row['rms']:.3f}"
    ours = f" ({row['rms_of_ours']:.3f})"
    return f"{100 * row['to_ours']:+.2f} | {row['rms']:.3f}{ours}"


def curve(rows: Sequence[Row], task: str) -> list[str]:
    """Writes the path of accuracy against gap over the tolerances, as Markdown."""
    taus = sorted({r["tau"] for r in rows if r["task"] == task})
    if len(taus) < 2:
        return []
    head = "".join(f" {'inf' if tau >= 1 else f'{tau:g}'} |" for tau in taus)
    lines = [f"| division, method |{head}", "|---" * (len(taus) + 1) + "|"]
    known = dict.fromkeys(
        (r["division"], r["method"], r["aware"]) for r in rows if r["task"] == task
    )
    for division, method, aware in known:
        cells = []
        for tau in taus:
            key = (task, tau, division, method)
            at = [r for r in rows if tuple(r[k] for k in KEY) == key]
            cells += [
                f"{r['accuracy']:.4f} at {r['rms']:.3f} ({r['splits']})" for r in at
            ] or ["-"]
        told = ", told the group" if aware else ""
        lines.append(f"| {division}, {method}{told} | {' | '.join(cells)} |")
    return lines


def missing(
    raw: Sequence[Row], splits: Sequence[str], taus: Sequence[float]
) -> list[str]:
    """Names what was asked for by the issue and is not stored, one line for each task.

    Args:
        raw: the stored rows.
        splits: all re-splits.
        taus: of the curve of the first task.
    """
    have = {tuple(row[k] for k in (*KEY, "split")) for row in raw}
    lines = []
    for name, task in TASKS.items():
        for tau in dict.fromkeys((task.tau, *(taus if name == "tpr" else ()))):
            lacks = []
            for method, how in METHODS.items():
                if name not in how.tasks or (tau >= 1 and how.promises):
                    continue
                for division in how.divisions:
                    keys = [(name, tau, division, method, s) for s in splits]
                    done = sum(key in have for key in keys)
                    if done < len(splits):
                        lacks.append(f"{division} {method} {done}")
            if lacks:
                said = f"{name} at {tau:g}, re-splits of {len(splits)}: "
                lines.append(said + ", ".join(lacks))
    return lines
