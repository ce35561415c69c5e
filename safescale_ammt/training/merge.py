"""Merge: k agents become one deployable model, and a feasible one.

Agents that are worse than a constant are left out (`soundness`).
Forms, in order of preference: the soup (mean of the agents' averaged weights), the
best agent by validation accuracy, the ensemble of their logits (k nets deployed as
one), and the soup with a fair head where a hard principle refutes the soup. Agents of
several architectures have a soup and a best one each, and a student that all of them
have taught comes first; without an ensemble what is deployed is one net. The choice
is made on one half of *select*: of the forms that no hard principle refutes there, the
first that no other beats by more than two standard errors of the paired difference. The
choice is then judged on the other half, and if a hard principle is refuted there too,
the best single agent that is refuted on neither half takes its place, or the soup with
a fair head if that is.

A student of agents of one architecture (`student`) is no form that is tried, as it
costs another training: it is made where the section asks for it by name, *refined* or
*distilled*.

A choice that *select* likens to the same answer for everybody (`judging.usefulness`)
gives way to a better point, if one was kept: the first of the other forms, the single
agents, the steps from the soup to the twin and the forms at other thresholds that shows
skill on both halves and is likely to keep every hard promise.

Where the section asks for a threshold (`threshold`), each form gets the best one by
its rule that no hard principle refutes on the choosing half; the twin gets its own by
the rule alone, so that a difference to it is the constitution's.

Whatever is chosen, the log holds the path beside it: accuracy against the promises'
metrics of all candidates, constant answers too (`trade_off`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from safescale_ammt.config.sections import Threshold
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.schema import Schema
from safescale_ammt.model.predictor import Deployable
from safescale_ammt.training.architectures import architectures, soups
from safescale_ammt.training.nets import ModelForm, SteppedNets
from safescale_ammt.training.roles import TWIN
from safescale_ammt.training.selection import Selection
from safescale_ammt.training.soundness import sound_ones
from safescale_ammt.training.student import SOFT
from safescale_ammt.training.trade_off import Point, path
from safescale_ammt.training.trainer import Trained

SOUP, BEST, ENSEMBLE, HEAD = "soup", "best", "ensemble", "+head"
HEADED = SOUP + HEAD
REFINED, DISTILLED = "refined", "distilled"
STUDENTS = {REFINED: 0.0, DISTILLED: SOFT}
"""Share of the agents' word in what a student learns, beside the labels."""
BLEND = "blend"
"""A step from the soup to the twin."""
STEPS = 8
"""Steps from the soup to the twin, which is the last one."""
_TRACED = 1, STEPS - 1, 2
"""Of them those that the path shows: each costs an answer to all rows of *select*."""
# Standard errors. A tie exceeds two of them about one time in forty.
_CLEARLY = 2.0


@dataclass(frozen=True)
class Merged:
    """The model that is handed on.

    Attributes:
        model: the deployable form.
        twin: the unconstrained reference.
        choice: its name in `scores`.
        feasible: whether no hard principle is refuted on *select*.
        scores: form -> accuracy on the choosing half, and what is refuted there.
        recheck: ids of the hard principles refuted on the other half, by form.
        doubts: what likens the model to a constant answer on the choosing half.
        replaced: the choice that gave way to a more useful point, "" if none did.
        left_out: why agents are no part of it, a sentence for each.
        path: accuracy against promises of all candidates, constants too.
    """

    model: ModelForm
    twin: ModelForm
    choice: str
    feasible: bool
    scores: dict[str, dict[str, Any]]
    recheck: dict[str, list[str]]
    doubts: tuple[str, ...] = ()
    replaced: str = ""
    left_out: tuple[str, ...] = ()
    path: tuple[Point, ...] = ()

    def save(self, folder: Path, schema: Schema) -> None:
        """Writes the model, and the twin in a folder of its own."""
        for form, where in ((self.model, folder), (self.twin, folder / TWIN.name)):
            # A module is saved by whoever gave its code.
            assert isinstance(form, Deployable)
            form.save(where, schema)

    def events(self) -> Iterator[dict[str, Any]]:
        """Yields the events for the training log: the merge, and what is doubtful."""
        for reason in self.left_out:
            yield {"event": "left_out", "reason": reason}
        yield self.to_dict()
        if self.replaced:
            yield {
                "event": "doubt",
                "reason": f"On select, {self.replaced} is no better than the same "
                f"answer for everybody; {self.choice} is likely to keep every hard "
                "promise and shows skill.",
            }
        if self.doubts:
            doubts = " ".join(self.doubts)
            yield {
                "event": "doubt",
                "reason": f"On select: {doubts} No form, agent, step to the twin or "
                "other threshold shows skill and is likely to keep every hard promise.",
            }

    def to_dict(self) -> dict[str, Any]:
        """Returns the merge as an event."""
        return {
            "event": "merge",
            "choice": self.choice,
            "members": self.model.members,
            "feasible": self.feasible,
            "scores": self.scores,
            "recheck": self.recheck,
            "threshold": self.model.threshold,
            "doubts": list(self.doubts),
            "replaced": self.replaced,
            "path": [point.to_dict() for point in self.path],
        }


