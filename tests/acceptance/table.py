"""The table that acceptance ends in: one line a check, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Line:
    """What became of one check.

    Attributes:
        check: its name, for people.
        state: passed, failed or skipped.
        seconds: how long it took.
        sentence: why, where it did not pass.
        look: the command that shows more; "" = none.
    """

    check: str
    state: str
    seconds: float
    sentence: str = ""
    look: str = ""


@dataclass
class Table:
    """All checks of a call.

    Attributes:
        id: is part of every name that the call makes.
        lines: the checks, as they ended.
        left: what could not be taken away, and why.
        stays: what is a record and is never taken away.
    """

    id: str
    lines: list[Line] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    stays: list[str] = field(default_factory=list)

    def add(self, line: Line) -> None:
        """Takes a check; what its tidying found replaces a pass."""
        known = [n for n, old in enumerate(self.lines) if old.check == line.check]
        if known:
            self.lines[known[0]] = line
        else:
            self.lines.append(line)

    def text(self) -> Iterator[str]:
        """Yields the lines to print."""
        width = max(len(line.check) for line in self.lines)
        for line in self.lines:
            yield f"{line.check:<{width}}  {line.state:<7}  {line.seconds:7.1f} s"
            if line.sentence:
                yield f"    {line.sentence}"
            if line.look and line.state == "failed":
                yield f"    look: {line.look}"
        counts = [
            f"{sum(line.state == state for line in self.lines)} {state}"
            for state in ("passed", "failed", "skipped")
        ]
        yield ", ".join(counts)
        for item in self.left:
            yield f"left: {item}"
        for item in self.stays:
            yield f"stays: {item}"
