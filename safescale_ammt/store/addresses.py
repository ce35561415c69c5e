"""Addresses of hosts, where people write them in the place of a bucket."""

from __future__ import annotations

import re
from ipaddress import ip_address

NO_ADDRESS = "s3://BUCKET/PREFIX names no host, AWS_ENDPOINT_URL does"
"""What to say of a bucket that looks like an address."""
_ADDRESS = re.compile(
    r"localhost|(?:[a-z0-9-]+\.)+[a-z]{2,}|[a-z0-9-]+(?=:\d)", re.IGNORECASE
)


def looks_like_address(bucket: str) -> bool:
    """Says whether a bucket's name looks like a host's, perhaps with a port."""
    host = re.sub(r":\d{1,5}$", "", bucket)
    named = _ADDRESS.match(bucket)
    return is_ip_address(host) or bool(named and named[0] == host)


def is_ip_address(name: str) -> bool:
    """Says whether a name is an IPv4 or an IPv6 address, in brackets or not."""
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
