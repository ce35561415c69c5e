"""What a doctor's check is: a question with one answer, and what it depends on.

A check that finds something missing says what there is and what to do. A check
whose ground is missing is skipped and says why, so that one fault is named once, by
its own name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from safescale_ammt.errors import SafescaleError

OK, FAILED, SKIPPED = "ok", "FAILED", "skipped"
UNREADABLE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What reading an answer of a form that nobody expected raises."""
UNREAD = "look what answers at this address; if it is what it should be, report this"


class Fault(Exception):
    """Something is missing or wrong: what there is, and what to do."""

    def __init__(self, observation: str, remedy: str) -> None:
        super().__init__(observation)
        self.observation = observation
        self.remedy = remedy


class Unknown(Exception):
    """The question cannot be answered from here; `str` says why."""


@dataclass(frozen=True)
class Check:
    """One question.

    Attributes:
        name: what it is about, in the list and for --skip.
        look: returns what is well, or raises `Fault` or `Unknown`.
        needs: names of checks that must be well before.
        remedy: what to do if `look` ends in an error of its own.
    """

    name: str
    look: Callable[[], str]
    needs: tuple[str, ...] = ()
    remedy: str = ""


@dataclass(frozen=True)
class CheckResult:
    """The answer to a check.

    Attributes:
        check: its name.
        state: ok, FAILED or skipped.
        observation: what there is, or why it was skipped.
        remedy: what to do; "" unless it failed.
    """

    check: str
    state: str
    observation: str
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        """Returns the JSON form."""
        return {
            "check": self.check,
            "state": self.state,
            "found": self.observation,
            "remedy": self.remedy,
        }

    def line(self, width: int) -> str:
        """Returns the result in one line, with names padded to `width` characters."""
        # Errors are sentences with a dot, which would stand before the remedy.
        observation = self.observation.rstrip(".")
        text = f"{self.state:<8} {self.check:<{width}}  {observation}"
        return f"{text}: {self.remedy}." if self.remedy else f"{text}."


def examine(
    checks: Sequence[Check], skip: Collection[str] = ()
) -> Iterator[CheckResult]:
    """Yields the results of all checks, in their order.

    Args:
        checks: each after those that it needs.
        skip: names of checks that nobody wants.
    """
    states: dict[str, str] = {}
    for check in checks:
        name = check.name
        obstacle = next((n for n in check.needs if states.get(n, OK) != OK), "")
        if name in skip:
            result = CheckResult(name, SKIPPED, "as asked")
        elif obstacle:
            end = "failed" if states[obstacle] == FAILED else "was skipped"
            result = CheckResult(name, SKIPPED, f"because {obstacle!r} {end}")
        else:
            try:
                result = CheckResult(name, OK, check.look())
            except Unknown as error:
                result = CheckResult(name, SKIPPED, str(error))
            except Fault as fault:
                result = CheckResult(name, FAILED, fault.observation, fault.remedy)
            except SafescaleError as error:
                result = CheckResult(name, FAILED, str(error), check.remedy)
            # A gateway, another server, or a bug of ours: the checks after it go on.
            except UNREADABLE as error:
                found = (
                    f"an answer that this check cannot read ({type(error).__name__})"
                )
                result = CheckResult(name, FAILED, found, UNREAD)
        states[name] = result.state
        yield result
