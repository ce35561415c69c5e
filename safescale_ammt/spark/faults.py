"""What went wrong in Spark, in one sentence that shows no cell of a row.

Spark quotes what it could not read, and a worker's exception comes with its stack and
whatever its message holds. So messages are looked at and never shown, but for those
that a worker marked as its own.
"""

from __future__ import annotations

import json
import re
import secrets
import traceback
from collections.abc import Callable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa

from safescale_ammt import errors
from safescale_ammt.errors import EngineError, InputError, SafescaleError
from safescale_ammt.files.canonical import digest_json
from safescale_ammt.files.disk import NO_ROOM
from safescale_ammt.files.library import source_files

Batches = Iterator[pa.RecordBatch]
_MARK = secrets.token_hex(16)
"""Frames a worker's own words: no cell of a table can know it."""
_OURS = re.compile(rf"{_MARK}(\[.*\]){_MARK}")
_PYTHONS = re.compile(
    r"PYTHON_VERSION_MISMATCH\D+(\d+\.\d+) than that in driver: (\d+\.\d+)"
)
_CONDITION = re.compile(r"[A-Z][A-Z0-9_.]*")
_AGAIN = "run it again: finished stages are kept"
_LOST = f"Spark's server was restarted or let go of this session; {_AGAIN}."
_GONE = f"Spark's server no longer answers; look whether it runs, then {_AGAIN}."
_NO_MEMORY = (
    "A worker of Spark ran out of memory or was killed; give executors more, or write "
    "smaller files (docs/scale.md)."
)
_KNOWN = {
    r"INVALID_HANDLE\.|incorrect server.side session|NO_ACTIVE_SESSION": _LOST,
    r"No space left on device|SHUFFLE.*(NO_SPACE|DISK)": "Spark's executors have no "
    "disk left for shuffles; give them more scratch, or take more executors "
    "(docs/scale.md).",
    r"maxResultSize|RESOURCE_EXHAUSTED|message larger than max": "Spark was to send "
    "back more than its server or this process takes at once; columns with very many "
    "distinct texts that are no inputs belong out of the files (docs/scale.md).",
    r"OutOfMemoryError|worker exited unexpectedly|MemoryError|OOMKilled": _NO_MEMORY,
    r"ExecutorLostFailure|(Metadata)?FetchFailed|Executor heartbeat timed out|"
    r"CANNOT_READ_SHUFFLE|executor .{0,40} lost": "Spark lost executors more often "
    "than it tries again: their pods were evicted or their nodes went away; look at "
    f"their events, then {_AGAIN}.",
    r"No module named '(safescale_ammt|numpy|pyarrow|pandas|scipy)": "Spark's workers "
    "have other packages than this process; both have to be of one image (`make images "
    "SPARK=1`).",
    r"UNAUTHENTICATED|PERMISSION_DENIED": "Spark's server refuses this client; look "
    "at the token in its address.",
    r"UNAVAILABLE|DEADLINE_EXCEEDED|Connection refused|Broken pipe": _GONE,
}


def guarded(function: Callable[[Batches], Batches]) -> Callable[[Batches], Batches]:
    """Makes what a worker runs tell a fault by kind and sentence, and nothing else.

    It runs with the code of this process, or not at all.

    Args:
        function: from batches to batches, as `mapInArrow` takes it.
    """
    mark, code = _MARK, code_of_rows()

    def run(batches: Batches) -> Batches:
        try:
            refuse_other_code(code)
            yield from function(batches)
            return
        except Exception as error:  # noqa: BLE001  its message may quote a row
            words = json.dumps(fault_of(error))
        # Outside of the handler: what was raised there would come along.
        raise RuntimeError(f"{mark}{words}{mark}")

    return run


@cache
def code_of_rows() -> str:
    """Digest of what reads and hashes rows: our files, and what they compute with."""
    versions = {name: metadata.version(name) for name in ("numpy", "pyarrow")}
    return digest_json({"files": dict(source_files()), "versions": versions})


def refuse_other_code(code: str) -> None:
    """Compares this process's code with that of who sent it work.

    Raises:
        InputError: rows could be read otherwise here, and nobody would see it.
    """
    if code != code_of_rows():
        raise InputError(
            "Spark's workers have another version of our code, numpy or pyarrow than "
            "this process; give its server and executors the image that prepare_data "
            "has (`make images SPARK=1`), or the environment that this process has."
        )


def fault_of(error: Exception) -> tuple[str, str]:
    """Returns the class and the sentence by which an exception leaves a worker."""
    if isinstance(error, SafescaleError):
        kinds = (kind.__name__ for kind in type(error).__mro__)
        return next(kind for kind in kinds if hasattr(errors, kind)), str(error)
    frames = traceback.extract_tb(error.__traceback__)
    # Of libraries' own frames nothing is to be mended here.
    ours = [frame for frame in frames if "safescale_ammt" in frame.filename] or frames
    at = f"{Path(ours[-1].filename).name}, line {ours[-1].lineno}" if ours else "?"
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return "StorageError", (
            f"A worker of Spark found no room left on its disk ({at}); give executors "
            "more scratch, or write smaller files (docs/scale.md)."
        )
    if isinstance(error, MemoryError):
        return "EngineError", _NO_MEMORY
    return "EngineError", (
        f"A worker of Spark broke: {type(error).__name__} at {at}; its message is left "
        "out, as it may quote a row."
    )


def told(error: BaseException) -> SafescaleError:
    """Translates what Spark's client raised.

    Args:
        error: of PySpark, or of gRPC below it.

    Returns:
        The error that a guarded worker raised; else one whose sentence says which
        part of Spark failed, and what to do.
    """
    text = f"{status_of(error)} {error}"
    if ours := _OURS.search(text):
        kind, sentence = json.loads(ours[1])
        found: SafescaleError = getattr(errors, kind)(sentence)
        return found
    if versions := _PYTHONS.search(text):
        return InputError(
            f"Spark's workers run Python {versions[1]} and this process {versions[2]}; "
            "functions go from one to the other, so both have to be of one image "
            "(`make images SPARK=1`), or of one environment (PYSPARK_PYTHON)."
        )
    for pattern, sentence in _KNOWN.items():
        if re.search(pattern, text):
            return EngineError(sentence)
    condition: Any = getattr(error, "getCondition", lambda: None)() or ""
    named = f" ({condition})" if _CONDITION.fullmatch(str(condition)) else ""
    return EngineError(
        f"Spark could not do its part: {type(error).__name__}{named}; its message is "
        "left out, as it may quote a row, and stands in the log of Spark's server."
    )


def status_of(error: BaseException) -> str:
    """Returns the name of gRPC's status; "" without one."""
    for name in ("getGrpcStatusCode", "code"):
        if ask := getattr(error, name, None):
            return str(getattr(ask(), "name", ""))
    return ""
