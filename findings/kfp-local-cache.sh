#!/bin/sh
# KFP's local cache answers for a changed file, reimport=True or not, and never for a task with metrics.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
  kfp==2.17.3
cd "$work"
cat >finding.py <<'PYTHON'
import logging
import os
import warnings
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path

from kfp import dsl, local

warnings.simplefilter("ignore")
logging.disable()


@dsl.component
def mean(data: dsl.Input[dsl.Dataset]) -> float:
    with open(data.path) as file:
        values = [float(line) for line in file]
    return sum(values) / len(values)


@dsl.component
def score(name: str, metrics: dsl.Output[dsl.Metrics]):
    metrics.log_metric("accuracy", 0.9)
    with open("scored.txt", "a") as file:
        file.write(name + "\n")


@dsl.component
def count(name: str) -> int:
    with open("scored.txt", "a") as file:
        file.write(name + "\n")
    return 1


@dsl.pipeline
def average(uri: str) -> float:
    data = dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset, reimport=True)
    return mean(data=data.output).output


@dsl.pipeline
def evaluate():
    score(name="with metrics")
    count(name="without")


local.init(
    local.SubprocessRunner(use_venv=False),
    pipeline_root=os.path.abspath("root"),
    enable_caching=True,
)
rows = Path("rows.txt").absolute()
means = []
with open("kfp.log", "w") as log, redirect_stdout(log):
    for values in ("1\n2\n3\n", "100\n200\n300\n"):
        rows.write_text(values)
        means.append(average(uri=str(rows)).output)
    evaluate()
    evaluate()
scored = Path("scored.txt").read_text().splitlines()

print("kfp", version("kfp"))
print("guess: reimport=True makes the second run read the new rows: 2.0, 200.0")
print("seen:", means)
print("guess: equal tasks run once, as no input has changed")
print("seen:", {name: scored.count(name) for name in sorted(set(scored))})
if means != [2.0, 2.0]:
    raise SystemExit("changed: the cache sees the rows")
if (scored.count("with metrics"), scored.count("without")) != (2, 1):
    raise SystemExit("changed: tasks with metrics are cached")
PYTHON
PATH="$work/venv/bin:$PATH" python finding.py

# Seen:
# kfp 2.17.3
# seen: [2.0, 2.0]
# seen: {'with metrics': 2, 'without': 1}
