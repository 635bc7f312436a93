"""NAS-Bench-101: cells of up to 7 vertices and 9 edges with three operations, 423,624 of them up to isomorphism.

An architecture has two spellings, both accepted everywhere:

    00005c142e6f48ac74fdcf73e3439874                          the benchmark's module hash: the key
    input,conv3x3-bn-relu,maxpool3x3,output:0110001000010000    operations and adjacency matrix: the definition

A definition describes the cell, pruned or not. A hash must be looked up in the table of all cells, which is computed
once (see `hnas.spaces.nasbench101.enumeration`) and kept in `NASBench101.cache`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING

from hnas.errors import UsageError, check_seed
from hnas.spaces.cell_graph import CellGraph
from hnas.spaces.nasbench101.cell import (
    INPUT,
    KERNELS,
    OPERATIONS,
    OUTPUT,
    NASBench101Cell,
    canonical_labelling,
    cell_hash,
    check_image_size,
    count_edges,
    depth,
    make_cell,
    parse_definition,
    vertex_channels,
    width,
)
from hnas.spaces.nasbench101.edits import CHOICES, decoded, encoded, mutated, neighbours
from hnas.spaces.sizes import check_sizes

if TYPE_CHECKING:
    import numpy as np

    from hnas.spaces.nasbench101.enumeration import Table
    from hnas.spaces.nasbench101.network import NASBench101Network
    from hnas.spaces.protocols import Cache


_HASH = re.compile(r"[0-9a-f]{32}", re.IGNORECASE | re.ASCII)
_SUITE_ZERO = (INPUT, OUTPUT, "maxpool3x3", "conv1x1-bn-relu", "conv3x3-bn-relu")


def module_hash(adjacency: Sequence[Sequence[int]], operations: Sequence[str]) -> str:
    """Return the benchmark's hash of a cell as stored in its rows: adjacency matrix (V, V) and V operation names.

    The cell is pruned first, as in `ModelSpec.hash_spec`; the order of vertices does not matter. Raises `UsageError`
    where the cell is not in the benchmark. For very many cells use `hnas.spaces.nasbench101.enumeration.module_hashes`.
    """
    return cell_hash(make_cell(adjacency, operations))


def _check_sizes(classes: int, channels: int, cells: int) -> None:
    # A cell concatenates at most four vertices, each of which needs a channel.
    check_sizes("NAS-Bench-101", {"classes": classes, "channels": channels, "cells per stack": cells}, channels=4)


@lru_cache(maxsize=2**15)
def _read(definition: str) -> tuple[NASBench101Cell, NASBench101Cell, str]:
    """Return the pruned cell of a definition as written, its canonical labelling, and its hash."""
    cell = parse_definition(definition)
    return cell, canonical_labelling(cell), cell_hash(cell)


class NASBench101:
    """The search space; follows all protocols of `hnas.spaces` except `Named` and `Printed`."""

    name = "nasbench101"
    size: int | None = 423_624
    channels = 16
    cells = 3
    choices = CHOICES
    key_form = r"^[0-9a-f]{32}$"

    def __init__(self) -> None:
        self.cache: Cache | None = None
        self.recall: Callable[[str], str | None] | None = None
        self._known: Table | None = None

    @property
    def _table(self) -> Table:
        if self._known is None:
            from hnas.spaces.nasbench101.enumeration import load_table

            self._known = load_table(self.cache)
        return self._known

    def _cell(self, arch: str, *, as_written: bool = False) -> NASBench101Cell:
        """Return the canonical cell of any spelling, or the cell with vertices in the order of `arch`.

        Raises `UsageError` for a malformed or unknown architecture.
        """
        text = arch.strip()
        if not _HASH.fullmatch(text):
            written, canonical, _ = _read(text)
            return written if as_written else canonical
        cell = self._recalled(text.lower()) or self._table.find(text)
        if cell is None:
            raise UsageError(f"the module hash {text!r} must be that of one of the {self.size} cells of NAS-Bench-101")
        return cell

    def _recalled(self, key: str) -> NASBench101Cell | None:
        """Return the cell of a hash from a recalled definition, as long as the table of all cells is not loaded."""
        definition = None if self._known is not None or self.recall is None else self.recall(key)
        with suppress(UsageError):  # a malformed definition
            if definition is not None and _read(definition)[2] == key:
                return _read(definition)[1]
        return None

    def enumerate(self) -> Iterator[str]:
        """Yield all 423,624 module hashes in ascending order."""
        return iter(self._table)

    def sample(self, n: int, seed: int) -> list[str]:
        """Draw `n` distinct module hashes uniformly."""
        size = len(self._table)
        if not 1 <= n <= size:
            raise UsageError(f"cannot sample {n} of the {size} architectures of {self.name}; ask for 1 to {size}")
        return [self._table[place] for place in Random(check_seed(seed)).sample(range(size), n)]

    def canonical(self, arch: str) -> str:
        """Return the module hash, which is the same for isomorphic cells (one function) and differs for all others."""
        text = arch.strip()
        if not _HASH.fullmatch(text):
            return _read(text)[2]
        self._cell(text)
        return text.lower()

    def key(self, arch: str) -> str:
        """Return the module hash, which identifies a cell in the benchmark and in all tables."""
        return self.canonical(arch)

    def first_unknown(self, keys: Sequence[str]) -> str | None:
        """Return the first of distinct lower-case hashes without a cell; recognises the full set without the table."""
        from hnas.spaces.nasbench101.enumeration import are_all, digests_of

        digests = digests_of(keys)
        if self._known is None and are_all(digests):
            return None
        place = self._table.first_unknown(digests)
        return None if place is None else keys[place]

    def definition(self, arch: str) -> str:
        """Return operations and adjacency matrix of the canonical cell, the same text for all spellings."""
        return str(self._cell(arch))

    def graphs(self, arch: str) -> dict[str, CellGraph]:
        """Return the pruned cell, with operations on the nodes."""
        cell = self._cell(arch, as_written=True)
        nodes = (INPUT, *(OPERATIONS[label] for label in cell.labels), OUTPUT)
        edges = ((u, v, "") for v, into in enumerate(cell.inputs) for u in range(v) if into >> u & 1)
        return {"cell": CellGraph(nodes, tuple(edges))}

    def decode(self, decisions: Sequence[int]) -> str | None:
        """Return the module hash of the cell with these 21 edge and 5 operation decisions; see `edits.decoded`."""
        cell = decoded(decisions)
        return None if cell is None else cell_hash(cell)

    def encode(self, arch: str) -> tuple[int, ...]:
        """Return the edges and operations of the canonical cell on 7 vertices; see `edits.encoded`."""
        return encoded(self._cell(arch))

    def mutate(self, arch: str, random: np.random.Generator) -> str:
        """Return the module hash of a cell a few edits away, by the mutation of the authors; see `edits.mutated`."""
        return mutated(self._cell(arch), self.canonical(arch), random)

    def neighbours(self, arch: str) -> list[str]:
        """Return the module hashes of all cells one edit away; see `edits.neighbours`."""
        return sorted(neighbours(self._cell(arch)))

    @staticmethod
    def from_suite_zero(encoding: str | Sequence[int]) -> str:
        """Return the unpruned definition of an encoding of NAS-Bench-Suite-Zero, a tuple of 56 integers or its text.

        49 entries of the adjacency matrix row by row, then 7 operations as indices into `input, output, maxpool3x3,
        conv1x1-bn-relu, conv3x3-bn-relu`. Raises `UsageError` for anything else.
        """
        text = ",".join(map(str, encoding)) if isinstance(encoding, (tuple, list)) else str(encoding)
        entries = re.findall(r"[^\s,()\[\]]+", text[:1000])
        bits, indices = entries[:49], entries[49:]
        if len(entries) != 56 or not set(bits) <= set("01") or not set(indices) <= set("01234"):
            raise UsageError(
                "a NAS-Bench-Suite-Zero encoding of a NAS-Bench-101 cell must be a tuple of 49 entries of an adjacency "
                f"matrix, 0 or 1, and 7 operations from 0 to 4, got {text[:400]!r}"
            )
        return f"{','.join(_SUITE_ZERO[int(index)] for index in indices)}:{''.join(bits)}"

    def network(
        self, arch: str, *, classes: int = 10, channels: int = 16, cells: int = 3, seed: int = 0
    ) -> NASBench101Network:
        """Build the benchmark's network of `arch` with `cells` modules per stack and `channels` after the stem."""
        from hnas.spaces.initialise import initialise
        from hnas.spaces.nasbench101.network import NASBench101Network

        _check_sizes(classes, channels, cells)
        network = NASBench101Network(self._cell(arch), classes=classes, channels=channels, cells=cells)
        initialise(network, seed)
        return network

    def describe(
        self, arch: str, *, classes: int = 10, channels: int = 128, cells: int = 3, image_size: int = 32
    ) -> dict[str, int | str]:
        """Return the size of the benchmark's network of `arch`, and the shape of its pruned cell.

        `params` counts all trainable scalars; `flops` the multiply-adds of convolutions and of the linear layer for one
        image; `depth` the edges of the longest path from input to output; `width` the edges of the largest directed
        cut; `operations` and `adjacency` define the cell.

        Another order of vertices than the canonical one may shift channels (see `vertex_channels`), which changes
        `params` and `flops` of 53,908 cells by about one per cent. A definition is described in its own order, as the
        benchmark's program builds it; a hash in the canonical order, in which the benchmark trained it.
        """
        cell = self._cell(arch, as_written=True)
        fixed, vertices = _costs(cell.inputs, classes, channels, cells, image_size)
        params, flops = fixed
        for label, costs in zip(cell.labels, vertices, strict=True):
            params += costs[label][0]
            flops += costs[label][1]
        operations, _, adjacency = str(cell).partition(":")
        return {
            "params": params,
            "flops": flops,
            "vertices": len(cell.inputs),
            "edges": count_edges(cell.inputs),
            "depth": depth(cell.inputs),
            "width": width(cell.inputs),
            "operations": operations,
            "adjacency": adjacency,
        }


