#!/bin/sh
# KFP's local runner takes an s3:// pipeline root for a folder and stores nothing in the bucket.
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

from kfp import dsl, local

warnings.simplefilter("ignore")
logging.disable()


@dsl.component
def make(data: dsl.Output[dsl.Dataset]):
    with open(data.path, "w") as file:
        file.write("1,2,3")


# No credentials and no endpoint are set: nothing could be written to a bucket.
local.init(local.SubprocessRunner(use_venv=False), pipeline_root="s3://bucket/runs")
with open("kfp.log", "w") as log, redirect_stdout(log):
    dataset = make().outputs["data"]  # raises if the task fails

print("kfp", version("kfp"))
print("guess: an error about credentials, or an s3:// URI in the output")
print("seen: a success, and the URI", dataset.uri.replace(str(Path.cwd()), "."))
print("seen: that file says", Path(dataset.path).read_text())
local_copy = Path.cwd() / "s3:" / "bucket" / "runs"
if not (local_copy.is_dir() and Path(dataset.uri).is_relative_to(local_copy)):
    raise SystemExit("changed: the artifact lies somewhere else")
PYTHON
PATH="$work/venv/bin:$PATH" python finding.py

# Seen:
# kfp 2.17.3
# seen: a success, and the URI ./s3:/bucket/runs/make-<time>/make/data
# seen: that file says 1,2,3
