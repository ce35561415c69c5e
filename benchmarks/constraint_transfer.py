"""Does feasibility transfer to unseen rows, and who does it at a better accuracy?

    python -m benchmarks constraint-transfer [--splits official 0 1 ...] [--tau T ...]
        [--task tpr dp eo race] [--methods NAME ...] [--division closed open]
        [--packages FOLDER] [--tune] [--anew] [--write]

Adult: the official split, and random re-splits of all its rows with as many sealed rows
as the official test file has. Every method answers the sealed rows of a re-split, and
the gate's own code judges everybody (`transfer_judged`). In the CLOSED division a peer
wraps our base network: one net of the default genome with our rows, steps and schedule.
In the OPEN division it wraps LightGBM. Methods that are told the group of those they
answer stand apart from the blind ones. All aim at the gap that our margin computes from
tau and the sealed counts, 0 at .08; of two rates, as with equalized odds, who knows one
tolerance alone aims at the smaller of both. Peers are described in `benchmarks/peers`,
one file each; those that are no dependencies of ours are looked for in `--packages`
(`pip install --no-deps --target FOLDER -r benchmarks/peers/requirements.txt`).

Measured one by one: `--write` adds to benchmarks/results/constraint-transfer.json, and
what is stored is not measured again. Rows of a method are of one code: those of other
code are not added to, and `--anew` drops them; other methods' rows stay, and the tables
say which are of older code. Without `--splits` the stored rows are printed, with what
is missing. `--tune` tries the knobs of peers on re-splits of the official development
rows alone.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks import transfer_figures as figures
from benchmarks.provenance import ROOT, in_form, store
from benchmarks.transfer_judged import gap_of, judged
from benchmarks.transfer_methods import (
    BOOSTED,
    BOTH,
    METHODS,
    OURS,
    Method,
    merit,
)
from benchmarks.transfer_tasks import (
    DEVELOPMENT,
    OFFICIAL,
    TASKS,
    Case,
    prepared,
    seed_of,
)

RESULT = ROOT / "benchmarks" / "results" / "constraint-transfer.json"
ALL = (OFFICIAL, *(str(i) for i in range(20)))
CURVE = (0.02, 0.04, 0.08, 0.16, 1.0)
"""Tolerances of the path of accuracy against gap; 1 is none at all."""
TUNED_ON = (f"{DEVELOPMENT}0", f"{DEVELOPMENT}1")
Row = dict[str, Any]


def measured(given: argparse.Namespace, have: Sequence[Row]) -> Iterator[Row]:
    """Yields a raw row for each re-split, task, tau, division and method.

    Args:
        given: the command's options.
        have: rows that are not measured again.
    """
    done = {key_of(row) for row in have}
    for split in given.splits:
        for name in given.task:
            taus = given.tau or [TASKS[name].tau]
            todo = [
                (tau, division, method, dict(knobs))
                for tau in taus
                for division in given.division
                for method in given.methods
                for knobs in knobs_of(METHODS[method], given)
                if runs(METHODS[method], name, tau, division)
                and (name, split, tau, division, method, json.dumps(dict(knobs)))
                not in done
            ]
            if todo:
                with tempfile.TemporaryDirectory(prefix="transfer-") as scratch:
                    yield from of_split(name, split, todo, Path(scratch))


def key_of(row: Row) -> tuple[Any, ...]:
    """Returns what a row is of."""
    names = ("task", "split", "tau", "division", "method")
    return (*(row[k] for k in names), json.dumps(row.get("knobs", {})))


def knobs_of(method: Method, given: argparse.Namespace) -> Sequence[Any]:
    """Returns the settings that are run: those to be tried, or what stands."""
    return method.tried if given.tune else ({},)


def runs(method: Method, task: str, tau: float, division: str) -> bool:
    """Says whether a method takes part; without a promise only the bases do."""
    fits = task in method.tasks and division in method.divisions
    return fits and (tau < 1 or not method.promises)


def of_split(
    name: str,
    split: str,
    todo: Sequence[tuple[float, str, str, dict[str, Any]]],
    folder: Path,
) -> Iterator[Row]:
    """Prepares a re-split, trains its bases and lets every method answer."""
    from benchmarks.peers.bases import CLOSED, base_of
    from benchmarks.peers.network import aim_of

    places = prepared(split, TASKS[name], folder)
    cases: dict[float, Case] = {}
    kept: dict[str, Any] = {}
    for tau, division, method, knobs in todo:
        case = cases.setdefault(tau, Case(name, split, tau, *places, kept=kept))
        how, base, aim = METHODS[method], None, 1.0
        own = method in (OURS, BOOSTED)
        if not own:
            base = base_of(case, division)
            base.sealed(case)
            aim = aim_of(case) if tau < 1 else aim
        # Ours trains for its tau; all others know only what to aim at.
        gap = tau if own else aim
        asked = (method, division, gap, *sorted(knobs.items()))
        start = time.process_time()
        run = partial(how.run, case, base, aim, **knobs)
        answer = case.shared(f"answer of {asked}", run)
        seconds = time.process_time() - start
        if base is None:
            twin = wraps = kept["own twin"]
            aim = kept["own aim"]
        else:
            twin, wraps = base_of(case, CLOSED).sealed(case), base.sealed(case)
        yield {
            "task": name,
            "split": split,
            "tau": tau,
            "division": division,
            "method": method,
            "aim": round(aim, 6),
            **({"knobs": knobs} if knobs else {"chosen": dict(how.chosen)}),
            **judged(case, answer.prediction, answer.score, twin, wraps),
            "cpu_s": round(seconds, 2),
            "code": how.code,
            "versions": {p: metadata.version(p) for p in how.packages},
        }


def earlier(methods: Sequence[str], *, anew: bool) -> list[Row]:
    """Returns the stored rows, to which rows of the same code are added.

    Args:
        methods: that are measured now.
        anew: whether their rows of other code are dropped.

    Raises:
        SystemExit: some of theirs are of other code.
    """
    if not RESULT.exists():
        return []
    rows: list[Row] = json.loads(RESULT.read_text())["raw"]
    old = [r for r in rows if r["method"] in methods and not is_of_today(r)]
    if old and not anew:
        names = ", ".join(sorted({r["method"] for r in old}))
        raise SystemExit(
            f"{RESULT.name} holds figures of other code ({names}); measure with that "
            "code, or drop them with --anew."
        )
    return [r for r in rows if r not in old]


def is_of_today(row: Row) -> bool:
    """Says whether a row is of today's code, and of knobs that stand or are tried."""
    method = METHODS[row["method"]]
    stands = "knobs" in row or row.get("chosen", {}) == dict(method.chosen)
    return stands and bool(row["code"] == method.code)


