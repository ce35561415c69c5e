"""Does training under the constitution pass the gate, and at what price?

    python -m benchmarks constraint-first [--seeds 10] [--tau 0.08 0.10] [--write]

Adult, `tpr_gap by sex <= tau` with accuracy at most one point below the
unconstrained twin's and at least .84. Each seed splits the development rows anew
and trains anew with the default recipe; the architecture is the default genome (no
search), so that only training is measured. The official test file is the sealed
split and each run has a benchmark's ledger of its own, in a store that is deleted
with it, and is the first use there; verdicts come from the evaluator of the product.
All hyperparameters were set on validation and select rows of development data.

Training is one process per model, from exec to exit. Its seconds are the whole
process's, interpreter and imports included; it trains the twin on the way, so the
baselines' seconds are those beyond the twin's. About 6 CPU minutes per tau.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fair_baselines import Case, answers, store_beside, tpr_gap
from benchmarks.provenance import in_form, store
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.files.artifacts import PROTECTED, read_manifest, writing
from safescale_ammt.files.canonical import write_json
from safescale_ammt.judging.assembly import judge_all
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.findings import Finding
from safescale_ammt.judging.gate import decide
from safescale_ammt.judging.verdict import BENCHMARK, Verdict
from safescale_ammt.model.genome import Genome
from safescale_ammt.reading.catalogue import ADULT
from safescale_ammt.reading.fetching import fetch
from safescale_ammt.stages import evaluate_safety, prepare_data
from safescale_ammt.store.uri import STORE

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "constraint-first.json"
CACHE = Path.home() / ".cache" / "safescale-ammt"  # the files, checked at every use
OURS = "8 agents under the constitution"
GAP, USEFUL = "equal-opportunity", "useful"
_TRAIN = (
    "import json, sys; from safescale_ammt.stages.train_agents import run; "
    "print(json.dumps(run(*sys.argv[1:3], *map(json.loads, sys.argv[3:5]), "
    "sys.argv[5])))"
)


def constitution_of(tau: float) -> Constitution:
    """Returns the constitution of this benchmark."""
    gap = {"metric": "tpr_gap", "group": "sex", "op": "<=", "threshold": tau}
    useful = {
        "metric": "accuracy",
        "op": ">=",
        "reference": "unconstrained_twin",
        "delta": -0.01,
        "floor": 0.84,
    }
    return Constitution.from_dict(
        {
            "schema": 1,
            "constitution": {"id": "adult-income"},
            "principles": [
                {"id": GAP, "constraint": gap},
                {"id": USEFUL, "constraint": useful},
            ],
        }
    )


def prepared(folder: Path, seed: int) -> tuple[Path, Path]:
    """Splits the development rows by a seed; the sealed rows are always the same."""
    uris = {role: p.resolve().as_uri() for role, p in fetch("adult", CACHE).items()}
    dataset, holdout = folder / "dataset", folder / "holdout"
    environ = {STORE: store_beside(holdout).uri}
    section = {**ADULT.data, **uris, "seed": seed}
    prepare_data.run(section, dataset, holdout, environ=environ)
    return dataset, holdout


def architecture(folder: Path, dataset: Path, constitution: Constitution) -> Path:
    """Writes the default genome as if a search had found it."""
    out = folder / "architecture"
    parents = {
        "dataset": read_manifest(dataset).identity,
        "constitution": constitution.digest,
    }
    with writing(out, kind="architecture", stage="benchmark", parents=parents) as draft:
        write_json(draft.folder / "genome.json", Genome().to_dict())
    return out


def trained(
    dataset: Path, genome: Path, constitution: Constitution, seed: int, model: Path
) -> dict[str, Any]:
    """Trains in a process of its own and returns its summary and seconds."""
    sections = (constitution.to_dict(), {"seed": seed})
    arguments = [str(dataset), str(genome), *map(json.dumps, sections), str(model)]
    start = time.perf_counter()
    # One thread, whatever the shell says: the library's own setting of one.
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-c", _TRAIN, *arguments],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    output = child.stdout.read()
    child.stdout.close()
    # wait4 gives the seconds of this one child; those of `resource` are of all so far.
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"Training of seed {seed} ended with {child.returncode}.")
    summary: dict[str, Any] = json.loads(output.splitlines()[-1])
    summary["cpu_s"] = round(used.ru_utime + used.ru_stime, 2)
    summary["wall_s"] = round(time.perf_counter() - start, 2)
    return summary


def measured(seeds: Sequence[int], taus: Sequence[float]) -> Iterator[dict[str, Any]]:
    """Yields one raw row per seed, tau and method."""
    for seed in seeds:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            dataset, holdout = prepared(folder, seed)
            for tau in taus:
                place = folder / f"{tau:g}"
                place.mkdir()
                yield from _case(place, dataset, holdout, tau, seed)


def evaluated(
    folder: Path, inputs: tuple[Path, Path, Path, Path], constitution: Constitution
) -> Verdict:
    """Judges a model as the product does, its use counted in a book for benchmarks.

    The book lies in a store of its own inside the folder, so that every seed is the
    rows' first use. It takes no official use, and a book of official uses takes none
    of these.

    Args:
        folder: gets `store` and `verdict`; delete it afterwards.
        inputs: dataset, holdout, architecture and model.
        constitution: what the model was trained and is judged by.
    """
    book = store_beside(folder / "verdict")
    # The judge takes its rows from the store of its book.
    rows = inputs[1].parent / "store" / PROTECTED
    book.upload_folder(rows, PROTECTED)
    evaluate_safety.run(
        *inputs,
        constitution.to_dict(),
        {"ledger": BENCHMARK},
        folder / "verdict",
        environ={STORE: book.uri},
    )
    return Verdict.load(folder / "verdict")


def _case(
    folder: Path, dataset: Path, holdout: Path, tau: float, seed: int
) -> Iterator[dict[str, Any]]:
    constitution, model = constitution_of(tau), folder / "model"
    genome = architecture(folder, dataset, constitution)
    summary = trained(dataset, genome, constitution, seed, model)
    verdict = evaluated(folder, (dataset, holdout, genome, model), constitution)
    case = Case.load(dataset, holdout, model)
    head = {"seed": seed, "tau": tau}
    extra = {key: summary[key] for key in ("form", "cpu_s", "wall_s")}
    figures = row(OURS, verdict.decision, verdict.findings, float(verdict.accuracy))
    yield {**head, **figures, **extra}
    for name, (prediction, seconds) in answers(case).items():
        yield {
            **head,
            **judged(name, case, prediction, constitution),
            "cpu_s": round(seconds, 2),
        }


def judged(
    name: str, case: Case, prediction: Any, constitution: Constitution
) -> dict[str, Any]:
    """Judges a baseline's answers as the evaluator judges ours."""
    sealed = case.sealed
    evidence = Evidence(
        label=sealed.y,
        prediction=prediction,
        score=sealed.eta,
        groups={"sex": (("Female", "Male"), (~sealed.female).astype(np.int64))},
        twin_prediction=(sealed.eta >= 0.5).astype(np.int64),
        twin_score=sealed.eta,
    )
    findings = judge_all(constitution, evidence, bins=15)
    decision = decide(constitution, findings, guarantee="holds").decision
    accuracy = float((prediction == sealed.y).mean())
    figures = row(name, decision, findings, accuracy)
    # The gap counted twice, by the evaluator and here: the baselines' judge is ours.
    assert abs(abs(tpr_gap(prediction, sealed)) - abs(figures["gap"])) < 1e-9
    return figures


