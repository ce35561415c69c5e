#!/bin/sh
# Fills /layer while an image is built: install.sh REQUIREMENTS, or --code.
set -eu
if [ "$1" != --code ]; then
  index=
  # Wheels that lie there are all that is needed: no index is asked.
  if ls /wheels/*.whl >/dev/null 2>&1; then index=--no-index; fi
  /opt/builder/bin/python -m pip install --require-hashes --no-deps --no-compile \
    --only-binary=:all: --no-cache-dir --disable-pip-version-check --quiet \
    --root-user-action=ignore --find-links=/wheels $index --target=/layer -r "$1"
  rm -rf /layer/bin
  /opt/builder/bin/python /opt/builder/slim.py /layer
fi
# Bytecode that is valid whatever time a file bears: layers are the same each time,
# and nothing is compiled at a container's start.
/opt/builder/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /layer
chmod -R a+rX /layer
