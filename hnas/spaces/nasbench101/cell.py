"""A cell of NAS-Bench-101: parsing and pruning, canonical labelling, hash, channels.

A cell is a directed acyclic graph of 2 to 7 vertices and at most 9 edges, numbered so that edges go to higher numbers.
Vertex 0 is the input, the last one the output, and each vertex in between holds one of three operations. `inputs[v]`
has bit u set if u → v, so the benchmark's number of an adjacency matrix (`graph_util.gen_is_edge_fn`) is

    bits = Σ_v inputs[v] · 2^(v (v − 1) / 2)

Source: Ying, Klein, Christiansen, Real, Murphy, Hutter, "NAS-Bench-101: Towards Reproducible Neural Architecture
Search", ICML 2019, and its program, google-research/nasbench.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import md5

from hnas.errors import UsageError
from hnas.spaces.nasbench101.text import read_printed

INPUT, OUTPUT = "input", "output"
#: The index of an operation here is the label with which the benchmark hashes it.
OPERATIONS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
#: Kernel side by label; a pooling owns no weights.
KERNELS = (3, 1, 0)
MAX_VERTICES = 7
MAX_EDGES = 9

EXAMPLE = "input,conv3x3-bn-relu,maxpool3x3,output:0110001000010000"

_LABELS = {name: label for label, name in enumerate(OPERATIONS)}
_LONGEST = 200  # characters; a cell has at most 142


@dataclass(frozen=True, slots=True)
class NASBench101Cell:
    """A pruned cell: `inputs[v]`, the vertices that vertex v reads as a bit set, and the interior `labels`."""

    inputs: tuple[int, ...]
    labels: tuple[int, ...]

    def __str__(self) -> str:
        """Return the benchmark's `raw_operations`, a colon, and its `raw_adjacency` row by row."""
        operations = ",".join((INPUT, *(OPERATIONS[label] for label in self.labels), OUTPUT))
        return f"{operations}:{adjacency_text(self.inputs)}"


@lru_cache(maxsize=4096)
def adjacency_text(inputs: tuple[int, ...]) -> str:
    """Return the adjacency matrix row by row: `1` at position V u + v if u → v."""
    return "".join("01"[into >> u & 1] for u in range(len(inputs)) for into in inputs)


def parse_definition(text: str) -> NASBench101Cell:
    """Return the pruned cell of a text such as `input,maxpool3x3,output:011001000`, or a printed form (`read_printed`).

    Raises `UsageError` for a malformed text.
    """
    printed = read_printed(text)
    if printed is not None:
        return make_cell(*printed)
    if len(text) > _LONGEST or text.count(":") != 1:
        shown = text if len(text) <= 120 else text[:117] + "..."
        raise UsageError(
            "a NAS-Bench-101 architecture must be a module hash of 32 hexadecimal digits, or operations and adjacency "
            f"matrix such as {EXAMPLE}, got {shown!r}"
        )
    names, bits = text.strip().split(":")
    operations = names.split(",")
    wrong = bits.strip("01")
    if wrong:
        raise UsageError(f"the adjacency matrix {bits!r} of {text!r} must consist of 0 and 1, but holds {wrong[0]!r}")
    v = len(operations)
    if len(bits) != v * v:
        raise UsageError(
            f"the adjacency matrix of {text!r} must have {v} × {v} = {v * v} entries for {v} operations, "
            f"but has {len(bits)}"
        )
    return make_cell([[int(bit) for bit in bits[v * u : v * u + v]] for u in range(v)], operations)