def row(
    method: str, decision: str, findings: Sequence[Finding], accuracy: float
) -> dict[str, Any]:
    """Returns the figures of one judged model; the gap is men's TPR minus women's."""
    gap = next(f for f in findings if f.principle == GAP)
    men, women = (
        next(r.hits / r.trials for r in gap.by_group if r.value == sex)
        for sex in ("Male", "Female")
    )
    return {
        "method": method,
        "decision": decision,
        "accuracy": accuracy,
        "gap": men - women,
        "gap_lower": gap.lower,
        "gap_upper": gap.upper,
    }


def summaries(raw: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns one row per tau and method, over the seeds."""
    rows = []
    for tau, method in dict.fromkeys((r["tau"], r["method"]) for r in raw):
        group = [r for r in raw if (r["tau"], r["method"]) == (tau, method)]
        decisions = [r["decision"] for r in group]
        rows.append(
            {
                "tau": tau,
                "method": method,
                **{d: decisions.count(d) for d in ("pass", "needs_human", "fail")},
                **{key: spread(group, key) for key in ("accuracy", "gap", "gap_upper")},
                "cpu_s": spread(group, "cpu_s"),
            }
        )
    return rows


def spread(rows: Sequence[dict[str, Any]], key: str) -> list[float]:
    """Returns median, least and greatest."""
    values = [float(r[key]) for r in rows]
    return [statistics.median(values), min(values), max(values)]


def goals(raw: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compares with what this recipe is meant to reach."""
    reached = []
    for tau in sorted({r["tau"] for r in raw}):
        ours = [r for r in raw if r["tau"] == tau and r["method"] == OURS]
        accuracy = [r["accuracy"] for r in ours]
        gaps = [abs(r["gap"]) for r in ours]
        passes = [float(r["decision"] == "pass") for r in ours]
        mean = statistics.mean(passes)
        at = f"tau {tau:g}: "
        reached += [
            _goal(f"{at}share of seeds that pass", ">=", 1.0, mean, passes),
            _goal(f"{at}least accuracy", ">=", 0.865, min(accuracy), accuracy),
            _goal(
                f"{at}median accuracy",
                ">=",
                0.87,
                statistics.median(accuracy),
                accuracy,
            ),
            _goal(f"{at}greatest |sealed gap|", "<=", 0.03, max(gaps), gaps),
        ]
    wall = [r["wall_s"] for r in raw if r["method"] == OURS]
    reached.append(
        _goal("seconds of training", "<=", 25.0, statistics.median(wall), wall)
    )
    return reached


def _goal(
    what: str, op: str, goal: float, value: float, values: Sequence[float]
) -> dict[str, Any]:
    return {
        "what": what,
        "op": op,
        "goal": goal,
        "value": value,
        "spread": [min(values), max(values)],
    }


def result(raw: list[dict[str, Any]], command: str) -> dict[str, Any]:
    """Puts the rows into the form of all benchmark results."""
    return in_form(
        "constraint-first",
        command,
        packages=("torch", "numpy", "lightgbm"),
        cores=", one thread used",
        seeds=sorted({r["seed"] for r in raw}),
        own={"genome": Genome().to_dict()},
        rows=summaries(raw),
        goals=goals(raw),
        raw=raw,
    )


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Writes the rows as Markdown: medians, and the range over the seeds."""
    lines = [
        "| tau | method | pass / human / fail | accuracy | sealed TPR gap | CPU s* |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        accuracy = "{:.4f} [{:.4f}, {:.4f}]".format(*r["accuracy"])
        gap = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*r["gap"])
        lines.append(
            f"| {r['tau']:g} | {r['method']} | {r['pass']} / {r['needs_human']} / "
            f"{r['fail']} | {accuracy} | {gap} | {r['cpu_s'][0]:.1f} |"
        )
    lines += [
        "",
        "*Ours trains the twin on the way; others: seconds beyond the twin's.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Prints the table; stores the result with `--write`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks constraint-first",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--tau", type=float, nargs="+", default=[0.08, 0.10])
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    raw = []
    for figures in measured(range(options.seeds), options.tau):
        raw.append(figures)
        print(
            f"seed {figures['seed']} tau {figures['tau']:g} {figures['method']}: "
            f"{figures['decision']}, accuracy {figures['accuracy']:.4f}, gap "
            f"{figures['gap']:+.4f}, {figures['cpu_s']} CPU s",
            file=sys.stderr,
            flush=True,
        )
    print(table(summaries(raw)))
    if options.write:
        taus = " ".join(f"{t:g}" for t in options.tau)
        command = (
            f"python -m benchmarks constraint-first --seeds {options.seeds} "
            f"--tau {taus} --write"
        )
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        store(RESULT, result(raw, command))


if __name__ == "__main__":
    main()
