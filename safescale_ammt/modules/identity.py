"""Identity of a training: what it is told apart from others by.

A checkpoint is of one model, these rows, this config, these promises, roles and this
loss; so is what several processes train together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils import _pytree as tree

from safescale_ammt.modules.outcome import ModuleRun
from safescale_ammt.modules.trial import FIRST
from safescale_ammt.store.uri import open_store
from safescale_ammt.training.checkpoint import Checkpoints


def identity(run: ModuleRun, modules: Sequence[nn.Module]) -> dict[str, str]:
    """Returns digests in hex of all that a training is of, by what they are of."""
    rows = []
    for name in ("train", "held"):
        split = run.task.splits[name]
        first = torch.arange(len(split))[:FIRST]
        seen, again = (tree.tree_leaves(split.batch(first)) for _ in range(2))
        # What a data set draws anew each time cannot tell it from another.
        still = [a for a, b in zip(seen, again, strict=True) if torch.equal(a, b)]
        rows += [split.y, *split.groups.values(), *still]
    law, loss = run.promises, run.nets.loss
    plain = {
        k: v
        for k, v in getattr(loss, "__dict__", {}).items()
        if isinstance(v, float | int | str)
    }
    own_loss = (getattr(loss, "__qualname__", type(loss).__qualname__), plain)
    return {
        "model": digest("\n".join(map(str, modules)), run.nets.mix.rows()),
        "rows": digest("", rows),
        "promises": digest((law.constitution.digest, law.threat)),
        "roles": digest(run.nets.roles(run.config)),
        "loss": digest(own_loss),
        "codistillation": digest(run.nets.codistillation),
        "config": digest(run.config.digest),
    }


def digest(words: object, tensors: Iterable[Tensor] = ()) -> str:
    """Returns the SHA-256 of words and numbers in hex."""
    found = hashlib.sha256(repr(words).encode())
    for tensor in tensors:
        found.update(tensor.detach().cpu().double().numpy().tobytes())
    return found.hexdigest()


def checkpoints_of(
    place: str | Path | None, run: ModuleRun, given: dict[str, str]
) -> Checkpoints:
    """Opens the checkpoints of this very training, if anywhere.

    Args:
        place: a folder or the URI of a store; None is nowhere.
        run: of which they are.
        given: its identity: what was trained under others is none of its.
    """
    if place is None:
        return Checkpoints()
    where = str(place)
    uri = where if "://" in where else Path(where).resolve().as_uri()
    return Checkpoints(open_store(uri), every=run.config.checkpoint_every, run=given)