def merge(
    trained: Trained,
    constitution: Constitution,
    *,
    form: str = "auto",
    seed: int = 0,
    rule: Threshold | None = None,
) -> Merged:
    """Merges trained agents.

    Args:
        trained: agents and twin; *validation* ranks single agents, *select* chooses
            and re-checks.
        constitution: the promises.
        form: `auto`, or the one form to be used: `soup`, `best`, `ensemble`, or one of
            `STUDENTS`.
        seed: of the split of *select* into halves.
        rule: how thresholds are chosen, if not one half.
    """
    trained, left_out = sound_ones(trained)
    twin = trained.nets.deployable(trained.twin, TWIN.name)
    selection = Selection(twin, trained.nets, constitution, seed, rule or {})
    agents = ranked(trained)
    named = [(f"agent {i}", agent) for i, agent in agents]
    forms = forms_of(trained, agents, constitution, form)
    scores: dict[str, dict[str, Any]] = {}
    offered = with_head(forms, scores, trained)
    for name, candidate in offered if form == "auto" else tuple(forms.items()):
        forms[name] = selection.settle(name, candidate)
        scores[name] = selection.score(name, forms[name])
    feasible_forms = [name for name in scores if not scores[name]["refuted"]]
    # If every form breaks a promise, the one that breaks the fewest is judged on.
    fewest = sorted(scores, key=lambda name: len(scores[name]["refuted"]))[:1]
    choice = first_unbeaten(feasible_forms or fewest, selection.hits)
    model = forms[choice]
    # The choice was made on the first half, which flatters what it chose.
    recheck = {choice: selection.refuted(choice, model, half=1)}
    feasible = not (scores[choice]["refuted"] or recheck[choice])
    if not feasible and form == "auto":
        late = {n: f for n, f in soups_of(forms) if n + HEAD not in scores}
        for name, agent in chain(named, headed(late, trained)):
            settled = selection.settle(name, agent)
            refuted = selection.refuted(name, settled, half=0)
            recheck[name] = refuted + selection.refuted(name, settled, half=1)
            if not recheck[name]:
                choice, model, feasible = name, settled, True
                break
    doubts, replaced = selection.doubts(choice, model), ""
    if doubts and form == "auto":
        points = chain(forms.items(), named, blends(trained))
        moved = selection.at_other_thresholds(forms)
        for name, point in selection.useful(chain(points, moved)):
            recheck[name], doubts, replaced = [], (), choice
            choice, model, feasible = name, point, True
            break
    # What was chosen is one of them, at its own threshold too.
    shown = {**forms, choice: model} if choice not in dict(named) else forms
    steps = islice(blends(trained), *_TRACED)
    seen = path(selection, constitution, shown, named, steps)
    return Merged(
        *(model, selection.twin, choice, feasible, scores, recheck, doubts, replaced),
        left_out=left_out,
        path=seen,
    )


def ranked(trained: Trained) -> list[tuple[int, ModelForm]]:
    """Returns finite agents by number, the best on *validation* first."""
    nets, rows = trained.nets, trained.nets.rows("validation")
    ranking = []
    for i in trained.finite.nonzero()[:, 0].tolist():
        agent = nets.deployable(trained.agents[i : i + 1], BEST)
        hits = int((rows.answers(agent).prediction == rows.y.numpy()).sum())
        ranking.append((-hits, i, agent))
    # Equal agents stay in the order of their numbers: the same choice in every run.
    ranking.sort(key=lambda entry: entry[:2])
    return [(i, agent) for _, i, agent in ranking]


