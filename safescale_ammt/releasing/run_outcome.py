"""How a run ended, in one small object that outlives its pods.

The exit task of a pipeline cannot read the artifacts of the tasks before it,
and Kubeflow keeps neither a step's sentence nor its exit code. So the gate
writes `runs/<run id>/outcome.json` into the store of data and ledger, when it
registers and when it refuses; the exit task and `safescale submit` read it. A
run without one broke off before its gate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Self

from safescale_ammt.errors import InputError, StoreInputError
from safescale_ammt.execution import utc_now
from safescale_ammt.files.canonical import json_file
from safescale_ammt.files.json_text import LARGEST, parse_json
from safescale_ammt.files.typed_json import build
from safescale_ammt.releasing.versions import REJECTED, REVOKED
from safescale_ammt.store.base import Store, check_key

SCHEMA_VERSION = 1
# The first two are the registry's own words (`releasing.versions`); the others are of
# runs that added no version.
CHAMPION = "champion"
PENDING = "pending"
REFUSED = "refused"
NOT_REGISTERED = "not_registered"
CRASHED = "crashed"
STATUSES = (CHAMPION, PENDING, REFUSED, NOT_REGISTERED, CRASHED)


@dataclass(frozen=True)
class PromiseShown:
    """A promise beside what was measured of it, as words for a table.

    Attributes:
        principle: the principle's id.
        promised: what is promised, such as `true-positive-rate gap by sex ≤ 0.08`.
        measured: the value and the bound that is held against the line.
        outcome: `holds`, `fails` or `undecided`.
    """

    principle: str
    promised: str
    measured: str
    outcome: str


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended.

    Attributes:
        run: the run's id.
        status: one of `STATUSES`; a version that lost the race to become champion
            keeps the registry's own word, `lost_race`.
        sentence: the same for people, on one line.
        at: when, ISO 8601 with time zone.
        decision: `pass`, `needs_human` or `fail`, or `not_passed` where one bit is
            told; "" if nothing was judged.
        registry: name of the registry; "" if the run never reached it.
        version: number of the version; 0 = nothing was registered.
        model, verdict: identity digests.
        promises: the hard promises of a judged model.
    """

    run: str
    status: str
    sentence: str
    at: str
    decision: str = ""
    registry: str = ""
    version: int = 0
    model: str = ""
    verdict: str = ""
    promises: tuple[PromiseShown, ...] = ()
    schema: int = SCHEMA_VERSION

    @classmethod
    def now(cls, *, at: datetime | None = None, **fields: Any) -> Self:
        """Makes an outcome of this moment, its sentence on one line."""
        # An error's sentence may quote a file with line breaks; chat services and the
        # last line of a log show one line.
        sentence = " ".join(str(fields.pop("sentence")).split())
        return cls(at=(at or utc_now()).isoformat(), sentence=sentence, **fields)

    @classmethod
    def read(cls, store: Store, run: str) -> Self | None:
        """Reads the outcome of a run, None if it left none.

        Raises:
            InputError: the object is no outcome, or one of another version.
            StorageError: the store failed.
        """
        key = key_of(run)
        if not store.exists(key):
            return None
        try:
            return cls.from_dict(parse_json(store.get(key, LARGEST)))
        except (ValueError, TypeError):
            raise InputError(
                f"{store.uri}/{key} is no outcome of a run, or one of another version."
            ) from None

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Parses the JSON form.

        Raises:
            TypeError, ValueError: the form is not that of an outcome.
        """
        outcome = build(cls, raw)
        if outcome.schema != SCHEMA_VERSION:
            raise ValueError
        return outcome

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return asdict(self)

    def write(self, store: Store) -> None:
        """Writes `runs/<run>/outcome.json`; a retried run replaces its own.

        Raises:
            StorageError: the store does not take it.
        """
        store.put(key_of(self.run), json_file(self.to_dict()))

    @property
    def exit_code(self) -> int:
        """What the command line returns: 0 done, 3 refused, 1 broken off."""
        # A lost race is 0 too: the model passed and its bundle is stored.
        # A verdict that people have closed meanwhile is no success of a repeated run.
        codes = {REFUSED: 3, REJECTED: 3, REVOKED: 3, CRASHED: 1}
        return codes.get(self.status, 0)


def key_of(run: str) -> str:
    """Returns the object key of a run's outcome.

    Raises:
        StoreInputError: the id is empty or would leave `runs/`.
    """
    # An id with a slash would name an object in another run's folder; ".." is left to
    # `check_key`.
    if not run or "/" in run:
        raise StoreInputError(f"{run[:100]!r} is no id of a run.")
    return check_key(f"runs/{run}/outcome.json")