def make_cell(adjacency: Sequence[Sequence[int]], operations: Sequence[str]) -> NASBench101Cell:
    """Return the pruned cell of an adjacency matrix (V, V) and V operation names.

    The matrix is a nested sequence of 0 and 1, or an array (np.ndarray, np.matrix, a tensor). Raises `UsageError` where
    the cell is not in the benchmark. Edges are counted after pruning, as in the benchmark.
    """
    if hasattr(adjacency, "tolist"):  # rows of np.matrix are matrices
        adjacency = adjacency.tolist()
    try:
        v, widths = len(operations), [len(row) for row in adjacency]
    except TypeError as error:
        raise UsageError(
            "a NAS-Bench-101 cell must be an adjacency matrix and a list of operations, got "
            f"{type(adjacency).__name__} and {type(operations).__name__}"
        ) from error
    if not 2 <= v <= MAX_VERTICES:
        raise UsageError(f"a NAS-Bench-101 cell must have 2 to {MAX_VERTICES} vertices, got {v}")
    if operations[0] != INPUT or operations[-1] != OUTPUT:
        raise UsageError(
            f"the operations of a cell must begin with '{INPUT}' and end with '{OUTPUT}', got {operations[0]!r} and "
            f"{operations[-1]!r}"
        )
    for name in operations[1:-1]:
        if name not in _LABELS:
            raise UsageError(f"operation {name!r} is unknown; choose from {', '.join(OPERATIONS)}")
    if widths != [v] * v:
        raise UsageError(f"the adjacency matrix of a cell of {v} vertices must be {v} × {v}")
    inputs = [0] * v
    for source, row in enumerate(adjacency):
        for target, entry in enumerate(row):
            if entry not in (0, 1):
                raise UsageError(f"entry {source}, {target} of the adjacency matrix must be 0 or 1, got {entry}")
            if entry and source >= target:
                raise UsageError(
                    "the adjacency matrix must be upper triangular, but has an edge from vertex "
                    f"{source} to vertex {target}"
                )
            inputs[target] |= int(entry) << source
    cell = pruned(inputs, [_LABELS[name] for name in operations[1:-1]])
    edges = count_edges(cell.inputs)
    if edges > MAX_EDGES:
        raise UsageError(f"a NAS-Bench-101 cell must have at most {MAX_EDGES} edges, got {edges}")
    return cell


def pruned(inputs: list[int], labels: list[int]) -> NASBench101Cell:
    """Return the cell without vertices that are on no path from input to output."""
    last = len(inputs) - 1
    reached = 1
    for v in range(1, last + 1):
        if inputs[v] & reached:
            reached |= 1 << v
    used = 1 << last
    for v in range(last, 0, -1):
        if used >> v & 1:
            used |= inputs[v]
    live = [v for v in range(last + 1) if reached & used & 1 << v]
    if last not in live:
        raise UsageError("a cell must have a path from its input to its output, but this one has none")
    return NASBench101Cell(renumbered(inputs, live), tuple(labels[v - 1] for v in live[1:-1]))


