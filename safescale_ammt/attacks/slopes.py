"""Where an attack has its slopes from.

exact             the module's own gradient
passing           ... with roundings, detaching, saturation and walls taken for the
                  identity on the way back (BPDA, Athalye et al. 2018,
                  arXiv:1802.00420, section 4.1)
across            ... and of layers whose values jump differences that see the jumps
                  s_i = 1 / m sum_j (f_i(h + r_j u_j) - f_i(h - r_j u_j)) u_ji / 2 r_j
                  with u_ji = +-1: the gradient of such a layer, however often it is
                  averaged, is that between the jumps
smoothed          the mean of gradients at points around (Tramer et al. 2020,
                  arXiv:2002.08347, section 5)
estimated         differences of the loss between opposite points (NES, Ilyas et al.
                  2018, arXiv:1804.08598)
                  g = 1 / m sum_i (L(x + sigma u_i) - L(x - sigma u_i)) u_i, u ~ N(0, I)
lent              the gradient of another network

Of all but the exact one the answers are still the target's own: it alone says which
point is answered wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from safescale_ammt.attacks.attempt import Classifier, rowwise
from safescale_ammt.attacks.losses import Loss

Slopes = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""Loss (B,), answers (B,) and slopes (B, ...) of rows, labels and aims."""
NEAR = 0.25
"""Mean change of its input, in units of that, up to which a layer is taken for none."""
TOUCH, STEEP = 3e-3, 20.0
"""Size of a touch, in units of a row's own, and the slope from which a layer jumps."""
WIDE, PAIRS = 0.1, 2
"""Mean r_j of a layer that jumps, in units of a row's own, and how many pairs."""
FLAT = frozenset(
    getattr(home, name)
    for home in (torch, Tensor)
    for name in (
        *("round", "floor", "ceil", "trunc", "sign", "sgn", "detach"),
        *("softmax", "sigmoid", "tanh"),
    )
)
"""What has the slope 0 nearly everywhere or far out, or cuts slopes off."""


class SlopeOne(torch.autograd.Function):
    """Values whose slope by others of their shape is that of the identity."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, x: Tensor) -> Tensor:
        """Returns the values."""
        del ctx, x
        return out.clone()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[None, Tensor]:
        """Hands slopes on to the others."""
        del ctx
        return None, slopes[0]


def with_slope_one(out: Tensor, x: Tensor) -> Tensor:
    """Returns values with slope 1 by x; see `SlopeOne`."""
    found: Tensor = SlopeOne.apply(out, x)  # type: ignore[no-untyped-call]
    return found


class StraightThrough(TorchFunctionMode):
    """Lets slopes pass through `FLAT` and `torch.no_grad`, values unchanged."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Calls a function of torch; see the class."""
        del types
        if getattr(func, "__name__", "") == "_set_grad_enabled":
            return None
        out = func(*args, **(kwargs or {}))
        if func in FLAT and args[0].requires_grad:
            return with_slope_one(out, args[0])
        return out


def sizes(x: Tensor) -> Tensor:
    """Returns the root of the mean square of each row, shaped to multiply rows."""
    least = torch.finfo(x.dtype).eps ** 2
    return rowwise(x.flatten(1).square().mean(1).sqrt().clamp(min=least), x)


def rise(layer: nn.Module, x: Tensor, radius: Tensor, draws: torch.Generator) -> Tensor:
    """Returns (f_i(x + radius u) - f_i(x - radius u)) u_i / 2 radius for signs u."""
    u = (torch.randint(0, 2, x.shape, generator=draws) * 2 - 1).to(x)
    change = layer.forward(x + radius * u) - layer.forward(x - radius * u)
    found: Tensor = change * u / (2 * radius)
    return found


def jumps(layer: nn.Module, x: Tensor, draws: torch.Generator) -> bool:
    """Tells whether a touch of a layer's input changes a value by far more."""
    size = sizes(x)
    grown = (sizes(layer.forward(x)) / size).clamp(min=1)
    return bool(((rise(layer, x, TOUCH * size, draws) / grown).abs() > STEEP).any())


def across(layer: nn.Module, x: Tensor, draws: torch.Generator) -> Tensor:
    """Returns a layer's slopes number by number, jumps included; see the module.

    Args:
        layer: without weights; keeps the shape of its input.
        x: its input, without slopes.
        draws: signs are drawn from it.
    """
    radii = [(2 * j + 1) / PAIRS * WIDE * sizes(x) for j in range(PAIRS)]
    return torch.stack([rise(layer, x, r, draws) for r in radii]).mean(0)


