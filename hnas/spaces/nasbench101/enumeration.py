"""All cells of NAS-Bench-101 and their hashes: 423,624 classes of 1,293,208 labelled graphs.

The canonical labelling (`cell.canonical_labelling`) needs no search over labelled graphs. A graph without operations is
kept if no renumbering of its interior has smaller `bits`; a labelling of it is kept if no automorphism gives a smaller
one. This leaves 2,494 graphs and 423,624 cells, one per isomorphism class, before hashing. The hashes are all
different, so they identify isomorphism classes.

Cost: 0.3 s for the cells, 10 s of one core for their 20 million MD5 digests, 150 MB of temporary memory.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b, md5
from itertools import permutations, product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hnas.spaces.nasbench101.cell import MAX_EDGES, MAX_VERTICES, OPERATIONS, NASBench101Cell
from hnas.spaces.nasbench101.md5 import Bytes, hexadecimal
from hnas.spaces.nasbench101.md5 import md5 as md5_of_each

if TYPE_CHECKING:
    from hnas.spaces.protocols import Cache

CACHED = "nasbench101-1.npz"

# BLAKE2b of the table's hashes and codes; a file with any other digest is not the table.
_DIGEST = "8303e27844cc6bec7655a77740700aef"
# The digest of the sorted hashes alone.
_DIGEST_OF_HASHES = "308e804eac02ab26842451bee88dc544"

# Graphs hashed at once: enough to amortise numpy's call overhead, few enough for the messages to fit in 100 MB.
_CHUNK = 32768

Integers = NDArray[np.integer]


class Table:
    """All cells in the order of their hashes.

    `hashes` (n, 16) holds the digests, `codes` (n,) uint32 the cells: from the highest bit on, 3 bits of V, 21 of
    `bits`, 8 of the labels as a base-3 number.
    """

    def __init__(self, hashes: Bytes, codes: NDArray[np.uint32]) -> None:
        self.hashes, self.codes = hashes, codes
        # The upper halves of the hashes are distinct, so searching them finds the only candidate.
        self._upper = hashes.view(">u8")[:, 0].astype(np.uint64)

    def find(self, module_hash: str) -> NASBench101Cell | None:
        """Return the canonical cell of a hash of 32 hexadecimal digits, or None."""
        digest = bytes.fromhex(module_hash)
        place = int(np.searchsorted(self._upper, np.uint64(int.from_bytes(digest[:8], "big"))))
        if place == len(self.codes) or self.hashes[place].tobytes() != digest:
            return None
        return decode(int(self.codes[place]))

    def first_unknown(self, digests: Bytes) -> int | None:
        """Return the index of the first of the hashes `digests` (n, 16) without a cell, or None."""
        places = np.searchsorted(self._upper, _rank(digests)).clip(max=len(self) - 1)
        unknown = np.flatnonzero((self.hashes[places] != digests).any(axis=1))
        return int(unknown[0]) if len(unknown) else None

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, place: int) -> str:
        """Return the hash at index `place`, in hexadecimal."""
        return bytes(self.hashes[place]).hex()

    def __iter__(self) -> Iterator[str]:
        """Yield all hashes in ascending order."""
        digits = self.hashes.tobytes().hex()
        for start in range(0, len(digits), 32):
            yield digits[start : start + 32]


def decode(code: int) -> NASBench101Cell:
    """Return the cell of one of `Table.codes`."""
    vertices = code >> 29
    return NASBench101Cell(_inputs(vertices, code >> 8 & (1 << 21) - 1), _labels(vertices, code & 255))


@lru_cache(maxsize=4096)
def _inputs(vertices: int, bits: int) -> tuple[int, ...]:
    return tuple(bits >> v * (v - 1) // 2 & (1 << v) - 1 for v in range(vertices))


@lru_cache(maxsize=512)
def _labels(vertices: int, number: int) -> tuple[int, ...]:
    base = len(OPERATIONS)
    return tuple(number // base**place % base for place in range(vertices - 3, -1, -1))


def load_table(cache: Cache | None) -> Table:
    """Load the table from `cache`; if it is missing or damaged, compute and cache it."""
    content = None
    if cache is not None:
        # If the store cannot be read or written, computing the table again is the only cost.
        with contextlib.suppress(OSError):
            content = cache.read(CACHED)
    table = None if content is None else _unpacked(content)
    if table is None:
        table = compute_table()
        if cache is not None:
            with contextlib.suppress(OSError):
                cache.write(CACHED, _packed(table))
    return table


def _packed(table: Table) -> bytes:
    file = io.BytesIO()
    np.savez(file, hashes=table.hashes, codes=table.codes.astype("<u4"))  # digests do not compress
    return file.getvalue()


def _unpacked(content: bytes) -> Table | None:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            hashes, codes = arrays["hashes"], arrays["codes"].astype(np.uint32)
    except Exception:  # zipfile and numpy raise a dozen types for damaged files
        return None
    return Table(np.ascontiguousarray(hashes).reshape(-1, 16), codes) if digest_of(hashes, codes) == _DIGEST else None


def digest_of(hashes: Bytes, codes: NDArray[np.uint32]) -> str:
    """Return a digest of a table's content."""
    digest = blake2b(digest_size=16)
    digest.update(hashes.tobytes())
    digest.update(codes.astype("<u4").tobytes())
    return digest.hexdigest()


