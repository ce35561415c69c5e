"""What agents are worth under promises: how many re-splits pass, at equal net-steps?

    python -m benchmarks agents-promises [--splits 0 1 ...] [--write]

Adult, `tpr_gap` by sex <= .08 and accuracy at most a point below the twin's, re-splits
and judgement of `constraint-transfer`. Eight agents of the default recipe, merged in
three ways, and one agent whose net and twin take as many steps together as these nine.
Stored re-split by re-split: `--write` adds to benchmarks/results/agents-promises.json,
unless its rows are of other code.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.peers.ours import merged
from benchmarks.provenance import ROOT, figure, in_form, measured_code, store
from benchmarks.transfer_judged import gap_of, judged
from benchmarks.transfer_tasks import TASKS, Case, prepared
from safescale_ammt.training.trainer import train
from safescale_ammt.training.training_log import discard

RESULT = ROOT / "benchmarks" / "results" / "agents-promises.json"
AGENTS = 8
FORMS = ((AGENTS, "auto"), (AGENTS, "refined"), (AGENTS, "distilled"), (1, "auto"))
Row = dict[str, Any]


def measured(split: str) -> Iterator[Row]:
    """Yields a row for each number of agents and way to merge them."""
    with tempfile.TemporaryDirectory(prefix="agents-") as scratch:
        places = prepared(split, TASKS["tpr"], Path(scratch))
        case = Case("tpr", split, TASKS["tpr"].tau, *places)
        for k in (AGENTS, 1):
            # The twin is a net more in both.
            longer, start = (AGENTS + 1) / (k + 1), time.process_time()
            config = replace(
                case.config,
                num_agents=k,
                steps=round(longer * case.config.steps),
                trunk_steps=round(longer * case.config.trunk_steps),
            )
            trained = train(case.nets, config, case.constitution, log=discard)
            spent = time.process_time() - start
            for form in (form for agents, form in FORMS if agents == k):
                begun = time.process_time()
                answer = merged(case, trained, case.sealed, form)
                seconds = spent + time.process_time() - begun
                twin = case.kept["own twin"]
                row = judged(case, answer.prediction, answer.score, twin, twin)
                yield {
                    "split": split,
                    "agents": k,
                    "merge": form,
                    "decision": row["decision"],
                    "accuracy": row["right"] / row["rows"],
                    "gap": gap_of(row["cells"])[0],
                    "upper": row["upper"],
                    "cpu_s": round(seconds, 2),
                }


def summary(raw: Sequence[Row]) -> list[Row]:
    """Counts the re-splits that pass, by number of agents and merge."""
    found = []
    for key in dict.fromkeys((r["agents"], r["merge"]) for r in raw):
        of = [r for r in raw if (r["agents"], r["merge"]) == key]
        row = {"agents": key[0], "merge": key[1], "splits": len(of)}
        row["pass"] = sum(r["decision"] == "pass" for r in of) / len(of)
        row["mean_abs_gap"] = statistics.mean(abs(r["gap"]) for r in of)
        row["greatest_upper"] = max(r["upper"] for r in of)
        for name in ("accuracy", "cpu_s"):
            row[name] = statistics.mean(r[name] for r in of)
        found.append(row)
    return found


def goals(rows: Sequence[Row]) -> list[Row]:
    """Holds k agents, by each merge, against one."""
    one = next((r for r in rows if r["agents"] == 1), None)
    return [
        figure(
            f"share of re-splits that pass, {r['agents']} agents ({r['merge']}) minus "
            "one at equal net-steps",
            r["pass"] - one["pass"],
            [one["pass"], r["pass"]],
            op=">=",
            goal=0.0,
        )
        for r in rows
        if one is not None and r["agents"] > 1
    ]


def table(rows: Sequence[Row]) -> str:
    """Writes the rows as Markdown."""
    lines = ["| agents | merge | splits | pass | accuracy | gap | greatest bound |"]
    lines[0] += " CPU s |"
    lines += ["|---" * 8 + "|"]
    lines += [
        f"| {r['agents']} | {r['merge']} | {r['splits']} | {r['pass']:.2f} "
        f"| {r['accuracy']:.4f} | {r['mean_abs_gap']:.4f} | {r['greatest_upper']:.4f} "
        f"| {r['cpu_s']:.1f} |"
        for r in rows
    ]
    return "\n".join(lines)


def earlier() -> list[Row]:
    """Returns the stored rows.

    Raises:
        SystemExit: they are of other code.
    """
    if not RESULT.is_file():
        return []
    found = json.loads(RESULT.read_text())
    if found["code"] != measured_code("agents-promises"):
        raise SystemExit(f"{RESULT.name} holds rows of other code; remove it first.")
    raw: list[Row] = found["raw"]
    return raw


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table; stores it with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--splits", nargs="+", default=[str(i) for i in range(10)])
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args(argv)
    raw = earlier() if given.write else []
    for split in given.splits:
        if any(row["split"] == split for row in raw):
            continue
        raw += measured(split)
        if given.write:
            splits = [row["split"] for row in raw[:: len(FORMS)]]
            found = in_form(
                "agents-promises",
                f"python -m benchmarks agents-promises --splits {' '.join(splits)} "
                "--write",
                packages=("python", "torch", "numpy"),
                cores=", one thread, beside other programs",
                seeds=[int(split) for split in splits],
                rows=summary(raw),
                goals=goals(summary(raw)),
                raw=raw,
            )
            store(RESULT, found)
    print(table(summary(raw)))


if __name__ == "__main__":
    main()
