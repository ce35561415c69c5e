"""The methods of `constraint-transfer` by name: what each knows and is tried with.

Knobs are chosen on re-splits of development rows (`--tune`), four settings at most for
each, by `merit`; what was chosen stands here. Ours was tuned on development rows too,
when its defaults were set, and is not tuned here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

from benchmarks.provenance import measured_code
from benchmarks.transfer_tasks import TASKS

CLOSED, OPEN = "closed", "open"
OURS, TWIN, TREES, FLOOR = "ours", "twin", "lightgbm", "torch-floor"
BOOSTED = "ours-over-trees"
BOTH = (CLOSED, OPEN)
TRIED: tuple[dict[str, Any], ...] = tuple(
    {"n_estimators": trees, "learning_rate": rate, "num_leaves": leaves}
    for trees, rate, leaves in (
        (200, 0.05, 31),
        (400, 0.03, 31),
        (300, 0.05, 15),
        (600, 0.03, 15),
    )
)
"""Settings of LightGBM; `peers.boosting` holds the one that stands."""
_ROWS: tuple[dict[str, Any], ...] = ({"rows": "all"}, {"rows": "untrained"})


@dataclass(frozen=True)
class Method:
    """How one method is run.

    Attributes:
        where: module below `benchmarks.peers`, and function, with a colon between.
        divisions: that it takes part in; methods with gradients cannot wrap trees.
        aware: whether it asks for the group of those it answers.
        packages: its distributions.
        tasks: that it knows.
        tried: settings of its knobs that were tried.
        chosen: what stands.
        promises: whether it steers towards the gap aimed at; a base does not.
    """

    where: str
    divisions: tuple[str, ...] = (CLOSED,)
    aware: bool = False
    packages: tuple[str, ...] = ()
    tasks: tuple[str, ...] = tuple(TASKS)
    tried: tuple[Mapping[str, Any], ...] = ()
    chosen: Mapping[str, Any] = field(default_factory=dict)
    promises: bool = True

    @property
    def code(self) -> str:
        """Digests of the code that its answers depend on, by room, as one text."""
        return code_of(self.where.partition(":")[0])

    def run(self, *given: Any, **knobs: Any) -> Any:
        """Answers; knobs other than those that stand may be given."""
        module, _, name = self.where.partition(":")
        function = getattr(import_module(f"benchmarks.peers.{module}"), name)
        return function(*given, **{**self.chosen, **knobs})


@cache
def code_of(module: str) -> str:
    """Returns digests of what a module below `peers` and the judge depend on."""
    judge = measured_code("transfer_judged").items()
    rooms = [(f"judge/{room}", digest) for room, digest in judge]
    rooms += measured_code(f"peers/{module}").items()
    return " ".join(f"{room}:{digest}" for room, digest in sorted(rooms))


METHODS: dict[str, Method] = {
    OURS: Method("ours:agents"),
    BOOSTED: Method("ours:boosters", (OPEN,), packages=("lightgbm",)),
    TWIN: Method("unconstrained:itself", promises=False),
    FLOOR: Method("unconstrained:floor", promises=False),
    TREES: Method(
        "unconstrained:trees",
        (OPEN,),
        packages=("lightgbm",),
        tried=TRIED,
        promises=False,
    ),
    "bias-score": Method("unconstrained:bias_score", BOTH, tasks=("tpr", "race")),
    "cooper": Method(
        "cooper_peer:nupi",
        packages=("cooper-optim",),
        tried=tuple({"ki": i, "kp": p} for i in (0.1, 0.3) for p in (1.0, 3.0)),
        chosen={"ki": 0.3, "kp": 3.0},
    ),
    "humancompatible": Method(
        "humancompatible_peer:alm",
        packages=("humancompatible-train",),
        tried=({"rate": 0.01}, {"rate": 0.05}, {"rate": 0.2}, {"penalty": 1.0}),
        chosen={"rate": 0.01},
    ),
    "fairret": Method(
        "fairret_peer:norm_loss",
        packages=("fairret",),
        tried=tuple({"strength": s} for s in (0.03, 0.1, 0.3, 1.0)),
        chosen={"strength": 0.1},
    ),
    "reductions": Method(
        "fairlearn_peer:reductions",
        BOTH,
        packages=("fairlearn",),
    ),
    "oxonfair-inferred": Method(
        "oxonfair_peer:inferred",
        BOTH,
        packages=("oxonfair",),
        tried=tuple({**r, "least": g} for r in _ROWS for g in (0.005, 0.02)),
        chosen={"rows": "untrained", "least": 0.02},
    ),
    "oxonfair": Method(
        "oxonfair_peer:aware",
        BOTH,
        aware=True,
        packages=("oxonfair",),
        tried=tuple({**r, "least": g} for r in _ROWS for g in (0.005, 0.02)),
        chosen={"rows": "untrained", "least": 0.02},
    ),
    "thresholds": Method(
        "fairlearn_peer:thresholds",
        BOTH,
        aware=True,
        packages=("fairlearn",),
        tried=_ROWS,
        chosen={"rows": "all"},
    ),
    "error-parity": Method(
        "error_parity_peer:error_parity",
        BOTH,
        aware=True,
        packages=("error-parity", "cvxpy"),
        tried=_ROWS,
        chosen={"rows": "all"},
    ),
}


def merit(accuracy: float, gap: float) -> float:
    """Returns what a setting of knobs is worth on development rows.

    A gap of .02, less than what chance makes of none there, costs .2 points.
    """
    return accuracy - 0.1 * abs(gap)
