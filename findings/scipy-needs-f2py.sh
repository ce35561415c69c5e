#!/bin/sh
# SciPy imports NumPy's Fortran wrapper, numpy.f2py, when it is used, and cannot be imported without it.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
  scipy==1.17.1 numpy==2.4.6
cd "$work"
cat >finding.py <<'PYTHON'
import subprocess
import sys

LOADED = "import sys; import {0}; print('numpy.f2py' in sys.modules)"
LACKING = "import sys; sys.modules['numpy.f2py'] = None; import {0}; print('imported')"


def told(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return (done.stdout.strip() or done.stderr.strip().splitlines()[-1]).split(":")[0]


import numpy
import scipy

print("numpy", numpy.__version__, "scipy", scipy.__version__)
print("guess: f2py is a tool of builds, which nothing imports at run time")
print("loaded by numpy:", told(LOADED.format("numpy")))
print("loaded by scipy.special:", told(LOADED.format("scipy.special")))
print("numpy without it:", told(LACKING.format("numpy")))
without = told(LACKING.format("scipy.special"))
print("scipy.special without it:", without)
needed = told(LOADED.format("scipy.special")) == "True" and without != "imported"
if not needed or told(LOADED.format("numpy")) != "False":
    raise SystemExit("changed: scipy does without numpy.f2py, or numpy loads it")
PYTHON
PATH="$work/venv/bin:$PATH" python finding.py

# Seen:
# numpy 2.4.6 scipy 1.17.1
# guess: f2py is a tool of builds, which nothing imports at run time
# loaded by numpy: False
# loaded by scipy.special: True
# numpy without it: imported
# scipy.special without it: ModuleNotFoundError
