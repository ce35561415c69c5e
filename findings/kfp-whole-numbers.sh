#!/bin/sh
# KFP's local runner changes a 64-bit seed, and whole numbers in dicts and lists arrive as floats.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
  kfp==2.17.3
cd "$work"
cat >finding.py <<'PYTHON'
import ast
import logging
import warnings
from contextlib import redirect_stdout
from importlib.metadata import version

from kfp import dsl, local

warnings.simplefilter("ignore")
logging.disable()


@dsl.component
def show(seed: int, settings: dict, sizes: list) -> str:
    return repr([seed, settings, sizes])


@dsl.pipeline
def train(seed: int, settings: dict, sizes: list) -> str:
    return show(seed=seed, settings=settings, sizes=sizes).output


local.init(local.SubprocessRunner(use_venv=False), pipeline_root="root")
given = [2**53 + 1, {"batch": 64}, [8, 16]]
with open("kfp.log", "w") as log, redirect_stdout(log):
    run = train(seed=given[0], settings=given[1], sizes=given[2])
seen = ast.literal_eval(run.output)

print("kfp", version("kfp"))
print("given:", given)
print("guess: the component gets what was given; the parameters are typed int")
print("seen: ", seen)
try:
    range(seen[1]["batch"])
except TypeError as error:
    print("range(settings['batch']):", error)
if repr(seen) != repr([2**53, {"batch": 64.0}, [8.0, 16.0]]):
    raise SystemExit("changed: the numbers arrive differently")
PYTHON
PATH="$work/venv/bin:$PATH" python finding.py

# Seen:
# kfp 2.17.3
# given: [9007199254740993, {'batch': 64}, [8, 16]]
# seen:  [9007199254740992, {'batch': 64.0}, [8.0, 16.0]]
# range(settings['batch']): 'float' object cannot be interpreted as an integer
