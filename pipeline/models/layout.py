"""Where the nodes and edges of a graph are drawn: in layers from left to right, each node right of all that it reads.

An edge that passes a layer has a place of its own there, and so has the name of its operation, which stands on a layer
between two of nodes: nothing is drawn over anything else. Places within a layer follow those of the neighbours
(barycentres, as Sugiyama, Tagawa and Toda draw hierarchies), with as much straightness as their distance allows.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import NamedTuple

from hnas.spaces.cell_graph import NONE, CellGraph

_SWEEPS = 24


class Place(NamedTuple):
    """A layer, from 0, and a height in units of one line of text, growing upward."""

    layer: int
    height: float


class Route(NamedTuple):
    """The places of an edge, from its source to its target; `named` is that of its operation's name."""

    source: int
    target: int
    operation: str
    places: tuple[Place, ...]
    named: Place | None


class Layout(NamedTuple):
    """The place of each node, and the routes of the edges that carry something."""

    nodes: tuple[Place, ...]
    routes: tuple[Route, ...]


def layout(graph: CellGraph) -> Layout:
    """Places for the nodes and edges of `graph`."""
    depth = [0] * len(graph.nodes)
    for source, target, _ in sorted(graph.edges, key=lambda edge: edge[1]):
        depth[target] = max(depth[target], depth[source] + 1)
    drawn = [edge for edge in graph.edges if edge[2] != NONE]
    step = 2 if any(operation for _, _, operation in drawn) else 1
    # Vertices are the nodes, then a vertex for each layer that an edge passes.
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
            # The order first, from one side; then the distances, from both.
            sides = (left, right) if last else ((left,) if forward else (right,))
            wanted = []
            for vertex in vertices:
                near = [heights[other] for side in sides for other in side[vertex]]
                wanted.append(sum(near) / len(near) if near else heights[vertex])
            if not last:
                order = sorted(range(len(vertices)), key=lambda i: -wanted[i])
                vertices[:] = [vertices[i] for i in order]
                wanted = [wanted[i] for i in order]
            _put(vertices, wanted, heights)
    return heights


def _put(vertices: list[int], wanted: list[float], heights: list[float]) -> None:
    """Heights that fall by 1 or more from each of `vertices` to the next, nearest to `wanted` in squares.

    With h_i + i in place of h_i they must fall or stay: an isotonic regression, by pooling what rises.
    """
    blocks: list[tuple[float, int]] = []
    for i, height in enumerate(wanted):
        mean, size = height + i, 1
        while blocks and blocks[-1][0] < mean:
            other, count = blocks.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        blocks.append((mean, size))
    means = [mean for mean, size in blocks for _ in range(size)]
    for i, (vertex, mean) in enumerate(zip(vertices, means, strict=True)):
        heights[vertex] = mean - i
