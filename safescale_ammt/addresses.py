"""Addresses of hosts: which of them are this very machine."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Says whether a host, by name or by number, is this machine's loopback."""
    try:
        # All of 127.0.0.0/8 and ::1.
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # Any other name is not looked up: what it resolves to may change in between.
        return host == "localhost"
