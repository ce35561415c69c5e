"""What the auditor alone may read: verdicts of whose figures one bit was told.

Under `gate.feedback: bit` a whole verdict (figures, findings, evidence, report) lies
below `auditor/` of the store of data. Judge and gate write and read it with the key of
`sealed/`; a person reads it with the auditor's. No artifact of a run, no log and no
registry holds a byte of it, nor a digest: who knows the sealed rows but for a few
labels could try these against a digest. So the ledger binds a verdict by commitments,
digests under a key that lies here too.

    auditor/key                     32 random bytes, drawn once
    auditor/HEX/manifest.json …     the verdict behind the answer whose identity is HEX
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from safescale_ammt.errors import InputError, PreconditionFailed
from safescale_ammt.files.artifacts import MANIFEST, Manifest, verify
from safescale_ammt.files.canonical import is_digest, json_file
from safescale_ammt.store.base import ObjectInfo, Store
from safescale_ammt.store.protected import Kept, private_scratch, told_what_for

AUDITOR = "auditor/"
"""Beginning of the keys that judge, gate and the auditor open, and nobody else."""
KEY = f"{AUDITOR}key"
"""Where the key of commitments lies."""
_BYTES = 32
NEED = (
    f"figures of sealed rows lie below {AUDITOR} where gate.feedback is bit, which the "
    "keys of judge and gate open, and the auditor's"
)


def committed(store: Store, digest: str) -> str:
    """Returns a commitment to a digest: it binds, and tells nothing of what it is of.

    HMAC-SHA256 under the store's own key, which is drawn when it is first needed: equal
    work in one store has equal commitments.

    Raises:
        StoreInputError: the store's key does not open `AUDITOR`.
        StorageError: the store fails, or keeps no conditional writes.
    """
    with told_what_for(NEED):
        if not store.exists(KEY):
            # Of two judges at once one wins, and both read the winner's.
            with suppress(PreconditionFailed):
                store.put(KEY, secrets.token_bytes(_BYTES), if_absent=True)
        key = store.get(KEY, _BYTES)
    return f"sha256:{hmac.new(key, digest.encode(), 'sha256').hexdigest()}"


def keep_for_auditor(
    store: Store,
    answer: str,
    whole: Manifest,
    files: Mapping[str, bytes | BinaryIO],
) -> None:
    """Writes the verdict behind an answer, its manifest last, unless it is there.

    Args:
        store: of data.
        answer: identity of the answer that was told.
        whole: manifest of the verdict.
        files: its contents by name; an open file is at its beginning.

    Raises:
        StoreInputError: the store's key does not open `AUDITOR`.
        StorageError: the store fails.
    """
    place = place_of(answer)
    with told_what_for(NEED):
        # The first counts, as the ledger has it: who judges again, perhaps by a later
        # version with other words, changes nothing of it.
        if store.exists(f"{place}/{MANIFEST}"):
            return
        for name, data in files.items():
            store.put(f"{place}/{name}", data)
        store.put(f"{place}/{MANIFEST}", json_file(whole.to_dict()))


@contextmanager
def kept_for_auditor(
    store: Store, answer: str, beside: Path | None = None
) -> Iterator[Path]:
    """Gives the verdict behind an answer, every byte checked, while the context lasts.

    Args:
        store: of data.
        answer: identity of the answer.
        beside: as in `store.protected.private_scratch`.

    Raises:
        InputError: the store holds none.
        IntegrityError: a byte was changed.
        StorageError: the store fails, or its key does not open `AUDITOR`.
    """
    place = place_of(answer)
    with private_scratch(beside) as scratch:
        with told_what_for(NEED):
            if not store.exists(f"{place}/{MANIFEST}"):
                raise InputError(
                    f"{store.uri}/{place} holds no verdict behind the answer {answer}: "
                    "it was removed, or this is another store."
                )
            store.download_folder(place, scratch / "verdict")
        verify(scratch / "verdict", "verdict")
        yield scratch / "verdict"


def kept_answers(store: Store) -> list[Kept]:
    """Lists the verdicts behind answers, the oldest first.

    Raises:
        StoreInputError: the store's key does not open `AUDITOR`.
        StorageError: the store fails.
    """
    found: dict[str, list[ObjectInfo]] = {}
    with told_what_for(NEED):
        for info in store.list(AUDITOR):
            name = info.key.removeprefix(AUDITOR).partition("/")[0]
            if is_digest(f"sha256:{name}"):
                found.setdefault(f"sha256:{name}", []).append(info)
    every = [Kept.of("answer", digest, infos) for digest, infos in found.items()]
    return sorted(every, key=lambda kept: (kept.written, kept.keys))


def place_of(answer: str) -> str:
    """Returns the prefix of the verdict behind an answer."""
    return AUDITOR + answer.partition(":")[2]
