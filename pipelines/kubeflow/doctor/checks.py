"""What a doctor's check is: a question with one answer, and what it waits for.

A check that finds something missing says what it found and what would do. A
check whose ground is missing is skipped and says why, so that one fault is named
once, by its own name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass

from safescale_ammt.errors import SafescaleError

OK, FAILED, SKIPPED = "ok", "FAILED", "skipped"


class Lacking(Exception):
    """Something is missing or wrong: what was found, and what would do."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found)
        self.found = found
        self.remedy = remedy


class Unknown(Exception):
    """The question cannot be answered from here; `str` says why."""


@dataclass(frozen=True)
class Check:
    """One question.

    Attributes:
        name: what it is about, in the list and for --skip.
        look: returns what is well, or raises `Lacking` or `Unknown`.
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
        found: what there is, or why it was skipped.
        remedy: what to do; "" unless it failed.
    """

    check: str
    state: str
    found: str
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        """Returns the JSON form."""
        return asdict(self)

    def line(self, width: int) -> str:
        """Returns the finding in one line."""
        text = f"{self.state:<8} {self.check:<{width}}  {self.found.rstrip('.')}"
        return f"{text}: {self.remedy}." if self.remedy else f"{text}."


def examine(
    checks: Sequence[Check], without: Collection[str] = ()
) -> Iterator[CheckResult]:
    """Yields the findings of all checks, in their order.

    Args:
        checks: each after those that it needs.
        without: names of checks that nobody wants.
    """
    states: dict[str, str] = {}
    for check in checks:
        bad = next((n for n in check.needs if states.get(n, OK) != OK), "")
        if check.name in without:
            finding = CheckResult(check.name, SKIPPED, "as asked")
        elif bad:
            was = "failed" if states[bad] == FAILED else "was skipped"
            finding = CheckResult(check.name, SKIPPED, f"because {bad!r} {was}")
        else:
            finding = _looked(check)
        states[check.name] = finding.state
        yield finding


def _looked(check: Check) -> CheckResult:
    try:
        return CheckResult(check.name, OK, check.look())
    except Unknown as error:
        return CheckResult(check.name, SKIPPED, str(error))
    except Lacking as error:
        return CheckResult(check.name, FAILED, error.found, error.remedy)
    except SafescaleError as error:
        return CheckResult(check.name, FAILED, str(error), check.remedy)
