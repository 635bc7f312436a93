"""Tables and lines that fit a terminal, or are cut with a hint. Where there is no terminal they stay whole.

The tables of `rich` would cut numbers too, down to a character, rather than leave columns out and name them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TextIO

from rich.cells import cell_len, set_cell_size

_USUAL_WIDTH = 80

#: Columns of text are not made narrower than this.
LEAST_TEXT = 12


def terminal_width(stream: TextIO) -> int | None:
    """The width of the terminal that `stream` writes to, in characters ($COLUMNS wins), or None where it is none."""
    if not stream.isatty():
        return None
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    try:
        return os.get_terminal_size(stream.fileno()).columns or _USUAL_WIDTH
    except (OSError, ValueError):
        return _USUAL_WIDTH


def fitted(widths: Sequence[int], least: Sequence[int], available: int | None) -> list[int]:
    """The widths of the leading columns that fit into `available` with two spaces between them.

    The widest shrink first, none below its `least`. One column is always left.
    """
    if available is None:
        return list(widths)
    kept, needed = 0, -2
    for width in least:
        needed += width + 2
        if needed > available and kept:
            break
        kept += 1
    fitting = list(widths[:kept])
    excess = sum(fitting) + 2 * (kept - 1) - available
    while excess > 0:
        width, widest = max(((width, k) for k, width in enumerate(fitting) if width > least[k]), default=(0, 0))
        if not width:
            break
        fitting[widest] -= 1
        excess -= 1
    return fitting


def cut(text: str, width: int, *, mark: str = "…") -> str:
    """`text` in at most `width` columns, with a mark at its end where something is missing."""
    return text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + mark


def hidden_columns(shown: int, names: Sequence[str], remedy: str) -> str:
    """The hint below a table that has only its first `shown` columns."""
    hidden = names[shown:]
    listed = ", ".join(hidden[:4]) + (", …" if len(hidden) > 4 else "")
    return f"… {len(hidden)} more {'column' if len(hidden) == 1 else 'columns'}, {remedy}: {listed}"


def table(rows: list[list[str]], *, texts: Sequence[bool], width: int | None = None, remedy: str) -> str:
    """Rows of cells as aligned text, the first of them the header; columns of `texts` are flush left.

    Where the table is wider than `width`, texts are cut, then the last columns are left out and named in a hint that
    has the `remedy`.
    """
    columns = list(zip(*rows, strict=True))
    widths = [max(map(cell_len, cells)) for cells in columns]
    least = [min(wide, LEAST_TEXT) if text else wide for wide, text in zip(widths, texts, strict=True)]
    widths = fitted(widths, least, width)
    lines = []
    for row in rows:
        cells = []
        for cell, wide, text in zip(row, widths, texts, strict=False):
            shown = cut(cell, wide)
            space = " " * (wide - cell_len(shown))
            cells.append(shown + space if text else space + shown)
        lines.append("  ".join(cells).rstrip())
    if len(widths) < len(columns):
        hint = hidden_columns(len(widths), rows[0], remedy)
        lines.append(hint if width is None else cut(hint, width))
    return "\n".join(lines)


def described(rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Pairs of a name and a text, one a line, broken at spaces where the terminal ends."""
    import textwrap

    lines = []
    for name, text in rows:
        room = max(width - 14, 20) if width is not None else len(text) + 1
        first, *more = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
        lines += [f"{name:<14}{first}", *(" " * 14 + line for line in more)]
    return "\n".join(lines)
