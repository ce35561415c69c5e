"""Convolutional nets as programs: they answer as torch does, row by row."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from safescale_ammt.errors import InputError
from safescale_ammt.model.operators import MOST_NUMBERS, OPERATORS
from safescale_ammt.model.program import Program
from safescale_ammt.modules.tracing import traced

SHAPE = (3, 12, 10)
PIXELS = 3 * 12 * 10
EXAMPLES = Path(__file__).parents[2] / "examples" / "own_model"


class Seen(nn.Module):
    """Layers of images whose answers are the means of their channels."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x.view(-1, *SHAPE)).flatten(2).mean(2)


class Excited(nn.Module):
    """Squeeze and excitation (Hu et al. 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, 2, 1),
            nn.ReLU(),
            nn.Conv2d(2, width, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(x)


class Next(nn.Module):
    """A block of ConvNeXt (Liu et al. 2022): depth-wise, layer norm over channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.along = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.scale = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.inner(self.norm(self.along(x).permute(0, 2, 3, 1)))
        return x + (self.scale * inner).permute(0, 3, 1, 2)


def example() -> nn.Module:
    sys.path.insert(0, str(EXAMPLES))
    try:
        from my_nets.convolutional import build
    finally:
        sys.path.remove(str(EXAMPLES))
        for name in [n for n in sys.modules if n.startswith("my_nets")]:
            del sys.modules[name]
    built: nn.Module = build(SimpleNamespace(image=SHAPE, outputs=4), width=4)
    return built


NETS: dict[str, Callable[[], nn.Module]] = {
    "example": example,
    "pools": lambda: Seen(
        nn.Conv2d(3, 6, 3, stride=2, padding=1, padding_mode="reflect"),
        nn.BatchNorm2d(6),
        nn.SiLU(),
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.AvgPool2d(2, 1, 1, count_include_pad=False),
        nn.AdaptiveMaxPool2d(3),
        nn.Dropout2d(),
    ),
    "separable": lambda: Seen(
        nn.Conv2d(3, 8, 1, bias=False),
        nn.Conv2d(8, 16, 3, groups=8, padding="same", dilation=2),
        nn.GroupNorm(4, 16),
        nn.PReLU(),
        Excited(16),
        nn.Conv2d(16, 4, 3, groups=2),
    ),
    "next": lambda: Seen(nn.Conv2d(3, 8, 2, stride=2), Next(8), nn.InstanceNorm2d(8)),
    "up and down": lambda: Seen(
        nn.PixelUnshuffle(2),
        nn.Conv2d(12, 8, 3, padding=1, padding_mode="replicate"),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.LeakyReLU(),
        nn.PixelShuffle(2),
        nn.Upsample(scale_factor=0.5),
        nn.LPPool2d(2, 2),
    ),
    "lines": lambda: nn.Sequential(
        nn.Unflatten(1, (4, 90)),
        nn.Conv1d(4, 6, 5, stride=2),
        nn.ReLU(),
        nn.MaxPool1d(3),
        nn.AdaptiveAvgPool1d(2),
        nn.Flatten(),
    ),
}


def settled(module: nn.Module, x: torch.Tensor) -> nn.Module:
    """The module with statistics of its own, not those that it was made with."""
    with torch.no_grad():
        module.train()(x)
    return module.eval()


def program(module: nn.Module, outputs: int) -> Program:
    steps, constants = traced(module, PIXELS, outputs)
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    named = {**constants, **tensors}
    return Program(steps, {n: named[n].detach().numpy()[None] for n in steps.needs})


@pytest.mark.parametrize("which", NETS)
def test_a_convolutional_net_answers_without_torch_as_with_it(which: str) -> None:
    torch.manual_seed(0)
    x = torch.rand(150, PIXELS)
    module = settled(NETS[which](), x)
    with torch.no_grad():
        expected = module(x).double().numpy()
    own = program(module, expected.shape[1])
    found = own.raw(x.double().numpy())
    far = 2e-5 * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=far)
    # A row has the same bits beside other rows, in another order, and alone.
    order = np.random.default_rng(0).permutation(len(x))
    assert np.array_equal(own.raw(x.double().numpy()[order]), found[order])
    assert np.array_equal(own.raw(x.double().numpy()[:1]), found[:1])


def test_the_example_says_what_it_is_for() -> None:
    sys.path.insert(0, str(EXAMPLES))
    try:
        from my_nets.convolutional import build

        with pytest.raises(ValueError, match="reads images, and the rows have none"):
            build(SimpleNamespace(image=None, outputs=1))
    finally:
        sys.path.remove(str(EXAMPLES))
        for name in [n for n in sys.modules if n.startswith("my_nets")]:
            del sys.modules[name]


def test_a_transposed_convolution_is_one_sentence() -> None:
    module = Seen(nn.ConvTranspose2d(3, 2, 3)).eval()
    with pytest.raises(InputError, match="A transposed convolution has no form"):
        program(module, 2).raw(np.zeros((2, PIXELS)))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("convolution", (None, [1], [1 << 14], [1], False, [0], 1)),
        ("upsample_nearest2d.vec", ([1 << 14, 1 << 14], None)),
        ("avg_pool2d", ([1, 1], [1, 1], [1 << 13, 1 << 13])),
    ],
)
def test_images_that_would_fill_the_memory_are_refused(
    name: str, arguments: tuple[object, ...]
) -> None:
    x = np.zeros((1, 1, 2, 2))
    given = (np.zeros((1, 1, 1, 1)),) if name == "convolution" else ()
    with pytest.raises(InputError, match=f"at most {MOST_NUMBERS}"):
        OPERATORS[name](x, *given, *arguments)
