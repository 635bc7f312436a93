"""The DARTS search space: two cells of four nodes, each node the sum of two of seven operations on earlier states.

An architecture is a genotype as the DARTS code prints it (`genotype`) or the name of a published cell
(`published`). Its canonical form is in `canonical`, its networks in `network`.

Source: Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from random import Random
from typing import TYPE_CHECKING, Any

from hnas.errors import UsageError, check_seed
from hnas.spaces.cell_graph import CellGraph
from hnas.spaces.darts.canonical import DARTSCell, canonical_darts_cell
from hnas.spaces.darts.edits import CHOICES, decoded, encoded, mutated, neighbours
from hnas.spaces.darts.genotype import NODES, OPERATIONS, CellGenotype, from_suite_zero, genotype_of
from hnas.spaces.darts.layout import cost
from hnas.spaces.darts.published import NAMED, depth, genotype, width
from hnas.spaces.darts.text import Edge, genotypes_in
from hnas.spaces.sizes import check_sizes

if TYPE_CHECKING:
    import numpy as np

    from hnas.spaces.darts.network import DARTSNetwork

_SAMPLED = OPERATIONS[1:]


@lru_cache(maxsize=2**16)
def canonical_cells(arch: str) -> tuple[DARTSCell, DARTSCell]:
    """Return the canonical normal and reduction cell of an architecture. Raises `UsageError` for a malformed string."""
    parsed = genotype(arch)
    return canonical_darts_cell(parsed.normal, reduction=False), canonical_darts_cell(parsed.reduce, reduction=True)


class DARTS:
    """The search space; follows all protocols of `hnas.spaces` except `Cached`.

    `cells` is the total number of cells of a network, including reduction cells.
    """

    name = "darts"
    size: int | None = None
    channels = 16
    cells = 5
    choices = CHOICES

    def enumerate(self) -> Iterator[str]:
        """Raise `UsageError`: the two cells have 180² wirings and 7¹⁶ choices of operations, about 10¹⁸ genotypes."""
        raise UsageError("the space darts has about 10^18 genotypes and cannot be enumerated; sample it")

    def sample(self, n: int, seed: int) -> list[str]:
        """Draw `n` genotypes uniformly, no two with the same canonical form.

        For each node, two states and two operations are drawn uniformly; states are listed in ascending order.
        """
        if n < 1:
            raise UsageError(f"cannot sample {n} architectures of {self.name}; ask for 1 or more")
        random = Random(check_seed(seed))
        drawn: dict[str, str] = {}
        while len(drawn) < n:
            arch = str(genotype_of(_draw(random), _draw(random)))
            drawn.setdefault(self.canonical(arch), arch)
        return list(drawn.values())

    def named(self) -> Mapping[str, str]:
        """Return published cells by name, each with its key."""
        return dict(NAMED)

    def key(self, arch: str) -> str:
        """Return the genotype as the DARTS code prints it, whether `arch` spells or names it."""
        return str(genotype(arch))

    def definition(self, arch: str) -> str:
        """Return the same as `key`."""
        return self.key(arch)

    def graphs(self, arch: str) -> dict[str, CellGraph]:
        """Return both cells as DARTS draws them: the outputs of the two previous cells, nodes from 0, the output."""
        parsed = genotype(arch)
        return {"normal": _graph(parsed.normal), "reduction": _graph(parsed.reduce)}

    def decode(self, decisions: Sequence[int]) -> str:
        """Return the genotype of 22 decisions; see `edits.decoded`."""
        return str(decoded(decisions))

    def encode(self, arch: str) -> tuple[int, ...] | None:
        """Return the decisions of `arch`, ignoring the order of a node's states, None if it is outside the space."""
        return encoded(genotype(arch))

    def mutate(self, arch: str, random: np.random.Generator) -> str:
        """Return the genotype with one random operation or state replaced; see `edits.mutated`."""
        return str(mutated(genotype(arch), random))

    def neighbours(self, arch: str) -> list[str]:
        """Return the genotypes with one operation or state replaced, 120 for one in the space; see `edits`."""
        return sorted(set(map(str, neighbours(genotype(arch)))))

    @staticmethod
    def from_suite_zero(encoding: str | Sequence[Any]) -> str:
        """Return the genotype of NAS-Bench-Suite-Zero's encoding of a NAS-Bench-301 cell; see `genotype`."""
        return from_suite_zero(encoding)

    def printed(self, text: str) -> Iterator[tuple[int, str]]:
        """Yield the genotypes in a program such as DARTS' genotypes.py, or in its log, each with its line."""
        return genotypes_in(text)

    def canonical(self, arch: str) -> str:
        """Return the key of the architecture's class, `normal:a=sep3(x0);…;y=…|reduce:…`."""
        normal, reduction = canonical_cells(arch)
        return f"normal:{normal}|reduce:{reduction}"

    def network(
        self, arch: str, *, classes: int = 10, channels: int = 16, cells: int = 5, seed: int = 0
    ) -> DARTSNetwork:
        """Build the network of the canonical form of `arch`: `cells` cells in total, C = `channels` in the first."""
        return _network(arch, True, classes, channels, cells, seed)

    def evaluation_network(
        self, arch: str, *, classes: int = 10, channels: int = 36, layers: int = 20, auxiliary: bool = True,
        drop_path: float = 0.2, seed: int = 0,
    ) -> DARTSNetwork:  # fmt: skip
        """Build the network that DARTS trains to compare architectures, with its auxiliary head and drop path.

        In training mode it returns (logits, auxiliary logits), in evaluation mode logits. DARTS increases the attribute
        `drop_path` from 0 to its final value during training. Poolings of different edges are kept separate, because
        drop path draws once per edge.
        """
        if not 0 <= drop_path < 1:
            raise UsageError(f"drop_path must be a probability, at least 0 and below 1, got {drop_path}")
        return _network(arch, False, classes, channels, layers, seed, auxiliary=auxiliary, drop_path=drop_path)

    def describe(
        self, arch: str, *, classes: int = 10, channels: int = 36, cells: int = 20, image_size: int = 32
    ) -> dict[str, int | float | str]:
        """Return parameters and multiply-adds of the evaluation network without auxiliary head, width, depth and name.

        Parts without effect are not counted. `flops` are the multiply-adds of convolutions and of the linear layer for
        one image. `width` and `depth` are those of the normal cell, see `published`; `name` is empty for cells without
        one.
        """
        check_sizes("DARTS", {"classes": classes, "channels": channels, "cells": cells})
        normal, reduction = canonical_cells(arch)
        params, flops = cost(normal, reduction, classes=classes, channels=channels, layers=cells, image_size=image_size)
        cell = genotype(arch).normal
        name = _names().get(self.key(arch), "")
        return {"params": params, "flops": flops, "width": width(cell), "depth": depth(cell), "name": name}