def renumbered(inputs: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Return `inputs` of the vertices in `order`, renumbered in that order."""
    return tuple(sum((inputs[v] >> u & 1) << place for place, u in enumerate(order)) for v in order)


def count_edges(inputs: tuple[int, ...]) -> int:
    """Return the number of edges."""
    return sum(into.bit_count() for into in inputs)


@lru_cache(maxsize=4096)
def depth(inputs: tuple[int, ...]) -> int:
    """Return the number of edges on the longest path from input to output."""
    longest = [0] * len(inputs)
    for v, into in enumerate(inputs):
        longest[v] = max((longest[u] + 1 for u in range(v) if into >> u & 1), default=0)
    return longest[-1]


@lru_cache(maxsize=4096)
def width(inputs: tuple[int, ...]) -> int:
    """Return the number of edges of the largest directed cut.

    A directed cut consists of the edges from a set of vertices that no edge enters to all other vertices.
    """
    last = len(inputs) - 1
    members = [[v for v in range(last) if left >> v & 1] for left in range(1 << last)]
    closed = (left for left in range(1, 1 << last, 2) if not any(inputs[v] & ~left for v in members[left]))
    return max(sum((inputs[v] & left).bit_count() for v in range(last + 1) if not left >> v & 1) for left in closed)


def canonical_labelling(cell: NASBench101Cell) -> NASBench101Cell:
    """Return the first labelling of `cell`'s isomorphism class: the smallest `bits`, then the smallest `labels`.

    The benchmark's `generate_graphs.py` meets this labelling first and keeps it for the class, so quantities that
    depend on the order of vertices (see `vertex_channels`) equal the benchmark's own. Tries every topological order, of
    which a cell has at most 60, and 3 on average.
    """
    last = len(cell.inputs) - 1
    best: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    for order in _orders(cell.inputs, (0,), 1):
        inputs = renumbered(cell.inputs, (*order, last))
        key = (inputs[::-1], tuple(cell.labels[v - 1] for v in order[1:]))  # the last vertex has the highest bits
        if best is None or key < best:
            best = key
    assert best is not None
    return NASBench101Cell(best[0][::-1], best[1])


def _orders(inputs: tuple[int, ...], order: tuple[int, ...], placed: int) -> Iterator[tuple[int, ...]]:
    """Yield the topological orders of all vertices but the last that start with `order`; `placed` are its bits."""
    if len(order) == len(inputs) - 1:
        yield order
        return
    for v in range(1, len(inputs) - 1):
        if not placed >> v & 1 and not inputs[v] & ~placed:
            yield from _orders(inputs, (*order, v), placed | 1 << v)


def cell_hash(cell: NASBench101Cell) -> str:
    """Return the benchmark's module hash, `graph_util.hash_module`: 32 hexadecimal digits, invariant to isomorphism.

    With `h_v = md5(str((out-degree, in-degree, label)))`, label −1 for the input and −2 for the output, V times

        h_v ← md5(sorted h of in-neighbours, "|", sorted h of out-neighbours, "|", h_v)

    and the hash is md5(str(sorted h)).
    """
    n = len(cell.inputs)
    into = [[u for u in range(n) if cell.inputs[v] >> u & 1] for v in range(n)]
    out = [[v for v in range(n) if cell.inputs[v] >> u & 1] for u in range(n)]
    labels = (-1, *cell.labels, -2)
    hashes = [_md5(str((len(out[v]), len(into[v]), labels[v]))) for v in range(n)]
    for _ in range(n):
        hashes = [
            _md5(f"{_sorted(read, hashes)}|{_sorted(reading, hashes)}|{own}")
            for read, reading, own in zip(into, out, hashes, strict=True)
        ]
    return _md5(str(sorted(hashes)))


def _sorted(vertices: Sequence[int], hashes: Sequence[str]) -> str:
    if len(vertices) == 1:  # half of all lists; this matters because evolution hashes a lot
        return hashes[vertices[0]]
    return "".join(sorted([hashes[v] for v in vertices]))


def _md5(text: str) -> str:
    return md5(text.encode(), usedforsecurity=False).hexdigest()


def vertex_channels(inputs: tuple[int, ...], channels: int) -> tuple[int, ...]:
    """Return the channels of each vertex of a module with `channels` output channels; 0 for the input.

    The output concatenates the interior vertices that feed it, with equal shares; the first ones get one more if
    `channels` is not divisible. Any other interior vertex has as many channels as the widest vertex that it feeds.
    Channels never increase along interior edges, so a vertex drops the channels that it does not need.
    """
    last = len(inputs) - 1
    widths = [0] * last + [channels]
    feeding = [v for v in range(1, last) if inputs[last] >> v & 1]
    for place, v in enumerate(feeding):
        widths[v] = channels // len(feeding) + (place < channels % len(feeding))
    for v in range(last - 1, 0, -1):
        if not inputs[last] >> v & 1:
            widths[v] = max(widths[w] for w in range(v + 1, last) if inputs[w] >> v & 1)
    return tuple(widths)


def check_image_size(size: int) -> None:
    """Raise `UsageError` unless images of `size` × `size` pixels can be halved twice."""
    if size < 4 or size % 4:
        raise UsageError(f"the side of images for NAS-Bench-101 must be a multiple of 4, got {size} pixels")
