"""A cell of NAS-Bench-201: parsing its spellings, its canonical form, and the image sizes it accepts."""

from __future__ import annotations

import re
from functools import lru_cache

from hnas.errors import UsageError
from hnas.spaces.dag.edge_cell import EdgeCell, EdgeOperations, canonical_edge_cell

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
NODES = 4
EDGES = tuple((i, j) for j in range(1, NODES) for i in range(j))
_LONGEST_PRINTED = 1000
_STRUCTURE = re.compile(r"Structure\(\s*4 nodes with(.*)\)", re.DOTALL)


def _nested(*sources: int) -> str:
    """Return a pattern for one node of `Structure.tolist`, such as `(('none',0),('skip_connect',1))`."""
    pairs = ",".join(rf"""[\[(]['"][a-z]\w*['"],{source}[\])]""" for source in sources)
    return rf"[\[(]{pairs},?[\])]"


_NESTED = re.compile(rf"[\[(]{_nested(0)},{_nested(0, 1)},{_nested(0, 1, 2)},?[\])]")
KERNELS = {"conv1x1": 1, "conv3x3": 3}
CONVOLUTIONS = {"nor_conv_1x1": "conv1x1", "nor_conv_3x3": "conv3x3"}
_MEANING = EdgeOperations(identity="skip_connect", poolings={"avg_pool_3x3": "avg3x3"}, layers=CONVOLUTIONS)


def parse_arch(arch: str) -> dict[tuple[int, int], str]:
    """Return the operation on each edge (i, j), i < j, of an architecture string or a printed form of it.

    Printed forms have blanks and line breaks between inputs and nodes, quotes, `Structure(4 nodes with …)` around them,
    or are the nested lists of the benchmark's `Structure.tolist`. Raises `UsageError` for malformed strings.
    """
    arch = _unwrapped(arch) if len(arch) <= _LONGEST_PRINTED else arch
    if len(arch) > 120:
        raise UsageError(
            f"a NAS-Bench-201 architecture must look like |none~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|, "
            f"got {len(arch)} characters: {arch[:117] + '...'!r}"
        )
    nodes = arch.strip().split("+")
    if len(nodes) != NODES - 1:
        raise UsageError(
            f"{arch!r} describes {len(nodes)} nodes, but a NAS-Bench-201 architecture has {NODES - 1}, "
            "such as |none~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|"
        )
    edges = {}
    for j, node in enumerate(nodes, start=1):
        if len(node) < 2 or node[0] != "|" or node[-1] != "|":
            raise UsageError(f"node {j} of {arch!r} is {node!r}; it must begin and end with '|'")
        inputs = node[1:-1].split("|")
        if len(inputs) != j:
            raise UsageError(f"node {j} of {arch!r} has {len(inputs)} inputs; it needs {j}, from nodes 0 to {j - 1}")
        for i, text in enumerate(inputs):
            name, _, source = text.partition("~")
            if source != str(i):
                raise UsageError(f"input {i} of node {j} of {arch!r} is {text!r}; it must end with '~{i}'")
            if name not in OPERATIONS:
                raise UsageError(f"operation {name!r} of {arch!r} is unknown; choose from {', '.join(OPERATIONS)}")
            edges[i, j] = name
    return edges


def _unwrapped(arch: str) -> str:
    text = arch.strip()
    if around := _STRUCTURE.fullmatch(text):
        text = around[1].strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    if _NESTED.fullmatch(re.sub(r"\s", "", text)):
        names = dict(zip(EDGES, re.findall(r"[a-z]\w*", text), strict=True))
        return format_arch(names)
    return re.sub(r"\s*([|+])\s*", r"\1", text)


def format_arch(operations: dict[tuple[int, int], str]) -> str:
    """Return the architecture string with these operations on the six edges, the inverse of `parse_arch`."""
    nodes = ("|".join(f"{operations[i, j]}~{i}" for i in range(j)) for j in range(1, NODES))
    return "+".join(f"|{node}|" for node in nodes)


@lru_cache(maxsize=2**15)
def canonical_cell_of(arch: str) -> EdgeCell:
    """Return the canonical cell of an architecture string: one of 5,260, of which one is dead. Raises `UsageError`."""
    return canonical_edge_cell(NODES, parse_arch(arch), _MEANING)


@lru_cache(maxsize=2**15)
def spelled(arch: str) -> str:
    return format_arch(parse_arch(arch))


def check_image_size(size: int) -> None:
    """Raise `UsageError` unless images of `size` × `size` pixels can be halved twice."""
    if size < 4 or size % 4:
        raise UsageError(f"the side of images for NAS-Bench-201 must be a multiple of 4, got {size} pixels")
