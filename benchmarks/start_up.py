"""What an answer costs from the command line, beside an earlier build and others.

    python -m benchmarks start-up [--before REV] [--rows 1 1000 100000] [--repeats N]
                                  [--beside NAME ...] [--packages FOLDER] [--write]

A table of Adult's shape is made up (six numbers, eight columns of names). Each of these
answers the same rows from one CSV file into another, N times in turn, so that a busy
machine is busy for all: `safescale predict` as it is and as it was in REV, and scripts
with pandas that load a network of the same size (scikit-learn's own, and the same
weights in onnxruntime) or a LightGBM model. CPU and wall seconds of the whole process,
medians [least, greatest]. The weights of ours are as they are drawn: no figure depends
on them. `--packages` names a folder that `pip install --target FOLDER onnx onnxruntime`
has filled; without those two onnxruntime is left out, and it is said.
`--write` stores benchmarks/results/start-up.json.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.house import checkout
from benchmarks.provenance import ROOT, in_form, store
from benchmarks.start_up_others import SCRIPTS, save_others
from safescale_ammt.data.coding import width
from safescale_ammt.data.schema import Schema
from safescale_ammt.files.artifacts import writing
from safescale_ammt.model.genome import Genome, shapes
from safescale_ammt.model.logits import BY_LIBRARY, EXACT
from safescale_ammt.model.network import initial, unflatten
from safescale_ammt.model.predictor import Deployable
from safescale_ammt.stages import prepare_data
from safescale_ammt.store.uri import STORE

RESULT = ROOT / "benchmarks" / "results" / "start-up.json"
# The build that the issue of this benchmark measured.
BEFORE = "5109587"
GOAL = 0.33
SEED = 0
DEVELOPED_ON = 4000
NUMBERS = ("age", "weight", "years", "gain", "loss", "hours")
LEVELS = {"sex": 2, "race": 5, "class": 8, "family": 6, "married": 7, "school": 16}
LEVELS |= {"work": 14, "country": 40}


def people(rows: int, seed: int) -> pd.DataFrame:
    """Makes up rows of Adult's shape, with the label `rich`."""
    rng = np.random.default_rng(seed)
    numbers = {name: rng.normal(40, 10, rows).round(3) for name in NUMBERS}
    names = {
        name: [f"{name}-{i}" for i in rng.integers(0, levels, rows)]
        for name, levels in LEVELS.items()
    }
    chance = 1 / (1 + np.exp(-(numbers["years"] + numbers["hours"] - 85) / 5))
    label = np.where(rng.random(rows) < chance, "yes", "no")
    return pd.DataFrame({**numbers, **names, "rich": label})


def save_ours(folder: Path, table: Path) -> None:
    """Saves a network, as `now` and in the form that earlier builds read."""
    section: dict[str, Any] = {
        "source": table.as_uri(),
        "label": "rich",
        "positive": "yes",
    }
    section |= {"positive": "yes", "sensitive": ["sex"]}
    splits = dict.fromkeys(("validation", "constraint", "monitor", "select"), 0.1)
    prepare_data.run(
        {**section, "splits": {"train": 0.5, **splits, "sealed": 0.1}},
        folder / "dataset",
        folder / "holdout",
        environ={STORE: (folder / "store").as_uri()},
    )
    schema, genome = Schema.load(folder / "dataset"), Genome()
    layout = shapes(genome, width(schema), 1)
    theta = initial(genome, width(schema), 1, [SEED])
    weights = {name: w.numpy() for name, w in unflatten(theta, layout).items()}
    for name, definition in (("now", EXACT), ("before", BY_LIBRARY)):
        model = Deployable(genome, weights, "soup", 1, definition=definition)
        with writing(folder / name, kind="model", stage="benchmark") as draft:
            model.save(draft.folder, schema)
            model.save(draft.folder / "twin", schema)


