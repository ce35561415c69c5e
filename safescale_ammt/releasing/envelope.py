"""Envelopes: a Statement in our own canonical JSON, signed as DSSE says.

What is signed is the *pre-authentication encoding* of type and payload, never a parsed
form of them. The payload is an in-toto Statement whose bytes are ours: a library that
goes through a protobuf Struct would turn its counts into floats. An envelope here has
one signature; several people sign an envelope each, so that one key never counts twice.

Sources: DSSE v1.0.2 (protocol), in-toto attestation framework (payload type), RFC 8032.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safescale_ammt.errors import IntegrityError
from safescale_ammt.files.canonical import canonical_json
from safescale_ammt.files.json_text import parse_json
from safescale_ammt.files.public_keys import key_bytes, spelled_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MOST = 1 << 20
"""Bytes of a payload; a Statement about one decision has a few thousand."""


@dataclass(frozen=True)
class Signed:
    """What an envelope holds once its signature is checked.

    Attributes:
        statement: the payload, parsed.
        key: the public key that signed it, as a constitution spells it.
    """

    statement: Mapping[str, Any]
    key: str


def pae(payload_type: str, payload: bytes) -> bytes:
    """Returns the pre-authentication encoding of a payload: the bytes that are signed.

    Example:
        >>> pae("http://example.com/HelloWorld", b"hello world")
        b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def public_key_of(key: Ed25519PrivateKey) -> str:
    """Returns the public half of a key, as a constitution spells it."""
    return spelled_key(key.public_key().public_bytes_raw())


def seal(statement: Mapping[str, Any], key: Ed25519PrivateKey) -> dict[str, Any]:
    """Signs a Statement and returns the envelope."""
    payload = canonical_json(statement)
    signature = key.sign(pae(PAYLOAD_TYPE, payload))
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [
            {"keyid": public_key_of(key), "sig": base64.b64encode(signature).decode()}
        ],
    }


def opened(envelope: Any) -> Signed:
    """Checks an envelope and returns what it holds.

    Whose key it is, and what they may sign, is for the caller to ask.

    Raises:
        IntegrityError: it is no envelope of one signature in our spelling, or the
            signature is not that of the payload by the key that it names.
    """
    try:
        payload = _decoded(envelope["payload"])
        (signature,) = envelope["signatures"]
        raw, sig = key_bytes(signature["keyid"]), _decoded(signature["sig"])
        statement = parse_json(payload, MOST)
        # Another spelling of the same would be another envelope with the same words.
        sealed = {**signature, "keyid": spelled_key(raw)}
        form = {"payloadType": PAYLOAD_TYPE, "signatures": [sealed]}
        spelled = {**form, "payload": base64.b64encode(payload).decode()}
        ours = envelope == spelled and set(signature) == {"keyid", "sig"}
        if not (ours and isinstance(statement, dict)):
            raise ValueError
        if canonical_json(statement) != payload:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise IntegrityError(
            "an envelope is none of ours: expected a DSSE envelope with one Ed25519 "
            "signature over a Statement in canonical JSON."
        ) from None
    # Here: most registries hold no signature, and none of their readers waits for this.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        signer = Ed25519PublicKey.from_public_bytes(raw)
        signer.verify(sig, pae(PAYLOAD_TYPE, payload))
    except InvalidSignature:
        raise IntegrityError(
            f"the signature by {signature['keyid']} is not of what stands in the "
            "envelope: it was forged, or the envelope was changed."
        ) from None
    return Signed(statement, signature["keyid"])


def _decoded(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("base64 in another spelling")
    return data
