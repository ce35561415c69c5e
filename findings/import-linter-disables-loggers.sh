#!/bin/sh
# import-linter's Python function disables every logger that the process already has.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet import-linter==2.17
mkdir "$work/shop"
echo "import shop.low" >"$work/shop/high.py"
touch "$work/shop/__init__.py" "$work/shop/low.py"
cat >"$work/contracts.toml" <<'TOML'
[tool.importlinter]
root_package = "shop"

[[tool.importlinter.contracts]]
name = "layers"
type = "layers"
layers = ["high", "low"]
containers = ["shop"]
TOML
cat >"$work/finding.py" <<'PYTHON'
import logging

from importlinter.cli import lint_imports

logger = logging.getLogger("of.another.library")
before = logger.isEnabledFor(logging.ERROR)
code = lint_imports(config_filename="contracts.toml", cache_dir=None)
print("exit", code, "before", before, "after", logger.isEnabledFor(logging.ERROR))
PYTHON
got=$(cd "$work" && venv/bin/python finding.py | tail -n 1)
echo "A guess: a check of imports, called from a test, leaves the process as it was."
echo "import-linter 2.17, is an unrelated logger enabled for errors: $got"
[ "$got" = "exit 0 before True after False" ] || exit 1

# Every later test of the process that looks for another library's error finds none.
# Seen:
# A guess: a check of imports, called from a test, leaves the process as it was.
# import-linter 2.17, is an unrelated logger enabled for errors: exit 0 before True after False
