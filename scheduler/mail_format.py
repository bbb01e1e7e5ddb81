"""How letters look as bytes: headers that fold without losing a space, and files that a person can read."""

from __future__ import annotations

from copy import deepcopy
from email.header import Header
from email.message import EmailMessage
from email.policy import EmailPolicy
from typing import Any


class LetterPolicy(EmailPolicy):
    """The standard policy, except that headers beyond ASCII are encoded by `email.header`.

    EmailPolicy drops the space where it folds between two encoded words: “қабылданды:Егіс”.
    """

    def fold(self, name: str, value: Any) -> str:
        """The header with its name, its lines ended by `linesep`."""
        if self.utf8 or str(value).isascii():
            folded: str = super().fold(name, value)
            return folded
        addresses = getattr(value, "addresses", None)
        if addresses:
            # Only the name may be encoded.
            between = f",{self.linesep} "
            text = between.join(f"{self._encoded(name, a.display_name)} <{a.addr_spec}>" for a in addresses)
        else:
            text = self._encoded(name, str(value))
        return f"{name}: {text}{self.linesep}"

    def fold_binary(self, name: str, value: Any) -> bytes:
        """`fold` as bytes; UTF-8 only where the policy says so."""
        return self.fold(name, value).encode("utf-8" if self.utf8 else "ascii", "surrogateescape")

    def _encoded(self, name: str, text: str) -> str:
        return Header(text, "utf-8", header_name=name).encode(linesep=self.linesep)


POLICY = LetterPolicy()


def readable(message: EmailMessage) -> bytes:
    """The message for a file (RFC 6532): headers and text in plain UTF-8, as `cat` shows them."""
    copy = deepcopy(message)
    copy.set_content(message.get_content(), cte="8bit")
    return copy.as_bytes(policy=POLICY.clone(utf8=True, max_line_length=None))
