"""Reproductions as tables for the terminal, Markdown, LaTeX and JSON."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hnas.pipeline.io.latex import latex_row
from hnas.pipeline.io.printable import printable
from hnas.pipeline.io.terminal_tables import table
from hnas.pipeline.reproduction.results import Missing, Reproduction, Section, Value

FORMATS = ("table", "markdown", "latex", "json")

_MARKS = {"reached": "✓", "within": "≈", "not reached": "✗"}


def written(reproductions: Sequence[Reproduction], form: str, width: int | None = None) -> str:
    """The reproductions in one of `FORMATS`; tables for the terminal are `width` characters wide."""
    if form == "json":
        return json.dumps({"reproductions": [_object(one) for one in reproductions]}, indent=2, allow_nan=False)
    if form == "table":
        return "\n\n\n".join(_text(one, width) for one in reproductions)
    return "\n\n".join({"markdown": _markdown, "latex": _latex}[form](one) for one in reproductions)


def _text(reproduction: Reproduction, width: int | None) -> str:
    blocks = [reproduction.title]
    for section in reproduction.sections:
        rows = [_head(section, remarks=True)]
        rows += [[row.name, *map(_short, row.values), *_remark(section, row.remark)] for row in section.rows]
        lines = [*_wrapped([section.heading], width), _terminal_table(section, rows, width)]
        blocks.append("\n".join(lines))
        uncertain = [row for row in section.rows if any(value and value.low is not None for value in row.values)]
        if uncertain:
            rows = [_head(section, remarks=False), *([row.name, *map(_interval, row.values)] for row in uncertain)]
            blocks.append("\n".join(["95 % intervals", _terminal_table(section, rows, width)]))
    closing = (_legend(reproduction), [_missing(one) for one in reproduction.missing], reproduction.notes)
    blocks += ["\n".join(_wrapped(sentences, width)) for sentences in closing if sentences]
    return "\n\n".join(blocks)


def _head(section: Section, *, remarks: bool) -> list[str]:
    return [section.first, *section.columns, *(["remark"] if remarks and _remarked(section) else [])]


def _remarked(section: Section) -> bool:
    return any(row.remark for row in section.rows)


def _remark(section: Section, text: str) -> list[str]:
    return [text] if _remarked(section) else []


def _terminal_table(section: Section, rows: list[list[str]], width: int | None) -> str:
    shown = [[printable(cell) for cell in row] for row in rows]
    texts = [True, *[False] * len(section.columns), *[True] * (len(rows[0]) - len(section.columns) - 1)]
    return table(shown, texts=texts, width=width, remedy="`--format markdown` has all")


def _wrapped(sentences: Sequence[str], width: int | None) -> list[str]:
    lines = [printable(sentence) for sentence in sentences]
    return lines if width is None else [part for line in lines for part in textwrap.wrap(line, width)]


def _legend(reproduction: Reproduction) -> list[str]:
    """The legend, and the numbers that are not reached, grouped by reason."""
    values = [value for section in reproduction.sections for row in section.rows for value in row.values if value]
    if all(value.verdict == "not printed" for value in values):
        return ["not printed: the paper shows these numbers only in a picture"] if values else []
    by_reason: dict[str, list[str]] = {}
    for section in reproduction.sections:
        for row in section.rows:
            for column, value in zip(section.columns, row.values, strict=True):
                if value and value.verdict == "not reached":
                    where = f"{row.name} {column}" + (f" ({section.short})" if len(reproduction.sections) > 1 else "")
                    by_reason.setdefault(value.reason, []).append(where)
    return [reproduction.legend, *(f"✗ {', '.join(names)}: {reason}" for reason, names in by_reason.items())]


def _missing(missing: Missing) -> str:
    commands = ", then ".join(f"`{command}`" for command in missing.commands)
    return f"missing: {missing.what}; get it with {commands}, which takes {missing.takes}"


def _markdown(reproduction: Reproduction) -> str:
    blocks = [f"## {reproduction.title}"]
    for section in reproduction.sections:
        lines = [_head(section, remarks=True), ["---"] * len(_head(section, remarks=True))]
        lines += [[row.name, *map(_whole, row.values), *_remark(section, row.remark)] for row in section.rows]
        body = [f"| {' | '.join(printable(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines]
        blocks.append(f"{printable(section.heading)}:\n\n" + "\n".join(body))
    sentences = [*_legend(reproduction), *(_missing(one) for one in reproduction.missing), *reproduction.notes]
    if sentences:
        blocks.append("\n".join(f"* {printable(sentence)}" for sentence in sentences))
    return "\n\n".join(blocks)


def _latex(reproduction: Reproduction) -> str:
    """A `tabular` for each section, with `booktabs` rules; titles and notes become comments."""
    lines = [
        f"% {printable(sentence)}" for sentence in (reproduction.title, *_legend(reproduction), *reproduction.notes)
    ]
    lines += [f"% {printable(_missing(one))}" for one in reproduction.missing]
    for section in reproduction.sections:
        head = _head(section, remarks=True)
        remarks = "l" * (len(head) - len(section.columns) - 1)
        lines += ["", f"% {printable(section.heading)}"]
        lines += [rf"\begin{{tabular}}{{l{'r' * len(section.columns)}{remarks}}}", r"\toprule", latex_row(head)]
        lines += [r"\midrule"]
        lines += [
            latex_row([row.name, *map(_whole, row.values), *_remark(section, row.remark)]) for row in section.rows
        ]
        lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines)


def _object(reproduction: Reproduction) -> dict[str, Any]:
    """The JSON object: a record for each value, what is missing, and the notes. Absent fields are null."""
    return {
        "what": reproduction.what,
        "title": reproduction.title,
        "values": [
            {
                "table": section.heading,
                "row": row.name,
                "column": column,
                **{name: _finite(number) for name, number in asdict(value).items() if name != "form"},
                "deviation": _finite(value.deviation),
                "reason": value.reason or None,
            }
            for section in reproduction.sections
            for row in section.rows
            for column, value in zip(section.columns, row.values, strict=True)
            if value is not None
        ],
        "missing": [asdict(one) for one in reproduction.missing],
        "notes": list(reproduction.notes),
    }


def _finite(number: Any) -> Any:
    """A number that JSON can hold: infinity and NaN become strings."""
    return str(number) if isinstance(number, float) and not math.isfinite(number) else number


def _number(value: Value, number: float) -> str:
    return f"{number:,{value.form}}"


def _short(value: Value | None) -> str:
    """`0.70 ± 0.02 (0.75) ≈`: our number, its spread, the published number and the verdict."""
    if value is None:
        return ""
    return " ".join(filter(None, (_ours(value), _published(value), _MARKS.get(value.verdict, ""))))


def _whole(value: Value | None) -> str:
    """As `_short`, with the interval."""
    if value is None:
        return ""
    return " ".join(filter(None, (_ours(value), _interval(value), _published(value), _MARKS.get(value.verdict, ""))))


def _ours(value: Value) -> str:
    if value.ours is None:
        return ""
    spread = "" if value.spread is None else f" ± {_number(value, value.spread)}"
    return _number(value, value.ours) + spread


def _interval(value: Value | None) -> str:
    if value is None or value.low is None or value.high is None:
        return ""
    return f"[{_number(value, value.low)}, {_number(value, value.high)}]"


def _published(value: Value) -> str:
    if value.published is None:
        return ""
    spread = "" if value.published_spread is None else f" ± {_number(value, value.published_spread)}"
    return f"({_number(value, value.published)}{spread})"