def older(raw: Sequence[Row]) -> list[str]:
    """Names the methods whose rows are of older code."""
    return sorted({row["method"] for row in raw if not is_of_today(row)})


def stored(raw: Sequence[Row]) -> Row:
    """Puts the rows into the form of all benchmark results."""
    rows = figures.summaries(raw)
    splits = [s for s in ALL if any(row["split"] == s for row in raw)]
    methods = [m for m in METHODS if any(r["method"] == m for r in raw)]
    found = in_form(
        "constraint-transfer",
        "python -m benchmarks constraint-transfer --anew --write --splits "
        f"{' '.join(splits)} --methods {' '.join(methods)}",
        packages=("python", "torch", "numpy", "scikit-learn"),
        cores=", one thread, beside other programs",
        seeds=[seed_of(split) for split in splits],
        own={
            "missing": figures.missing(raw, ALL, CURVE),
            "older": older(raw),
            "chosen": {n: dict(m.chosen) for n, m in METHODS.items() if m.tried},
        },
        rows=rows,
        goals=figures.goals(raw),
        raw=raw,
    )
    for row in raw:
        found["versions"] |= row["versions"]
    # As a whole it is of no one code then, and the table of claims marks it.
    found |= {"code": {}} if found["older"] else {}
    return found


def shown(raw: Sequence[Row]) -> str:
    """Writes all tables, then what is missing."""
    rows, lines = figures.summaries(raw), []
    known = dict.fromkeys((r["task"], r["tau"]) for r in rows if r["tau"] < 1)
    for task, tau in known:
        for division in BOTH:
            lines += ["", f"{TASKS[task].metric} by {TASKS[task].group} <= {tau:g}, "]
            lines[-1] += f"{division.upper()}:"
            lines += ["", *figures.table(rows, task, tau, division)]
    for task in TASKS:
        lines += ["", *figures.curve(rows, task)]
    lines += ["", "*Beyond the base's.", ""]
    old = ", ".join(older(raw))
    lines += [f"Of older code: {old}.", ""] if old else []
    lines += ["Missing:", ""]
    return "\n".join([*lines, *figures.missing(raw, ALL, CURVE)])


