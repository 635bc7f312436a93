"""NAS-Bench-201: cells of four nodes with one of five operations on each of six edges, 15,625 architectures.

An architecture string lists, for nodes 1, 2 and 3, the operations on the node's incoming edges as `op~from`:

    |nor_conv_3x3~0|+|skip_connect~0|none~1|+|avg_pool_3x3~0|nor_conv_1x1~1|nor_conv_3x3~2|

Source: Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR 2020.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import product
from random import Random
from typing import TYPE_CHECKING

from hnas.errors import UsageError, check_seed
from hnas.spaces.cell_graph import CellGraph
from hnas.spaces.nasbench201.cell import (
    CONVOLUTIONS,
    EDGES,
    KERNELS,
    NODES,
    OPERATIONS,
    canonical_cell_of,
    check_image_size,
    format_arch,
    parse_arch,
    spelled,
)
from hnas.spaces.sizes import check_sizes

if TYPE_CHECKING:
    import numpy as np

    from hnas.spaces.nasbench201.network import NASBench201Network


# The order of edges and operations in NAS-Bench-Suite-Zero.
_SUITE_ZERO_EDGES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
_SUITE_ZERO_OPERATIONS = ("skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3")

# The cell that the benchmark's authors take for a residual block (their `ResNet_CODE`).
_RESNET = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|"


class NASBench201:
    """The search space; follows `SearchSpace`, `Spelled`, `Mutable`, `Categorical` and `Encoded` of `hnas.spaces`.

    The decisions of an architecture are its operations, as indices into `OPERATIONS`, in the order of its string.
    """

    name = "nasbench201"
    size: int | None = len(OPERATIONS) ** len(EDGES)
    channels = 16
    cells = 5
    choices = (len(OPERATIONS),) * len(EDGES)

    def enumerate(self) -> Iterator[str]:
        """Yield all 15,625 architecture strings."""
        for names in product(OPERATIONS, repeat=len(EDGES)):
            yield _PATTERN.format(*names)

    def sample(self, n: int, seed: int) -> list[str]:
        """Draw `n` distinct architecture strings uniformly."""
        base, edges = len(OPERATIONS), len(EDGES)
        size = base**edges
        if not 1 <= n <= size:
            raise UsageError(f"cannot sample {n} of the {size} architectures of {self.name}; ask for 1 to {size}")
        # Indices into `enumerate`, whose last edge changes fastest.
        drawn = Random(check_seed(seed)).sample(range(size), n)
        return [self.decode([k // base**place % base for place in reversed(range(edges))]) for k in drawn]

    def from_suite_zero(self, encoding: object) -> str:
        """Return the architecture string of NAS-Bench-Suite-Zero's encoding, six indices such as `(4, 3, 3, 3, 2, 3)`.

        They are the operations on the edges 0→1, 0→2, 0→3, 1→2, 1→3, 2→3. Raises `UsageError` for other values.
        """
        indices = encoding if isinstance(encoding, (tuple, list)) else ()
        if len(indices) != len(EDGES) or not all(type(k) is int and 0 <= k < len(OPERATIONS) for k in indices):
            raise UsageError(
                f"an encoding of a NAS-Bench-201 cell must be six numbers from 0 to 4, got {encoding!r:.100}"
            )
        names = (_SUITE_ZERO_OPERATIONS[k] for k in indices)
        return format_arch(dict(zip(_SUITE_ZERO_EDGES, names, strict=True)))

    def canonical(self, arch: str) -> str:
        """Return the key of the architecture's class, such as `a=conv3x3(x);y=x+a`; `y=0` is the dead class."""
        return str(canonical_cell_of(arch))

    def named(self) -> Mapping[str, str]:
        """Return ResNet's cell, which the benchmark lists as a manually designed architecture."""
        return {"ResNet": _RESNET}

    def key(self, arch: str) -> str:
        """Return the string as the benchmark writes it, for any spelling of `arch`."""
        return spelled(arch)

    def definition(self, arch: str) -> str:
        """Return the same as `key`."""
        return spelled(arch)

    def graphs(self, arch: str) -> dict[str, CellGraph]:
        """Return the cell: four nodes and all six edges, including those without an operation."""
        edges = tuple((i, j, name) for (i, j), name in parse_arch(arch).items())
        return {"cell": CellGraph(("input", "1", "2", "output"), edges)}

    def decode(self, decisions: Sequence[int]) -> str:
        """Return the architecture string with these operations."""
        return _PATTERN.format(*[OPERATIONS[decision] for decision in decisions])

    def encode(self, arch: str) -> tuple[int, ...]:
        """Return the operations of `arch`."""
        return _decisions(arch)

    def mutate(self, arch: str, random: np.random.Generator) -> str:
        """Change the operation on a uniformly drawn edge into a uniformly drawn node 1, 2 or 3.

        This is the mutation of regularised evolution in NATS-Bench's program (`exps/NATS-algos/regularized_ea.py`).
        Thus the single edge into node 1 changes as often as the three into node 3 together.
        """
        decisions = list(_decisions(arch))
        node = int(random.integers(1, NODES))
        edge = node * (node - 1) // 2 + int(random.integers(node))
        other = int(random.integers(len(OPERATIONS) - 1))
        decisions[edge] = other + (other >= decisions[edge])
        return self.decode(decisions)

    def neighbours(self, arch: str) -> list[str]:
        """Return the 24 architectures that differ in one operation."""
        decisions = _decisions(arch)
        return sorted(
            self.decode([*decisions[:edge], other, *decisions[edge + 1 :]])
            for edge, present in enumerate(decisions)
            for other in range(len(OPERATIONS))
            if other != present
        )

    def network(
        self, arch: str, *, classes: int = 10, channels: int = 16, cells: int = 5, seed: int = 0
    ) -> NASBench201Network:
        """Build the benchmark's network with the live layers of `arch`: `cells` per stage, `channels` in the first."""
        from hnas.spaces.initialise import initialise
        from hnas.spaces.nasbench201.network import NASBench201Network

        check_sizes("NAS-Bench-201", {"classes": classes, "channels": channels, "cells per stage": cells})
        network = NASBench201Network(canonical_cell_of(arch), classes=classes, channels=channels, cells=cells)
        initialise(network, seed)
        return network

    def describe(
        self, arch: str, *, classes: int = 10, channels: int = 16, cells: int = 5, image_size: int = 32
    ) -> dict[str, int | float]:
        """Return parameters and multiply-adds of the benchmark's own network, including layers without effect.

        `params` counts every weight; `flops` the multiply-adds of convolutions and of the linear layer for one image.
        """
        check_image_size(image_size)
        kernels = [KERNELS[CONVOLUTIONS[name]] for name in parse_arch(arch).values() if name in CONVOLUTIONS]
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


_PATTERN = format_arch(dict.fromkeys(EDGES, "{}"))


@lru_cache(maxsize=2**15)
def _decisions(arch: str) -> tuple[int, ...]:
    return tuple(OPERATIONS.index(name) for name in parse_arch(arch).values())
