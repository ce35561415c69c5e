"""Adaptive precision: which numbers a module computes in, by the published thresholds.

    int8     above the memory threshold (used / total memory)
    float16  above 7/9 of it (.7 where it is .9), and in the first epochs
    float32  else, and at once where gradients are unstable

A precision is a wish until the hardware grants it. Nothing here trains in int8, and of
two bytes a number bfloat16 is used, whose range needs no loss scaling: under pressure
wherever the device has it, for speed where a probe finds it at least 5 % faster. Each
decision that differs from the one before is logged with its evidence.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from safescale_ammt.errors import ConfigError, InputError
from safescale_ammt.files.memory import free_memory
from safescale_ammt.modules.processes import from_first, largest
from safescale_ammt.training.placement import SINGLE_PROCESS, ProcessGroup
from safescale_ammt.training.training_log import Log, discard

FASTER = 1.05
"""How many times as fast a precision must be to be used for its speed."""
_TIMES = 3
"""Timings of each precision in a probe, in alternation."""
_FP16 = 7 / 9
"""The published rule has int8 above .9 and float16 above .7."""


class AdaptivePrecisionEngine:
    """Decides on a precision and says why (`policy: thresholds`).

    Args:
        memory_threshold: used / total memory above which int8 is wanted.
        gradient_stability_threshold: gradient norm above which float32 is used.
        early_epochs: passes over the rows that count as early.
        switching: whether it switches at all; without, it stays with the first.
        mixed: whether to compute in bfloat16 wherever that is faster.
        device: that is computed on.
        pressure: measures used / total memory, in [0, 1]; None is of the device.
        group: processes that decide alike: by the largest pressure and gradient of
            all, and by the first one's clock.
        log: receives an event for each decision that is new.

    Attributes:
        used: the precision now: `float32` or `bfloat16`.
        speedup: of bfloat16 by the probe; NaN before one.
        decisions: the events so far.

    Raises:
        ConfigError: a threshold that is none, an unknown device, or an option of
            another kind.
    """

    def __init__(
        self,
        *,
        memory_threshold: float = 0.9,
        gradient_stability_threshold: float = math.inf,
        early_epochs: float = 1.0,
        switching: bool = True,
        mixed: bool = False,
        device: torch.device | str | None = None,
        pressure: Callable[[], float] | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
        log: Log = discard,
    ) -> None:
        require_number("memory_threshold", memory_threshold, 0, 1)
        require_number("gradient_stability_threshold", gradient_stability_threshold, 0)
        require_number("early_epochs", early_epochs, 0)
        if not gradient_stability_threshold:
            raise ConfigError(
                "gradient_stability_threshold is 0, expected more than 0."
            )
        for name, switch in (("switching", switching), ("mixed", mixed)):
            if not isinstance(switch, bool | np.bool_):
                raise ConfigError(f"{name} is {switch!r}, expected True or False.")
        require_function("pressure", pressure or memory_pressure)
        require_function("log", log)
        self.used, self.speedup = "float32", math.nan
        self.decisions: list[dict[str, Any]] = []
        self._memory, self._stable = memory_threshold, gradient_stability_threshold
        self._early, self._switching, self._mixed = early_epochs, switching, mixed
        try:
            self._device = torch.device("cpu" if device is None else device)
        except (RuntimeError, TypeError):
            raise ConfigError(
                f"device is {device!r}, expected a device of torch's or its name, such "
                "as 'cpu' or 'cuda:0'."
            ) from None
        self._pressure = pressure or (lambda: memory_pressure(self._device))
        self._log, self._group = log, group
        self._norm = 0.0

    def probe(self, step: Callable[[], object]) -> None:
        """Times a step in both precisions; nothing is timed where nobody asks.

        Args:
            step: computes what a training step does, and changes nothing.

        Raises:
            ConfigError: it is no function.
        """
        require_function("step", step)
        if not (self._mixed or self._switching):
            return
        seconds: dict[str, list[float]] = {"float32": [], "bfloat16": []}
        for attempt in range(_TIMES + 1):
            for self.used, each in seconds.items():
                start = self._clock()
                step()
                # The first of each makes what the others find made.
                if attempt:
                    each.append(self._clock() - start)
        # Gradients of an earlier training are not those of the next.
        self.used, self._norm = "float32", 0.0
        # A clock may not tick in a short step.
        plain, half = (max(min(each), 1e-9) for each in seconds.values())
        self.speedup = from_first(self._group, plain / half)

    def note(self, gradients: Tensor) -> None:
        """Takes the gradients of a step (k, P): the longest counts.

        Raises:
            InputError: they are no such tensor.
        """
        fits = isinstance(gradients, Tensor) and gradients.dim() == 2 and len(gradients)
        if not fits or not gradients.is_floating_point():
            found = type(gradients).__name__
            if isinstance(gradients, Tensor):
                found = f"a tensor {tuple(gradients.shape)} of {gradients.dtype}"
            raise InputError(
                f"The gradients are {found}, expected a tensor (nets, weights) of "
                "numbers with a point, one net at least."
            )
        if self._switching:
            self._norm = float(gradients.norm(dim=1).max())
            # At once, and not at the next decision.
            if self.used != "float32":
                self._norm = largest(self._group, self._norm)
                if not self._norm <= self._stable:
                    self.use("float32", "float32", "gradients are unstable", None)

    def decide(self, epoch: float) -> str:
        """Decides for the steps that come next.

        Args:
            epoch: passes over the rows so far.

        Returns:
            The precision that is used.

        Raises:
            ConfigError: no number of passes, or a pressure outside of [0, 1].
        """
        require_number("epoch", epoch, 0)
        fast = self.speedup >= FASTER
        if not self._switching:
            if self._mixed:
                self.use("bfloat16", "bfloat16" if fast else "float32", "mixed", None)
            return self.used
        measured = self._pressure()
        require_number("what pressure gives", measured, 0, 1)
        pressure = largest(self._group, float(measured))
        self._norm = largest(self._group, self._norm)
        wanted, why, pressed = "float32", "memory and gradients are at ease", False
        if not self._norm <= self._stable:
            why = "gradients are unstable"
        elif pressure > self._memory:
            wanted, why, pressed = "int8", "memory is nearly full", True
        elif pressure > _FP16 * self._memory:
            wanted, why, pressed = "float16", "memory fills up", True
        elif epoch < self._early:
            wanted, why = "float16", "an early epoch"
        elif self._mixed:
            wanted, why = "bfloat16", "mixed precision"
        low = wanted != "float32" and (pressed or fast)
        self.use(wanted, "bfloat16" if low else "float32", why, pressure)
        return self.used

    def use(self, wanted: str, used: str, why: str, pressure: float | None) -> None:
        """Uses a precision; what is new is logged with its evidence."""
        self.used = used
        reason = f"Precision {used}: {why}"
        if used != wanted:
            reason += f", which asks for {wanted}"
            if used == "float32":
                reason += f"; bfloat16 is {self.speedup:.2f} times as fast here"
        if wanted == "int8":
            reason += "; nothing trains in int8 here"
        before = self.decisions[-1] if self.decisions else {}
        if (before.get("wanted"), before.get("used")) != (wanted, used):
            event = {
                "event": "precision",
                "wanted": wanted,
                "used": used,
                "pressure": pressure,
                "gradient_norm": self._norm if math.isfinite(self._norm) else None,
                "speedup": self.speedup if math.isfinite(self.speedup) else None,
                "reason": reason + ".",
            }
            self.decisions.append(event)
            self._log(event)

    def autocast(self) -> AbstractContextManager[Any]:
        """Lets the body compute in the precision that is used."""
        low = self.used != "float32"
        return torch.autocast(self._device.type, torch.bfloat16, enabled=low)

    def _clock(self) -> float:
        if self._device.type == "cpu":
            return time.process_time()
        if self._device.type != "xla":
            torch.get_device_module(self._device).synchronize()
        return time.perf_counter()


def require_number(name: str, value: Any, low: float, high: float = math.inf) -> None:
    """Refuses what is no number from low to high.

    Raises:
        ConfigError: it is none.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        expected = f"a number in [{low}, {high}]"
        if math.isinf(high):
            expected = f"a number from {low} on"
        raise ConfigError(f"{name} is {value!r}, expected {expected}.")


def require_function(name: str, value: Any) -> None:
    """Refuses what cannot be called.

    Raises:
        ConfigError: it cannot.
    """
    if not callable(value):
        kind = type(value).__name__
        raise ConfigError(f"{name} is a {kind}, expected a function.")


def memory_pressure(device: torch.device) -> float:
    """Returns used / total memory of a device, in [0, 1]; 0 where nothing tells."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return 1 - free / total
    if device.type != "cpu":
        return 0.0
    import os

    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(1.0, max(0.0, 1 - free_memory() / total))