def tuned(raw: Sequence[Row]) -> str:
    """Writes what each setting of the peers' knobs is worth on development rows."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for row in raw:
        if row["split"].startswith(DEVELOPMENT):
            key = (row["division"], row["method"], json.dumps(row.get("knobs", {})))
            gap = gap_of(row["cells"])[0]
            worth = merit(figures.accuracy(row), gap)
            found.setdefault(key, []).append(worth)
    return "\n".join(
        f"{division} {method} {knobs}: {sum(v) / len(v):.4f} ({len(v)})"
        for (division, method, knobs), v in found.items()
    )


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks constraint-transfer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--splits", nargs="*", default=[])
    parser.add_argument("--task", nargs="+", choices=TASKS, default=["tpr"])
    parser.add_argument("--tau", nargs="+", type=tolerance, default=[])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[*METHODS])
    parser.add_argument("--division", nargs="+", choices=BOTH, default=[*BOTH])
    parser.add_argument("--packages", metavar="FOLDER", default="")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--anew", action="store_true")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args(argv)
    given.splits = list(TUNED_ON) if given.tune and not given.splits else given.splits
    return given


def tolerance(word: str) -> float:
    """Reads a tolerance; no gap exceeds 1, so that inf is 1."""
    return min(float(word), 1.0) if not math.isnan(float(word)) else 1.0


def lacking(method: Method) -> str:
    """Names a package that a method needs and that is not here; "" if there is none."""
    for package in method.packages:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            return package
    return ""


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and prints; adds to the stored result with `--write`."""
    given = options(argv)
    # At the end: no library of ours gives way to one of a peer.
    sys.path += [str(Path(given.packages).resolve())] if given.packages else []
    for name in given.methods if given.splits else ():
        if lacks := lacking(METHODS[name]):
            print(f"{name} is left out: {lacks} is not installed (--packages).")
    given.methods = [m for m in given.methods if not lacking(METHODS[m])]
    raw = earlier(given.methods if given.splits else [], anew=given.anew)
    for row in measured(given, raw):
        gap, error = gap_of(row["cells"])
        print(
            f"{row['task']} {row['split']} {row['tau']:g} {row['division']} "
            f"{row['method']} {row.get('knobs', '')}: {row['decision']}, accuracy "
            f"{figures.accuracy(row):.4f}, gap {gap:+.4f} ± {error:.4f} below "
            f"{row['upper']:.4f}, aim {row['aim']}, {row['cpu_s']} CPU s",
            file=sys.stderr,
            flush=True,
        )
        raw = [*raw, row]
        if given.write:
            store(RESULT, stored(raw))
    if given.write:
        store(RESULT, stored(raw))
    print(tuned(raw) if given.tune else shown(raw))


if __name__ == "__main__":
    main()
