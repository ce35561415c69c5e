"""Feasibility: short relaxed runs that name the principles that fight.

Two promises can each be kept and still not both: where base rates differ, equal
selection rates force unequal error rates (Kleinberg, Mullainathan & Raghavan
2017, arXiv:1609.05807). Before anything long is trained, one short run is made
with nothing enforced, one with each enforced principle alone, and one with all
of them. Principle p *fights* q if forcing p alone brought p closer to its promise,
made q worse than it was in the relaxed run by more than sampling noise, and left q
broken.

The answer informs, it does not refuse: a short run that fails proves nothing
about a long one, and the gate judges what came out in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.principles import GAPS, Principle


@dataclass(frozen=True)
class Reading:
    """One gap on held-out rows after a short run.

    Attributes:
        value: the gap.
        lower: its lower confidence bound.
        threshold: the most that is promised.
    """

    value: float
    lower: float
    threshold: float

    @property
    def excess(self) -> float:
        """How far the promise is provably broken; 0 if it may hold."""
        return max(0.0, self.lower - self.threshold)


Readings = Mapping[str, Reading]
Measure = Callable[[tuple[str, ...]], Readings]
"""Trains shortly with the named principles enforced, and reads all watched ones."""


def watched(constitution: Constitution) -> tuple[Principle, ...]:
    """Returns the promises about gaps: their readings can fight.

    A level such as accuracy is not watched: it is low after a short run,
    whatever is enforced.
    """
    return tuple(p for p in constitution.principles if p.constraint.metric in GAPS)


def check_feasibility(
    constitution: Constitution, measure: Measure, steps: int
) -> dict[str, Any]:
    """Makes the relaxed runs and says who fights whom.

    Args:
        constitution: the promises.
        measure: makes one short run.
        steps: optimizer steps of a run, for the record; 0 skips the check.

    Returns:
        JSON-ready: `checked`, and either `reason` or `steps`, `runs`, `fights`
        and `broken_together` (ids that are provably broken with all enforced).
    """
    reason = _nothing_to_fight(constitution, steps)
    if reason:
        return {"schema": 1, "checked": False, "reason": reason}
    enforced = tuple(p.id for p in constitution.enforced)
    sets: dict[tuple[str, ...], Readings] = {(): measure(())}
    sets |= {(name,): measure((name,)) for name in enforced}
    if enforced not in sets:
        sets[enforced] = measure(enforced)
    fights = [
        _fight(constitution, name, other, sets)
        for name in enforced
        for other in sets[(name,)]
        if other != name and _worsens(sets, name, other)
    ]
    return {
        "schema": 1,
        "checked": True,
        "steps": steps,
        "runs": [_run(names, readings) for names, readings in sets.items()],
        "fights": fights,
        "broken_together": [n for n, r in sets[enforced].items() if r.excess > 0],
    }


def _nothing_to_fight(constitution: Constitution, steps: int) -> str:
    if steps == 0:
        return "search.feasibility_steps is 0."
    if not constitution.enforced:
        return "No principle is enforced in training."
    if len(watched(constitution)) < 2:
        return "Fewer than two principles bound a gap: there is nobody to fight."
    return ""


def _worsens(sets: Mapping[tuple[str, ...], Readings], name: str, other: str) -> bool:
    relaxed, forced = sets[()], sets[(name,)]
    if not {name, other} <= relaxed.keys() & forced.keys():
        return False
    helped = forced[name].value < relaxed[name].value
    worse = forced[other].lower > relaxed[other].value
    return helped and worse and forced[other].excess > 0


def _fight(
    constitution: Constitution,
    name: str,
    other: str,
    sets: Mapping[tuple[str, ...], Readings],
) -> dict[str, Any]:
    before, after = sets[()][other].value, sets[(name,)][other].value
    promise = constitution.principle(other).sentence()
    return {
        "forcing": name,
        "worsens": other,
        "from": before,
        "to": after,
        "sentence": f"Forcing {name!r} moves {other!r} from {before:.3f} to "
        f"{after:.3f}, which promises {promise}.",
    }


def _run(names: tuple[str, ...], readings: Readings) -> dict[str, Any]:
    return {
        "enforced": list(names),
        "readings": {name: asdict(r) for name, r in readings.items()},
    }
