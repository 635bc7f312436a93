"""NAS-Bench-201: cells of four nodes, one of five operations on each of their six edges, 15,625 architectures.

An architecture string lists, for nodes 1, 2 and 3, the operations on the edges into the node as `op~from`:

    |nor_conv_3x3~0|+|skip_connect~0|none~1|+|avg_pool_3x3~0|nor_conv_1x1~1|nor_conv_3x3~2|

Source: Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR 2020.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from random import Random
from typing import TYPE_CHECKING

from hnas.errors import UsageError
from hnas.spaces.dag.canonical import Cell, Operations, canonical_cell

if TYPE_CHECKING:
    from hnas.spaces.nasbench201.network import NASBench201Network

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
NODES = 4
EDGES = tuple((i, j) for j in range(1, NODES) for i in range(j))

# NAS-Bench-Suite-Zero's own order of the edges and of the operations.
_SUITE_ZERO_EDGES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
_SUITE_ZERO_OPERATIONS = ("skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3")

_LONGEST_PRINTED = 1000
_STRUCTURE = re.compile(r"Structure\(\s*4 nodes with(.*)\)", re.DOTALL)


def _nested(*sources: int) -> str:
    """One node of `Structure.tolist`, such as `(('none',0),('skip_connect',1))`."""
    pairs = ",".join(rf"""[\[(]['"][a-z]\w*['"],{source}[\])]""" for source in sources)
    return rf"[\[(]{pairs},?[\])]"


_NESTED = re.compile(rf"[\[(]{_nested(0)},{_nested(0, 1)},{_nested(0, 1, 2)},?[\])]")

KERNELS = {"conv1x1": 1, "conv3x3": 3}

_CONVOLUTIONS = {"nor_conv_1x1": "conv1x1", "nor_conv_3x3": "conv3x3"}
_MEANING = Operations(identity="skip_connect", poolings={"avg_pool_3x3": "avg3x3"}, layers=_CONVOLUTIONS)


def parse(arch: str) -> dict[tuple[int, int], str]:
    """The operation on each edge (i, j), i < j, of an architecture string, or of a form that programs print of it.

    These have blanks and line breaks between inputs and nodes, quotes, `Structure(4 nodes with …)` around it, or are
    the nested lists of the benchmark's `Structure.tolist`. Raises `UsageError` saying what is off.
    """
    arch = _unwrapped(arch) if len(arch) <= _LONGEST_PRINTED else arch
    if len(arch) > 120:
        raise UsageError(
            f"{arch[:117] + '...'!r} has {len(arch)} characters; it is no NAS-Bench-201 architecture, "
            "such as |none~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|"
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
    """The architecture string of the operations on all six edges: the inverse of `parse`."""
    nodes = ("|".join(f"{operations[i, j]}~{i}" for i in range(j)) for j in range(1, NODES))
    return "+".join(f"|{node}|" for node in nodes)


@lru_cache(maxsize=2**15)
def cell(arch: str) -> Cell:
    """The canonical cell of an architecture string: one of 5,260, of which one is dead. Raises `UsageError`."""
    return canonical_cell(NODES, parse(arch), _MEANING)


@lru_cache(maxsize=2**15)
def _spelled(arch: str) -> str:
    return format_arch(parse(arch))


def check_image_size(size: int) -> None:
    """Raise `UsageError` unless images of `size` × `size` pixels survive the network's two halvings."""
    if size < 4 or size % 4:
        raise UsageError(f"images of {size} pixels do not fit NAS-Bench-201; the side must be a multiple of 4")


class NASBench201:
    """The search space; see `hnas.spaces.base.SearchSpace` and `Spelled` for what each method promises."""

    name = "nasbench201"
    size: int | None = len(OPERATIONS) ** len(EDGES)
    channels = 16
    cells = 5

    def enumerate(self) -> Iterator[str]:
        """All 15,625 architecture strings."""
        for names in product(OPERATIONS, repeat=len(EDGES)):
            yield format_arch(dict(zip(EDGES, names, strict=True)))

    def sample(self, n: int, seed: int) -> list[str]:
        """`n` distinct architecture strings, uniform over the space."""
        everything = list(self.enumerate())
        size = len(everything)
        if not 1 <= n <= size:
            raise UsageError(f"cannot sample {n} of the {size} architectures of {self.name}; ask for 1 to {size}")
        return Random(seed).sample(everything, n)

    def from_suite_zero(self, encoding: object) -> str:
        """The architecture string of NAS-Bench-Suite-Zero's encoding, six indices such as `(4, 3, 3, 3, 2, 3)`.

        They name the operations on the edges 0→1, 0→2, 0→3, 1→2, 1→3, 2→3. Raises `UsageError` for anything else.
        """
        indices = encoding if isinstance(encoding, (tuple, list)) else ()
        if len(indices) != len(EDGES) or not all(type(k) is int and 0 <= k < len(OPERATIONS) for k in indices):
            raise UsageError(f"{encoding!r:.100} is no encoding of a NAS-Bench-201 cell; give six numbers from 0 to 4")
        names = (_SUITE_ZERO_OPERATIONS[k] for k in indices)
        return format_arch(dict(zip(_SUITE_ZERO_EDGES, names, strict=True)))

    def canonical(self, arch: str) -> str:
        """The key of the architecture's class, such as `a=conv3x3(x);y=x+a`; `y=0` is the dead class."""
        return str(cell(arch))

    def key(self, arch: str) -> str:
        """The string as the benchmark writes it, however `arch` spells it."""
        return _spelled(arch)

    def definition(self, arch: str) -> str:
        """The same as `key`."""
        return _spelled(arch)

    def network(
        self, arch: str, *, classes: int = 10, channels: int = 16, cells: int = 5, seed: int = 0
    ) -> NASBench201Network:
        """The benchmark's network with the live layers of `arch`: N = `cells` a stage, C = `channels` in the first."""
        from hnas.spaces.initialise import initialise
        from hnas.spaces.nasbench201.network import NASBench201Network

        for value, what in ((classes, "classes"), (channels, "channels"), (cells, "cells a stage")):
            if not 1 <= value <= 4096:
                raise UsageError(f"a NAS-Bench-201 network with {value} {what} cannot be built; 1 to 4096 can")
        network = NASBench201Network(cell(arch), classes=classes, channels=channels, cells=cells)
        initialise(network, seed)
        return network

    def describe(
        self, arch: str, *, classes: int = 10, channels: int = 16, cells: int = 5, image_size: int = 32
    ) -> dict[str, int | float]:
        """Parameters and multiply-adds of the benchmark's own network of `arch`, layers without effect included.

        `params` counts every weight; `flops` the multiply-adds of convolutions and of the linear layer for one image.
        """
        check_image_size(image_size)
        kernels = [KERNELS[_CONVOLUTIONS[name]] for name in parse(arch).values() if name in _CONVOLUTIONS]
        params = 27 * channels + 2 * channels
        flops = 27 * channels * image_size**2
        for stage in range(3):
            c, pixels = channels << stage, (image_size >> stage) ** 2
            params += cells * sum(k * k * c * c + 2 * c for k in kernels)
            flops += cells * sum(k * k * c * c * pixels for k in kernels)
            if stage < 2:
                block = 9 * c * 2 * c + 9 * 4 * c * c + c * 2 * c
                params += block + 8 * c
                flops += block * pixels // 4
        params += 8 * channels + 4 * channels * classes + classes
        flops += 4 * channels * classes
        return {"params": params, "flops": flops}
