"""What each stage costs by rows and columns: CPU seconds and peak memory.

    python -m benchmarks scale [--rows N ...] [--wide ROWS COLUMNS] [--others]
                               [--before REV] [--libraries FOLDER] [--write]

Tables of Adult's shape are drawn in a folder for temporary files, with its columns,
levels and gaps, and hardly two rows are equal; a wide one has numbers, whole numbers
and levels by turns. Each stage is a process of its own, whose CPU seconds and
peak resident memory (VmHWM) the system counts; what its imports took is beside
it. `--before` measures the same stages of an earlier revision in turn, `--others` what
DuckDB, polars and pandas take for the reading, the hashes, the copies, the split and
the quantiles of such a table; DuckDB is no dependency, and is looked for in
`--libraries` (`pip install --target FOLDER duckdb`). `--write` stores
benchmarks/results/scale.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from benchmarks.house import checkout
from benchmarks.provenance import ROOT, origin
from benchmarks.scale_others import OTHERS

RESULT = ROOT / "benchmarks" / "results" / "scale.json"
ROWS = (50_000, 500_000, 5_000_000)
WIDE = (100_000, 500)
MOST_MIB = 2048
DRAWN = 1 << 17
"""Rows that are drawn at once."""
SPLITS = dict.fromkeys(("validation", "constraint", "monitor", "select"), 0.1)
DATA = {
    "label": "income",
    "positive": ">50K",
    "sensitive": ["race", "sex"],
    "splits": {"train": 0.4, **SPLITS, "sealed": 0.2},
}
# Levels of Adult's columns of texts, and how unequal they are.
LEVELS = {
    "workclass": 9,
    "education": 16,
    "marital-status": 7,
    "occupation": 15,
    "relationship": 6,
    "race": 5,
    "sex": 2,
    "native-country": 42,
}
# Run in the process of a stage, whose folder is the first argument.
PREPARE = """
from pathlib import Path
from safescale_ammt.stages import prepare_data
imported()
folder = Path(sys.argv[1])
section = json.loads((folder / "data.json").read_text())
environ = {"SAFESCALE_STORE": (folder / "store").as_uri()}
prepare_data.run(section, folder / "dataset", folder / "holdout", environ=environ)
"""
STAGES = {"prepare_data": PREPARE}
"""Code of each stage by name, in the order in which they run; artifacts stay there."""
HEAD = """
import json, resource, sys, time
times = {}
def imported():
    times["start_cpu_s"] = time.process_time()
"""
TAIL = """
used = resource.getrusage(resource.RUSAGE_SELF)
times["cpu_s"] = used.ru_utime + used.ru_stime
# Of this program alone: `ru_maxrss` begins at what the process had that started it.
[peak] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
times["peak_mib"] = int(peak.split()[1]) / 1024
print("\\n" + json.dumps(times))
"""


def drawn(rows: int, columns: int, seed: int = 0) -> Iterator[pa.Table]:
    """Yields a table by parts: of Adult's shape with 15 columns, else a wide one."""
    rng = np.random.default_rng(seed)
    for start in range(0, rows, DRAWN):
        n = min(DRAWN, rows - start)
        yield adult_like(rng, n) if columns == 15 else wide(rng, n, columns)


