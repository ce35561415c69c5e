#!/bin/sh
# KFP's local runner takes a condition on a named output for false and calls the run a success.
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
import warnings
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from kfp import dsl, local

warnings.simplefilter("ignore")
logging.disable()


@dsl.component
def judge() -> NamedTuple("Verdict", [("decision", str), ("violations", int)]):
    from collections import namedtuple

    return namedtuple("Verdict", "decision violations")("refused", 2)


@dsl.component
def decide() -> str:
    return "refused"


@dsl.component
def stop(reason: str):
    with open("stopped.txt", "a") as file:
        file.write(reason + "\n")


@dsl.pipeline
def gate():
    verdict = judge()
    with dsl.If(verdict.outputs["decision"] == "refused", name="named-text"):
        stop(reason="named text")
    with dsl.If(verdict.outputs["violations"] == 2, name="named-number"):
        stop(reason="named number")
    with dsl.If(decide().output == "refused", name="only-output"):
        stop(reason="only output")


local.init(local.SubprocessRunner(use_venv=False), pipeline_root="root")
with open("kfp.log", "w") as log, redirect_stdout(log):
    gate()  # raises if the pipeline fails
seen = Path("stopped.txt").read_text().splitlines()

print("kfp", version("kfp"))
print("guess: all three conditions are true, so stop() runs three times")
print("seen: the run is a success, and stop() ran for", seen)
if seen != ["only output"]:
    raise SystemExit("changed: another set of conditions was met")
PYTHON
PATH="$work/venv/bin:$PATH" python finding.py

# Seen:
# kfp 2.17.3
# seen: the run is a success, and stop() ran for ['only output']
