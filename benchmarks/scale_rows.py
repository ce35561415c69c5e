"""What training and search cost at many rows of Adult's shape, or of many columns.

    python -m benchmarks scale-rows [--rows N ...] [--columns C] [--before REV]
                                    [--stages S ...] [--write]

A dataset artifact is written directly, its splits row group by row group: eight texts
and six numbers shaped like Adult's (or C numbers and texts in turn), two groups, one
row in four positive. Then each stage runs on it in a process of its own, with the code
as it is and as it was in REV: CPU seconds, and the most memory that it held, of which
the memory of the imports is a part. `--write` stores
benchmarks/results/scale-rows.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.house import checkout
from benchmarks.provenance import ROOT, in_form, store
from benchmarks.scale_tables import promises
from safescale_ammt.config.sections import SPLITS
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.counts import Counts, SplitCounts, tally
from safescale_ammt.data.dataset import Split
from safescale_ammt.data.encoding import learn_categorical, learn_numeric
from safescale_ammt.data.schema import CategoricalFeature, NumericFeature, Schema
from safescale_ammt.data.splitting import ROW
from safescale_ammt.files.artifacts import verify, writing
from safescale_ammt.files.canonical import write_json
from safescale_ammt.model.genome import Genome
from safescale_ammt.reading.columns import Column

RESULT = ROOT / "benchmarks" / "results" / "scale-rows.json"
# The last commit before rows were streamed.
BEFORE = "b82994b"
ROWS = (50_000, 500_000, 5_000_000)
GROUP_ROWS = 1 << 20
SHARES = {name: 0.6 if name == "train" else 0.1 for name in SPLITS}
LEVELS = (9, 16, 7, 15, 6, 5, 2, 42)
"""Values of Adult's texts; the last two but one are the groups."""
MOST_RSS = 2 << 30
RULES = promises(0.15)
STAGE = """
import json, resource, sys, time
from pathlib import Path
stage, dataset, out, constitution, architecture = sys.argv[1:]
rules = json.loads(constitution)
if stage == "search":
    from safescale_ammt.stages.search_architecture import run
    inputs = (dataset, rules, {"threads": 1}, {"threads": 1}, out)
else:
    from safescale_ammt.stages.train_agents import run
    inputs = (dataset, architecture, rules, {"threads": 1}, out)
run(*map(lambda x: Path(x) if isinstance(x, str) else x, inputs))
used = resource.getrusage(resource.RUSAGE_SELF)
# Of this program alone: `ru_maxrss` begins at what the process had that started it.
[peak] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
cpu = used.ru_utime + used.ru_stime
print(json.dumps({"cpu_s": cpu, "rss": int(peak.split()[1]) << 10}))
"""


class People:
    """Rows of Adult's shape, or of many columns, batch by batch.

    Args:
        columns: of the table; 14 are Adult's.
        seed: of the rows.
    """

    def __init__(self, columns: int, seed: int = 0) -> None:
        self._columns, self._rng = columns, np.random.default_rng(seed)
        self.schema = self._schema()

    def columns(self, rows: int) -> tuple[dict[str, pa.Array], np.ndarray[Any, Any]]:
        """Draws rows: columns by name, and their labels (rows,)."""
        rng = self._rng
        # Of a person: what the columns and the label have in common.
        person = rng.normal(size=rows)
        found: dict[str, pa.Array] = {}
        for i in range(self._columns):
            if i % 7 in (0, 2, 4):
                found[f"n{i}"] = pa.array(number(rng, person, i))
            else:
                count = LEVELS[i % len(LEVELS)]
                drawn = rng.normal(0.3 * (i % 3) * person, 1).clip(-2.999, 2.999)
                codes = ((drawn + 3) / 6 * count).astype(np.int64)
                texts = pa.array([f"value {c}" for c in range(count)])
                found[f"c{i}"] = texts.take(pa.array(codes))
        chance = 1 / (1 + np.exp(1.6 - 1.5 * person))
        return found, (rng.random(rows) < chance).astype(np.int64)

    def _schema(self) -> Schema:
        found, _ = self.columns(20_000)
        features: list[NumericFeature | CategoricalFeature] = []
        for name, values in found.items():
            if name.startswith("n"):
                features.append(learn_numeric(name, values.to_numpy(), 25))
            else:
                column = Column.of(pa.chunked_array([values]))
                features.append(learn_categorical(name, column, (), 64))
        return Schema(
            features=tuple(features),
            label="income",
            classes=("low", "high"),
            positive="high",
            sensitive=("race", "sex"),
            groups={
                "race": tuple("abcde"),
                "sex": ("Female", "Male"),
            },
            merges={},
            crosses={},
            drop=(),
            entity="",
            columns=(*found, "race", "sex", "income"),
            missing=("?",),
            label_map={},
            comment="",
        )

    def split(self, rows: int) -> Split:
        """Draws rows of a split."""
        found, label = self.columns(rows)
        rng = self._rng
        race = rng.choice(5, rows, p=[0.6, 0.2, 0.1, 0.05, 0.05])
        groups = {"race": race, "sex": (rng.random(rows) < 0.6 + 0.1 * label) * 1}
        hashes = rng.integers(0, 1 << 62, (rows, 2)).view(ROW)[:, 0]
        return Split(pa.table(found), label, groups, hashes)


def number(
    rng: np.random.Generator, person: np.ndarray[Any, Any], i: int
) -> np.ndarray[Any, Any]:
    """Draws a number of each row: an age, hours, or a gain that is mostly 0."""
    if i % 7 == 4:
        gain = np.round(np.exp(rng.normal(7, 1, len(person))), -2)
        return np.where(rng.random(len(person)) < 0.9, 0.0, gain)
    return np.round(40 + 12 * rng.normal(0.5 * person, 1)).clip(17, 90)


