"""Small images, and nets of them that a test can reckon by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from test_schema import SCHEMA
from torch import nn

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.schema import ImageFeature, Schema
from safescale_ammt.model.genome import Genome
from safescale_ammt.model.module_genome import ModuleGenome
from safescale_ammt.model.predictor import Deployable
from safescale_ammt.model.program import Program
from safescale_ammt.modules.tracing import traced

SIDE = 8
PIXELS = SIDE * SIDE
IMAGES: Schema = dataclasses.replace(
    SCHEMA, features=(ImageFeature("image", (1, SIDE, SIDE)),)
)
"""Images of two classes, `high` is positive, beside a column of groups."""


def images(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns bytes (n, 64) and classes (n,): dark images, and bright ones."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    middle = np.where(label, 192, 64)[:, None]
    pixels = np.clip(middle + rng.normal(0, 20, (n, PIXELS)), 0, 255)
    # One pixel gives the class away: nets that trust it alone are easily broken.
    pixels[:, 0] = np.where(label, 136, 120)
    return pixels.astype(np.uint8), label


def inputs(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.float32) / np.float32(255)


def net(weight: np.ndarray, bias: float, **rest: Any) -> Deployable:
    """A linear net of one logit, as genomes have it."""
    weights = {
        "out.weight": np.asarray(weight, np.float32).reshape(1, 1, PIXELS, 1),
        "out.bias": np.full((1, 1, 1), bias, np.float32),
    }
    genome = Genome(encoding="standard", widths=(), dropout=0.0)
    return Deployable(genome, weights, "soup", 1, **rest)


def of_brightness(**rest: Any) -> Deployable:
    """Answers by the mean of all pixels: no change below .2 turns an answer."""
    return net(np.full(PIXELS, 40 / PIXELS), -20.0, **rest)


def of_one_pixel(**rest: Any) -> Deployable:
    """Answers by the first pixel, which a change of .04 turns."""
    return net(np.eye(1, PIXELS) * 40, -20.0, **rest)


def program(module: nn.Module, outputs: int) -> Deployable:
    """A user's own module, as it is released."""
    steps, constants = traced(module, PIXELS, outputs)
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    named = {**constants, **tensors}
    own = {n: named[n].detach().numpy()[None] for n in steps.needs}
    genome = ModuleGenome(
        "nets:build", f"sha256:{64 * chr(48)}", "standard", PIXELS, 2 * PIXELS
    )
    return Deployable(genome, Program(steps, own), "soup", 1)


class Lambda(nn.Module):
    """Layers around a function of the inputs."""

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.change, self.layer = change, nn.Linear(PIXELS, 1)
        with torch.no_grad():
            self.layer.weight.zero_()[0, 0] = 40.0
            self.layer.bias.fill_(-20.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(self.change(x))
        return out


def promise(metric: str = "robust_accuracy", **rest: Any) -> Constitution:
    """One promise of images under changes of .1, first looks by default."""
    threat = {"norm": "linf", "eps": 0.1, "range": [0, 1]}
    constraint: dict[str, Any] = {"metric": metric, "threat": threat, "threshold": 0.5}
    if metric == "attack_sanity_flags":
        del constraint["threshold"]
    return Constitution.from_dict(
        {
            "schema": 1,
            "principles": [{"id": "steady", "constraint": {**constraint, **rest}}],
            "groups": {"min_n": 20, "min_pos": 5},
        }
    )


def threat(tier: str = "smoke", **rest: Any) -> dict[str, Any]:
    return {"norm": "linf", "eps": 0.1, "tier": tier, **rest}
