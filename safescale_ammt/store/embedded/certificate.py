"""The certificate without which no inner port of SeaweedFS talks to anybody.

Master, volume server, filer and admin part are one process that calls itself over
loopback, where every account of a machine may connect. So each of their ports wants
TLS with a client certificate (RFC 8446, 4.3.2), and there is one that they all take:
it signs itself, and its key lies in one file that is its owner's alone. Whoever can
read that file may read the data too.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

_SERVERS = ("MASTER", "VOLUME", "FILER", "ADMIN")
_GRPC_ONLY = ("S3", "WORKER")
# A clock that is wrong must not lock anybody out of a store on their own machine.
_FROM, _UNTIL = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def closed_doors(file: Path) -> dict[str, str]:
    """Returns the variables that make SeaweedFS ask for the certificate everywhere.

    Args:
        file: holds key and certificate (PEM); made if it is missing or damaged.
    """
    # SeaweedFS opens its ports to all, with a line in its log, if it cannot read it.
    # Nothing that is stored depends on the key, so that another one will do.
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file)
    except (OSError, ValueError):
        make_certificate(file)
    # A PEM file may hold both, and each reader takes the part that it wants.
    both = {"CERT": str(file), "KEY": str(file)}
    doors = {"WEED_GRPC_CA": str(file), "WEED_HTTPS_CLIENT_ENABLED": "true"}
    for part in (*_SERVERS, *_GRPC_ONLY, "CLIENT"):
        doors |= {f"WEED_GRPC_{part}_{name}": path for name, path in both.items()}
    for part in (*_SERVERS, "CLIENT"):
        trusted = {**both, "CA": str(file)}
        doors |= {f"WEED_HTTPS_{part}_{name}": path for name, path in trusted.items()}
    return doors


def make_certificate(file: Path) -> None:
    """Makes a key and a certificate that it signs, readable by their owner alone."""
    # Once for each store: it takes longer to import than the rest of a start.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    common_name = x509.NameAttribute(x509.NameOID.COMMON_NAME, "embedded store")
    name = x509.Name([common_name])
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(loopback, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    write_secret(file, private + certificate.public_bytes(pem))


def write_secret(file: Path, secret: bytes) -> None:
    """Writes a file that at no moment anybody but its owner can read."""
    aside = file.with_suffix(".partial")
    # Made empty with its mode, then filled. One that a crash has left may have another.
    aside.unlink(missing_ok=True)
    aside.touch(mode=0o600, exist_ok=False)
    aside.write_bytes(secret)
    aside.replace(file)
