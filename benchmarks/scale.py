"""What each stage costs by rows and columns: CPU seconds, peak memory and disk.

    python -m benchmarks scale [--sizes ROWS | ROWSxCOLUMNS ...] [--others LIBRARY ...]
                               [--libraries FOLDER] [--before REV] [--most ROWS]
                               [--write] [--anew]

Tables of Adult's shape are drawn in a folder for temporary files (TMPDIR), with its
columns, levels and gaps; a wide one, such as 100000x500, has numbers, whole numbers and
levels by turns. Then the five stages run, each in a process of its own, one after the
other on one artifact after the other: CPU seconds and peak resident memory (VmHWM) as
the system counts them, CPU seconds of the imports beside them, and the disk. They hold
while other programs run, which wall time would not. Beyond 50 million rows a model as
before its first step is judged, and neither searched, trained nor registered.

`--before` measures preparation and training of an earlier revision too, `--others` what
DuckDB, polars and pandas take for the reading, the hashes, the copies, the split and
the quantiles of such a table, both up to `--most` rows; DuckDB is no dependency, and is
looked for in `--libraries` (`pip install --target FOLDER duckdb`).

`--write` stores benchmarks/results/scale.json, or adds to it what is measured: a long
table may be measured size by size. Rows of other code are not added to: `--anew`
begins again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks.house import checkout
from benchmarks.provenance import ROOT, changes, in_form, measured_code, store
from benchmarks.scale_figures import COMPARED, OWN, TRAINED, Row, added, goals, table
from benchmarks.scale_judged import write_model
from benchmarks.scale_others import OTHERS
from benchmarks.scale_rows import searched
from benchmarks.scale_stages import STAGES, called
from benchmarks.scale_tables import NARROW, promises, put
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.schema import Schema
from safescale_ammt.files.artifacts import verify
from safescale_ammt.files.canonical import write_json

RESULT = ROOT / "benchmarks" / "results" / "scale.json"
SIZES = ("50000", "500000", "5000000", "100000x500", "50000000", "100000000")
# The smallest table cannot show it of each race, and is measured all the same.
RULES = promises(0.4) | {"gate": {"on_uncertifiable": "human"}}
SECTIONS: dict[str, Any] = {
    "rules": RULES,
    "search": {"threads": 1},
    "training": {"threads": 1},
}
"""What the stages read beside the data, by file: all else as it is by default."""


def measured(
    rows: int, columns: int, given: argparse.Namespace, roots: Mapping[str, Path]
) -> Iterator[Row]:
    """Yields what libraries, stages and revisions take at one size.

    Args:
        rows: of the table.
        columns: of the table.
        given: the command's options.
        roots: checkouts by name.
    """
    size = {"rows": rows, "columns": columns}
    small = rows <= given.most
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        folder = Path(name)
        put(folder, rows, columns)
        for who in given.others if small else ():
            found = called(OTHERS[who], folder, given.libraries, ROOT)
            yield {**size, "stage": "prepare_data", "by": who, **found}
            for file in folder.glob(f"{who}*.parquet"):
                file.unlink()
        for section, said in SECTIONS.items():
            write_json(folder / f"{section}.json", said)
        for who, root in roots.items() if small else [(OWN, roots[OWN])]:
            place = folder if who == OWN else earlier(folder)
            for stage in stages(rows, who):
                if stage != "prepare_data" and not (place / "model").exists():
                    stand_in(place, stage)
                took = called(STAGES[stage], place, root)
                yield {**size, "stage": stage, "by": who, **took}


def stages(rows: int, who: str) -> list[str]:
    """Names the stages that are measured."""
    if who != OWN:
        return ["prepare_data", "train_agents"]
    return [*STAGES] if rows <= TRAINED else ["prepare_data", "evaluate_safety"]


def earlier(folder: Path) -> Path:
    """Makes a folder for another revision, with the same rows and sections."""
    place = folder / "store" / "before"
    place.mkdir(parents=True)
    for file in ("data", *SECTIONS):
        shutil.copy(folder / f"{file}.json", place)
    return place


def stand_in(folder: Path, stage: str) -> None:
    """Writes what a stage needs of stages that do not run: an architecture, a model."""
    dataset = folder / "dataset"
    if stage != "search_architecture" and not (folder / "architecture").exists():
        searched(folder, dataset, RULES)
    if stage == "evaluate_safety":
        parents = {
            "dataset": verify(dataset, "dataset").identity,
            "architecture": verify(folder / "architecture", "architecture").identity,
            "constitution": Constitution.from_dict(RULES).digest,
        }
        write_model(folder, parents, Schema.load(dataset), RULES)


def stored(rows: list[Row], before: str, most: int) -> dict[str, Any]:
    """Puts the figures into the form of all benchmark results.

    Args:
        rows: of all sizes.
        before: the earlier revision; "" = none.
        most: rows up to which it, and other libraries, were measured.
    """
    words = ["python -m benchmarks scale --anew --write --sizes"]
    for r, c in dict.fromkeys((row["rows"], row["columns"]) for row in rows):
        words += [f"{r}" if c == NARROW else f"{r}x{c}"]
    others = [name for name in OTHERS if any(row["by"] == name for row in rows)]
    words += ["--others", *others] if others else []
    words += ["--before", before] if before else []
    words += ["--most", f"{most}"] if before or others else []
    return in_form(
        "scale",
        " ".join(words),
        packages=("python", "numpy", "pyarrow"),
        cores=", beside other programs: CPU seconds and memory of each process, no "
        "wall time",
        against={"before": before, "most": most},
        seeds=[0],
        rows=rows,
        goals=goals(rows),
    )


def earlier_result(*, anew: bool) -> dict[str, Any]:
    """Returns the stored result, to which figures of the same code are added.

    Raises:
        SystemExit: it is of other code.
    """
    if anew or not RESULT.exists():
        return {"rows": []}
    found: dict[str, Any] = json.loads(RESULT.read_text())
    if rooms := changes(found.get("code", {}), measured_code("scale")):
        raise SystemExit(
            f"{RESULT.name} holds figures of other code ({', '.join(rooms)}); measure "
            "with that code, or begin again with --anew."
        )
    return found


def size_of(word: str) -> tuple[int, int]:
    """Reads rows, or rows and columns, of a table."""
    rows, _, columns = word.partition("x")
    return int(rows), int(columns or NARROW)


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", type=size_of, nargs="+", default=[size_of(s) for s in SIZES]
    )
    parser.add_argument("--others", nargs="*", choices=[*OTHERS], default=[])
    parser.add_argument("--before", metavar="REV", default="")
    parser.add_argument("--most", type=int, metavar="ROWS", default=COMPARED)
    parser.add_argument("--libraries", type=Path, default=Path())
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--anew", action="store_true")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table; stores it with `--write`."""
    given = options(argv)
    old = earlier_result(anew=given.anew or not given.write)
    rows: list[Row] = old["rows"]
    before, most = given.before or old.get("before", ""), given.most
    most = max(most, old.get("most", 0))
    with checkout(given.before) if given.before else nullcontext() as root:
        roots = {OWN: ROOT} | ({"before": root} if root else {})
        for count, columns in given.sizes:
            for row in measured(count, columns, given, roots):
                words = f"{row['columns']:<4} {row['stage']:<20} {row['by']:<8}"
                cost = f"{row['cpu_s']:8.1f} CPU s {row['peak_mib']:7.0f} MiB"
                disk = f"{row['disk_peak_mib']:8.0f} MiB of disk"
                print(f"{row['rows']:>11,} x {words} {cost} {disk}", flush=True)
                rows = added(rows, [row])
                if given.write:
                    store(RESULT, stored(rows, before, most))
    print(table(rows))
    for g in goals(rows):
        met = "met" if g["value"] <= g["goal"] else "MISSED"
        print(f"{g['what']}: {g['value']:.3g} ({g['op']} {g['goal']:g}), {met}")


if __name__ == "__main__":
    main()
