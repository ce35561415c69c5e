#!/bin/sh
# KFP's DockerRunner reports a container that exited with 3 as a success, now and then.
#
# Needs a container engine that answers, and pulls busybox once if the engine lacks it;
# without an engine it exits with 77. It shows a race: how soon depends on the engine
# and on its load.
set -eu
docker info >/dev/null 2>&1 || { echo "skipped: no container engine answers"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
  docker==7.2.0 kfp==2.17.3
cd "$work"
cat >finding.py <<'PYTHON'
import logging
import os
import warnings
from contextlib import redirect_stdout
from importlib.metadata import version

import docker
from kfp import dsl, local

warnings.simplefilter("ignore")
logging.disable()
RUNS = 200


@dsl.container_component
def refuse():
    return dsl.ContainerSpec(image="busybox:1.37.0", command=["sh", "-c", "exit 3"])


local.init(local.DockerRunner(), pipeline_root=os.path.abspath("root"))
failed = succeeded = lost = 0
for _ in range(RUNS):
    try:
        with open("kfp.log", "a") as log, redirect_stdout(log):
            refuse()
        succeeded += 1
    except RuntimeError:  # what KFP raises for a task that failed
        failed += 1
    except docker.errors.APIError as error:  # 409: the container is being removed
        if error.response.status_code != 409:
            raise
        lost += 1
    if failed and succeeded:
        break

print("kfp", version("kfp"), "engine", docker.from_env().version()["Version"])
print("guess: a container that exits with 3 is a failed task each time")
print(f"seen: {failed} runs failed, {succeeded} succeeded, {lost} ended in an error")
print("      of the engine's; then this script stopped")
print("why: the engine removes the container by itself (auto_remove), and where KFP")
print("     asks for the exit code of one that is gone, it assumes a success")
if not succeeded:
    raise SystemExit(f"changed: each of {RUNS} runs was reported as failed")
PYTHON
PATH="$work/venv/bin:$PATH" python finding.py

# Seen:
# kfp 2.17.3 engine 20.10.24+dfsg1
# seen: 4 runs failed, 1 succeeded, 0 ended in an error
#       of the engine's; then this script stopped
# (of 60 runs that did not stop at the first: 47 failed, 5 succeeded, 8 ended in an
# error of the engine's)
# why: the engine removes the container by itself (auto_remove), and where KFP
#      asks for the exit code of one that is gone, it assumes a success
