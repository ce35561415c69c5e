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

from collections.abc import Callable, Iterator, Mapping, Sequence
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
"""Trains shortly with the named principles enforced, and reads all about gaps."""


def gap_principles(constitution: Constitution) -> tuple[Principle, ...]:
    """Returns the promises about gaps: their readings can fight."""
    # A level such as accuracy is low after a short run, whatever is enforced.
    return tuple(p for p in constitution.principles if p.constraint.metric in GAPS)


def check_feasibility(
    constitution: Constitution, measure: Measure, steps: int
) -> dict[str, Any]:
    """Makes the relaxed runs and says which principle fights which.

    Args:
        constitution: the promises.
        measure: makes one short run.
        steps: optimizer steps of a run, for the record; 0 skips the check.

    Returns:
        JSON-ready: `checked`, and either `reason` or `steps`, `runs`, `fights`
        and `broken_together` (ids that are provably broken with all enforced).
    """
    gaps = {p.id for p in gap_principles(constitution)}
    enforced = tuple(p.id for p in constitution.enforced if p.id in gaps)
    unread = [p.id for p in constitution.enforced if p.id not in gaps]
    reason = ""
    if steps == 0:
        reason = "search.feasibility_steps is 0."
    elif not enforced:
        what = "gap" if unread else "principle"
        reason = f"No {what} is enforced in training."
    elif len(gap_principles(constitution)) < 2:
        reason = "Fewer than two principles bound a gap: there is nobody to fight."
    if reason:
        return {"schema": 1, "checked": False, "reason": reason, **_unread(unread)}
    sets: dict[tuple[str, ...], Readings] = {(): measure(())}
    sets |= {(name,): measure((name,)) for name in enforced}
    # With one enforced principle "all of them" is the run that is there already.
    if enforced not in sets:
        sets[enforced] = measure(enforced)
    runs = [
        {
            "enforced": list(names),
            "readings": {name: asdict(reading) for name, reading in readings.items()},
        }
        for names, readings in sets.items()
    ]
    return {
        "schema": 1,
        "checked": True,
        "steps": steps,
        "runs": runs,
        "fights": list(_fights(constitution, sets)),
        "broken_together": [n for n, r in sets[enforced].items() if r.excess > 0],
        **_unread(unread),
    }


def _unread(names: Sequence[str]) -> dict[str, Any]:
    """Says which enforced principles short runs do not read."""
    # Levels and ratios are low after a short run whatever is enforced: the search
    # neither enforces nor reads them, and the long training does both.
    return {"unread": list(names)} if names else {}


def _fights(
    constitution: Constitution, sets: Mapping[tuple[str, ...], Readings]
) -> Iterator[dict[str, Any]]:
    """Yields every principle that, enforced alone, worsens and breaks another."""
    relaxed = sets[()]
    for name in (n[0] for n in sets if len(n) == 1):
        forced = sets[(name,)]
        for other in forced:
            # A principle without two large groups has no reading in either run.
            if other == name or not {name, other} <= relaxed.keys() & forced.keys():
                continue
            helped = forced[name].value < relaxed[name].value
            # A lower bound above the old value: worse by more than sampling noise.
            worse = forced[other].lower > relaxed[other].value
            if helped and worse and forced[other].excess > 0:
                before, after = relaxed[other].value, forced[other].value
                promise = constitution.principle(other).sentence()
                yield {
                    "forcing": name,
                    "worsens": other,
                    "from": before,
                    "to": after,
                    "sentence": f"Forcing {name!r} moves {other!r} from {before:.3f} "
                    f"to {after:.3f}, which promises {promise}.",
                }
