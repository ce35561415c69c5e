"""The frame around a stage: one exit code, and one sentence if it failed.

Kubeflow keeps neither the class nor the code of what a step raised: both are
written to `execution.json` beside the stage's first output, where `safescale
run` finds them, and with the sentence to the file that Kubernetes keeps of a
container that has ended, where `submit` and the exit task find them. In the log
of a pod some lines of KFP's launcher and of Argo follow that sentence.
"""

from __future__ import annotations

import math
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from safescale_ammt.errors import InputError, Interrupted, Refusal, SafescaleError
from safescale_ammt.files.artifacts import EXECUTION, read_manifest
from safescale_ammt.files.canonical import write_json
from safescale_ammt.library_logs import quiet_libraries, without_secrets
from safescale_ammt.parent_death import end_with_run
from safescale_ammt.printable import printable

LONGEST = 200
"""Characters of the longest text that goes into metadata; a page does not."""

WITHHELD = "its message is left out, as it may quote a row"

TERMINATION = Path("/dev/termination-log")
"""Where a container leaves its last words; Kubernetes makes the file, nobody else."""
_LAST_WORDS = re.compile(r"(.+) \((\w+), exit code (\d+)\)\s*", re.DOTALL)
_KEPT = 4000  # of the bytes that Kubernetes keeps, 4,096


def utc_now() -> datetime:
    """Returns the current time in UTC."""
    return datetime.now(UTC)


class Execution:
    """A running stage: its name, its start and the summary it ends with.

    Attributes:
        stage: the stage's name.
        started: when it began, UTC.
        summary: short plain values; empty until `done`.
    """

    def __init__(self, stage: str, started: datetime) -> None:
        self.stage = stage
        self.started = started
        self.summary: dict[str, Any] = {}

    def done(self, output: Path | str, summary: Mapping[str, Any]) -> dict[str, Any]:
        """Takes the stage's summary; returns metadata for the output's KFP artifact.

        Metadata are the artifact's identity digest and the summary's short plain
        values: finite numbers, flags, and texts that are no page and no path.
        """
        self.summary = {}
        for key, value in summary.items():
            if isinstance(value, float):
                # One NaN or infinity fails the whole task, after its work is done.
                fits = math.isfinite(value)
            elif isinstance(value, str):
                fits = len(value) <= LONGEST and not set(value) & {"/", "\n"}
            else:
                fits = isinstance(value, bool | int)
            if fits:
                self.summary[key] = (
                    printable(value) if isinstance(value, str) else value
                )
        return {"identity": read_manifest(output).identity, **self.summary}

    def to_dict(self, error: BaseException | None, ended: datetime) -> dict[str, Any]:
        """Returns what `execution.json` holds; code 0 and no class without an error."""
        name, code, sentence = describe(self.stage, error)
        return {
            "stage": self.stage,
            "class": name,
            "code": code,
            "sentence": sentence,
            "started": self.started.isoformat(),
            "ended": ended.isoformat(),
            "summary": self.summary,
        }


@contextmanager
def stage(
    name: str,
    output: Path | str,
    *,
    clock: Callable[[], datetime] = utc_now,
) -> Iterator[Execution]:
    """Runs a stage's body and leaves `execution.json` beside its first output.

    Args:
        name: the stage, as in `safescale_ammt.stages`.
        output: path of the stage's first output; its parent gets the file.
        clock: returns the current time.

    Raises:
        SystemExit: with the error's exit code, after a `SafescaleError`, whose
            sentence has been printed, or after an exception that may quote a row or
            an address, whose traceback has been printed without. Other exceptions
            pass through, so that the log shows their traceback.
    """
    end_with_run()
    execution = Execution(name, clock())
    error: BaseException | None = None
    try:
        with quiet_libraries(), stopping_at_sigterm(name):
            yield execution
    except BaseException as raised:
        error = raised
        raise
    finally:
        # Before anything is printed or raised: who waits for the stage reads the file.
        report = execution.to_dict(error, clock())
        write_json(Path(output).parent / EXECUTION, report)
        if error is not None:
            words = (report["class"], report["code"], report["sentence"])
            leave_last_words(LastWords(*words))
        if isinstance(error, SafescaleError):
            print(report["sentence"], file=sys.stderr, flush=True)
            # In place of the error, so that no traceback follows its sentence.
            raise SystemExit(error.exit_code) from None
        if isinstance(error, Exception) and any(
            shown(link) != str(link) for link in chain(error)
        ):
            print(*traceback_lines(error), sep="", file=sys.stderr, flush=True)
            raise SystemExit(1) from None


