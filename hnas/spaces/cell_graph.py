"""A cell as it is drawn: nodes and directed edges."""

from __future__ import annotations

from typing import NamedTuple

NONE = "none"


class CellGraph(NamedTuple):
    """The names of the nodes, and edges (source, target, operation) as node indices, source before target.

    The operation of an edge is empty where nodes hold the operations, and `none` for an edge that carries nothing.
    """

    nodes: tuple[str, ...]
    edges: tuple[tuple[int, int, str], ...]
