#!/bin/sh
# Fills /layer while an image is built: install.sh REQUIREMENTS, or --code, or
# --spark REQUIREMENTS PYSPARK.
set -eu
install() { # FOLDER-WITH-WHEELS REQUIREMENTS [OPTION]
  index=
  # Wheels that lie there are all that is needed: no index is asked.
  if ls "$1"/*.whl >/dev/null 2>&1; then index=--no-index; fi
  /opt/builder/bin/python -m pip install --require-hashes --no-deps --no-compile \
    --only-binary=:all: --no-cache-dir --disable-pip-version-check --quiet \
    --root-user-action=ignore --find-links="$1" $index --target=/layer ${3:-} -r "$2"
}
case "$1" in
  --code) ;;
  --spark)
    install /wheels/spark "$2"
    # Where the host has made a wheel of the archive, it is that one's, hence no hash.
    if ls /wheels/pyspark/*.whl >/dev/null 2>&1; then
      /opt/builder/bin/python -m zipfile -e /wheels/pyspark/*.whl /layer
      chmod -R a+rX /layer/pyspark && chmod a+x /layer/pyspark/bin/* /layer/pyspark/sbin/*
    else
      install /wheels/pyspark "$3" --no-binary=pyspark
    fi
    ;;
  *) install /wheels "$1" ;;
esac
if [ "$1" != --code ]; then
  rm -rf /layer/bin /layer/pyspark/examples /layer/pyspark/jars/connect-repl
  /opt/builder/bin/python /opt/builder/slim.py /layer
fi
# Bytecode that is valid whatever time a file bears: layers are the same each time,
# and nothing is compiled at a container's start.
/opt/builder/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /layer
chmod -R a+rX /layer
