"""What evaluation, registration and `verify` cost by sealed rows of Adult's shape.

    python -m benchmarks scale-judged [--rows N ...] [--before REV] [--write]

A holdout of so many rows is written row group by row group, beside a small dataset and
a model that was never trained: its answers are as good as any for this. Then the
sealed rows are judged, the model is registered and its bundle verified, each in a
process of its own, with the code as it is and as it was in REV: CPU seconds, and the
most memory that it held. Both have to come to the same evidence and verdict.
`--write` stores benchmarks/results/scale-judged.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.house import checkout
from benchmarks.provenance import ROOT, in_form, store
from benchmarks.scale_rows import (
    MOST_RSS,
    RULES,
    People,
    searched,
    write_dataset,
    write_split,
)
from benchmarks.scale_stages import EVALUATE, REGISTER, called
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.coding import width
from safescale_ammt.data.counts import SplitCounts
from safescale_ammt.data.holdout import SEALED_ROWS
from safescale_ammt.data.row_keys import Parts, RowKeys
from safescale_ammt.data.schema import Schema
from safescale_ammt.data.splitting import ROW
from safescale_ammt.files.artifacts import read_manifest, verify, writing
from safescale_ammt.files.canonical import digest_json, write_json
from safescale_ammt.files.parquet import read_fixed
from safescale_ammt.model.genome import Genome, shapes
from safescale_ammt.model.predictor import Deployable
from safescale_ammt.store.protected import set_apart
from safescale_ammt.store.uri import open_store

RESULT = ROOT / "benchmarks" / "results" / "scale-judged.json"
# The last commit before evaluation read rows by batches.
BEFORE = "cb9b06c"
ROWS = (50_000, 2_000_000)
DEVELOPMENT = 20_000
GENOME = Genome(widths=(16,))
LENIENT = {
    **RULES,
    "principles": [
        {
            "id": "parity",
            "constraint": {"metric": "dp_gap", "group": "sex", "threshold": 0.9},
        },
        {
            "id": "calibrated",
            "constraint": {
                "metric": "calibration_error",
                "tier": "soft",
                "threshold": 0.9,
            },
        },
    ],
}
"""Promises that any model keeps: one that fails is not registered."""
VERIFY = """
from pathlib import Path
from safescale_ammt.releasing.bundle import verify_bundle
imported()
[about] = (Path(sys.argv[1]) / "registry").rglob("about.json")
verify_bundle(about.parent)
"""
STAGES = {"evaluate_safety": EVALUATE, "register_model": REGISTER, "verify": VERIFY}
"""Code of each stage by name, in the order in which they run."""


def write_holdout(folder: Path, rows: int) -> tuple[str, SplitCounts]:
    """Writes a holdout of so many sealed rows, its rows in a store beside it."""
    people, whole = People(14), folder / "whole"
    with writing(whole, kind="holdout", stage="benchmark") as draft:
        write_json(draft.folder / "schema.json", people.schema.to_dict())
        counts = write_split(draft.folder / SEALED_ROWS, people, rows)
        hashes = read_fixed(draft.folder / SEALED_ROWS, "_row", ROW)
        keys = {"file": hashes[:1], "varying": hashes[::-1]}
        RowKeys(keys, Parts(rows, DEVELOPMENT, 0.0, ())).save(draft.folder)
    set_apart(open_store((folder / "store").as_uri()), whole, folder / "holdout")
    return read_manifest(folder / "holdout").identity, counts


def write_model(
    folder: Path,
    parents: dict[str, str],
    schema: Schema,
    rules: Mapping[str, Any] = LENIENT,
) -> None:
    """Writes a model and its twin as they are before the first step of training."""
    rng = np.random.default_rng(0)
    with writing(
        folder / "model", kind="model", stage="benchmark", parents=parents
    ) as draft:
        promised = Constitution.from_dict(rules).to_dict()
        write_json(draft.folder / "constitution.json", promised)
        for place in (draft.folder, draft.folder / "twin"):
            layers = shapes(GENOME, width(schema, "ple"), 1).items()
            weights = {
                name: rng.normal(0, 0.2, (1, *shape)).astype(np.float32)
                for name, shape in layers
            }
            Deployable(GENOME, weights, "best", 1).save(place, schema)


def put(folder: Path, rows: int) -> None:
    """Writes all that is judged into a folder."""
    (holdout, counts), dataset = write_holdout(folder, rows), folder / "dataset"
    source = {"holdout": holdout, "source_digest": digest_json("drawn")}
    write_dataset(dataset, DEVELOPMENT, files={"source.json": source}, sealed=counts)
    architecture = searched(folder, dataset)
    parents = {
        "dataset": verify(dataset, "dataset").identity,
        "architecture": verify(architecture, "architecture").identity,
        "constitution": Constitution.from_dict(LENIENT).digest,
    }
    write_model(folder, parents, Schema.load(dataset))
    write_json(folder / "rules.json", LENIENT)


def measured(rows: int, who: str, root: Path) -> list[dict[str, Any]]:
    """Runs the stages with the code of a checkout; returns what each took."""
    found = []
    with tempfile.TemporaryDirectory(prefix="scale-judged-") as name:
        put(Path(name), rows)
        for stage, code in STAGES.items():
            took = called(code, Path(name), root)
            found.append({"rows": rows, "stage": stage, "by": who, **took})
            print(json.dumps(found[-1]), flush=True)
        judged = read_manifest(Path(name) / "verdict")
        found[0]["evidence"] = judged.files["evidence.parquet"].sha256
        found[0]["verdict"] = judged.files["verdict.json"].sha256
    return found


def goals(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Says what was promised, and what came of it."""
    own = [row for row in found if row["by"] == "now"]
    most = max(row["peak_mib"] for row in own)
    whole = [
        {
            "what": "memory of a stage, greatest, MiB",
            "op": "<=",
            "goal": MOST_RSS >> 20,
            "value": most,
        }
    ]
    before = [row for row in found if row["by"] == "before" and "verdict" in row]
    for old in before:
        [new] = [r for r in own if r["rows"] == old["rows"] and "verdict" in r]
        departs = sum(new[name] != old[name] for name in ("evidence", "verdict"))
        what = f"digests that depart from those of before, {old['rows']:,} rows"
        whole.append({"what": what, "op": "==", "goal": 0, "value": departs})
    return whole


def main() -> None:
    """Prints every measurement; stores them with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[*ROWS])
    parser.add_argument("--before", metavar="REV", default=BEFORE)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    found = []
    with checkout(options.before) if options.before else nullcontext() as before:
        roots = {"now": ROOT} | ({"before": before} if before else {})
        for rows in options.rows:
            for who, root in roots.items():
                found += measured(rows, who, root)
    told = goals(found)
    for goal in told:
        print(f"{goal['what']}: {goal['value']:g} ({goal['op']} {goal['goal']:g})")
    if options.write:
        stored = in_form(
            "scale-judged",
            f"python -m benchmarks scale-judged {' '.join(sys.argv[1:])}",
            packages=("numpy",),
            against={"before": options.before},
            seeds=[0],
            rows=found,
            goals=told,
        )
        store(RESULT, stored)


if __name__ == "__main__":
    main()
