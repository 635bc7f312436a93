"""A cell as people draw it: nodes, and edges from one to another."""

from __future__ import annotations

from typing import NamedTuple

NONE = "none"


class CellGraph(NamedTuple):
    """The names of nodes, and edges (source, target, operation): places among the nodes, source before target.

    The operation of an edge is empty where nodes hold the operations, and `none` where the edge carries nothing.
    """

    nodes: tuple[str, ...]
    edges: tuple[tuple[int, int, str], ...]
