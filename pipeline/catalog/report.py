"""The result of `hnas info` as text and JSON, and common lines of reports on averages."""

from __future__ import annotations

import json
from typing import Any

from hnas.pipeline.io.printable import printable
from hnas.pipeline.io.terminal_tables import table


def info_text(place: str, held: dict[str, list[dict[str, Any]]], width: int | None = None) -> str:
    """Return the contents of a store as tables."""
    lines = [f"store {printable(place)}"]
    for name, rows in held.items():
        lines += ["", name]
        if not rows:
            lines.append("  none")
            continue
        texts = [any(isinstance(row[key], str) for row in rows) for key in rows[0]]
        cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
        lines.append(table(cells, texts=texts, width=width, remedy="`hnas info --json` has all"))
    return "\n".join(lines)


def info_json(held: dict[str, list[dict[str, Any]]]) -> str:
    """Return the contents of a store as JSON."""
    return json.dumps(held, indent=2)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else printable(str(value))


def left_out_lines(count: int) -> list[str]:
    """Return how many architectures a mean over runs leaves out, if any."""
    return [f"left out: {count:,} architectures that are not in all of these runs"] if count else []
