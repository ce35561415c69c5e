#!/bin/sh
# KFP's local runner tells its caller the same of exit 3 and of a ValueError, and can do so of a success.
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
import re
import warnings
from contextlib import redirect_stdout
from importlib.metadata import version

from kfp import dsl, local

warnings.simplefilter("ignore")
logging.disable()


@dsl.component
def judge(how: str):
    import sys

    if how == "refused":
        sys.exit(3)
    if how == "crashed":
        raise ValueError("the reason")


@dsl.pipeline
def gate(how: str):
    judge(how=how)


def start(*, raise_on_error):
    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=os.path.abspath("root"),
        raise_on_error=raise_on_error,
    )


start(raise_on_error=True)
errors = {}
for how in ("refused", "crashed"):
    try:
        with open("kfp.log", "a") as log, redirect_stdout(log):
            gate(how=how)
    except Exception as error:
        text = re.sub("\x1b[^m]*m", "", str(error))
        errors[how] = (type(error).__name__, text, error.__cause__)

start(raise_on_error=False)
states = {}
for how in ("refused", "crashed", "fine"):
    with open("kfp.log", "a") as log, redirect_stdout(log):
        run = gate(how=how)
    states[how] = (run.state.name, run.outputs)

print("kfp", version("kfp"))
print("guess: the error holds the exit code or the message of the exception")
for how, error in errors.items():
    print("seen:", how, error)
print("guess: with raise_on_error=False the run's state tells failure from success")
for how, state in states.items():
    print("seen:", how, state)
one_error = len({repr(error) for error in errors.values()}) == 1
one_state = len({repr(state) for state in states.values()}) == 1
if not (len(errors) == 2 and one_error and one_state):
    raise SystemExit("changed: the caller can tell the runs apart")
PYTHON
PATH="$work/venv/bin:$PATH" python finding.py

# Seen:
# kfp 2.17.3
# seen: refused ('RuntimeError', "Pipeline 'gate' finished with status FAILURE. Inner
#     task failed: 'judge'.", None)
# seen: crashed ('RuntimeError', "Pipeline 'gate' finished with status FAILURE. Inner
#     task failed: 'judge'.", None)
# seen: refused ('FINAL', {})
# seen: crashed ('FINAL', {})
# seen: fine ('FINAL', {})
