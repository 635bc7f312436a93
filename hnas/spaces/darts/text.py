"""Parsing of printed DARTS genotypes, without executing any of the text.

    Genotype(normal=[…], normal_concat=range(2, 6), reduce=[…], reduce_concat=range(2, 6))     DARTS prints this
    MINE = genotypes.Genotype([…], [2, 3, 4, 5], […], list(range(2, 6)))  # 2.6 %              a line of a module
    01/02 03:04:05 AM genotype = Genotype(…)                                                   a line of a log
    {'normal': […], 'normal_concat': […], 'reduce': […], 'reduce_concat': […]}                 a dictionary, JSON

Edges are pairs `('sep_conv_3x3', 1)`, pairs of such pairs (one per node), or triples with a weight, as GDAS prints
them. Numbers may be numpy's, as in `np.int64(1)`; comments and line breaks may be anywhere.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

#: The fields in positional order.
FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
#: Maximum number of characters of a genotype.
LONGEST = 4000

Edge = tuple[str, int]

# Further fields in architectures of other programs, empty for cells of this space.
_FURTHER_FIELDS = ("connectN", "connects")
_LARGEST_NUMBER = 99
_START = re.compile(r"\bGenotype\s*(?=\()")
# Text before a genotype: a name and `=`, a module and a dot, the time and level of a log line.
_BEFORE = re.compile(r"""(?:[^()'"#{}]*[\s=.:\]])?""", re.DOTALL)
_AFTER = re.compile(r"[\s,;]*")
_COMMENT = re.compile(r"#[^\n]*")
# Only these words of a genotype reach Python's parser, and hence nothing that it would warn about.
_WRITTEN = re.compile(
    r"""(?>\s+|[()\[\]{},=:]|'\w*'|"\w*"|\d+(?:\.\d*)?(?:e[+-]?\d+)?(?![\w.])|(?:np|numpy)\.[a-z]\w*|[a-z_]\w*)*+""",
    re.ASCII | re.IGNORECASE,
)
# Calls that wrap a value: np.int64(2), list(range(2, 6)), np.array([2, 3]).
_AROUND = re.compile(r"(?:(?:np|numpy)\.)?(?:list|tuple|array|u?int\d*|int_|str_|float\d*)")


def genotypes_in(text: str) -> Iterator[tuple[int, str]]:
    """Yield each genotype in a module or log, with the number of its first line, from 1."""
    without = _COMMENT.sub(lambda comment: " " * len(comment[0]), text)
    for start in _START.finditer(without):
        end = _closed(without, start.end()) or start.end() + 1  # `parse_genotype` refuses a truncated genotype
        yield without.count("\n", 0, start.start()) + 1, without[start.start() : end]


def read_fields(text: str) -> dict[str, ast.expr] | None:
    """Return the unparsed fields of a genotype by name, which may differ from `FIELDS`; None if there is none."""
    text = _COMMENT.sub("", text)
    start = _START.search(text)
    first = start.end() if start else text.find("{")
    end = _closed(text, first) if first >= 0 else None
    begin = start.start() if start else first
    if end is None or not _BEFORE.fullmatch(text[:begin]) or not _AFTER.fullmatch(text[end:]):
        return None
    written = text[begin:end]
    if not _WRITTEN.fullmatch(written):
        return None
    try:
        value = ast.parse(written, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    pairs = _named(value)
    fields = dict(pairs)
    if len(fields) < len(pairs):
        return {}
    return {name: value for name, value in fields.items() if name not in _FURTHER_FIELDS or not _is_none(value)}


def _named(value: ast.expr) -> list[tuple[str, ast.expr]]:
    if isinstance(value, ast.Dict):
        keys = [key.value if isinstance(key, ast.Constant) else None for key in value.keys]
        return [(str(key), entry) for key, entry in zip(keys, value.values, strict=True)]
    if not isinstance(value, ast.Call):
        return []
    if value.args and not value.keywords and len(value.args) in (len(FIELDS), len(FIELDS + _FURTHER_FIELDS)):
        return list(zip(FIELDS + _FURTHER_FIELDS, value.args, strict=False))
    named = [(str(keyword.arg), keyword.value) for keyword in value.keywords]
    return named if not value.args else []


def read_edges(node: ast.expr) -> list[Edge] | None:
    """Return the edges of a cell, None if the expression is not a list of edges."""
    edges = []
    for element in _elements(node) or ():
        parts = _elements(element) or []
        of_a_node = len(parts) == 2 and all(_elements(part) is not None for part in parts)
        for pair in parts if of_a_node else [element]:
            edge = _edge(pair)
            if edge is None:
                return None
            edges.append(edge)
    return None if _elements(node) is None else edges


def _edge(node: ast.expr) -> Edge | None:
    parts = _elements(node)
    if parts is None or len(parts) not in (2, 3):
        return None
    if len(parts) == 3 and type(_constant(parts[2])) is not float:  # the edge's weight in a search
        return None
    name, states = _constant(parts[0]), _integers(parts[1:2])
    return (name, states[0]) if isinstance(name, str) and states is not None else None


def read_concat(node: ast.expr) -> list[int] | None:
    """Return the nodes that a cell concatenates, None if the expression is neither a list of numbers nor a range."""
    node = _inner(node)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        ends = _integers(node.args)
        return None if ends is None or len(ends) != 2 or node.keywords else list(range(*ends))
    elements = _elements(node)
    return None if elements is None else _integers(elements)


def _closed(text: str, start: int) -> int | None:
    """Return the end of the bracket that opens at `start`, None if it does not close."""
    depth = 0
    for place in range(start, min(len(text), start + LONGEST)):
        depth += (text[place] in "([{") - (text[place] in ")]}")
        if depth == 0:
            return place + 1
    return None


def _elements(node: ast.expr) -> list[ast.expr] | None:
    node = _inner(node)
    return node.elts if isinstance(node, ast.List | ast.Tuple) else None


def _inner(node: ast.expr) -> ast.expr:
    while (
        isinstance(node, ast.Call)
        and len(node.args) == 1
        and not node.keywords
        and _AROUND.fullmatch(ast.unparse(node.func))
    ):
        node = node.args[0]
    return node


def _constant(node: ast.expr) -> object:
    node = _inner(node)
    return node.value if isinstance(node, ast.Constant) else None


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _integers(nodes: Sequence[ast.expr]) -> list[int] | None:
    values = list(map(_constant, nodes))
    integers = [value for value in values if type(value) is int and value <= _LARGEST_NUMBER]
    return integers if len(integers) == len(values) else None
