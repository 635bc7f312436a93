"""A cell of NAS-Bench-101: reading and pruning it, its canonical labelling, its hash, its channels.

A cell is a directed acyclic graph of 2 to 7 vertices and at most 9 edges, numbered so that edges lead upward. Vertex 0
is the input, the last one the output, each vertex between them holds one of three operations. `inputs[v]` has bit u
set where u → v, so the benchmark's number of an adjacency matrix (`graph_util.gen_is_edge_fn`) is

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
#: The labels under which the benchmark hashes its operations are their places here.
OPERATIONS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
#: Kernel side by label; a pooling owns no weights.
KERNELS = (3, 1, 0)
MAX_VERTICES = 7
MAX_EDGES = 9

EXAMPLE = "input,conv3x3-bn-relu,maxpool3x3,output:0110001000010000"

_LABELS = {name: label for label, name in enumerate(OPERATIONS)}
_LONGEST = 200  # characters; a cell takes 142 at most


@dataclass(frozen=True, slots=True)
class NASBench101Cell:
    """A pruned cell: `inputs[v]`, the set of vertices that vertex v reads as bits, and the `labels` of the interior."""

    inputs: tuple[int, ...]
    labels: tuple[int, ...]

    def __str__(self) -> str:
        """The benchmark's `raw_operations`, a colon, its `raw_adjacency` row by row."""
        operations = ",".join((INPUT, *(OPERATIONS[label] for label in self.labels), OUTPUT))
        return f"{operations}:{adjacency_text(self.inputs)}"


@lru_cache(maxsize=4096)
def adjacency_text(inputs: tuple[int, ...]) -> str:
    """The adjacency matrix row by row: `1` at place V u + v where u → v."""
    return "".join("01"[into >> u & 1] for u in range(len(inputs)) for into in inputs)


def parse_definition(text: str) -> NASBench101Cell:
    """The pruned cell of a text such as `input,maxpool3x3,output:011001000`, or as programs print it (`read_printed`).

    Raises `UsageError` saying what is off.
    """
    printed = read_printed(text)
    if printed is not None:
        return make_cell(*printed)
    if len(text) > _LONGEST or text.count(":") != 1:
        shown = text if len(text) <= 120 else text[:117] + "..."
        raise UsageError(
            f"{shown!r} is no NAS-Bench-101 architecture; give a module hash of 32 hexadecimal digits, or operations "
            f"and adjacency matrix such as {EXAMPLE}"
        )
    names, bits = text.strip().split(":")
    operations = names.split(",")
    wrong = bits.strip("01")
    if wrong:
        raise UsageError(f"the adjacency matrix {bits!r} of {text!r} holds {wrong[0]!r}; it must consist of 0 and 1")
    v = len(operations)
    if len(bits) != v * v:
        raise UsageError(
            f"{text!r} has {v} operations and {len(bits)} entries of an adjacency matrix; "
            f"{v} × {v} = {v * v} are needed"
        )
    return make_cell([[int(bit) for bit in bits[v * u : v * u + v]] for u in range(v)], operations)


