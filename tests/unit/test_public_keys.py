"""Public keys of approvers: the one spelling, and the points that are no keys."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from safescale_ammt.config.sections import RegistryConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.errors import ConfigError, ConstitutionError
from safescale_ammt.files.public_keys import key_bytes, spelled_key

# RFC 8032, section 7.1, tests 1 to 3 and 1024: secret and public keys.
VECTORS = {
    "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60": (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    ),
    "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb": (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    ),
    "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7": (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"
    ),
    "f5e5767cf153319517630f226876b86c8160cc583bc013744c6bf255f5cc0ee5": (
        "278117fc144c72340f67d0f2316e8386ceffbf2b2428c9c51fef7c597f1d426e"
    ),
}
GOOD = next(iter(VECTORS.values()))
ONES = "ff" * 30
SMALL_ORDER = {
    "order 1": "01" + "00" * 31,
    "order 2": f"ec{ONES}7f",
    "order 4": "00" * 32,
    "order 4, other sign": "00" * 31 + "80",
    "order 8": "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "order 8, other sign": (
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"
    ),
    "order 8, other": (
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"
    ),
    "order 8, other, other sign": (
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"
    ),
    # The first vector's key plus the point of order 8: of eight times the order.
    "a key and a point of order 8": (
        "3b5b475c4b82dd1572799fc546f4c6c03e478c6654aa4c7f945b347ea32af60d"
    ),
}
NOT_CANONICAL = {
    "1 with a sign": "01" + "00" * 30 + "80",
    "-1 with a sign": f"ec{ONES}ff",
    "0 as p": f"ed{ONES}7f",
    "1 as p + 1": f"ee{ONES}7f",
    "18 as p + 18": f"ff{ONES}7f",
    "all ones": "ff" * 32,
    "no point": "02" + "00" * 31,
}


def spelled(hexdigits: str) -> str:
    return spelled_key(bytes.fromhex(hexdigits))


@pytest.mark.parametrize(("secret", "public"), VECTORS.items())
def test_the_keys_of_rfc_8032_are_read(secret: str, public: str) -> None:
    drawn = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    assert drawn.public_key().public_bytes_raw().hex() == public
    assert key_bytes(spelled(public)).hex() == public


@given(st.binary(min_size=32, max_size=32))
def test_every_key_that_is_drawn_is_read(secret: bytes) -> None:
    raw = Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
    assert key_bytes(spelled_key(raw)) == raw


@pytest.mark.parametrize("encoding", SMALL_ORDER.values(), ids=SMALL_ORDER)
def test_a_point_of_the_wrong_order_is_no_key(encoding: str) -> None:
    with pytest.raises(ValueError, match="is a point of the wrong order"):
        key_bytes(spelled(encoding))


@pytest.mark.parametrize("encoding", NOT_CANONICAL.values(), ids=NOT_CANONICAL)
def test_an_encoding_of_no_point_or_a_second_one_is_no_key(encoding: str) -> None:
    with pytest.raises(ValueError, match="is no point of the curve"):
        key_bytes(spelled(encoding))


TEXT = spelled(GOOD)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ed25519:",
        "ed25519:not-a-key-at-all",
        TEXT.removeprefix("ed25519:"),
        TEXT.upper(),
        f" {TEXT}",
        f"{TEXT}\n",
        TEXT.rstrip("="),
        f"{TEXT}=",
        TEXT.replace("/", "_").replace("+", "-"),
        TEXT[:-2] + "p=",  # the same 32 bytes: base64's last bits are not read
        f"ed25519:{GOOD}",
        "ed25519:" + base64.b64encode(bytes.fromhex(GOOD)[:31]).decode(),
        "ed25519:" + base64.b64encode(bytes.fromhex(GOOD) + b"\0").decode(),
        TEXT.replace("ed25519", "rsa"),
        TEXT.replace("U", "Ü"),
    ],
)
def test_a_key_has_one_spelling(text: str) -> None:
    with pytest.raises(ValueError, match="base64 of 32 bytes"):
        key_bytes(text)


@pytest.mark.parametrize("encoding", [SMALL_ORDER["order 2"], NOT_CANONICAL["0 as p"]])
def test_a_constitution_names_the_approver_whose_key_is_none(encoding: str) -> None:
    human = {"approvers": {"alice": TEXT, "bob": spelled(encoding)}}
    principle = {"metric": "accuracy", "threshold": 0.8}
    raw = {"schema": 1, "principles": [{"id": "p", "constraint": principle}]}
    Constitution.from_dict({**raw, "human": {"approvers": {"alice": TEXT}}})
    with pytest.raises(ConstitutionError, match=r"^human\.approvers\.bob is 'ed25519:"):
        Constitution.from_dict({**raw, "human": human})


def test_an_owner_whose_key_is_none_is_refused() -> None:
    assert RegistryConfig(run_owner=TEXT).run_owner == TEXT
    with pytest.raises(ConfigError, match=r"registry\.run_owner is 'ed25519:x', which"):
        RegistryConfig(run_owner="ed25519:x")
    for owner in (" ", f" {TEXT}", "alice ", "al\u200bice"):
        with pytest.raises(ConfigError, match="a name as people see it"):
            RegistryConfig(run_owner=owner)
    with pytest.raises(ConfigError, match="'ED25519:x', which"):
        RegistryConfig(run_owner="ED25519:x")


def test_a_config_without_an_owner_keeps_its_digest() -> None:
    assert RegistryConfig(run_owner="").digest == RegistryConfig().digest
    assert RegistryConfig(run_owner="alice").digest != RegistryConfig().digest
    assert RegistryConfig().digest == (
        "sha256:f65c24d24b9aef24eea4a82459944f5ee6d74ba7d4b25a81a4c009f7ed621b35"
    )
