"""Free ports for a lab, outside the range that the kernel hands to outgoing connections."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

from config.labs.errors import LabError

# Linux gives outgoing connections 32768 and up; a killed daemon's port must not be taken by one.
_FIRST, _LAST = 20_000, 32_000


def all_free(ports: range) -> bool:
    """Whether every port of the block can be bound, all at once."""
    with ExitStack() as held:
        for port in ports:
            probe = held.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                # All addresses: a daemon that listens everywhere would collide with any of them.
                probe.bind(("", port))
            except OSError:
                return False
    return True


def free_block(count: int) -> range:
    """`count` consecutive free ports, at a random place so that labs beside each other differ."""
    for _ in range(200):
        first = random.randrange(_FIRST, _LAST - count)  # noqa: S311 - a port is no secret
        if all_free(block := range(first, first + count)):
            return block
    raise LabError("No %(count)s consecutive free ports between 20000 and 32000.", {"count": count})
