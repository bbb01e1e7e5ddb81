"""What may stand on a command line or in a cluster's tables: checked before anything leaves Kezek.

Slurm separates with commas, equals signs and colons and lower-cases what it likes, so a name that holds more
than these patterns allow could mean something else than itself. Every adapter checks alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from scheduler.clusters.base import Account, Refused, Reservation, ours

_ACCOUNT = re.compile(r"kezek-[a-z0-9][a-z0-9_-]{0,39}", re.ASCII)
_RESERVATION = re.compile(r"kezek-[A-Za-z0-9][A-Za-z0-9_-]{0,39}", re.ASCII)
_LOGIN = re.compile(r"[a-z_][a-z0-9_.-]{0,31}", re.ASCII)
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
# Slurm counts times in 32 bits on some paths; a year like 9999 must not arrive as something else.
_LAST_TIME = datetime(2100, 1, 1, tzinfo=UTC)
# GrpTRESMins is an unsigned 64-bit number whose top values mean "none": far below that is far enough.
_MOST_MINUTES = 10**12
# Its shares are 32 bits, with 2**31 - 1 for "as the parent".
MOST_SHARES = 2**31 - 2


def require_ours(name: str) -> str:
    """A reservation's name that may be changed; ValueError for anything else."""
    if not _RESERVATION.fullmatch(ours(name)):
        raise ValueError(f"not a reservation's name: {name!r}")
    return name


def require_account(name: str) -> str:
    """An account's name that may be changed; ValueError for anything else, the empty one above all."""
    if not _ACCOUNT.fullmatch(ours(name)):
        raise ValueError(f"not an account's name: {name!r}")
    return name


def check_account(cluster: str, account: Account) -> None:
    """Raises ValueError for a name that is not ours, Refused for logins or limits that no cluster could
    have."""
    require_account(account.name)
    for login in account.logins:
        if not _LOGIN.fullmatch(login):
            raise Refused.said(cluster, f"{account.name}: not a login: {login!r}")
    if account.gpu_minutes is not None and not 0 <= account.gpu_minutes <= _MOST_MINUTES:
        raise Refused.said(cluster, f"{account.name}: not an amount of GPU minutes: {account.gpu_minutes}")
    if account.gpus is not None and not 0 <= account.gpus <= MOST_SHARES:
        raise Refused.said(cluster, f"{account.name}: not a number of GPUs: {account.gpus}")
    if account.shares is not None and not 1 <= account.shares <= MOST_SHARES:
        raise Refused.said(cluster, f"{account.name}: not a number of shares: {account.shares}")


def check_reservation(cluster: str, reservation: Reservation) -> None:
    """Raises ValueError for a name that is not ours, Refused for what no cluster could reserve."""
    require_ours(reservation.name)
    fault = _reservation_fault(reservation)
    if fault:
        raise Refused.said(cluster, f"{reservation.name}: {fault}")


def _reservation_fault(reservation: Reservation) -> str | None:
    if reservation.starts_at.tzinfo is None or reservation.ends_at.tzinfo is None:
        return "times without a zone"
    if not reservation.starts_at < reservation.ends_at <= _LAST_TIME:
        return "the window does not end after it starts, or ends too late"
    if not reservation.nodes or len(set(reservation.nodes)) != len(reservation.nodes):
        return "no nodes, or one twice"
    if reservation.maintenance:
        if reservation.accounts or reservation.gpus_per_node is not None:
            return "maintenance is of whole nodes and nobody's"
    elif not reservation.accounts:
        return "no account: anybody could use it"
    # An account of another system may be named, to share a window with it; its name must still be harmless.
    for name in _bad((*reservation.nodes, *reservation.accounts)):
        return f"not a name: {name!r}"
    if reservation.gpus_per_node is not None and reservation.gpus_per_node < 1:
        return f"not a number of GPUs: {reservation.gpus_per_node}"
    return None


def _bad(names: Iterable[str]) -> list[str]:
    return [name for name in names if not _NODE.fullmatch(name)]


def plain_text(text: str, longest: int = 120) -> str:
    """A description that survives Slurm's tables unchanged: ASCII letters, digits, spaces, ``._-``."""
    # Accounting's tables are often latin1, where Cyrillic becomes question marks, and sacctmgr lower-cases:
    # what is read back must equal what was asked for.
    kept = "".join(
        char if char.isascii() and (char.isalnum() or char in "._-") else " " for char in text.lower()
    )
    return " ".join(kept.split())[:longest].strip()
