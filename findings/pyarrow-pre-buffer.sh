#!/bin/sh
# ParquetFile.iter_batches of pyarrow holds the bytes of every row group of the file while it yields the first small batch.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 pyarrow==26.0.1
cd "$work"
cat >finding.py <<'PYTHON'
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

GROUPS, ROWS = 16, 1 << 19
rng = np.random.default_rng(0)
with pq.ParquetWriter("rows.parquet", pa.schema([("x", pa.float64())])) as writer:
    for _ in range(GROUPS):
        writer.write_table(pa.table({"x": rng.random(ROWS)}))
size = sum(
    pq.ParquetFile("rows.parquet").metadata.row_group(n).total_byte_size
    for n in range(GROUPS)
)


def held(**options):
    """Returns the most bytes that are held beside a batch, in row groups."""
    file = pq.ParquetFile("rows.parquet", **options)
    before, most = pa.total_allocated_bytes(), 0
    for batch in file.iter_batches(batch_size=1024):
        most = max(most, pa.total_allocated_bytes() - before - batch.nbytes)
    return most / (size / GROUPS)


print("pyarrow", pa.__version__, "-", GROUPS, "row groups, read in batches of 1,024 rows")
print("guess: some two row groups are held, that which is read and that which comes next")
seen = {}
for name, options in {
    "default": {},
    "pre_buffer=False": {"pre_buffer": False},
}.items():
    seen[name] = held(**options)
    print(f"{name}: the bytes of {seen[name]:.1f} row groups at most")
if not seen["default"] >= GROUPS - 1 > 3 * seen["pre_buffer=False"]:
    raise SystemExit("changed: the file is not held, or without pre_buffer too")
PYTHON
"$work/venv/bin/python" finding.py

# Output of 30 November 2026:
#
# pyarrow 26.0.1 - 16 row groups, read in batches of 1,024 rows
# guess: some two row groups are held, that which is read and that which comes next
# default: the bytes of 16.5 row groups at most
# pre_buffer=False: the bytes of 1.5 row groups at most
