"""A run's log on its way from the stages: without what KFP says about itself.

It stands where the child's standard output was, so that both runners write to it:
KFP prints the lines of a process, the listener of a container those of the box.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, TextIO

from safescale_ammt.printable import printable
from safescale_ammt.stage_progress import progress_of

if TYPE_CHECKING:
    from pipelines.local.tasks import Report

# KFP (2.17) in a stage's process logs each call at this level, as does every library
# there; our own lines are printed, or logged as warnings.
_RECORD = re.compile(r"\s*\[KFP Executor [\d:, -]+ (?:DEBUG|INFO)\]: ")
_RULE = re.compile(r"\s*-{20,}\s*")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class StageLog(io.TextIOBase):
    """Writes to a log what stages say, and reports how far they are.

    Args:
        log: gets the lines that remain.
        report: takes an event for each line of progress.
    """

    def __init__(self, log: TextIO, report: Report) -> None:
        super().__init__()
        self._log = log
        self._report = report
        self._rest = ""
        self._after_record = False
        self._end_of_call = ""

    def writable(self) -> bool:
        """Is what `print` may write to."""
        return True

    def write(self, text: str) -> int:
        """Takes a piece of output; lines count once they are whole."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if progress := progress_of(line):
                self._report("progress", share=progress[0], text=progress[1])
            elif not self.is_chatter(line):
                # What else moves a cursor may come out of a name in the data.
                self._log.write(printable(_COLOURS.sub("", line)) + "\n")
        return len(text)

    def flush(self) -> None:
        """Flushes whole lines; a part of one waits for its end."""
        self._log.flush()

    def end_line(self) -> None:
        """Ends a line that nobody will end any more."""
        if self._rest:
            self.write("\n")

    def is_chatter(self, line: str) -> bool:
        """Says whether a line, the next one, is KFP's account of itself.

        That is a record of its executor, the JSON of a stage's call behind one, a
        rule and an empty line.
        """
        if self._end_of_call:
            end, indent = self._end_of_call, self._end_of_call[:-1]
            # A stage that was killed in between leaves the JSON open.
            inside = line.startswith(indent + " ")
            self._end_of_call = end if inside else ""
            if inside or line == end:
                return True
        if self._after_record and line.strip() == "{":
            self._end_of_call = line.rstrip()[:-1] + "}"
            self._after_record = False
            return True
        self._after_record = _RECORD.match(line) is not None
        is_rule = _RULE.fullmatch(line) is not None
        return self._after_record or is_rule or not line.strip()