def make_cell(adjacency: Sequence[Sequence[int]], operations: Sequence[str]) -> NASBench101Cell:
    """The pruned cell of an adjacency matrix (V, V) and V operation names.

    The matrix is a nested sequence of 0 and 1, or an array (np.ndarray, np.matrix, a tensor). Raises `UsageError` where
    it is no cell of the benchmark. Edges are counted after pruning, as the benchmark does.
    """
    if hasattr(adjacency, "tolist"):  # a row of np.matrix is a matrix again
        adjacency = adjacency.tolist()
    try:
        v, widths = len(operations), [len(row) for row in adjacency]
    except TypeError as error:
        raise UsageError(
            f"a NAS-Bench-101 cell is an adjacency matrix and a list of operations, not {type(adjacency).__name__} and "
            f"{type(operations).__name__}"
        ) from error
    if not 2 <= v <= MAX_VERTICES:
        raise UsageError(f"a cell of {v} vertices is no NAS-Bench-101 cell; it has 2 to {MAX_VERTICES}")
    if operations[0] != INPUT or operations[-1] != OUTPUT:
        raise UsageError(
            f"the operations of a cell begin with '{INPUT}' and end with '{OUTPUT}', not with {operations[0]!r} and "
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
                raise UsageError(f"entry {source}, {target} of the adjacency matrix is {entry}; it must be 0 or 1")
            if entry and source >= target:
                raise UsageError(
                    f"the adjacency matrix has an edge from vertex {source} to vertex {target}; "
                    "edges lead from a vertex to a later one (an upper triangular matrix)"
                )
            inputs[target] |= int(entry) << source
    cell = pruned(inputs, [_LABELS[name] for name in operations[1:-1]])
    edges = count_edges(cell.inputs)
    if edges > MAX_EDGES:
        raise UsageError(f"the cell has {edges} edges; a NAS-Bench-101 cell has {MAX_EDGES} at most")
    return cell


def pruned(inputs: list[int], labels: list[int]) -> NASBench101Cell:
    """The cell without the vertices that are on no path from input to output."""
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
        raise UsageError("no path leads from the cell's input to its output; at least one is needed")
    return NASBench101Cell(renumbered(inputs, live), tuple(labels[v - 1] for v in live[1:-1]))


def renumbered(inputs: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """`inputs` of the vertices `order`, numbered as they stand there."""
    return tuple(sum((inputs[v] >> u & 1) << place for place, u in enumerate(order)) for v in order)


def count_edges(inputs: tuple[int, ...]) -> int:
    """The number of edges."""
    return sum(into.bit_count() for into in inputs)


@lru_cache(maxsize=4096)
def depth(inputs: tuple[int, ...]) -> int:
    """The number of edges on the longest path from input to output."""
    longest = [0] * len(inputs)
    for v, into in enumerate(inputs):
        longest[v] = max((longest[u] + 1 for u in range(v) if into >> u & 1), default=0)
    return longest[-1]


@lru_cache(maxsize=4096)
def width(inputs: tuple[int, ...]) -> int:
    """The edges of the largest directed cut: of those between a set of vertices that nothing enters and the rest."""
    last = len(inputs) - 1
    members = [[v for v in range(last) if left >> v & 1] for left in range(1 << last)]
    closed = (left for left in range(1, 1 << last, 2) if not any(inputs[v] & ~left for v in members[left]))
    return max(sum((inputs[v] & left).bit_count() for v in range(last + 1) if not left >> v & 1) for left in closed)


def canonical_labelling(cell: NASBench101Cell) -> NASBench101Cell:
    """The first labelling of `cell`'s isomorphism class: the least `bits`, and for these the least `labels`.

    It is the one that the benchmark's `generate_graphs.py` meets first and keeps for the class, so the numbers that
    depend on the order of vertices (see `vertex_channels`) are the benchmark's own. Tries every topological order, of
    which a cell has 60 at most, 3 on average.
    """
    last = len(cell.inputs) - 1
    best: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    for order in _orders(cell.inputs, (0,), 1):
        inputs = renumbered(cell.inputs, (*order, last))
        key = (inputs[::-1], tuple(cell.labels[v - 1] for v in order[1:]))  # the last vertex holds the highest bits
        if best is None or key < best:
            best = key
    assert best is not None
    return NASBench101Cell(best[0][::-1], best[1])


def _orders(inputs: tuple[int, ...], order: tuple[int, ...], placed: int) -> Iterator[tuple[int, ...]]:
    """The topological orders of all vertices but the last that begin with `order`, whose vertices are `placed`."""
    if len(order) == len(inputs) - 1:
        yield order
        return
    for v in range(1, len(inputs) - 1):
        if not placed >> v & 1 and not inputs[v] & ~placed:
            yield from _orders(inputs, (*order, v), placed | 1 << v)


def cell_hash(cell: NASBench101Cell) -> str:
    """The benchmark's module hash, `graph_util.hash_module`: 32 hexadecimal digits that an isomorphism leaves alone.

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
    if len(vertices) == 1:  # half of the lists, and evolution hashes much
        return hashes[vertices[0]]
    return "".join(sorted([hashes[v] for v in vertices]))


def _md5(text: str) -> str:
    return md5(text.encode(), usedforsecurity=False).hexdigest()


def vertex_channels(inputs: tuple[int, ...], channels: int) -> tuple[int, ...]:
    """The channels of each vertex of a module with `channels` output channels; those of the input are not in it (0).

    The output concatenates the interior vertices that feed it: each has an equal share, the first ones one more where
    `channels` does not divide. Any other interior vertex has as many as the widest vertex that it feeds. Channels
    never increase along an edge of the interior, so a vertex drops the channels that it does not need.
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
    """Raise `UsageError` unless images of `size` × `size` pixels survive the network's two halvings."""
    if size < 4 or size % 4:
        raise UsageError(f"images of {size} pixels do not fit NAS-Bench-101; the side must be a multiple of 4")
