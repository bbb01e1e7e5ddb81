"""On which line of a TOML file each key stands: tomllib reads values only, and a fault must name its line.

It follows a file that tomllib has accepted, so it need not refuse anything.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator

KeyPath = tuple[str | int, ...]
QUOTES = ('"""', "'''", '"', "'")
OPENING, CLOSING = "[{", "]}"


def lines_of(text: str) -> dict[KeyPath, int]:
    """Line (from 1) by key path: tables, keys (dotted too), entries of arrays. Where a table comes in pieces
    its first one counts."""
    return _Scanner(text).scan()


def line_of(lines: dict[KeyPath, int], path: KeyPath) -> int | None:
    """The line of the key, or of the nearest table around it: what is missing has no line of its own."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


class _Scanner:
    """Walks over the text once; ``at`` is the next character, ``line`` the one that it stands on."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.line = text, 0, 1
        self.table: KeyPath = ()
        self.counts: dict[KeyPath, int] = {}
        self.found: dict[KeyPath, int] = {}

    def scan(self) -> dict[KeyPath, int]:
        while self._skip_blank():
            if self.text[self.at] == "[":
                self._header()
            else:
                key = self._until("=")
                path = (*self.table, *_parts(key))
                self._note(path)
                self._value(path)
        return self.found

    def _note(self, path: KeyPath) -> None:
        for length in range(1, len(path) + 1):
            self.found.setdefault(path[:length], self.line)

    def _header(self) -> None:
        """`[a.b]`, or `[[a.b]]`, which begins the next entry of an array."""
        array = self.text.startswith("[[", self.at)
        self.at += 2 if array else 1
        path: KeyPath = tuple(_parts(self._until("]")))
        self.at += 1 if array else 0
        # a table inside an array of tables belongs to the entry that was begun last
        whole: KeyPath = ()
        for number, part in enumerate(path, 1):
            whole = (*whole, part)
            last = number == len(path)
            if array and last:
                self.counts[whole] = self.counts.get(whole, -1) + 1
            if whole in self.counts:
                whole = (*whole, self.counts[whole])
        self.table = whole
        self._note(whole)

    def _value(self, path: KeyPath) -> None:
        """Step over one value, noting the entries of an array that is written out."""
        depth, entry, fresh = 0, 0, False
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == "\n" and depth == 0:
                return
            if char == "#":
                self._comment()
                continue
            if fresh and not char.isspace() and char not in CLOSING:
                self._note((*path, entry))
                entry, fresh = entry + 1, False
            if quote := self._quote():
                self._string(quote)
                continue
            fresh = fresh or (depth == 1 and char == ",") or (depth == 0 and char == "[")
            depth += (char in OPENING) - (char in CLOSING)
            self._step()

    def _skip_blank(self) -> bool:
        """To the next key or header; False at the end of the file."""
        while self.at < len(self.text):
            if self.text[self.at] == "#":
                self._comment()
            elif self.text[self.at].isspace():
                self._step()
            else:
                return True
        return False

    def _until(self, end: str) -> str:
        start = self.at
        while self.at < len(self.text) and self.text[self.at] != end:
            if quote := self._quote():
                self._string(quote)
            else:
                self._step()
        self.at += 1
        return self.text[start : self.at - 1]

    def _quote(self) -> str:
        return next((quote for quote in QUOTES if self.text.startswith(quote, self.at)), "")

    def _string(self, quote: str) -> None:
        self.at += len(quote)
        while self.at < len(self.text) and not self.text.startswith(quote, self.at):
            if self.text[self.at] == "\\" and quote.startswith('"'):
                self._step()
            self._step()
        self.at += len(quote)

    def _comment(self) -> None:
        while self.at < len(self.text) and self.text[self.at] != "\n":
            self.at += 1

    def _step(self) -> None:
        if self.at < len(self.text):
            self.line += self.text[self.at] == "\n"
            self.at += 1


def _parts(key: str) -> Iterator[str]:
    """The parts of a dotted key, as tomllib itself reads them."""
    node = tomllib.loads(f"{key.strip()} = 0")
    while isinstance(node, dict):
        ((part, node),) = node.items()
        yield part
