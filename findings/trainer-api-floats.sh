#!/bin/sh
# The Kubeflow Trainer models turn two GPUs into 2.0 as they read a manifest, and == cannot see it.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
  kubeflow-trainer-api==2.3.0
cd "$work"
cat >finding.py <<'PYTHON'
import json
from importlib.metadata import version

from kubeflow_trainer_api.models import IoK8sApiCoreV1ResourceRequirements as Resources

given = {"limits": {"cpu": 4, "nvidia.com/gpu": 2, "memory": "8Gi"}}
resources = Resources.from_dict(given)
text = resources.to_json()
back = json.loads(text)

print("kubeflow-trainer-api", version("kubeflow-trainer-api"))
print("given:", json.dumps(given))
print("guess: reading and writing a manifest changes nothing")
print("seen: ", text)
print("equal to what was given:", back == given)
print("same text:", json.dumps(back) == json.dumps(given))
expected = '{"limits": {"cpu": 4.0, "memory": "8Gi", "nvidia.com/gpu": 2.0}}'
if json.dumps(back, sort_keys=True) != expected or back != given:
    raise SystemExit("changed: quantities come back differently")
PYTHON
PATH="$work/venv/bin:$PATH" python finding.py

# Seen:
# kubeflow-trainer-api 2.3.0
# given: {"limits": {"cpu": 4, "nvidia.com/gpu": 2, "memory": "8Gi"}}
# seen:  {"limits": {"cpu": 4.0, "nvidia.com/gpu": 2.0, "memory": "8Gi"}}
# equal to what was given: True
# same text: False
