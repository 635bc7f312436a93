"""A streaming JSON reader that yields the members of an object one at a time and keeps none of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TextIO

_BLOCK = 2**20
_LONGEST = 2**20
_BLANKS = " \t\r\n"
_AFTER = _BLANKS + ",:}]"
_END = "the file ends in the middle; it is incomplete"


class JSONStream:
    """Reads the JSON text of `file` in bounded memory. Every method raises `ValueError` for invalid JSON.

        for name in stream.members():            # of the next object
            for inner in stream.members(): ...   # its value, if that is an object too; or
            value = stream.value()               # its value, of any kind

    Read the value of each member before moving on to the next. Names and values longer than 2**20 characters are
    rejected.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text, self._at, self._ended = "", 0, False
        self._decoder = json.JSONDecoder(object_pairs_hook=_unique)

    def members(self) -> Iterator[str]:
        """Yield the names of the members of the next object."""
        self._take("{")
        if self._peek() == "}":
            self._at += 1
            return
        while True:
            if self._peek() != '"':
                raise ValueError(f"expected the name of a member, found {self._shown()}")
            name = self.value()
            self._take(":")
            yield name
            if self._peek() == "}":
                self._at += 1
                return
            self._take(",")

    def value(self) -> Any:
        """Return the next value; an object becomes a dict."""
        self._peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._ended or len(self._text) - self._at > _LONGEST:
                    raise ValueError(f"it is not {'complete ' if self._ended else ''}JSON: {error.msg}") from None
            except RecursionError:
                raise ValueError("it is nested too deeply") from None
            else:
                # A number may continue in the next block: 12 as 12.5, 1 as 1e-3.
                follows = self._text[end : end + 1]
                if self._ended or (follows and follows in _AFTER) or end - self._at > _LONGEST:
                    self._at = end
                    return value
            self._fill()

    def finish(self) -> None:
        """Raise `ValueError` unless only blanks follow."""
        if self._peek(or_end=True):
            raise ValueError(f"there is text after the end: {self._shown()}")

    def _fill(self) -> None:
        block = self._file.read(_BLOCK)
        self._ended = not block
        self._text, self._at = self._text[self._at :] + block, 0

    def _peek(self, *, or_end: bool = False) -> str:
        """Return the next character that is not blank, without consuming it."""
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
            raise ValueError(f"expected {character!r}, found {self._shown()}")
        self._at += 1

    def _shown(self) -> str:
        return repr(self._text[self._at : self._at + 20])


def shown(value: object) -> str:
    """Return `value` for an error message; lists and objects, which may be nested without end, by their type only."""
    return f"{value!r:.120}" if value is None or isinstance(value, (str, int, float)) else f"a {type(value).__name__}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it names {next(n for n in names if names.count(n) > 1)!r} twice")
    return members
