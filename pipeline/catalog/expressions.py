"""SQL expressions over the columns of a pool, for `--by`, `--metric` and `--where`, and in saved searches.

A stored search may come from anyone, so an expression is parsed before DuckDB evaluates it. It may consist of columns,
constants, operators, CASE, CAST, windows and the functions below, none of which reads files or variables or is random.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import duckdb

from hnas.errors import UsageError, did_you_mean
from hnas.scores.registry import scores

# Functions of one row, and macros, two of them over ranks of all rows; the last ones are the operators LIKE and ILIKE.
_SCALAR = frozenset(
    (
        *("abs", "cbrt", "ceil", "exp", "floor", "greatest", "least", "ln", "log_rank", "log10", "log2", "objective"),
        *("pow", "rank_share", "round", "sign", "sqrt", "swap_regularised", "isfinite", "isinf", "isnan", "length"),
        *("lower", "upper", "contains", "starts_with", "regexp_matches", "~~", "!~~", "~~*", "!~~*"),
    )
)
# Aggregate functions, allowed with OVER.
_WINDOW = frozenset(("avg", "sum", "min", "max", "count", "count_star", "median", "stddev", "quantile_cont"))
_CLASSES = frozenset(
    (
        *("BETWEEN", "CASE", "CAST", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "OPERATOR"),
        *("TYPE", "WINDOW"),
    )
)

_TOO_DEEP = "has too many operations inside each other; an example is params < 1e6"


def check_expression(
    connection: duckdb.DuckDBPyConnection, expression: str, columns: Collection[str], what: str
) -> str:
    """Return `expression` if it is one SQL expression over `columns`. `what` names it in errors: `--where`.

    Raises `UsageError` if it is not SQL, uses other names, or could do more than compute a value.
    """
    if not expression.strip():
        raise UsageError(f"{what} is empty; give an expression over {', '.join(columns)}")
    quoted = f"{what} {expression!r:.200}"
    try:
        # Both in brackets, as it will be used, and without, so that `a) OR (b` is rejected.
        bare, parsed = (
            json.loads(connection.execute("SELECT json_serialize_sql(?)", [f"SELECT {text}"]).fetchall()[0][0])
            for text in (f"{expression}\n", f"({expression}\n)")
        )
    except (duckdb.Error, UnicodeEncodeError) as error:
        raise UsageError(f"{quoted} cannot be read as SQL; an example is params < 1e6") from error
    except RecursionError as error:
        raise UsageError(f"{quoted} {_TOO_DEEP}") from error
    if parsed["error"] or bare["error"]:
        if expression in columns:
            raise UsageError(f"{quoted} is also an SQL keyword; write it in double quotes, '\"{expression}\"'")
        reason = str((parsed if parsed["error"] else bare)["error_message"]).splitlines()[0]
        if reason.startswith("Max expression depth limit"):
            raise UsageError(f"{quoted} {_TOO_DEEP}")
        raise UsageError(f"{quoted} is not an SQL expression: {reason}; an example is params < 1e6")
    nodes = [statement["node"] for statement in parsed["statements"]]
    plain: dict[str, Any] = {"modifiers": [], "where_clause": None, "having": None, "qualify": None, "sample": None}
    if (
        len(nodes) != 1
        or nodes[0]["type"] != "SELECT_NODE"
        or len(nodes[0]["select_list"]) != 1
        or nodes[0]["from_table"]["type"] != "EMPTY"
        or any(nodes[0].get(name) != empty for name, empty in plain.items() if name in nodes[0])
    ):
        raise UsageError(f"{quoted} is not one SQL expression; an example is params < 1e6")
    named = False
    for node in _nodes(nodes[0]["select_list"]):
        name = str(node.get("function_name", "")).lower()
        if node["class"] == "COLUMN_REF":
            path = node["column_names"]
            names = {column.lower() for column in columns}
            if len(path) != 1 or path[0].lower() not in names:
                column = ".".join(path)
                named_in = "" if column == expression else f" named by {quoted}"
                mend = (
                    f"; the run's `hnas precompute` with --scores {column} computes it"
                    if column in scores
                    else did_you_mean(column, columns)
                )
                raise UsageError(f"the pool has no column {column!r:.100}{named_in}; it has {', '.join(columns)}{mend}")
            named = True
        elif node["class"] not in _CLASSES:
            raise UsageError(
                f"{quoted} has a part other than columns, numbers and comparisons; write an expression over the columns"
            )
        elif (node["class"] == "FUNCTION" and not node["is_operator"] and name not in _SCALAR) or (
            node["class"] == "WINDOW" and name not in _WINDOW and node["type"] == "WINDOW_AGGREGATE"
        ):
            over = f"; write {name}(…) OVER ()" if name in _WINDOW else ""
            raise UsageError(
                f"{quoted} calls {name!r:.60}, which is not allowed{over or '; it may call ' + ', '.join(_names())}"
            )
    if not named:
        raise UsageError(f"{quoted} uses no column of the pool; it has {', '.join(columns)}")
    return expression


def _names() -> list[str]:
    return sorted(name for name in _SCALAR if name.isidentifier())


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield every expression in a parsed statement, in the order of its text."""
    waiting = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if "class" in part:
                yield part
            waiting += reversed(part.values())
        elif isinstance(part, list):
            waiting += reversed(part)


def condition(where: str | None, *, max_params: float | None = None, max_flops: float | None = None) -> str | None:
    """Combine `--where`, `--max-params` and `--max-flops` into one condition on the pool, or None."""
    limits = (("params", max_params), ("flops", max_flops))
    for name, limit in limits:
        if limit is not None and not 0 < limit < math.inf:
            raise UsageError(
                f"--max-{name} {limit:g} leaves {'every' if limit > 0 else 'no'} architecture; give a positive number"
            )
    if where is not None and not where.strip():
        raise UsageError("--where is empty; an example is params < 1e6")
    # Brackets and newline, because a comment at the end of the user's condition must not hide the others.
    parts = [f"({where}\n)" if any(limit is not None for _, limit in limits) else where] if where is not None else []
    return " AND ".join(parts + [f"{name} <= {limit:.17g}" for name, limit in limits if limit is not None]) or None


def split_expressions(texts: Sequence[str]) -> list[str]:
    """Split lists of expressions at their commas; commas in brackets or quotes belong to an expression.

    Raises `UsageError` for brackets and quotes that are not closed.
    """
    expressions = []
    for text in texts:
        ends = [place for place, character in outside_brackets(text) if character == ","]
        expressions += [
            text[a:b].strip() for a, b in zip([0, *(end + 1 for end in ends)], [*ends, len(text)], strict=True)
        ]
    return expressions


def outside_brackets(text: str) -> Iterator[tuple[int, str]]:
    """Yield the characters of `text` outside brackets and quotes with their positions. Raises `UsageError`."""
    quote, opened = "", 0
    for place, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
            continue
        if character in "'\"":
            quote = character
            continue
        opened += (character in "([{") - (character in ")]}")
        if opened < 0:
            raise UsageError(f"{text!r:.200} closes a bracket that was never opened; remove it, or open it")
        if not opened and character not in ")]}":
            yield place, character
    if quote or opened:
        raise UsageError(f"{text!r:.200} opens {quote or 'a bracket'} and does not close it; close it")