@cache
def _names() -> dict[str, str]:
    """Return the names of published cells by key."""
    return {str(genotype(spelling)): name for name, spelling in NAMED.items()}


def _graph(cell: CellGenotype) -> CellGraph:
    output = 2 + len(cell.nodes)
    edges = [(state, 2 + i // 2, name) for i, (name, state) in enumerate(cell.edges)]
    names = ("c_{k-2}", "c_{k-1}", *map(str, range(len(cell.nodes))), "c_{k}")
    return CellGraph(names, (*edges, *((node, output, "") for node in cell.concat)))


def _draw(random: Random) -> list[Edge]:
    return [
        (random.choice(_SAMPLED), state)
        for node in range(2, 2 + NODES)
        for state in sorted(random.sample(range(node), 2))
    ]


def _network(
    arch: str, merge: bool, classes: int, channels: int, layers: int, seed: int, *, auxiliary: bool = False,
    drop_path: float = 0.0,
) -> DARTSNetwork:  # fmt: skip
    from hnas.spaces.darts.network import DARTSNetwork
    from hnas.spaces.initialise import initialise

    check_sizes("DARTS", {"classes": classes, "channels": channels, "cells": layers})
    parsed = genotype(arch)
    network = DARTSNetwork(
        canonical_darts_cell(parsed.normal, reduction=False, merge=merge),
        canonical_darts_cell(parsed.reduce, reduction=True, merge=merge),
        classes=classes, channels=channels, layers=layers, auxiliary=auxiliary, drop_path=drop_path,
    )  # fmt: skip
    initialise(network, seed)
    return network
