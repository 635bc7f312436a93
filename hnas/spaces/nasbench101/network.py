"""The macro network of NAS-Bench-101 (Ying et al., ICML 2019) around a canonical cell.

    stem (3×3 conv-BN-ReLU) → N modules, C channels → 2×2 max pooling → N modules, 2C → 2×2 max pooling → N modules, 4C
    → global average pooling → linear

With `trunc` dropping the channels that a vertex does not need (see `vertex_channels`), and each `proj` a separate 1×1
conv-BN-ReLU, a module computes

    h_v = op_v( Σ_{u → v} trunc(h_u) [+ proj_v(x) where input → v] )
    y   = concat_{v → output} h_v [+ proj(x) where input → output]

ReLU comes last in every operation and works in place, because the backward pass of batch norm needs its input but not
its output. Batch norm differs from the benchmark's in one respect that no metric depends on: running statistics use
torch's momentum of 0.1 instead of 0.003, which would take a thousand training steps to become meaningful.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, cat, nn
from torch.nn.functional import max_pool2d, relu

from hnas.spaces.initialise import Conv2d, Linear
from hnas.spaces.nasbench101.cell import KERNELS, NASBench101Cell, check_image_size, vertex_channels


class NASBench101Network(nn.Module):
    """The network of a canonical `cell`: images (m, 3, S, S) to logits (m, classes)."""

    #: Minimum channels and cells for a network that has all kinds of cells: one channel per concatenated vertex.
    smallest: ClassVar[tuple[int, int]] = (5, 1)

    def __init__(self, cell: NASBench101Cell, *, classes: int, channels: int, cells: int) -> None:
        super().__init__()
        self.stem = _ConvBNReLU(3, channels, 3)
        self.stacks = nn.ModuleList()
        inputs = channels
        for outputs in (channels, 2 * channels, 4 * channels):
            widths = [inputs, *(outputs for _ in range(cells - 1))]
            self.stacks.append(nn.ModuleList(_Module(cell, read, outputs) for read in widths))
            inputs = outputs
        self.classifier = Linear(4 * channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (m, classes) for images (m, 3, S, S), S a multiple of 4."""
        for side in images.shape[-2:]:
            check_image_size(side)
        x = self.stem(images)
        for depth, stack in enumerate(self.stacks):
            if depth:
                x = max_pool2d(x, 2)
            for module in stack:  # type: ignore[attr-defined]
                x = module(x)
        out: Tensor = self.classifier(x.mean((2, 3)))
        return out


class _ConvBNReLU(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.norm(self.conv(x)), inplace=True)


class _Module(nn.Module):
    """A cell from `inputs` to `outputs` channels; layers are named after their vertices in the canonical cell."""

    def __init__(self, cell: NASBench101Cell, inputs: int, outputs: int) -> None:
        super().__init__()
        last = len(cell.inputs) - 1
        self.widths = vertex_channels(cell.inputs, outputs)
        self.reads = [[u for u in range(1, v) if cell.inputs[v] >> u & 1] for v in range(last + 1)]
        self.projections = nn.ModuleDict(
            {_name(v, last): _ConvBNReLU(inputs, self.widths[v], 1) for v in range(1, last + 1) if cell.inputs[v] & 1}
        )
        self.operations = nn.ModuleDict(
            {
                _name(v, last): _ConvBNReLU(self.widths[v], self.widths[v], kernel)
                for v, kernel in enumerate((KERNELS[label] for label in cell.labels), start=1)
                if kernel
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        last = len(self.reads) - 1
        values = [x]
        for v in range(1, last):
            terms = [_truncated(values[u], self.widths[v]) for u in self.reads[v]]
            total = _sum([*terms, *self._projected(x, v)])
            name = _name(v, last)
            pooled = name not in self.operations
            values.append(max_pool2d(total, 3, 1, 1) if pooled else self.operations[name](total))
        parts = [values[v] for v in self.reads[last]]
        joined = [cat(parts, 1)] if len(parts) > 1 else parts
        return _sum([*joined, *self._projected(x, last)])

    def _projected(self, x: Tensor, vertex: int) -> list[Tensor]:
        name = _name(vertex, len(self.reads) - 1)
        return [self.projections[name](x)] if name in self.projections else []


def _name(vertex: int, last: int) -> str:
    return "output" if vertex == last else str(vertex)


def _truncated(x: Tensor, channels: int) -> Tensor:
    return x if x.shape[1] == channels else x[:, :channels]


def _sum(terms: list[Tensor]) -> Tensor:
    """Add tensors of one shape without changing them."""
    if len(terms) == 1:
        return terms[0]
    total = terms[0] + terms[1]
    for term in terms[2:]:
        total += term
    return total
