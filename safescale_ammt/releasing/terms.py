"""The terms on which people may decide about a version, from its own bundle.

Who may sign, what of the verdict is open and who owns the run: all of it lies in the
bundle whose digest the registry recorded, so that nobody can change it afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from safescale_ammt.config.sections import RegistryConfig
from safescale_ammt.constitution.constitution import (
    BIT,
    Constitution,
    HumanRule,
    person,
)
from safescale_ammt.errors import IntegrityError
from safescale_ammt.judging.answer import ANSWER, Answer, Told
from safescale_ammt.judging.findings import HOLDS
from safescale_ammt.judging.gate import PASS
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.releasing.versions import OpenPoint, VersionEntry

_KINDS = {"soft": "soft", "inviolable": "inviolable", "hard": "undecided_hard"}


@dataclass(frozen=True)
class Terms:
    """Who may decide about a version, and about what.

    Attributes:
        human: the constitution's section about people.
        run_owner: `registry.run_owner`, "" if the config names nobody.
        open: what the verdict does not show.
        reasons: the gate's own sentences.
        retention_days: for which acts about the version are locked.
    """

    human: HumanRule
    run_owner: str
    open: tuple[OpenPoint, ...]
    reasons: tuple[str, ...]
    retention_days: int = 0

    def name_of(self, key: str) -> str:
        """Returns the approver's name of a public key, "" if it is nobody's."""
        # One spelling only, checked where the constitution is read: texts are bytes.
        names = (name for name, k in self.human.approvers.items() if k == key)
        return next(names, "")

    def owns(self, key: str) -> bool:
        """Says whether a key is the run owner's, who is given by name or by key."""
        owner = person(self.run_owner)
        return bool(owner) and (
            self.run_owner == key or person(self.name_of(key)) == owner
        )

    @property
    def not_overridable(self) -> tuple[OpenPoint, ...]:
        """Open points that no person may decide."""
        human = self.human
        return tuple(
            point
            for point in self.open
            if point.kind not in human.may_override or point.kind in human.never
        )


def read_terms(entry: VersionEntry, read: Callable[[str], Mapping[str, Any]]) -> Terms:
    """Reads the terms of a version.

    Args:
        entry: what was registered.
        read: returns a JSON file of its bundle, checked by its digest.

    Raises:
        IntegrityError: the bundle is about something else than the entry.
        InputError: a file is of another form than this version reads.
    """
    constitution = Constitution.from_dict(read("constitution.json"))
    verdict: Told
    # Of an answer a pass alone is registered, and what was opened is a verdict.
    if constitution.gate.feedback == BIT and entry.decision == PASS:
        verdict = Answer.from_dict(read(f"verdict/{ANSWER}"))
    else:
        verdict = Verdict.from_dict(read("verdict/verdict.json"))
    stated = (verdict.model, verdict.constitution, verdict.decision)
    expected = (entry.model, constitution.digest, entry.decision)
    if stated != expected or constitution.digest != entry.constitution:
        raise IntegrityError(
            f"the bundle {entry.bundle} holds a verdict {verdict.decision} on model "
            f"{verdict.model} by constitution {constitution.digest}, and the registry "
            f"recorded {entry.decision} on {entry.model} by {entry.constitution}."
        )
    parents = read("model/manifest.json")["parents"]
    made_from = {
        "dataset": verdict.dataset,
        "holdout": verdict.holdout,
        "architecture": parents.get("architecture"),
    }
    for role, digest in made_from.items():
        if getattr(entry, role) != digest:
            raise IntegrityError(
                f"the bundle {entry.bundle} is made from {role} {digest}, and the "
                f"registry recorded {getattr(entry, role)}."
            )
    config = RegistryConfig.from_params(read("about.json").get("registry"))
    return Terms(
        constitution.human,
        config.run_owner,
        open_points(verdict),
        verdict.reasons,
        config.record_retention_days,
    )


def open_points(verdict: Told) -> tuple[OpenPoint, ...]:
    """Returns what a verdict does not show, in the constitution's order."""
    points = [
        OpenPoint(f.principle, _KINDS[f.tier])
        for f in verdict.findings
        if f.outcome != HOLDS
    ]
    if verdict.use.guarantee == "spent":
        points.append(OpenPoint("guarantee", "undecided_hard"))
    # A model like a constant, or no hard promise at all: the gate's reasons say which.
    if verdict.decision != "pass" and all(p.kind == "soft" for p in points):
        points.append(OpenPoint("decision", "undecided_hard"))
    return tuple(points)