def timed(root: Path, folder: Path, packages: str, *words: str) -> dict[str, float]:
    """Runs Python with the code of a checkout; returns CPU and wall seconds."""
    path = os.pathsep.join(filter(None, (str(root), packages)))
    environ = {k: v for k, v in os.environ.items() if not k.startswith("SAFESCALE_")}
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env={**environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        said = process.stderr.read().decode()
        # The children's whole usage counts all of them; this is of one alone.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)[:60]} failed: {said}")
    wall = time.perf_counter() - start
    return {"cpu_s": usage.ru_utime + usage.ru_stime, "wall_s": wall}


def commands(folder: Path, rows: Path, beside: Sequence[str]) -> dict[str, list[str]]:
    """Returns what each contender runs, the answers in a file of its name."""
    base = ["-m", "pipelines", "predict"]
    data = ["--data", str(rows), "--output"]
    runs = {
        name: [*base, str(folder / name), *data, f"{name}.csv"]
        for name in ("now", "before")
    }
    places = [str(folder / "others"), str(rows)]
    return runs | {n: ["-c", SCRIPTS[n], *places, f"{n}.csv"] for n in beside}


def measure(
    before: Path,
    sizes: Sequence[int],
    repeats: int,
    beside: Sequence[str] = (),
    packages: str = "",
) -> dict[str, Any]:
    """Returns seconds by size and contender, and how far old and new answers are."""
    found: dict[str, Any] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory(prefix="start-up-") as name:
        folder = Path(name)
        table = people(DEVELOPED_ON, SEED)
        table.to_csv(folder / "table.csv", index=False)
        save_ours(folder, folder / "table.csv")
        if beside:
            save_others(folder / "others", table, beside)
        for size in sizes:
            rows = folder / f"rows-{size}.csv"
            people(size, SEED + 1).drop(columns="rich").to_csv(rows, index=False)
            runs = commands(folder, rows, beside)
            for _ in range(repeats):
                for who, words in runs.items():
                    root = before if who == "before" else ROOT
                    spent = timed(root, folder, packages, *words)
                    found[str(size)][who].append(spent)
            found["apart"][str(size)] = apart(folder / "before.csv", folder / "now.csv")
    return {key: dict(value) for key, value in found.items()}


def apart(before: Path, now: Path) -> dict[str, float]:
    """Returns how many predictions differ, and by how much a score at most."""
    sides = []
    for path in (before, now):
        with path.open(newline="", encoding="utf-8") as file:
            sides.append([(r["prediction"], r["score"]) for r in csv.DictReader(file)])
    pairs = list(zip(*sides, strict=True))
    return {
        "predictions": sum(a[0] != b[0] for a, b in pairs),
        "score": max(abs(float(a[1]) - float(b[1])) for a, b in pairs),
    }


def ratios(found: dict[str, Any], size: int) -> list[float]:
    """Returns CPU seconds now / before, turn by turn."""
    now, before = (found[str(size)][who] for who in ("now", "before"))
    return [a["cpu_s"] / b["cpu_s"] for a, b in zip(now, before, strict=True)]


def result(found: dict[str, Any], sizes: Sequence[int], command: str) -> dict[str, Any]:
    """Puts the seconds into the form of all benchmark results."""
    rows = []
    for size in sizes:
        for who, spent in found[str(size)].items():
            row: dict[str, Any] = {"rows": size, "who": who}
            for clock in ("cpu_s", "wall_s"):
                each = [turn[clock] for turn in spent]
                for word, take in (("least", min), ("greatest", max)):
                    row[f"{word}_{clock}"] = take(each)
                row[f"median_{clock}"] = statistics.median(each)
            rows.append(row)
    goals = [
        {
            "what": f"CPU seconds of predicting {size:,} rows, now / before, median",
            "op": "<=",
            "goal": GOAL if size == 1 else 1.0,
            "value": statistics.median(ratios(found, size)),
            "spread": [min(ratios(found, size)), max(ratios(found, size))],
        }
        for size in sizes
    ]
    packages = ("numpy", "pyarrow", "torch", "lightgbm", "scikit-learn", "pandas")
    return in_form(
        "start-up",
        command,
        packages=("python", *packages),
        seeds=[SEED],
        rows=[*rows, {"now and before differ by": found["apart"]}],
        goals=goals,
        raw=[{"rows": s, "each": found[str(s)]} for s in sizes],
    )


def main() -> None:
    """Prints the table; stores it with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", metavar="REV", default=BEFORE)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 1000, 100_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--beside", nargs="*", choices=SCRIPTS, default=[*SCRIPTS])
    parser.add_argument("--packages", metavar="FOLDER", default="")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    sys.path += [str(Path(options.packages).resolve())] if options.packages else []
    beside = list(options.beside)
    if "onnxruntime" in beside and not all(map(find_spec, ("onnx", "onnxruntime"))):
        print("onnxruntime is left out: it is not installed, or onnx is not.")
        beside.remove("onnxruntime")
    with checkout(options.before) as before:
        turns = (options.rows, options.repeats, beside, options.packages)
        found = measure(before, *turns)
    packages = f"--packages {options.packages} " if options.packages else ""
    command = (
        f"python -m benchmarks start-up --before {options.before} --rows "
        f"{' '.join(map(str, options.rows))} --repeats {options.repeats} {packages}"
        "--write"
    )
    stored = result(found, options.rows, command)
    for row in stored["rows"][:-1]:
        least, most = row["least_cpu_s"], row["greatest_cpu_s"]
        print(
            f"{row['rows']:>8,} rows  {row['who']:<13} {row['median_cpu_s']:.2f} "
            f"[{least:.2f}, {most:.2f}] CPU s, {row['median_wall_s']:.2f} s"
        )
    for goal in stored["goals"]:
        print(f"{goal['what']}: {goal['value']:.2f} (goal {goal['goal']:g})")
    if options.write:
        store(RESULT, stored)


if __name__ == "__main__":
    main()
