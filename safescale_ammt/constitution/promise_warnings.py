"""What an author should know of the own file: promises that promise nothing.

Said where a constitution is written and checked, so that nobody takes a pass for more
than was promised. The gate says the same of its decision.
"""

from __future__ import annotations

from safescale_ammt.constitution.constitution import BIT, Constitution, GateRule
from safescale_ammt.constitution.principles import Principle

NOTHING = (
    "No hard principle that a model could violate is promised: nothing was tested, so "
    "that a pass would show nothing."
)
"""The reason of a decision on nothing."""


def promises_something(constitution: Constitution) -> bool:
    """Tells whether any hard principle can be violated."""
    return any(not p.constraint.promises_nothing for p in constitution.hard)


def empty_promise(principle: Principle) -> str:
    """Says that nothing can violate a principle."""
    return (
        f"{principle.id} cannot be violated by any model ({principle.promise}): it "
        "promises nothing."
    )


def not_aimed_at(constitution: Constitution) -> tuple[str, ...]:
    """Says which promises on changed rows of a table no multiplier works on."""
    return tuple(
        f"{p.id} is judged and not trained for: training sees no rows under "
        f"{p.constraint.table_threat.name} unless training.changed_copies says so, and "
        "no form of the model is chosen by them."
        for p in constitution.principles
        if p.constraint.table_threat
    )


def shared_level(gate: GateRule) -> str:
    """Says at which level each planned use is judged, and what that is good for."""
    told = (
        f"gate.planned_submissions is {gate.planned_submissions}: each use of the "
        f"sealed rows is judged at level {gate.alpha_k:g} instead of {gate.alpha:g}."
    )
    if gate.feedback == BIT:
        return (
            f"{told} As gate.feedback is bit, passed or not is all that is told of "
            "each, so that they all keep the guarantee, up to the first that passes."
        )
    return (
        f"{told} This buys nothing with gate.feedback: figures, as every use opens "
        "them, so that the next model on these rows needs a person at best; 1 keeps "
        "the whole level for the one use that counts, and gate.feedback: bit lets all "
        "planned uses keep the guarantee."
    )


def promise_warnings(constitution: Constitution) -> list[str]:
    """Says what is promised in vain, or worked on by nothing: one sentence each."""
    found = [
        empty_promise(p)
        for p in constitution.principles
        if p.constraint.promises_nothing
    ]
    if not promises_something(constitution):
        found.append(
            "No hard principle that a model could violate is promised: nothing is "
            "tested, so that no model passes by itself."
        )
    found += not_aimed_at(constitution)
    gate = constitution.gate
    if gate.planned_submissions > 1 and gate.feedback != BIT:
        found.append(shared_level(gate))
    return found
