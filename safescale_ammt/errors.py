"""Every error this product raises on purpose, drawn as a tree.

    SafescaleError            exit 1   something went wrong
    ├── InputError            exit 2   the user's input cannot be used
    │   ├── ConfigError                a config key or value
    │   ├── ConstitutionError          a constitution that cannot be compiled
    │   │   └── Uncertifiable          ... whose promise this data cannot certify
    │   └── DataError                  raw data, its columns, rows or bytes
    ├── StorageError          exit 1   an object store that does not do its part
    │   ├── StoreInputError   exit 2   missing bucket, object or credentials
    │   └── PreconditionFailed         a conditional write that lost (object exists)
    ├── ClusterError          exit 1   a Kubernetes API that does not do its part
    │   └── ClusterInputError exit 2   a right, a runtime, the API itself is missing
    ├── EngineError           exit 1   a Spark that does not do its part
    ├── Refusal               exit 3   a gate that says no
    │   └── IntegrityError    exit 3   bytes that are not the bytes that were signed off
    ├── PeerLost              exit 1   another process of the training went away
    └── Interrupted           exit 1   stopped from outside (SIGTERM, Ctrl-C, timeout)

One error is one sentence that says what, where, what was found and what would
do. `exit_code` is what the command line returns; stages write it to
`execution.json`, because Kubeflow keeps neither class nor code.
"""

from __future__ import annotations

from collections.abc import Iterable

from safescale_ammt.printable import printable


class SafescaleError(Exception):
    """Base of every error raised on purpose; its sentence is safe to print."""

    def __init__(self, *sentence: object) -> None:
        # Here and not where it is shown: terminal, log, record and notice all do.
        super().__init__(*(printable(str(part)) for part in sentence))

    # 1 is what Python returns for an exception, 2 what click returns for bad usage.
    exit_code = 1


class InputError(SafescaleError):
    """What the user gave cannot be used."""

    exit_code = 2


class ConfigError(InputError):
    """A config key or value is wrong."""


class ConstitutionError(InputError):
    """A constitution is malformed, contradictory or cannot be compiled."""


class Uncertifiable(ConstitutionError):
    """The sealed data are too few to certify the promised tolerance."""


class DataError(InputError):
    """Raw data that cannot be read or do not fit their description."""


class StorageError(SafescaleError):
    """An object store failed to do its part."""


class StoreInputError(StorageError, InputError):
    """A bucket, object or credential that is not there."""

    exit_code = 2


class PreconditionFailed(StorageError):
    """A conditional write found that the object exists already."""


class ClusterError(SafescaleError):
    """A Kubernetes API, or what it runs, failed to do its part."""


class ClusterInputError(ClusterError, InputError):
    """Something that the cluster needs is missing or not permitted."""

    exit_code = 2


class EngineError(SafescaleError):
    """The engine that prepares rows, beyond this process, failed to do its part."""


class Refusal(SafescaleError):
    """A gate refuses: a violated constitution or a failed verification."""

    # Of its own, so that CI tells "the model is not good enough" from "it broke".
    exit_code = 3


class IntegrityError(Refusal):
    """Bytes differ from the digest that was recorded for them."""


class PeerLost(SafescaleError):
    """Another process of a distributed training went away or no longer answers."""


class Interrupted(SafescaleError):
    """Work was stopped from outside before it was done."""


def one_of(values: Iterable[str], found: object = None) -> str:
    """Formats the accepted values for the end of an error sentence.

    Args:
        values: what is accepted.
        found: what was given instead; the value nearest to it is named.
    """
    # Sorted: a set has another order in every process.
    choices = sorted(values)
    near = nearest(found, choices)
    suggestion = f"; the nearest is {near!r}" if near else ""
    # A comma among commas, or nothing at all, would not be seen.
    shown = [c if any(map(str.isalnum, c)) else repr(c) for c in choices]
    return f"expected one of {', '.join(shown)}{suggestion}"


def nearest(found: object, values: Iterable[str]) -> str:
    """Returns the value that is spelled most like what was given, "" if none is.

    Case, and a hyphen or space for an underscore, are the commonest slips and no
    difference.
    """
    # Loaded where something is wrong: every command imports this file.
    from difflib import get_close_matches

    plain = str.maketrans("- ", "__")
    spelled = {str(v).casefold().translate(plain): v for v in values}
    # Longer than any name, a text is none; and comparing takes its length squared.
    text = str(found)[:100].casefold().translate(plain)
    near = get_close_matches(text, spelled, 1) if isinstance(found, str) else []
    return spelled[near[0]] if near else ""
