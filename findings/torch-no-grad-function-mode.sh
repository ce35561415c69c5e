#!/bin/sh
# A torch function mode sees torch.no_grad come and go, and may swallow it; it never sees torch.inference_mode.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
  torch==2.13.0 numpy==2.4.6
cd "$work"
cat >finding.py <<'PYTHON'
import torch
from torch.overrides import TorchFunctionMode


class Seeing(TorchFunctionMode):
    """Notes what it is asked, and leaves out calls of one name."""

    def __init__(self, swallowed=""):
        super().__init__()
        self.seen, self.swallowed = [], swallowed

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen.append(func.__name__)
        if func.__name__ == self.swallowed:
            return None
        return func(*args, **(kwargs or {}))


x = torch.ones(2, requires_grad=True)
with Seeing() as plain, torch.no_grad():
    kept = x * 2
with Seeing() as inside, torch.inference_mode():
    x * 2


@torch.no_grad()
def frozen(rows):
    return rows * 2


with Seeing("_set_grad_enabled"):
    with torch.no_grad():
        lost = x * 2
    decorated = frozen(x)
    with torch.inference_mode():
        inferred = x * 2

print("torch", torch.__version__.split("+")[0])
print("guess: a mode sees functions of tensors, and no_grad holds whatever it does")
print("what a mode is asked under no_grad:", *plain.seen)
print("what a mode is asked under inference_mode:", *inside.seen)
print("no_grad where the mode leaves calls alone, slopes:", kept.requires_grad)
print("no_grad where it swallows them, slopes:", lost.requires_grad)
print("a function decorated with no_grad, slopes:", decorated.requires_grad)
print("inference_mode there, slopes:", inferred.requires_grad)
swallowed = lost.requires_grad and decorated.requires_grad
if kept.requires_grad or not swallowed or inferred.requires_grad:
    raise SystemExit("changed: no_grad and inference_mode are alike to a mode")
PYTHON
PATH="$work/venv/bin:$PATH" python finding.py

# Seen:
# torch 2.13.0
# guess: a mode sees functions of tensors, and no_grad holds whatever it does
# what a mode is asked under no_grad: _set_grad_enabled mul _set_grad_enabled
# what a mode is asked under inference_mode: mul
# no_grad where the mode leaves calls alone, slopes: False
# no_grad where it swallows them, slopes: True
# a function decorated with no_grad, slopes: True
# inference_mode there, slopes: False
