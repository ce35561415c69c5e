"""Seeds of attacks: nobody who trained a model knows them, and they can be told again.

seed = HMAC-SHA256(secret of the evaluator, digest of the model and name of the attack)
"""

from __future__ import annotations

import hashlib
import hmac

import torch
from torch import nn


def module_digest(module: nn.Module) -> str:
    """Returns the SHA-256 of a module's tensors and their names, in hex."""
    found = hashlib.sha256()
    for name, value in module.state_dict().items():
        if isinstance(value, torch.Tensor):
            tensor = value.detach().cpu().contiguous()
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def generator_of(secret: bytes, digest: str, name: str) -> torch.Generator:
    """Returns what an attack draws from, on the processor.

    Args:
        secret: the evaluator's.
        digest: of the model.
        name: of the attack.
    """
    mac = hmac.new(secret, f"{digest} {name}".encode(), hashlib.sha256).digest()
    return torch.Generator().manual_seed(int.from_bytes(mac[:7], "big"))