@dataclass(frozen=True)
class LastWords:
    """What a stage that failed says of itself: the class, exit code and sentence."""

    kind: str
    code: int
    sentence: str


def leave_last_words(words: LastWords, file: Path | None = None) -> None:
    """Writes why a stage failed to the file that Kubernetes keeps of a container.

    Args:
        words: class, exit code and sentence.
        file: that file; nothing is written where it is not there already.
    """
    file = file or TERMINATION
    # Cut at its end, the text would lose the code.
    sentence = words.sentence.encode()[:_KEPT].decode(errors="ignore")
    with suppress(OSError):
        if file.exists():
            text = f"{sentence} ({words.kind}, exit code {words.code})\n"
            file.write_text(text, encoding="utf-8")


def read_last_words(text: str) -> LastWords | None:
    """Reads what `leave_last_words` wrote; None for what somebody else did."""
    match = _LAST_WORDS.fullmatch(text)
    return LastWords(match[2], int(match[3]), match[1]) if match else None


def may_be_shown(error: BaseException) -> bool:
    """Says whether the message of an exception quotes no value of the data.

    Ours are written to that end. Those that say which value or key they did not like,
    and all of the packages that hold the rows, may quote one.
    """
    if isinstance(error, SafescaleError):
        return True
    room = type(error).__module__.partition(".")[0]
    quotes = isinstance(error, ValueError | LookupError)
    return not quotes and room not in {"pyarrow", "numpy", "pandas"}


def shown(error: BaseException) -> str:
    """Returns the message of an exception as a log may show it."""
    if isinstance(error, SafescaleError):
        return str(error)
    return without_secrets(str(error)) if may_be_shown(error) else WITHHELD


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an exception and those that it came of, the last one first."""
    link: BaseException | None = error
    # Each was raised while the next one was in the air.
    while link is not None:
        yield link
        hidden = None if link.__suppress_context__ else link.__context__
        link = link.__cause__ or hidden


def traceback_lines(error: BaseException) -> list[str]:
    """Returns a traceback for a log, without what may be a row or a secret."""
    lines: list[str] = []
    for link in chain(error):
        head = "" if link is error else "\nThis came of:\n"
        head += "Traceback (most recent call last):\n"
        frames = traceback.format_tb(link.__traceback__)
        lines += [head, *frames, f"{type(link).__name__}: {shown(link)}\n"]
    return lines


def describe(name: str, error: BaseException | None) -> tuple[str, int, str]:
    """Returns class, exit code and sentence of what ended a stage.

    Args:
        name: the stage.
        error: what its body raised; None = it ended well.
    """
    if error is None:
        return "", 0, ""
    if isinstance(error, SafescaleError):
        return type(error).__name__, error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted", 1, f"{name} was stopped from the keyboard."
    # A library's message may have several lines, a sentence has one.
    reason = printable(" ".join(shown(error).split()))
    return type(error).__name__, 1, f"{name} broke: {type(error).__name__}: {reason}."


def error_of(code: int, sentence: str) -> SafescaleError:
    """Returns an error with the exit code and sentence of an `execution.json`."""
    # The code alone: the class may be one that this version or process does not know.
    kinds = {2: InputError, 3: Refusal}
    return kinds.get(code, SafescaleError)(sentence)


@contextmanager
def stopping_at_sigterm(name: str) -> Iterator[None]:
    """Turns SIGTERM into `Interrupted`, so that what is half done is cleaned up.

    Raises:
        Interrupted: SIGTERM came while the body ran.
    """
    # Python lets the main thread alone set a signal's action.
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_signum: int, _frame: FrameType | None) -> None:
        raise _Stop

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except _Stop:
        raise Interrupted(
            f"{name} was stopped by SIGTERM before it was done."
        ) from None
    finally:
        signal.signal(signal.SIGTERM, before)


class _Stop(BaseException):
    """SIGTERM, on its way up through the stage's frames.

    No `Exception`: libraries swallow those, on import above all.
    """
