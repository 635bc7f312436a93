"""Layered layout of a graph: layers run from left to right, and every node is to the right of its inputs.

An edge has its own place in every layer that it passes, and so does the name of its operation, in a layer between two
layers of nodes, so nothing overlaps. Within a layer, places follow their neighbours (barycentres, as in Sugiyama,
Tagawa and Toda's method), and are as straight as the minimum distance allows.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import NamedTuple

from hnas.spaces.cell_graph import NONE, CellGraph

_SWEEPS = 24


class Place(NamedTuple):
    """A layer, from 0, and a height in text lines, growing upward."""

    layer: int
    height: float


class Route(NamedTuple):
    """The places of an edge from source to target; `named` is the place of its operation's name."""

    source: int
    target: int
    operation: str
    places: tuple[Place, ...]
    named: Place | None


class Layout(NamedTuple):
    """The place of each node, and the routes of all edges except those with no operation (`none`)."""

    nodes: tuple[Place, ...]
    routes: tuple[Route, ...]


def layout(graph: CellGraph) -> Layout:
    """Return places for the nodes and edges of `graph`."""
    depth = [0] * len(graph.nodes)
    for source, target, _ in sorted(graph.edges, key=lambda edge: edge[1]):
        depth[target] = max(depth[target], depth[source] + 1)
    drawn = [edge for edge in graph.edges if edge[2] != NONE]
    step = 2 if any(operation for _, _, operation in drawn) else 1
    # Vertices are the nodes, followed by one vertex per layer that an edge passes.
    layer_of = [step * d for d in depth]
    chains: list[list[int]] = []
    for source, target, _ in drawn:
        between = range(layer_of[source] + 1, layer_of[target])
        first = len(layer_of)
        layer_of.extend(between)
        chains.append([source, *range(first, first + len(between)), target])
    heights = _heights(layer_of, chains)
    places = [Place(layer, height) for layer, height in zip(layer_of, heights, strict=True)]
    routes = []
    for (source, target, operation), chain in zip(drawn, chains, strict=True):
        named = places[chain[len(chain) // 2]] if operation else None
        routes.append(Route(source, target, operation, tuple(places[v] for v in chain), named))
    return Layout(tuple(places[: len(graph.nodes)]), tuple(routes))


def _heights(layer_of: list[int], chains: list[list[int]]) -> list[float]:
    left: dict[int, list[int]] = defaultdict(list)
    right: dict[int, list[int]] = defaultdict(list)
    for chain in chains:
        for a, b in pairwise(chain):
            right[a].append(b)
            left[b].append(a)
    layers: list[list[int]] = [[] for _ in range(max(layer_of) + 1)]
    for vertex, layer in enumerate(layer_of):
        layers[layer].append(vertex)
    heights = [0.0] * len(layer_of)
    for vertices in layers:
        _put(vertices, [-float(i) for i in range(len(vertices))], heights)
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        last = sweep >= _SWEEPS - 4
        for vertices in layers if forward else reversed(layers):
            # First the order, from one side; in the last sweeps the distances, from both sides.
            sides = (left, right) if last else ((left,) if forward else (right,))
            desired = []
            for vertex in vertices:
                near = [heights[other] for side in sides for other in side[vertex]]
                desired.append(sum(near) / len(near) if near else heights[vertex])
            if not last:
                order = sorted(range(len(vertices)), key=lambda i: -desired[i])
                vertices[:] = [vertices[i] for i in order]
                desired = [desired[i] for i in order]
            _put(vertices, desired, heights)
    return heights


def _put(vertices: list[int], desired: list[float], heights: list[float]) -> None:
    """Set heights that fall by at least 1 between consecutive `vertices` and minimise the squares to `desired`.

    With h_i + i in place of h_i they must be non-increasing: isotonic regression by pooling adjacent violators.
    """
    blocks: list[tuple[float, int]] = []
    for i, height in enumerate(desired):
        mean, size = height + i, 1
        while blocks and blocks[-1][0] < mean:
            other, count = blocks.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        blocks.append((mean, size))
    means = [mean for mean, size in blocks for _ in range(size)]
    for i, (vertex, mean) in enumerate(zip(vertices, means, strict=True)):
        heights[vertex] = mean - i
