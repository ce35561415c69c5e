"""The path of accuracy against the promises: what else there was to choose.

A promise about groups can be bought by one answer for everybody. So what was chosen is
held beside all that could have been: the forms, the single agents, steps from the soup
to the unconstrained twin, the twin itself, and every constant answer, each by its
accuracy and by the metrics of the promises on all rows of *select*. The choice itself
is made elsewhere (`merge`); nothing here decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.group_rates import RATES_OF, point_value
from safescale_ammt.judging.skill import balance, rate_hits
from safescale_ammt.training.nets import ModelForm
from safescale_ammt.training.roles import TWIN
from safescale_ammt.training.selection import Selection

FORM, AGENT, STEP, CONSTANT = "form", "agent", "step", "constant"
"""Kinds of points; the twin is one of its own."""


@dataclass(frozen=True)
class Point:
    """One candidate on the rows of *select*.

    Attributes:
        name: its name, as in the merge's scores.
        kind: `form`, `agent`, `step` (from the soup to the twin), `twin`, `constant`.
        accuracy: share of right answers.
        values: principle id -> the metric's point value, None where not defined.
    """

    name: str
    kind: str
    accuracy: float
    values: Mapping[str, float | None]

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "name": self.name,
            "kind": self.kind,
            "accuracy": self.accuracy,
            "values": dict(self.values),
        }


def path(
    selection: Selection,
    constitution: Constitution,
    forms: Mapping[str, ModelForm],
    agents: Iterable[tuple[str, ModelForm]],
    steps: Iterable[tuple[str, ModelForm]],
) -> tuple[Point, ...]:
    """Measures every candidate; () where no promise is about rates.

    Args:
        selection: answers the rows of *select*.
        constitution: the promises.
        forms: by name, at their thresholds.
        agents: by name.
        steps: from the soup to the twin, by name.
    """
    if not _about_rates(constitution):
        return ()
    twin = ((TWIN.name, selection.twin),)
    kinds = {FORM: forms.items(), AGENT: agents, STEP: steps, TWIN.name: twin}
    measured: dict[str, Point] = {}
    for kind, candidates in kinds.items():
        for name, model in candidates:
            # A step that was chosen is a form already.
            if name not in measured:
                rows = selection.evidence_of(name, model)
                measured[name] = _point(name, kind, rows, constitution)
    rows = selection.evidence_of(TWIN.name, selection.twin)
    same = constants(rows, selection.classes, constitution)
    return (*measured.values(), *same)


def constants(
    rows: Evidence, classes: tuple[str, ...], constitution: Constitution
) -> Iterator[Point]:
    """Yields the answers that are the same for everybody."""
    for code, name in enumerate(classes):
        same = replace(rows, prediction=np.full_like(rows.label, code))
        yield _point(f"always {name}", CONSTANT, same, constitution)


def _point(name: str, kind: str, rows: Evidence, constitution: Constitution) -> Point:
    accuracy = float((rows.prediction == rows.label).mean())
    return Point(name, kind, accuracy, values(rows, constitution))


def values(rows: Evidence, constitution: Constitution) -> dict[str, float | None]:
    """Returns the point values of the promises that are about rates of answers."""
    found: dict[str, float | None] = {}
    for name in _about_rates(constitution):
        c = constitution.principle(name).constraint
        if c.metric == "recall":
            hits, trials = rate_hits(c.metric, rows)
            found[name] = hits / trials if trials else None
        elif c.metric == "balanced_accuracy":
            skill = balance(rows)
            found[name] = float(skill.value) if skill.has_value else None
        else:
            found[name] = point_value(c.metric, rows, c.group, c.given)
    return found


def _about_rates(constitution: Constitution) -> list[str]:
    """Returns the ids of promises on groups or classes, in the file's order."""
    own = {*RATES_OF, "recall", "balanced_accuracy"}
    return [p.id for p in constitution.principles if p.constraint.metric in own]