def write_dataset(
    folder: Path,
    rows: int,
    columns: int = 14,
    files: Mapping[str, Any] | None = None,
    sealed: SplitCounts | None = None,
) -> None:
    """Writes a dataset artifact of so many development rows, with files of JSON."""
    people = People(columns)
    schema, counts = people.schema, {}
    with writing(folder, kind="dataset", stage="benchmark") as draft:
        for file, value in (files or {}).items():
            write_json(draft.folder / file, value)
        write_json(draft.folder / "schema.json", schema.to_dict())
        for name, share in SHARES.items():
            path = draft.folder / f"{name}.parquet"
            counts[name] = write_split(path, people, round(rows * share))
        # What the targets' margins are made of: as many rows as *select* has.
        counts["sealed"] = sealed or counts["select"]
        table = Counts(schema.classes, schema.positive, counts)
        write_json(draft.folder / "counts.json", table.to_dict())


def write_split(path: Path, people: People, rows: int) -> SplitCounts:
    """Writes a split row group by row group; returns its counts."""
    schema, writer, drawn = people.schema, None, []
    for start in range(0, rows, GROUP_ROWS):
        split = people.split(min(GROUP_ROWS, rows - start))
        split.write(path.with_suffix(".part"), schema)
        part = pq.read_table(path.with_suffix(".part"))
        writer = writer or pq.ParquetWriter(path, part.schema, compression="zstd")
        writer.write_table(part)
        drawn.append((split.label, split.groups))
    if writer:
        writer.close()
    path.with_suffix(".part").unlink(missing_ok=True)
    groups = {
        name: (values, np.concatenate([codes[name] for _, codes in drawn]))
        for name, values in schema.groups.items()
    }
    return tally(np.concatenate([label for label, _ in drawn]), groups, 2)


def searched(folder: Path, dataset: Path, rules: Mapping[str, Any] = RULES) -> Path:
    """Writes an architecture artifact of the default genome."""
    parents = {
        "dataset": verify(dataset, "dataset").identity,
        "constitution": Constitution.from_dict(rules).digest,
    }
    out = folder / "architecture"
    with writing(out, kind="architecture", stage="benchmark", parents=parents) as draft:
        write_json(draft.folder / "genome.json", Genome().to_dict())
    return out


def staged(root: Path, stage: str, dataset: Path, architecture: Path) -> dict[str, Any]:
    """Runs a stage with the code of a checkout; returns what it took."""
    with tempfile.TemporaryDirectory(prefix="scale-out-") as out:
        words = [stage, dataset, Path(out) / "out", json.dumps(RULES), architecture]
        done = subprocess.run(
            [sys.executable, "-P", "-c", STAGE, *map(str, words)],
            env={**os.environ, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        return {"exit": done.returncode, "said": done.stderr.strip()[-300:]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(options: argparse.Namespace, before: Path | None) -> list[dict[str, Any]]:
    """Runs every stage at every number of rows, before and now in turn."""
    found = []
    for rows in options.rows:
        with tempfile.TemporaryDirectory(prefix="scale-rows-") as name:
            dataset = Path(name) / "dataset"
            write_dataset(dataset, rows, options.columns)
            architecture = searched(Path(name), dataset)
            for stage in options.stages:
                for when, root in (("before", before), ("now", ROOT)):
                    if root is None or (
                        when == "before" and rows > options.most_before
                    ):
                        continue
                    took = staged(root, stage, dataset, architecture)
                    found.append({"rows": rows, "stage": stage, "code": when, **took})
                    print(json.dumps(found[-1]), flush=True)
    return found


def result(found: list[dict[str, Any]], command: str, before: str) -> dict[str, Any]:
    """Puts the measurements into the form of all benchmark results."""
    now = [row for row in found if row["code"] == "now"]
    most = max(row.get("rss", 1 << 62) for row in now)
    goals = [
        {
            "what": "memory of a stage, greatest, bytes",
            "op": "<=",
            "goal": MOST_RSS,
            "value": most,
        }
    ]
    for row in now:
        same = {"rows": row["rows"], "stage": row["stage"], "code": "before"}
        for old in (o for o in found if same.items() <= o.items() and "rss" in o):
            if row["stage"] == "train" and row["rows"] >= 5_000_000:
                what = f"memory of train at {row['rows']} rows, now / before"
                ratio = row["rss"] / old["rss"]
                goals.append({"what": what, "op": "<=", "goal": 0.1, "value": ratio})
    return in_form(
        "scale-rows",
        command,
        packages=("python", "numpy"),
        against={"before": before},
        seeds=[0],
        rows=found,
        goals=goals,
        raw=found,
    )


def main() -> None:
    """Prints every measurement; stores them with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--columns", type=int, default=14)
    parser.add_argument("--stages", nargs="+", default=["train", "search"])
    parser.add_argument("--before", metavar="REV", default=BEFORE)
    parser.add_argument("--most-before", type=int, default=500_000)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with checkout(options.before) if options.before else nullcontext() as before:
        found = measure(options, before)
    command = f"python -m benchmarks scale-rows {' '.join(sys.argv[1:])}"
    stored = result(found, command, options.before)
    for goal in stored["goals"]:
        print(f"{goal['what']}: {goal['value']:.3g} (goal {goal['op']} {goal['goal']})")
    if options.write:
        store(RESULT, stored)


if __name__ == "__main__":
    main()
