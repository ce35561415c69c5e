#!/bin/sh
# safetensors writes other bytes from call to call as soon as the metadata has two entries.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
  numpy==2.4.6 safetensors==0.8.0
cd "$work"
cat >finding.py <<'PYTHON'
import hashlib
from importlib.metadata import version

import numpy as np
from safetensors.numpy import load, save

TENSORS = {"weight": np.arange(4, dtype=np.float32)}


def digests(metadata):
    """Returns the digests of forty files with the same tensors and metadata."""
    files = [save(TENSORS, metadata) for _ in range(40)]
    assert all(np.array_equal(load(f)["weight"], TENSORS["weight"]) for f in files)
    return {hashlib.sha256(file).hexdigest() for file in files}


seen = [
    len(digests({f"key{number}": "value" for number in range(entries)}))
    for entries in (0, 1, 2, 3)
]

print("safetensors", version("safetensors"), "numpy", version("numpy"))
print("guess: the same tensors and metadata give the same file, so one digest")
print("seen: digests with 0, 1, 2, 3 metadata entries:", seen)
if seen[:2] != [1, 1] or seen[2] < 2 or seen[3] < 2:
    raise SystemExit("changed: the bytes depend on the metadata differently")
PYTHON
PATH="$work/venv/bin:$PATH" python finding.py

# Seen:
# safetensors 0.8.0 numpy 2.4.6
# seen: digests with 0, 1, 2, 3 metadata entries: [1, 1, 2, 6]
