"""Text from outside, made fit to keep: normalised, without what cannot be seen, and bounded.

Faults are collected so that a person sees all of them at once; `Faults.raise_if_any()` ends the checking.
"""

import re
import unicodedata

from email_validator import EmailNotValidError, validate_email

from allocator.errors import Fault, Invalid
from config.i18n import N_

EMAIL_LENGTH = 254
# Control, format (zero width, right-to-left overrides) and surrogate characters: nobody can see what they do.
_UNSEEN = frozenset({"Cc", "Cf", "Cs"})
_SPACES = re.compile(r"\s+")
_PHONE = re.compile(r"\+?[0-9]{10,15}")
_PHONE_SIGNS = re.compile(r"[\s\u00a0()./-]")


class Faults:
    """What is wrong so far, by field."""

    def __init__(self) -> None:
        self.fields: dict[str, list[Fault]] = {}

    def add(self, field: str, *faults: Fault) -> None:
        """Note faults of a field; nothing is noted for none."""
        if faults:
            self.fields.setdefault(field, []).extend(faults)

    def raise_if_any(self) -> None:
        """Raise Invalid with everything noted."""
        if self.fields:
            raise Invalid(self.fields)


def one_line(text: str) -> str:
    """NFC, unseen characters gone, every run of white space one space."""
    spaced = _SPACES.sub(" ", unicodedata.normalize("NFC", text))
    return _without_unseen(spaced).strip()


def check_line(faults: Faults, field: str, text: str, *, most: int, least: int = 1) -> str:
    """``one_line(text)``, with a fault when it has not between ``least`` and ``most`` characters."""
    # Normalising costs time by length, so what is far too long is not even looked at.
    clean = one_line(text[: most * 8])
    if len(clean) < least:
        message = N_("Fill this in.") if not clean else N_("Use at least %(least)s characters.")
        faults.add(field, Fault(message, {} if not clean else {"least": least}))
    elif len(clean) > most:
        faults.add(field, Fault(N_("Use at most %(most)s characters."), {"most": most}))
    return clean


def check_email(faults: Faults, field: str, text: str) -> str:
    """The address in lower case and ASCII, as it is stored and compared."""
    clean = one_line(text[: EMAIL_LENGTH * 2])
    try:
        parsed = validate_email(clean, check_deliverability=False, allow_smtputf8=False)
    except EmailNotValidError:
        faults.add(field, Fault(N_("Enter an e-mail address like name@example.kz.")))
        return clean.lower()
    address = (parsed.ascii_email or parsed.normalized).lower()
    if len(address) > EMAIL_LENGTH:
        faults.add(field, Fault(N_("Use at most %(most)s characters."), {"most": EMAIL_LENGTH}))
    return address


def email_key(text: str) -> str:
    """How an address that somebody typed is looked up: the stored form, or something that matches nobody."""
    return check_email(Faults(), "email", text)


def check_phone(faults: Faults, field: str, text: str) -> str | None:
    """A telephone number as ``+77011234567``, None when left empty."""
    digits = _PHONE_SIGNS.sub("", one_line(text[:100]))
    if not digits:
        return None
    if not _PHONE.fullmatch(digits):
        faults.add(field, Fault(N_("Enter a telephone number like +7 701 123 45 67.")))
        return None
    # People here write 8 for the country's own +7.
    if len(digits) == 11 and digits.startswith("8"):
        return "+7" + digits[1:]
    return digits if digits.startswith("+") else f"+{digits}"


def _without_unseen(text: str) -> str:
    return "".join(sign for sign in text if unicodedata.category(sign) not in _UNSEEN)
