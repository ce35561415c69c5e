"""Attacks of others on the same rows: which rows survive them."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from safescale_ammt.constitution.threats import Threat

NORMS = {"linf": "Linf", "l2": "L2"}
Attack = Callable[[nn.Module, Tensor, Tensor, Threat], Tensor]


def auto_attack(module: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
    """Returns points of AutoAttack, its standard version (package pyautoattack)."""
    package = import_module("pyautoattack.autoattack")
    attack = package.AutoAttack(
        module, eps=threat.eps, norm=NORMS[threat.norm], seed=0, version="standard"
    )
    found: Any = attack.run_standard_evaluation(x, y, batch_size=len(x))
    return found if isinstance(found, Tensor) else found[0]


def torch_attacks(module: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
    """Returns points of PGD of 100 steps (package torchattacks)."""
    package = import_module("torchattacks")
    attack = package.PGD if threat.norm == "linf" else package.PGDL2
    found: Tensor = attack(module, eps=threat.eps, alpha=threat.eps / 10, steps=100)(
        x, y
    )
    return found


def foolbox(module: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
    """Returns points of PGD (package foolbox)."""
    package = import_module("foolbox")
    kind = "LinfPGD" if threat.norm == "linf" else "L2PGD"
    model = package.PyTorchModel(module, bounds=threat.range)
    found: Tensor = getattr(package.attacks, kind)()(model, x, y, epsilons=threat.eps)[
        1
    ]
    return found


def adv_lib(module: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
    """Returns points of FMN (package adv-lib)."""
    package = import_module("adv_lib.attacks")
    norm = float("inf") if threat.norm == "linf" else 2
    found: Tensor = package.fmn(module, x, y, norm=norm, steps=100)
    return found


PEERS: dict[str, Attack] = {
    "pyautoattack": auto_attack,
    "torchattacks": torch_attacks,
    "foolbox": foolbox,
    "adv-lib": adv_lib,
}


def held_against(
    name: str, module: nn.Module, x: Tensor, y: Tensor, threat: Threat
) -> dict[str, Any]:
    """Returns which rows survive a peer, 0 and 1 in a text, or why it has not run.

    Args:
        name: of the package.
        module: deployed.
        x: rows that are answered right.
        y: labels.
        threat: what may be changed.
    """
    start = time.process_time()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            moved = PEERS[name](module, x.clone(), y.clone(), threat)
    except ModuleNotFoundError as error:
        return {"reason": f"asks for {error.name}, which is not here"}
    except (AssertionError, IndexError, RuntimeError, ValueError) as error:
        return {"reason": f"{type(error).__name__} on this network"}
    with torch.no_grad():
        wrong = module(moved).argmax(1) != y
    # What leaves the ball or the range counts for nobody.
    change = (moved - x).flatten(1)
    length = change.abs().amax(1) if threat.norm == "linf" else change.norm(dim=1)
    wrong &= length <= threat.eps * (1 + 1e-4)
    if threat.range is not None:
        low, high = threat.range
        wrong &= ((moved >= low) & (moved <= high)).flatten(1).all(1)
    survived = "".join("01"[int(not w)] for w in wrong)
    return {"survived": survived, "cpu_s": round(time.process_time() - start, 2)}