def digests_of(hashes: Sequence[str]) -> Bytes:
    """Return the bytes (n, 16) of hashes of 32 hexadecimal digits."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(-1, 16)


def are_all(digests: Bytes) -> bool:
    """Whether the distinct hashes `digests` (n, 16), in any order, are those of all cells; needs no table."""
    ordered = digests[np.argsort(_rank(digests), kind="stable")]
    return blake2b(ordered.tobytes(), digest_size=16).hexdigest() == _DIGEST_OF_HASHES


def compute_table() -> Table:
    """Compute the table from scratch."""
    hashes, codes = [], []
    for vertices in range(2, MAX_VERTICES + 1):
        code = _cells(vertices)
        for start in range(0, len(code), _CHUNK):
            part = code[start : start + _CHUNK]
            hashes.append(module_hashes(*_matrices(vertices, part)))
            codes.append(part)
    all_hashes, all_codes = np.concatenate(hashes), np.concatenate(codes)
    order = np.argsort(all_hashes.view(">u8")[:, 0].astype(np.uint64), kind="stable")
    return Table(all_hashes[order], all_codes[order])


def _cells(vertices: int) -> NDArray[np.uint32]:
    """Return the codes of all canonical cells with this number of vertices."""
    graphs = _graphs(vertices)
    orders = list(permutations(range(1, vertices - 1)))
    images = np.stack([_renumbered(graphs, vertices, order) for order in orders])
    canonical = images.min(0) == graphs
    labelled = [_relabelled(vertices, order) for order in orders]
    numbers = np.arange(len(OPERATIONS) ** (vertices - 2))
    codes = []
    for bits, image in zip(graphs[canonical].tolist(), images[:, canonical].T, strict=True):
        least = np.min([labelled[k] for k in np.flatnonzero(image == bits)], axis=0)
        codes.append((vertices << 29 | bits << 8) + numbers[least == numbers])
    return np.concatenate(codes).astype(np.uint32)


def _graphs(vertices: int) -> NDArray[np.int64]:
    """Return the `bits` of all graphs with at most 9 edges whose vertices all lie on a path from input to output."""
    bits = np.arange(1 << vertices * (vertices - 1) // 2)
    bits = bits[np.bitwise_count(bits) <= MAX_EDGES]
    inputs = [bits >> v * (v - 1) // 2 & (1 << v) - 1 for v in range(1, vertices)]
    everyone_reads = np.all([into != 0 for into in inputs], axis=0)
    everyone_is_read = np.bitwise_or.reduce(inputs) == (1 << vertices - 1) - 1
    kept: NDArray[np.int64] = bits[everyone_reads & everyone_is_read]
    return kept


def _renumbered(graphs: NDArray[np.int64], vertices: int, order: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the `bits` of graphs with interior vertex v renumbered to `order[v − 1]`.

    Graphs in which an edge would go backwards get the largest integer.
    """
    new = (0, *order, vertices - 1)
    image = np.zeros_like(graphs)
    backward = np.zeros(len(graphs), bool)
    for v in range(1, vertices):
        for u in range(v):
            edge = graphs >> u + v * (v - 1) // 2 & 1
            if new[u] < new[v]:
                image |= edge << new[u] + new[v] * (new[v] - 1) // 2
            else:
                backward |= edge.astype(bool)
    image[backward] = np.iinfo(np.int64).max
    return image


def _relabelled(vertices: int, order: tuple[int, ...]) -> NDArray[np.int64]:
    """Return for each number of labels the number after vertex v has become vertex `order[v − 1]`."""
    labels = np.array(list(product(range(len(OPERATIONS)), repeat=vertices - 2)), np.int64)
    weights = len(OPERATIONS) ** np.arange(vertices - 3, -1, -1)
    return labels @ np.array([weights[place - 1] for place in order], np.int64)


