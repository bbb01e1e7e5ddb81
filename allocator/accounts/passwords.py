"""Passwords: what is accepted, how they are kept (argon2id), a check as slow for unknown accounts."""

from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from allocator.errors import Fault
from config.i18n import N_

MIN_LENGTH = 12
# Beyond this nobody remembers and an attacker only makes us hash more.
MAX_LENGTH = 128
# What is long enough and still tried first; compared without spaces, case and the digits at the end.
COMMON = frozenset(
    """123456789012 1234567890123 qwertyuiop qwertyuiopasdf qwertyuiopasdfghjkl password passwordpassword
    mypassword password1234 adminadminadmin administrator letmeinletmein iloveyouiloveyou welcomewelcome
    changemechangeme supercomputer kazakhstan qazaqstan astanaastana almatyalmaty kezekkezek kezekkezekkezek
    абвгдеёжзийк йцукенгшщзхъ парольпароль құпиясөзқұпиясөз казахстан қазақстан""".split()
)

# The library's defaults follow RFC 9106 and grow with it; `needs_rehash` then renews hashes at sign-in.
_hasher = PasswordHasher()


def hash_password(password: str) -> str:
    """An argon2id hash with its parameters and a fresh salt; about 50 ms on purpose."""
    return _hasher.hash(password)


def verify_password(password_hash: str | None, password: str) -> bool:
    """Whether the password is right; ``None`` (no such account) takes the same time and is False."""
    if len(password) > MAX_LENGTH:
        return False
    try:
        _hasher.verify(password_hash or _nobodys_hash(), password)
    except (VerificationError, InvalidHashError):
        return False
    return password_hash is not None


def needs_rehash(password_hash: str) -> bool:
    """Whether the hash was made with weaker parameters than today's."""
    return _hasher.check_needs_rehash(password_hash)


def password_faults(password: str, *, email: str, name: str) -> list[Fault]:
    """Why this password may not be used by this person; empty when it may."""
    if len(password) < MIN_LENGTH:
        return [
            Fault(N_("Use at least %(least)s characters, for example four words."), {"least": MIN_LENGTH})
        ]
    if len(password) > MAX_LENGTH:
        return [Fault(N_("Use at most %(most)s characters."), {"most": MAX_LENGTH})]
    bare = "".join(password.casefold().split())
    if len(set(bare)) < 4 or bare in COMMON or bare.rstrip("0123456789!.") in COMMON:
        return [Fault(N_("This password is among the first that are tried. Choose another."))]
    own = {email.casefold(), email.casefold().partition("@")[0], "".join(name.casefold().split())}
    if bare in own or bare.rstrip("0123456789!.") in own:
        return [Fault(N_("The password must not be your e-mail address or your name."))]
    return []


@cache
def _nobodys_hash() -> str:
    return hash_password("nobody has this password")
