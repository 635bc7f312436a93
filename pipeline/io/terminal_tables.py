"""Tables and lines that fit a terminal, cut with a hint if necessary. Without a terminal they stay complete.

The tables of `rich` would cut numbers too, down to a single character, instead of omitting columns and naming them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TextIO

from rich.cells import cell_len, set_cell_size

_USUAL_WIDTH = 80

#: The minimum width of a text column.
LEAST_TEXT = 12


def terminal_width(stream: TextIO) -> int | None:
    """Return the width in characters of the terminal that `stream` writes to ($COLUMNS wins), or None without one."""
    if not stream.isatty():
        return None
    variable = os.environ.get("COLUMNS", "")
    if variable.isdecimal() and int(variable):
        return int(variable)
    try:
        return os.get_terminal_size(stream.fileno()).columns or _USUAL_WIDTH
    except (OSError, ValueError):
        return _USUAL_WIDTH


def fitted(widths: Sequence[int], least: Sequence[int], available: int | None) -> list[int]:
    """Return the widths of the leading columns that fit into `available`, separated by two spaces.

    The widest shrink first, none below its `least`. At least one column remains.
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
    """Return `text` cut to at most `width` columns, ending in a mark if anything is missing."""
    return text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + mark


def hidden_columns(shown: int, names: Sequence[str], remedy: str) -> str:
    """Return the hint below a table of which only the first `shown` columns are visible."""
    hidden = names[shown:]
    listed = ", ".join(hidden[:4]) + (", …" if len(hidden) > 4 else "")
    return f"… {len(hidden)} more {'column' if len(hidden) == 1 else 'columns'}, {remedy}: {listed}"


def table(rows: list[list[str]], *, texts: Sequence[bool], width: int | None = None, remedy: str) -> str:
    """Format rows of cells, the first of them the header, as aligned text; columns of `texts` are left-aligned.

    If the table is wider than `width`, texts are cut; then the last columns are omitted and named in a hint with the
    `remedy`.
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
    """Format pairs of a name and a text, one per line, wrapped at spaces to the width of the terminal."""
    import textwrap

    lines = []
    for name, text in rows:
        room = max(width - 14, 20) if width is not None else len(text) + 1
        first, *more = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
        lines += [f"{name:<14}{first}", *(" " * 14 + line for line in more)]
    return "\n".join(lines)
