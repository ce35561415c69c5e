"""Private keys of approvers: one file each, of its owner alone, never overwritten.

PEM (PKCS #8) without a passphrase, as `openssl pkey` reads it. Such a file is a
person's and belongs beside no pipeline: who holds it decides in that person's name.
"""

from __future__ import annotations

import os
import stat
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from safescale_ammt.errors import InputError
from safescale_ammt.files.regular import open_regular
from safescale_ammt.releasing.envelope import public_key_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MOST = 1 << 14
"""Bytes; a key has some hundred."""


def new_key(path: Path) -> str:
    """Draws a key, writes its file with mode 0600 and returns the public half.

    Raises:
        InputError: something is there already, or it cannot be written there.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    data = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    aside = path.absolute().parent / f".{path.name}.{uuid.uuid4().hex[:8]}"
    try:
        # Written aside and linked: whole or not there, and never over another key.
        opened = os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(opened, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(aside, path)
    except FileExistsError:
        raise InputError(
            f"{path} exists and is left as it is: a key that is overwritten is lost; "
            "name another file with --out."
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}).") from None
    finally:
        # Where it could not be made it cannot be looked for either: a name too long.
        with suppress(OSError):
            aside.unlink()
    return public_key_of(key)


def read_key(path: Path) -> Ed25519PrivateKey:
    """Reads a private key.

    Raises:
        InputError: it is missing, others may read it, or it is no whole Ed25519 key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        # Mode and bytes of one descriptor, whatever happens to the name meanwhile.
        with open_regular(path) as file:
            mode, data = stat.S_IMODE(os.fstat(file.fileno()).st_mode), file.read(MOST)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None
    if mode & 0o077:
        raise InputError(
            f"{path} has mode {mode:04o}, so that others of this machine may decide in "
            f"your name; draw a new key if they could, else: chmod 600 {path}"
        )
    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        raise InputError(
            f"{path} needs a passphrase, which nothing here asks for; write it without "
            "one (openssl pkey) into a file of mode 0600."
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(
            f"{path} is no whole private key in PEM (PKCS #8): it was cut, changed, or "
            "is another file; `safescale keygen` writes one."
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(
            f"{path} is a key of another kind ({type(key).__name__}), expected Ed25519."
        )
    return key
