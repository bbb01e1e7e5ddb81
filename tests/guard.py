"""Tests stay on this machine, and a test of a real service never silently does not run."""

from __future__ import annotations

import os
import socket
import sys
from ipaddress import ip_address


class OutsideNetwork(RuntimeError):
    """A test reached for the network."""


def _refuse_outside(event: str, args: tuple[object, ...]) -> None:
    if event in {"socket.connect", "socket.sendto"}:
        address = args[1]
        # Unix sockets have text or bytes for an address, netlink sockets a pair of numbers.
        if isinstance(address, tuple) and address and isinstance(address[0], str):
            _refuse_unless_here(address[0])
    elif event == "socket.getaddrinfo" and isinstance(args[0], str):
        _refuse_unless_here(args[0])


def _refuse_unless_here(host: str) -> None:
    if host in {"", "localhost", "0.0.0.0", "::", socket.gethostname()}:
        return
    try:
        here = ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        here = False
    if not here:
        raise OutsideNetwork(f"a test reached for {host}: only this machine's loopback is allowed")


def forbid_outside_network() -> None:
    """From now on this process connects to loopback and Unix sockets only."""
    # An audit hook sees every Python socket, whichever library opened it; it cannot be taken away again.
    sys.addaudithook(_refuse_outside)


def skips_are_failures() -> bool:
    """True where a missing service must be seen: in CI and in `make test`."""
    return bool(os.environ.get("CI") or os.environ.get("KEZEK_NO_SKIP"))