Cost = tuple[int, int]


@lru_cache(maxsize=2**13)
def _costs(
    inputs: tuple[int, ...], classes: int, channels: int, cells: int, image_size: int
) -> tuple[Cost, tuple[tuple[Cost, ...], ...]]:
    """Return parameters and multiply-adds of the network without its vertices, and of each interior vertex by label.

    A k × k convolution from C to C' channels followed by batch norm has `k² C C' + 2 C'` parameters and `k² C C'`
    multiply-adds per pixel. Cached, because up to 243 choices of labels share a graph.
    """
    check_image_size(image_size)
    _check_sizes(classes, channels, cells)
    last = len(inputs) - 1
    params, flops = 29 * channels, 27 * channels * image_size**2
    squares, norms, steps = ([0] * last for _ in range(3))
    for stack in range(3):
        c, pixels = channels << stack, (image_size >> stack) ** 2
        read = (c // 2 if stack else c) + (cells - 1) * c  # the input channels of all modules of the stack
        for v, wide in enumerate(vertex_channels(inputs, c)):
            if inputs[v] & 1:
                params += read * wide + 2 * cells * wide
                flops += read * wide * pixels
            if 0 < v < last:
                squares[v] += cells * wide * wide
                norms[v] += 2 * cells * wide
                steps[v] += cells * wide * wide * pixels
    params += 4 * channels * classes + classes
    flops += 4 * channels * classes
    vertices = tuple(
        tuple((k * k * squares[v] + norms[v], k * k * steps[v]) if k else (0, 0) for k in KERNELS)
        for v in range(1, last)
    )
    return (params, flops), vertices
