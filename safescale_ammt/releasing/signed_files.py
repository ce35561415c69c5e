"""Approvals in files: what approvers keep in git and bring to the registry by a run.

A text holds one DSSE envelope, a list of them, or one a line. Whether an approval
counts is asked where it is added (`deciding.add_approvals`); here it is only read, in
bounded time, from people who may paste anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from safescale_ammt.errors import InputError
from safescale_ammt.files.json_text import JsonError, parse_json, parse_lines
from safescale_ammt.releasing.envelope import opened

MOST = 64 << 10
"""Bytes of all approvals of one run, which Kubeflow carries in one argument with all
else; an approval has some 3,000."""


def envelopes_in(text: str, where: str = "approvals") -> tuple[Mapping[str, Any], ...]:
    """Returns the envelopes of a text, in their order; none of an empty text.

    Args:
        text: JSON: one envelope, a list of them, or one a line.
        where: what to call it in a sentence.

    Raises:
        InputError: it is no such text, too long, or holds a private key.
    """
    if "PRIVATE KEY" in text:
        raise InputError(
            f"{where} holds a private key, and was not read on: it is no secret any "
            "more; draw another one (`safescale keygen`) and give what `safescale "
            "approve --out FILE` writes."
        )
    try:
        read = values_in(text)
    except JsonError as error:
        raise InputError(
            f"{where} is no approval as `safescale approve --out FILE` writes it "
            f"({error})."
        ) from None
    for number, one in enumerate(read, start=1):
        if not isinstance(one, dict):
            raise InputError(
                f"{where} holds {type(one).__name__} in place {number}, expected an "
                "approval as `safescale approve --out FILE` writes it."
            )
    return tuple(read)


def version_of(envelopes: Sequence[Mapping[str, Any]]) -> int:
    """Returns the number of the one version that approvals are about.

    Raises:
        InputError: they are about none, or about several.
        IntegrityError: one is forged or changed.
    """
    stated = [opened(one).statement.get("predicate") for one in envelopes]
    numbers = [one.get("version") for one in stated if isinstance(one, dict)]
    first = numbers[0] if numbers else None
    if type(first) is not int or numbers != [first] * len(envelopes):
        raise InputError(
            "The approvals are about different versions, or about none: give those of "
            "one version, or its number."
        )
    return first


def values_in(text: str) -> list[Any]:
    """Returns the JSON values of a text: those of a list, one, or one a line.

    Raises:
        JsonError: it holds none of these, or is too long.
    """
    data = text.encode(errors="surrogatepass")
    if len(data) > MOST:
        raise JsonError(f"{len(data):,} bytes, at most {MOST:,} are read")
    try:
        value = parse_json(data) if data.strip() else []
    except JsonError:
        # Several files behind each other; the error of what is neither is a line's.
        return parse_lines(data)
    return value if isinstance(value, list) else [value]
