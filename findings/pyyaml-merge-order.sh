#!/bin/sh
# Of several mappings merged into one, PyYAML 6.0.4 lets the last win where 6.0.3 lets the first.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cat >"$work/finding.py" <<'PYTHON'
import yaml

TEXT = """
base: &base {colour: red}
other: &other {colour: blue}
both:
  <<: [*base, *other]
"""
print(yaml.safe_load(TEXT)["both"]["colour"])
PYTHON
for version in 6.0.3 6.0.4; do
  "${PYTHON:-python3.11}" -m venv "$work/$version"
  "$work/$version/bin/pip" install --quiet PyYAML==$version
done
first=$("$work/6.0.3/bin/python" "$work/finding.py")
second=$("$work/6.0.4/bin/python" "$work/finding.py")
echo "A guess: a patch release reads the same file alike, and by YAML's rule for merges"
echo "(yaml.org/type/merge.html) a key of an earlier mapping overrides a later one's."
echo "PyYAML 6.0.3 reads $first, PyYAML 6.0.4 reads $second."
[ "$first" = red ] && [ "$second" = blue ] || exit 1

# Seen:
# A guess: a patch release reads the same file alike, and by YAML's rule for merges
# (yaml.org/type/merge.html) a key of an earlier mapping overrides a later one's.
# PyYAML 6.0.3 reads red, PyYAML 6.0.4 reads blue.