def past_a_wall(
    layer: nn.Module,
    given: Any,
    out: Any,
    *,
    draws: torch.Generator | None,
    known: set[nn.Module],
) -> Any:
    """Lets slopes pass through a layer without weights, as a hook of it.

    Through one that keeps its input's shape and has no slope, such as a rounding with a
    gradient of its own, that hardly changes its input, such as noise, or whose values
    jump, such as the largest numbers of a row, where there are `draws`; which layers
    jump is kept in `known`.
    """
    x = given[0] if given else None
    if not isinstance(x, Tensor) or not isinstance(out, Tensor):
        return out
    if x.shape != out.shape or not x.requires_grad:
        return out
    # The data alone: under `StraightThrough` nothing is detached.
    change, size = (out.data - x.data).abs().mean(), x.data.abs().mean()
    near = float(change) <= NEAR * float(size)
    slope = None
    if out.requires_grad and not near:
        (slope,) = torch.autograd.grad(
            out.sum(), x, retain_graph=True, allow_unused=True
        )
    if near or slope is None or not bool(slope.any()):
        return with_slope_one(out, x)
    if draws is None or len(given) > 1:
        return out
    if layer in known or jumps(layer, x.data, draws):
        known.add(layer)
        out = with_slope_one(out, across(layer, x.data, draws) * x)
    return out


class Passing(Classifier):
    """A classifier whose slopes pass through what hides them; its answers are the same.

    Through `FLAT` and `torch.no_grad` wherever they stand, and through layers of the
    module's own that `past_a_wall` knows.

    Args:
        module: see `Classifier`.
        draws: what looks across jumps draws from; without it nothing does.
    """

    def __init__(self, module: nn.Module, draws: torch.Generator | None = None) -> None:
        super().__init__(module)
        self._draws = draws
        self._jump: set[nn.Module] = set()

    def answer(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what a classifier does."""
        layers = [
            m for m in self.module.modules() if not any(True for _ in m.parameters())
        ]
        past = partial(past_a_wall, draws=self._draws, known=self._jump)
        hooks = [layer.register_forward_hook(past) for layer in layers]
        try:
            with StraightThrough():
                return super().answer(x)
        except RuntimeError:
            # Such as numpy in the module, which takes no tensor that asks for slopes.
            return super().answer(x)
        finally:
            for hook in hooks:
                hook.remove()


def gradient(
    target: Classifier, loss: Loss, x: Tensor, y: Tensor, aim: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns loss, answers and slopes, whose largest number in each row is 1 or 0."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        logits, codes = target.answer(x)
        value = loss(logits, y, aim)
        found = None
        if value.requires_grad:
            (found,) = torch.autograd.grad(value.sum(), x, allow_unused=True)
    found = torch.zeros_like(x) if found is None else found
    return value.detach(), codes, scaled(found)


def scaled(slopes: Tensor) -> Tensor:
    """Returns slopes with the largest number 1, since squares of tiny ones are 0."""
    slopes = slopes.detach().nan_to_num(0.0, 0.0, 0.0)
    largest = rowwise(slopes.flatten(1).abs().amax(1), slopes)
    return torch.where(largest > 0, slopes / largest, 0.0)


def exact(target: Classifier, loss: Loss) -> Slopes:
    """Returns the module's own gradient."""
    return lambda x, y, aim: gradient(target, loss, x, y, aim)


def smoothed(
    target: Classifier,
    loss: Loss,
    generator: torch.Generator,
    spread: float,
    draws: int,
) -> Slopes:
    """Returns the mean gradient at points around.

    Args:
        target: what is attacked.
        loss: what is made larger.
        generator: draws the points.
        spread: their standard deviation, in units of the inputs.
        draws: how many points.
    """
    passing = exact(Passing(target.module), loss)

    def slopes(x: Tensor, y: Tensor, aim: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value, codes, total = passing(x, y, aim)
        for _ in range(draws):
            noise = torch.randn(x.shape, generator=generator).to(x)
            total = total + passing(x + spread * noise, y, aim)[2]
        return value, codes, scaled(total)

    return slopes


def estimated(
    target: Classifier,
    loss: Loss,
    generator: torch.Generator,
    spread: float,
    draws: int,
) -> Slopes:
    """Returns slopes from values of the loss alone; arguments as of `smoothed`."""

    @torch.no_grad()
    def slopes(x: Tensor, y: Tensor, aim: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, codes = target.answer(x)
        total = torch.zeros_like(x)
        for _ in range(draws):
            # One direction for all rows: each row has its own difference along it.
            u = torch.randn((1, *x.shape[1:]), generator=generator).to(x)
            ends = (target.answer(x + sign * spread * u)[0] for sign in (1, -1))
            above, below = (loss(z, y, aim) for z in ends)
            total += rowwise(above - below, x) * u
        return loss(logits, y, aim), codes, scaled(total)

    return slopes


def lent(surrogate: Classifier, target: Classifier, loss: Loss) -> Slopes:
    """Returns the gradient of another network; the target answers."""

    def slopes(x: Tensor, y: Tensor, aim: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value, _, found = gradient(surrogate, loss, x, y, aim)
        return value, target.codes(x), found

    return slopes
