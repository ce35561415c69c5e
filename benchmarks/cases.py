"""What small awkward tables give, beside what they must give.

    python -m benchmarks cases [--inputs FOLDER] [--only NAME ...]

Each case is a table on which a good guess goes wrong: one value in two spellings,
a number written as text, a label beside itself, a class that nobody finds. The
folder holds the tables, or `make_cases.py`, which writes them. A case that does not
concern the model is prepared only; the others go through the command line, as a
user's run does. Prints input, expected and got; exits with 1 if a case is missed.
About three minutes on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from benchmarks.configuration_examples import SPLITS
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.counts import Counts
from safescale_ammt.data.schema import CategoricalFeature, DateFeature, Schema
from safescale_ammt.errors import SafescaleError
from safescale_ammt.judging.power.check import power_check
from safescale_ammt.stages import prepare_data
from safescale_ammt.store.uri import STORE

INPUTS = Path(__file__).parent.parent.parent / "shared" / "cases"
MAKER = "make_cases.py"
PLAIN = {"label": "y", "positive": "yes", "sensitive": ["sex"], "splits": SPLITS}
LOANS = {
    "label": "repaid",
    "positive": "1",
    "sensitive": ["sex"],
    "categorical": ["branch"],
    "splits": {k: round(v / 0.7, 2) for k, v in SPLITS.items() if k != "sealed"},
}
SAME = "tab.tsv"
"""The table that the dialects spell in other ways."""


@dataclass(frozen=True)
class Seen:
    """What came of an input.

    Attributes:
        code: exit code, 0 if it was taken.
        said: all that was said, the refusal included.
        folder: of the dataset, or of the run.
    """

    code: int
    said: str
    folder: Path

    def json(self, name: str) -> Any:
        """Reads a file that was written."""
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def schema(self) -> Schema:
        """Reads the dataset's schema."""
        return Schema.from_dict(self.json("schema.json"))

    def kinds(self) -> dict[str, str]:
        """Names the features, and what each is."""
        return {feature.name: feature.kind for feature in self.schema().features}

    def last_line(self) -> str:
        """Returns the sentence that ends what was said."""
        return ([""] + [s for s in self.said.splitlines() if s.strip()])[-1]


