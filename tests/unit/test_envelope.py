"""Envelopes: what is signed, by known answers, and every envelope that is none."""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest
from approval_world import ALICE, BOB
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from test_public_keys import VECTORS

from safescale_ammt.errors import IntegrityError
from safescale_ammt.files.canonical import canonical_json
from safescale_ammt.releasing.envelope import (
    PAYLOAD_TYPE,
    opened,
    pae,
    public_key_of,
    seal,
)

WORDS = {"_type": "x", "predicate": {"count": 2**53 - 1, "name": "Zoë"}}


def test_what_is_signed_is_the_encoding_of_dsse() -> None:
    # The example of DSSE's protocol.md, and lengths in bytes, not in characters.
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("é", "é".encode()) == b"DSSEv1 2 \xc3\xa9 2 \xc3\xa9"
    assert pae("", b"") == b"DSSEv1 0  0 "


def test_a_signature_is_that_of_rfc_8032_over_the_encoding() -> None:
    secret, public = next(iter(VECTORS.items()))
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    # The RFC's first message is empty; ours never is, so the two are told apart.
    assert key.sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a84877f1e")
    envelope = seal(WORDS, key)
    payload = base64.b64decode(envelope["payload"])
    assert payload == canonical_json(WORDS)
    (signature,) = envelope["signatures"]
    expected = key.sign(pae(PAYLOAD_TYPE, payload))
    assert base64.b64decode(signature["sig"]) == expected
    found = opened(envelope)
    assert found.statement == WORDS
    assert base64.b64decode(found.key.removeprefix("ed25519:")).hex() == public


def test_the_steps_of_the_protocol_accept_what_is_sealed() -> None:
    envelope = seal(WORDS, ALICE)
    payload = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    parts = (b"DSSEv1", b"%d" % len(kind), kind, b"%d" % len(payload), payload)
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    ALICE.public_key().verify(signature, b" ".join(parts))


def changed(how: str) -> Any:
    envelope = copy.deepcopy(seal(WORDS, ALICE))
    first = envelope["signatures"][0]
    other = seal({**WORDS, "predicate": {}}, ALICE)
    changes: dict[str, Any] = {
        "other payload": {**envelope, "payload": other["payload"]},
        "other signature": {**envelope, "signatures": other["signatures"]},
        "other key id": {
            **envelope,
            "signatures": [{**first, "keyid": public_key_of(BOB)}],
        },
        "two signatures": {**envelope, "signatures": [first, first]},
        "no signature": {**envelope, "signatures": []},
        "no key id": {**envelope, "signatures": [{"sig": first["sig"]}]},
        "another key": {**envelope, "signatures": [{**first, "note": "x"}]},
        "another part": {**envelope, "note": "x"},
        "another type": {**envelope, "payloadType": "application/json"},
        "half a signature": {
            **envelope,
            "signatures": [{**first, "sig": first["sig"][:44]}],
        },
        "blank in base64": {**envelope, "payload": envelope["payload"] + "\n"},
        "payload in other spelling": {
            **envelope,
            "payload": base64.b64encode(b' {"a":1}').decode(),
        },
        "payload with a key twice": {
            **envelope,
            "payload": base64.b64encode(b'{"a":1,"a":2}').decode(),
        },
        "no text": {**envelope, "payload": 5},
        "no object": [envelope],
        "nothing": None,
    }
    return changes[how]


@pytest.mark.parametrize(
    "how",
    [
        *("other payload", "other signature", "other key id", "two signatures"),
        *("no signature", "no key id", "another key", "another part", "another type"),
        *("half a signature", "blank in base64", "payload in other spelling"),
        *("payload with a key twice", "no text", "no object", "nothing"),
    ],
)
def test_an_envelope_that_was_changed_is_refused(how: str) -> None:
    with pytest.raises(IntegrityError, match="envelope"):
        opened(changed(how))


@pytest.mark.parametrize("place", range(0, 64, 7))
def test_a_signature_with_any_changed_byte_is_forged(place: int) -> None:
    envelope = seal(WORDS, ALICE)
    raw = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
    raw[place] ^= 1
    envelope["signatures"][0]["sig"] = base64.b64encode(raw).decode()
    with pytest.raises(IntegrityError, match="it was forged"):
        opened(envelope)


def test_a_signature_whose_number_is_beyond_the_order_is_no_second_one() -> None:
    """S and S + L both fit the equation; RFC 8032 takes the smaller alone."""
    order = 2**252 + 27742317777372353535851937790883648493
    envelope = seal(WORDS, ALICE)
    raw = base64.b64decode(envelope["signatures"][0]["sig"])
    larger = int.from_bytes(raw[32:], "little") + order
    forged = raw[:32] + larger.to_bytes(32, "little")
    envelope["signatures"][0]["sig"] = base64.b64encode(forged).decode()
    with pytest.raises(IntegrityError, match="it was forged"):
        opened(envelope)