def forms_of(
    trained: Trained,
    ranking: Sequence[tuple[int, ModelForm]],
    constitution: Constitution,
    asked: str,
) -> dict[str, ModelForm]:
    """Returns forms by name in order of preference.

    Args:
        trained: the agents.
        ranking: single agents by number, the best first.
        constitution: the promises that a student is taught under.
        asked: `auto`, or the one form to be used; each architecture has its own.
    """
    nets, agents = trained.nets, trained.agents[trained.finite]
    of = architectures(nets, trained.agents).tolist()
    several = len(set(of)) > 1
    ending = {number: f" {number}" if several else "" for number in of}
    forms: dict[str, ModelForm] = {
        SOUP + ending[number]: nets.deployable(soup, SOUP)
        for number, soup in soups(nets, agents).items()
    }
    for i, agent in ranking:
        forms.setdefault(BEST + ending[of[i]], agent)
    # Of several architectures an ensemble would be a model of none of them.
    if len(agents) > 1 and not (several and asked == "auto"):
        forms[ENSEMBLE] = nets.deployable(agents, ENSEMBLE)
    student = DISTILLED if several and asked == "auto" else asked
    if student in STUDENTS:
        # The config refuses students of trees.
        assert isinstance(nets, SteppedNets)
        theta = nets.student(trained, constitution, soft=STUDENTS[student])
        # It has taken as many steps again, and its price is paid.
        forms = {student: nets.deployable(theta, student), **forms}
    if asked == "auto":
        return forms
    return {name: form for name, form in forms.items() if name.split()[0] == asked}


def with_head(
    forms: Mapping[str, ModelForm],
    scores: Mapping[str, Mapping[str, Any]],
    trained: Trained,
) -> Iterator[tuple[str, ModelForm]]:
    """Yields the forms, then the soup with a fair head if its score is refuted."""
    yield from tuple(forms.items())
    # A correction is for what is broken: its fit takes longer than all else here.
    refuted = {n: soup for n, soup in soups_of(forms) if scores[n]["refuted"]}
    yield from headed(refuted, trained)


def soups_of(forms: Mapping[str, ModelForm]) -> list[tuple[str, ModelForm]]:
    """Returns the soups among forms by name, those with a head left out."""
    plain = (item for item in forms.items() if not item[0].endswith(HEAD))
    return [(name, form) for name, form in plain if name.split()[0] == SOUP]


def headed(
    plain: Mapping[str, ModelForm], trained: Trained
) -> Iterator[tuple[str, ModelForm]]:
    """Yields soups with a fair head, where there is something to correct."""
    constraints, targets = trained.constraints, trained.targets
    for name, soup in plain.items():
        found = trained.nets.headed(soup, constraints, targets)
        if found is not None:
            yield name + HEAD, found


def blends(trained: Trained) -> Iterator[tuple[str, ModelForm]]:
    """Yields the steps from the soup to the twin: less and less of the promises."""
    # Both began as the trunk, so that what lies between them is a net that works.
    nets, (first,) = trained.nets, architectures(trained.nets, trained.twin).tolist()
    soup = soups(nets, trained.agents[trained.finite]).get(first, trained.twin)
    for step in range(1, STEPS + 1):
        theta = torch.lerp(soup, trained.twin, step / STEPS)
        name = f"{step}/{STEPS} from the soup to the twin"
        yield name, nets.deployable(theta, BLEND)


def first_unbeaten(
    names: Sequence[str], hits: Callable[[str], NDArray[np.float64]]
) -> str:
    """Returns the first name that no other beats by over two standard errors.

    Args:
        names: in order of preference.
        hits: worth of each answer of a name, on the same rows (n,).
    """
    for name in names:
        for other in names:
            # Paired: the rows that both get right or wrong add no noise.
            difference = hits(other) - hits(name)
            error = float(difference.std()) / math.sqrt(len(difference))
            if float(difference.mean()) > _CLEARLY * error:
                break
        else:
            return name
    return max(names, key=lambda name: hits(name).mean())