def adult_like(rng: np.random.Generator, n: int) -> pa.Table:
    """Draws rows with the columns, levels and gaps of Adult."""
    texts = {}
    for name, count in LEVELS.items():
        share = 1 / np.arange(1, count + 1) ** 1.2
        codes = rng.choice(count, n, p=share / share.sum())
        levels = pa.array([f"{name} {i}" if i else "?" for i in range(count)])
        texts[name] = levels.take(pa.array(codes))
    gain = np.where(rng.random(n) < 0.92, 0, rng.integers(100, 99_999, n) // 37)
    education = rng.integers(1, 17, n)
    odds = 0.1 + 0.02 * education + 0.3 * (gain > 100)
    label = np.where(rng.random(n) < odds, ">50K", "<=50K")
    return pa.table(
        {
            "age": rng.integers(17, 91, n),
            "fnlwgt": rng.integers(12_285, 1_490_400, n),
            "education-num": education,
            "capital-gain": gain,
            "capital-loss": np.where(
                rng.random(n) < 0.95, 0, rng.integers(155, 4356, n)
            ),
            "hours-per-week": np.minimum(rng.poisson(40, n), 99),
            **texts,
            "income": label,
        }
    )


def wide(rng: np.random.Generator, n: int, columns: int) -> pa.Table:
    """Draws rows of numbers, whole numbers and levels, with a label and two groups."""
    found: dict[str, Any] = {}
    for i in range(columns - 3):
        if i % 5 < 3:
            found[f"x{i}"] = rng.normal(size=n)
        elif i % 5 == 3:
            found[f"n{i}"] = rng.integers(0, 50, n)
        else:
            found[f"c{i}"] = pa.array([f"v{v}" for v in rng.integers(0, 12, n)])
    for name, levels in {"race": "abcde", "sex": "fm"}.items():
        found[name] = pa.array(rng.choice([*levels], n))
    found["income"] = np.where(rng.random(n) < 0.3, ">50K", "<=50K")
    return pa.table(found)


def put(folder: Path, rows: int, columns: int) -> None:
    """Writes a table and the data section that describes it."""
    file = folder / "rows.csv"
    parts = drawn(rows, columns)
    first = next(parts)
    with pa_csv.CSVWriter(file, first.schema) as writer:
        writer.write_table(first)
        for part in parts:
            writer.write_table(part)
    section = {**DATA, "source": file.as_uri()}
    (folder / "data.json").write_text(json.dumps(section))


def called(code: str, folder: Path, *paths: Path) -> dict[str, float]:
    """Runs code in a process of its own; returns what it took."""
    path = os.pathsep.join(map(str, paths))
    done = subprocess.run(
        [sys.executable, "-P", "-c", HEAD + code + TAIL, str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(
    rows: int, columns: int, roots: dict[str, Path], others: list[str], libraries: Path
) -> Iterator[dict[str, Any]]:
    """Yields a row for each stage and revision, then for each other library.

    Args:
        rows: of the table.
        columns: of the table.
        roots: checkouts by name.
        others: names of other libraries.
        libraries: folder in which they may be.
    """
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        folder = Path(name)
        put(folder, rows, columns)
        size = {"rows": rows, "columns": columns}
        for stage, code in STAGES.items():
            for who, root in roots.items():
                yield {**size, "stage": stage, "by": who, **called(code, folder, root)}
        for who in others:
            found = called(OTHERS[who], folder, libraries, ROOT)
            yield {**size, "stage": "prepare_data", "by": who, **found}


def goals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Says what was promised, and what came of it."""
    own = [r for r in rows if r["by"] == "now"]
    peaks = [r["peak_mib"] for r in own]
    found = [
        {
            "what": "peak resident memory of a stage, MiB, greatest",
            "op": "<=",
            "goal": MOST_MIB,
            "value": max(peaks),
            "spread": [min(peaks), max(peaks)],
        }
    ]
    for stage in STAGES:
        narrow = [r for r in own if r["columns"] == 15 and r["stage"] == stage]
        if len(narrow) > 1:
            each = [(r["cpu_s"] - r["start_cpu_s"]) / r["rows"] for r in narrow]
            found.append(
                {
                    "what": f"CPU s a row of {stage}, largest table / the one before",
                    "op": "<=",
                    "goal": 1.1,
                    "value": each[-1] / each[-2],
                    "spread": [min(each) / each[-1], max(each) / each[-1]],
                }
            )
    return found


def options() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="*", default=[*ROWS])
    parser.add_argument("--wide", type=int, nargs=2, metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--others", nargs="*", choices=[*OTHERS], default=[])
    parser.add_argument("--before", metavar="REV")
    parser.add_argument("--libraries", type=Path, default=Path())
    parser.add_argument("--write", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Prints the table; stores it with `--write`."""
    given = options()
    sizes = [(rows, 15) for rows in given.rows]
    sizes += [(given.wide[0], given.wide[1])] if given.wide else []
    rows = []
    with checkout(given.before) if given.before else nullcontext() as before:
        roots = {"now": ROOT} | ({"before": before} if before else {})
        for size in sizes:
            for row in measured(*size, roots, given.others, given.libraries):
                words = f"{row['columns']:<4} {row['stage']:<14} {row['by']:<8}"
                cost = f"{row['cpu_s']:8.1f} CPU s {row['peak_mib']:7.0f} MiB"
                print(f"{row['rows']:>11,} x {words} {cost}", flush=True)
                rows.append(row)
    found = goals(rows)
    for g in found:
        print(f"{g['what']}: {g['value']:.3g} ({g['op']} {g['goal']:g})")
    if given.write:
        stored = {
            "name": "scale",
            "command": f"python -m benchmarks {' '.join(['scale', *sys.argv[1:]])}",
            **origin("scale"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "versions": {"numpy": np.__version__, "pyarrow": pa.__version__},
            "seeds": [0],
            "rows": rows,
            "goals": found,
            "raw": [],
        }
        RESULT.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
