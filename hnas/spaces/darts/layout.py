"""The layout of networks of DARTS cells: channels and sides of all cells, parameters and multiply-adds.

    stem (3×3 conv to 3C channels, BN) → L cells → global average pooling → linear

Cells number ⌊L/3⌋ and ⌊2L/3⌋ are reduction cells, which halve the side and double C. A cell reads the outputs of the
two previous cells, each through a ReLU, a 1×1 conv to C channels and BN. If the earlier output is twice as large,
because the later cell is a reduction cell, it goes through a factorised reduction instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hnas.errors import UsageError
from hnas.spaces.darts.canonical import DARTSCell

STEM = 3
#: Minimum side of the maps that the auxiliary head reads: 5×5 average pooling with stride 3, 1×1 conv, 2×2 conv.
AUXILIARY_SIDE = 8


@dataclass(frozen=True)
class Place:
    """A cell in the network: its channels C, those of its two inputs, and the number of halvings of the side after it.

    `halves_first` is set if the first input is twice as large as the second.
    """

    cell: DARTSCell
    channels: int
    inputs: tuple[int, int]
    halves_first: bool
    halvings: int

    @property
    def outputs(self) -> int:
        """Channels of the cell's output."""
        return self.channels * len(self.cell.outputs)


def reductions(layers: int) -> tuple[int, int]:
    """Return the numbers of the reduction cells, which are equal in a network of one cell."""
    return layers // 3, 2 * layers // 3


def places(normal: DARTSCell, reduction: DARTSCell, channels: int, layers: int) -> Iterator[Place]:
    """Yield the cells of a network of `layers` cells, C = `channels` before the first reduction."""
    inputs, halves_first, halvings = (STEM * channels, STEM * channels), False, 0
    for i in range(layers):
        reduces = i in reductions(layers)
        halvings += reduces
        place = Place(reduction if reduces else normal, channels << halvings, inputs, halves_first, halvings)
        yield place
        inputs, halves_first = (inputs[1], place.outputs), reduces


def check_image_size(size: int, layers: int, *, auxiliary: bool = False) -> None:
    """Raise `UsageError` unless images of `size` × `size` pixels can be halved and suit the auxiliary head."""
    unit = 1 << len(set(reductions(layers)))
    if size < unit or size % unit:
        raise UsageError(
            f"the side of images for a DARTS network of {layers} cells must be a multiple of {unit}, got {size}"
        )
    if auxiliary and size < AUXILIARY_SIDE * unit:
        raise UsageError(
            f"the auxiliary head needs images of at least {AUXILIARY_SIDE * unit} pixels, got {size}; build the "
            "network without it (auxiliary=False)"
        )


def cost(
    normal: DARTSCell, reduction: DARTSCell, *, classes: int, channels: int, layers: int, image_size: int
) -> tuple[int, int]:
    """Return parameters, and multiply-adds of convolutions and the linear layer per image, without auxiliary head."""
    check_image_size(image_size, layers)
    stem = STEM * channels
    params, flops, outputs = 27 * stem + 2 * stem, 27 * stem * image_size**2, stem
    for place in places(normal, reduction, channels, layers):
        c, pixels = place.channels, (image_size >> place.halvings) ** 2
        read = pixels * 4 if place.cell.reduction else pixels
        for state, inputs in enumerate(place.inputs):
            if place.cell.reads(state):
                params += inputs * c + 2 * c
                flops += inputs * c * read
        for layer in place.cell.layers:
            more = _layer_cost(layer.kind, c, pixels)
            params, flops = params + more[0], flops + more[1]
        outputs = place.outputs
    return params + outputs * classes + classes, flops + outputs * classes


def _layer_cost(kind: str, c: int, pixels: int) -> tuple[int, int]:
    """Return parameters and multiply-adds of a layer with c channels and `pixels` output positions."""
    name, _, stride = kind.partition("/")
    if name == "skip":
        weights = c * c
    elif name == "conv7":  # the first of its two convolutions has a stride in one direction only
        return 14 * c * c + 2 * c, 7 * c * c * pixels * (3 if stride else 2)
    else:
        units, kernel = (1 if name.startswith("dil") else 2), int(name[-1])
        weights = units * (kernel * kernel * c + c * c)
        return weights + units * 2 * c, weights * pixels
    return weights + 2 * c, weights * pixels
