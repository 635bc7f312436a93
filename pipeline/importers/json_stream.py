"""JSON read piece by piece: an object's members one after another, none of them kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TextIO

_BLOCK = 2**20
_LONGEST = 2**20
_BLANKS = " \t\r\n"
_AFTER = _BLANKS + ",:}]"
_END = "the file ends in the middle; it is not whole"


class JSONStream:
    """Reads the JSON text of `file` in memory that does not grow with it. Every method raises `ValueError` for a fault.

        for name in stream.members():            # of the object that comes next
            for inner in stream.members(): ...   # its value, likewise an object; or
            value = stream.value()               # its value, whatever it is

    Each member's value must be read before the next member. Names and values longer than a million characters are
    refused.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text, self._at, self._ended = "", 0, False
        self._decoder = json.JSONDecoder(object_pairs_hook=_unique)

    def members(self) -> Iterator[str]:
        """The names of the members of the object that comes next."""
        self._take("{")
        if self._peek() == "}":
            self._at += 1
            return
        while True:
            if self._peek() != '"':
                raise ValueError(f"the name of a member must come where {self._shown()} stands")
            name = self.value()
            self._take(":")
            yield name
            if self._peek() == "}":
                self._at += 1
                return
            self._take(",")

    def value(self) -> Any:
        """The value that comes next, an object as a dict."""
        self._peek()
        while True:
            try:
                found, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._ended or len(self._text) - self._at > _LONGEST:
                    raise ValueError(f"it is not {'whole ' if self._ended else ''}JSON: {error.msg}") from None
            except RecursionError:
                raise ValueError("it is nested too deeply") from None
            else:
                # A number may go on in the next block: 12 as 12.5, 1 as 1e-3.
                follows = self._text[end : end + 1]
                if self._ended or (follows and follows in _AFTER) or end - self._at > _LONGEST:
                    self._at = end
                    return found
            self._fill()

    def finish(self) -> None:
        """Nothing follows."""
        if self._peek(or_end=True):
            raise ValueError(f"something follows the end: {self._shown()}")

    def _fill(self) -> None:
        block = self._file.read(_BLOCK)
        self._ended = not block
        self._text, self._at = self._text[self._at :] + block, 0

    def _peek(self, *, or_end: bool = False) -> str:
        """The next character that is no blank, not yet taken."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _BLANKS:
                    return self._text[self._at]
                self._at += 1
            if self._ended:
                if or_end:
                    return ""
                raise ValueError(_END)
            self._fill()

    def _take(self, character: str) -> None:
        if self._peek() != character:
            raise ValueError(f"{character!r} must come where {self._shown()} stands")
        self._at += 1

    def _shown(self) -> str:
        return repr(self._text[self._at : self._at + 20])


def shown(value: object) -> str:
    """`value` for a complaint: lists and objects by their kind alone, for theirs may be nested without end."""
    return f"{value!r:.120}" if value is None or isinstance(value, (str, int, float)) else f"a {type(value).__name__}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it names {next(n for n in names if names.count(n) > 1)!r} twice")
    return found