def _matrices(vertices: int, codes: NDArray[np.uint32]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return the adjacency matrices (n, V, V) and all labels (n, V) of the cells with these codes."""
    adjacency = np.zeros((len(codes), vertices, vertices), bool)
    for v in range(1, vertices):
        for u in range(v):
            adjacency[:, u, v] = codes >> np.uint32(8 + u + v * (v - 1) // 2) & 1
    labels = np.full((len(codes), vertices), -1, np.int64)
    labels[:, -1] = -2
    for v in range(1, vertices - 1):
        labels[:, v] = (codes & 255) // len(OPERATIONS) ** (vertices - 2 - v) % len(OPERATIONS)
    return adjacency, labels


def module_hashes(adjacency: NDArray[np.bool_], labels: Integers) -> Bytes:
    """Return the digests (n, 16) that `cell_hash` gives for n pruned cells of V vertices each.

    `adjacency` (n, V, V) is True at [u, v] if u → v; `labels` (n, V) are the benchmark's, −1 for the input and −2 for
    the output.
    """
    n, vertices = labels.shape
    into, out = adjacency.sum(1), adjacency.sum(2)
    digests = _first(out, into, labels)
    groups = _by_degrees(adjacency, into, out)
    for _ in range(vertices):
        ranks, digits, following = _rank(digests), hexadecimal(digests), np.empty_like(digests)
        for members, sources, targets in groups:
            read, reading = _sorted(sources, ranks).T, _sorted(targets, ranks).T
            following[members] = md5_of_each(_messages(digits, [*read, b"|", *reading, b"|", members]))
        digests = following
    everyone = _sorted(np.arange(n * vertices).reshape(n, vertices), _rank(digests)).T
    listed = [part for column in everyone for part in (b"', '", column)][1:]
    return md5_of_each(_messages(hexadecimal(digests), [b"['", *listed, b"']"]))


def _first(out: Integers, into: Integers, labels: Integers) -> Bytes:
    """Return md5(str((out-degree, in-degree, label))) of each vertex, (n V, 16), computed once per distinct triple."""
    triple = (out * MAX_VERTICES + into) * 8 + labels + 2
    present = np.flatnonzero(np.bincount(triple.reshape(-1)))
    digests = np.zeros((len(present) and present[-1] + 1, 16), np.uint8)
    for number in present.tolist():
        text = str((number // 8 // MAX_VERTICES, number // 8 % MAX_VERTICES, number % 8 - 2))
        digests[number] = np.frombuffer(md5(text.encode(), usedforsecurity=False).digest(), np.uint8)
    return digests.take(triple.reshape(-1), axis=0)


Group = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def _by_degrees(adjacency: NDArray[np.bool_], into: Integers, out: Integers) -> list[Group]:
    """Group the vertices (m,) by in- and out-degree, with in-neighbours (m, in) and out-neighbours (m, out).

    Vertex v of graph g is number V g + v. The messages of one group have the same length.
    """
    vertices = into.shape[1]
    graph, target, source = np.nonzero(adjacency.transpose(0, 2, 1))
    sources = vertices * graph + source
    graph, source, target = np.nonzero(adjacency)
    targets = vertices * graph + target
    into, out = into.reshape(-1), out.reshape(-1)
    first_source, first_target = np.cumsum(into) - into, np.cumsum(out) - out
    groups = []
    for pair in np.unique(vertices * into + out).tolist():
        i, o = divmod(pair, vertices)
        members = np.flatnonzero((into == i) & (out == o))
        groups.append(
            (
                members,
                sources[first_source[members][:, None] + np.arange(i)],
                targets[first_target[members][:, None] + np.arange(o)],
            )
        )
    return groups


def _messages(digits: Bytes, parts: Sequence[bytes | NDArray[np.int64]]) -> Bytes:
    """Build messages (m, length); each part is a text common to all, or the vertices (m,) whose digits to insert."""
    pieces = [
        np.frombuffer(part, np.uint8)[None] if isinstance(part, bytes) else digits.take(part, axis=0) for part in parts
    ]
    m = max(len(piece) for piece in pieces)
    return np.concatenate([np.broadcast_to(piece, (m, piece.shape[1])) for piece in pieces], axis=1)


def _rank(digests: Bytes) -> NDArray[np.uint64]:
    """Return the upper halves of the digests, which sort like their hexadecimal texts."""
    return digests.view(">u8")[:, 0].astype(np.uint64)


def _sorted(vertices: NDArray[np.int64], ranks: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Sort each row of `vertices` (m, k) by rank."""
    if vertices.shape[1] < 2:
        return vertices
    return np.take_along_axis(vertices, np.argsort(ranks[vertices], axis=1), axis=1)
