"""Files of private keys: of their owner alone, whole, never written over."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from pipelines.cli import run_command
from safescale_ammt.errors import InputError
from safescale_ammt.files.public_keys import key_bytes
from safescale_ammt.releasing.envelope import public_key_of
from safescale_ammt.releasing.key_files import new_key, read_key

PEM = (Encoding.PEM, PrivateFormat.PKCS8)


def test_a_drawn_key_is_read_back_and_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "alice.key"
    public = new_key(file)
    assert public_key_of(read_key(file)) == public
    assert len(key_bytes(public)) == 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["alice.key"]


def test_two_keys_are_not_one(tmp_path: Path) -> None:
    assert new_key(tmp_path / "one") != new_key(tmp_path / "two")


@pytest.mark.parametrize("there", ["file", "folder", "dangling link"])
def test_a_key_is_never_written_over(tmp_path: Path, there: str) -> None:
    file = tmp_path / "alice.key"
    if there == "file":
        new_key(file)
    elif there == "folder":
        file.mkdir()
    else:
        file.symlink_to(tmp_path / "elsewhere")
    before = file.read_bytes() if there == "file" else b""
    with pytest.raises(InputError, match="exists and is left as it is"):
        new_key(file)
    if there == "file":
        assert file.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["alice.key"]


@pytest.mark.parametrize("place", ["no/alice.key", "file/alice.key", "a" * 252])
def test_a_place_that_takes_no_file_is_one_sentence(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        new_key(tmp_path / place)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o610])
def test_a_key_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "alice.key"
    new_key(file)
    file.chmod(mode)
    with pytest.raises(InputError, match=f"has mode {mode:04o}.*chmod 600"):
        read_key(file)


def test_a_file_that_is_no_whole_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "alice.key"
    new_key(file)
    whole = file.read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 40):
        file.write_bytes(whole[:length])
        with pytest.raises(InputError, match="no whole private key"):
            read_key(file)
    file.write_bytes(whole.replace(b"PRIVATE", b"PUBLIC"))
    with pytest.raises(InputError, match="no whole private key"):
        read_key(file)


def test_a_key_of_another_kind_or_behind_a_passphrase_is_refused(
    tmp_path: Path,
) -> None:
    file = tmp_path / "alice.key"
    file.touch(0o600)
    file.write_bytes(
        generate_private_key(SECP256R1()).private_bytes(*PEM, NoEncryption())
    )
    with pytest.raises(InputError, match="is a key of another kind"):
        read_key(file)
    locked = BestAvailableEncryption(b"secret")
    file.write_bytes(Ed25519PrivateKey.generate().private_bytes(*PEM, locked))
    with pytest.raises(InputError, match="needs a passphrase"):
        read_key(file)


def test_no_key_and_a_pipe_in_its_place_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none"):
        read_key(tmp_path / "none.key")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(InputError, match="named pipe"):
        read_key(tmp_path / "pipe")


def test_keygen_prints_the_line_of_the_constitution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["keygen", "alice"]) == 0
    shown = capsys.readouterr()
    public = public_key_of(read_key(Path("alice.key")))
    assert shown.out == f'"alice": "{public}"\n'
    assert "PRIVATE" not in shown.out + shown.err
    assert run_command(["keygen", "alice"]) == 2
    assert "alice.key exists and is left as it is" in capsys.readouterr().err
    assert run_command(["keygen", "Zoë O'Hara", "--out", "z.key"]) == 0
    assert capsys.readouterr().out.startswith('"Zoë O\'Hara": "ed25519:')


@pytest.mark.parametrize("name", [" ", "a\nb", "../alice"])
def test_keygen_takes_no_name_that_is_none(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["keygen", name]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_openssl_reads_the_key(tmp_path: Path) -> None:
    file = tmp_path / "alice.key"
    public = new_key(file)
    done = subprocess.run(
        ["openssl", "pkey", "-in", str(file), "-pubout", "-outform", "DER"],
        capture_output=True,
        check=True,
    )
    assert done.stdout[-32:] == key_bytes(public)
