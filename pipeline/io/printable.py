"""Makes text from files and file names safe to print: it can neither move the cursor nor reorder a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath

_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
# Marks that change the direction of the surrounding text, and line breaks that few programs recognise.
_REORDERING = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_LINE_BREAKS = "\u2028\u2029"


def _escape(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # Python's surrogate for a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return _SHORT.get(chr(code)) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def _table(codes: Iterable[int]) -> dict[int, str]:
    return {code: _escape(code) for code in codes}


_ESCAPES = _table(
    (*range(32), *range(127, 160), *map(ord, _REORDERING), *map(ord, _LINE_BREAKS), *range(0xD800, 0xE000))
)
_ESCAPES_BUT_NEWLINE = {code: text for code, text in _ESCAPES.items() if code != ord("\n")}


def printable(text: str | PurePath, *, lines: bool = False) -> str:
    r"""Return a text or path in which escapes such as `\x1b` replace all characters that control a terminal.

    These are control characters, marks that reorder text, and surrogates, which stand for bytes of file names that are
    not UTF-8 and cannot be written to a UTF-8 stream. With `lines`, line feeds stay.
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return text.translate(_ESCAPES_BUT_NEWLINE if lines else _ESCAPES)


def is_text(name: str) -> bool:
    """Return whether a file name is valid text, without undecodable bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