class Bench:
    """Prepares tables and runs pipelines in a folder of their own."""

    def __init__(self, inputs: Path, scratch: Path) -> None:
        self.inputs = inputs
        self.scratch = scratch
        self._count = 0

    def _place(self) -> Path:
        self._count += 1
        place = self.scratch / str(self._count)
        place.mkdir()
        return place

    def prepare(self, name: str, **changes: Any) -> Seen:
        """Prepares a table as the first stage does."""
        place, said = self._place(), io.StringIO()
        data = PLAIN | {"source": (self.inputs / name).resolve().as_uri()} | changes
        code = 0
        with contextlib.redirect_stdout(said):
            try:
                summary = prepare_data.run(
                    *(data, place / "data", place / "holdout"),
                    environ={STORE: (place / "store").as_uri()},
                )
                # Of figures and digests the log shows more; here only what is told.
                told = (v for v in summary.values() if isinstance(v, str) and " " in v)
                print("\n".join(told))
            except SafescaleError as error:
                code = error.exit_code
                print(error)
        return Seen(code, said.getvalue(), place / "data")

    def run(self, data: Mapping[str, Any], *promises: Mapping[str, Any]) -> Seen:
        """Runs the whole pipeline from the command line."""
        place = self._place()
        constitution = {
            "schema": 1,
            "constitution": {"id": "case", "version": "1.0.0"},
            "principles": [
                {"id": f"promise-{i}", "constraint": promise}
                for i, promise in enumerate(promises)
            ],
            "gate": {"alpha": 0.05, "planned_submissions": 1},
        }
        config = {
            "schema": 1,
            "constitution_file": "constitution.yaml",
            "data": dict(data),
            "search": {"candidates": 3},
            "registry": {"name": place.name},
        }
        (place / "constitution.yaml").write_text(json.dumps(constitution))
        (place / "config.yaml").write_text(json.dumps(config))
        config_file, runs = str(place / "config.yaml"), place / "runs"
        done = self.command("run", "--config", config_file, "--output", str(runs))
        folders = [file.parent for file in runs.glob("[0-9]*/run.json")]
        return Seen(done.code, done.said, folders[0] if folders else place)

    def command(self, *words: str) -> Seen:
        """Gives a command; its store lies in the scratch folder."""
        done = subprocess.run(
            [sys.executable, "-m", "pipelines", *words],
            cwd=self.scratch,
            capture_output=True,
            text=True,
            check=False,
        )
        return Seen(done.returncode, done.stdout + done.stderr, self.scratch)


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        name: the input's file, or what is done with it.
        expected: what it must give.
        got: measures it: whether it is met, and what there was.
    """

    name: str
    expected: str
    got: Callable[[Bench], tuple[bool, str]]


def number_said(name: str, column: str) -> Case:
    """A column of texts that are numbers."""

    def got(bench: Bench) -> tuple[bool, str]:
        seen = bench.prepare(name)
        kind = "refused" if seen.code else seen.kinds().get(column, "no input")
        return kind == "numeric" and column in seen.said, f"{kind}; {seen.last_line()}"

    return Case(name, f"{column} is a number, and what was assumed is said", got)


def day_said(name: str, column: str) -> Case:
    """A column of days or times."""

    def got(bench: Bench) -> tuple[bool, str]:
        seen = bench.prepare(name)
        if seen.code:
            return False, seen.last_line()
        feature = next(f for f in seen.schema().features if f.name == column)
        if not isinstance(feature, DateFeature):
            return False, f"{feature.kind}; {seen.last_line()}"
        levels = {
            part.name: len(part.levels)
            for part in feature.parts
            if isinstance(part, CategoricalFeature)
        }
        met = levels == {"month": 12, "weekday": 7} and column in seen.said
        parts = ", ".join(part.name for part in feature.parts)
        return met, f"{parts}; {seen.last_line()}"

    return Case(name, f"{column} becomes features of a date, and it is said", got)


def same_table(name: str, **declared: Any) -> Case:
    """The plain table in another dialect."""

    def got(bench: Bench) -> tuple[bool, str]:
        seen, plain = bench.prepare(name, **declared), bench.prepare(SAME)
        if seen.code or plain.code:
            return False, seen.last_line()
        pairs = [pq.read_table(s.folder / "train.parquet") for s in (seen, plain)]
        equal = pairs[0].equals(pairs[1])
        # A declared dialect is remembered for rows to predict.
        equal &= replace(seen.schema(), dialect={}) == plain.schema()
        return equal, f"{'equal' if equal else 'other'} rows; {seen.last_line()}"

    how = ", ".join(f"{k}: {v!r}" for k, v in declared.items())
    return Case(f"{name} {how}".strip(), f"the rows and the schema of {SAME}", got)


def other_sealed(bench: Bench) -> tuple[bool, str]:
    """Develops on CSV; the sealed rows are Parquet, then the same rows as CSV."""
    found = []
    as_csv = bench.scratch / "loans-sealed.csv"
    pacsv.write_csv(pq.read_table(bench.inputs / "loans-sealed.parquet"), as_csv)
    for sealed in (bench.inputs / "loans-sealed.parquet", as_csv):
        uris = {"source": bench.inputs / "loans-dev.csv", "sealed_source": sealed}
        data = LOANS | {role: file.resolve().as_uri() for role, file in uris.items()}
        seen = bench.run(data, TPR, {**ACCURACY, "threshold": 0.7})
        if seen.code not in {0, 3}:
            return False, seen.last_line()
        found.append(float(seen.json("run.json")["verdict"]["accuracy"]))
    met = found[0] == found[1] > 0.74
    return met, f"accuracy {found[0]:.3f} in two formats, {found[1]:.3f} in one"


def other_rows(bench: Bench) -> tuple[bool, str]:
    """Predicts the same rows from CSV and from Parquet."""
    data = LOANS | {"splits": SPLITS}
    data["source"] = (bench.inputs / "loans-dev.csv").resolve().as_uri()
    trained = bench.run(data, TPR)
    version = trained.json("run.json")["version"] if not trained.code else None
    if not version:
        return False, trained.last_line()
    answers = []
    for ending in ("csv", "parquet"):
        rows, out = (
            bench.inputs / f"loans-new.{ending}",
            bench.scratch / f"{ending}.csv",
        )
        words = ["predict", "latest", "--name", version["registry"]]
        done = bench.command(*words, "--data", str(rows), "--output", str(out))
        if done.code:
            return False, done.last_line()
        answers.append(out.read_text().splitlines())
    differ = sum(a != b for a, b in zip(*answers, strict=True))
    return not differ, f"{differ} of {len(answers[0]) - 1} rows differ"


def small_group(bench: Bench) -> tuple[bool, str]:
    """Checks a promise by race where a few rows lack a gender."""
    seen = bench.prepare("hide.csv", sensitive=["race", "gender"])
    if seen.code:
        return False, seen.last_line()
    promise = {"metric": "fpr_gap", "group": "race", "op": "<=", "threshold": 0.15}
    rules = Constitution.from_dict(
        {"schema": 1, "principles": [{"id": "by-race", "constraint": promise}]}
    )
    counts = Counts.load(seen.folder)
    report = power_check(rules, counts, draws=500)
    withheld = seen.json("counts.json")["splits"]["sealed"]["groups"]["race"]
    hidden = "hidden" in json.dumps(withheld)
    named = "gender (missing)" in seen.said
    said = "certifiable" if report.certifiable else "not certifiable"
    rows = "named" if named else "not named"
    shown = "hidden" if hidden else "shown"
    got = f"{said}; the 17 rows are {rows}; counts by race are {shown}"
    return report.certifiable and named and not hidden, got


def constant_answer(bench: Bench) -> tuple[bool, str]:
    """Runs the table of a class that nothing predicts."""
    data = PLAIN | {"source": (bench.inputs / "rare.csv").resolve().as_uri()}
    gap = {"metric": "fpr_gap", "group": "sex", "op": "<=", "threshold": 0.1}
    seen = bench.run(data, gap, {**ACCURACY, "threshold": 0.8})
    if seen.code:
        return False, seen.last_line()
    verdict = seen.json("run.json")["verdict"]
    report = (seen.folder / "report.html").read_text(encoding="utf-8")
    beside = "constant answer" in report.lower()
    where = "in" if beside else "not in"
    decision, why = verdict["decision"], verdict["reasons"][0]
    got = f"{decision}; the constant answer's figures are {where} the report; {why}"
    return decision == "needs_human" and beside, got


def leak(bench: Bench) -> tuple[bool, str]:
    """Prepares a table with the label under another name, then allows it."""
    stopped = bench.prepare("leak.csv")
    allowed = bench.prepare("leak.csv", allow_leak=["outcome_code"])
    met = bool(stopped.code) and "outcome_code" in stopped.said and not allowed.code
    return met, f"{stopped.last_line()} Allowed: exit {allowed.code}"


def said_of(name: str, expected: str, word: str) -> Case:
    """A table that is read, with a warning."""

    def got(bench: Bench) -> tuple[bool, str]:
        seen = bench.prepare(name)
        lines = [s for s in seen.said.splitlines() if word in s]
        return not seen.code and bool(lines), "; ".join(lines[:2]) or seen.last_line()

    return Case(name, expected, got)


def headerless(bench: Bench) -> tuple[bool, str]:
    """Prepares a table whose first line is a row."""
    seen = bench.prepare("headerless.csv")
    row = (bench.inputs / "headerless.csv").read_text().splitlines()[0].split(",")
    # One-letter cells are in every sentence.
    shown = [cell for cell in row if len(cell) > 3 and cell in seen.said]
    return seen.code == 2 and not shown, seen.last_line()


def unlabelled(bench: Bench) -> tuple[bool, str]:
    """Prepares a table in which 60 rows lack the label."""
    seen = bench.prepare("unlabelled.csv", unlabelled="drop")
    line = next((s for s in seen.said.splitlines() if "left out" in s), "")
    return not seen.code and "60" in line, line or seen.last_line()


TPR = {"metric": "tpr_gap", "group": "sex", "op": "<=", "threshold": 0.2}
ACCURACY = {"metric": "accuracy", "op": ">="}
CASES = (
    Case(
        "loans-dev.csv, loans-sealed.parquet",
        "the accuracy of one format, about .77",
        other_sealed,
    ),
    Case("loans-new.csv, loans-new.parquet", "the same predictions", other_rows),
    Case("hide.csv", "certifiable by race; the 17 rows named", small_group),
    Case("rare.csv", "needs_human, the constant's figures beside", constant_answer),
    Case("leak.csv", "stopped, unless the config allows the column", leak),
    said_of("proxy.csv", "title is warned of", "title"),
    number_said("comma.csv", "x"),
    number_said("money.csv", "z"),
    number_said("percent.csv", "z"),
    day_said("days.csv", "z"),
    day_said("when.parquet", "when"),
    said_of("case.csv", "levels of sex that look alike are warned of", "alike"),
    same_table("semicolon.csv"),
    same_table("semicolon.csv", delimiter=";", decimal=","),
    same_table("tab.tsv", delimiter="\t"),
    same_table("index.csv"),
    same_table("trailing.csv"),
    same_table("cr.csv"),
    Case("headerless.csv", "one sentence without a cell of the row", headerless),
    Case("unlabelled.csv unlabelled: drop", "60 rows left out, and said", unlabelled),
    same_table("view.parquet"),
)


def main() -> None:
    """Runs the cases and prints what came of each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks cases")
    parser.add_argument("--inputs", type=Path, default=INPUTS, metavar="FOLDER")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    options = parser.parse_args()
    missed = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.inputs
        if (maker := folder / MAKER).is_file():
            folder = Path(scratch) / "inputs"
            # Written by the files' own script: their rows are the same for everybody.
            subprocess.run(
                [sys.executable, maker, folder], check=True, stdout=subprocess.DEVNULL
            )
        elif not (folder / "rare.csv").is_file():
            parser.error(f"{folder} holds neither {MAKER} nor the tables it writes.")
        bench = Bench(folder.resolve(), Path(scratch))
        for case in CASES:
            if options.only and not any(name in case.name for name in options.only):
                continue
            met, got = case.got(bench)
            missed += not met
            print(f"{'met   ' if met else 'MISSED'} {case.name}", flush=True)
            print(f"         expected: {case.expected}")
            print(f"         got:      {got}", flush=True)
    if missed:
        raise SystemExit(1)
