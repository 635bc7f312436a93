"""Θ₀ of one layer at a time, in float64, from the layer's inputs and output gradients.

For a layer with per-sample weight gradients `J_s ∈ R^P` the contribution is `Θ_l[s, t] = ⟨J_s, J_t⟩`, and that of its
bias is the same with `J_s` the output gradient summed over positions. No (samples × parameters) matrix of the network
exists at any time: a layer's J lives until its products are added.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hnas.errors import UsageError
from hnas.metrics.geometry import Geometry
from hnas.metrics.layers import Bias, Call, Layer

# Elements of the input patches unfolded at once: 1 MB in float32, measured best from 16 × 32² to 64 × 8² maps.
_PATCHES = 250_000

# The same on an accelerator, where what counts is the number of kernels: 128 MiB in float32. Not measured.
_PATCHES_ON_DEVICE = 2**25

# Columns of J turned to float64 at once: 64 samples of these take 1 MiB, which stays in a core's own cache.
_COLUMNS = 2048

# The same on an accelerator, for fewer kernels: 64 MiB. Not measured.
_COLUMNS_ON_DEVICE = 2**17


class Gram:
    """Accumulates Θ₀ (m, m) float64 over the layers that `add` is called with."""

    def __init__(self, samples: int, device: torch.device) -> None:
        self.matrix = torch.zeros((samples, samples), dtype=torch.float64, device=device)
        self._shared: dict[int, Tensor] = {}

    def add(self, call: Call, x: Tensor, gy: Tensor) -> None:
        """Add one call of a layer with input x and output gradient gy, whose rows belong to samples as the call says.

        A weight or bias that is used several times has one gradient, the sum over its calls: it waits for `finish`.
        """
        rows = call.rows
        if rows is None:  # gradients that are not finite: nothing is known of the rows, and nothing comes of them
            self.matrix += torch.nan
        elif rows.owner is None:
            if rows.dimension:
                x, gy = x.movedim(rows.dimension, 0), gy.movedim(rows.dimension, 0)
            self._add_in_order(call, x, gy)
        else:
            self._add_rows(call, rows.owner, x, gy)

    def _add_in_order(self, call: Call, x: Tensor, gy: Tensor) -> None:
        """x (m, …) and gy (m, …)."""
        layer, geometry = call.layer, call.geometry
        if layer.calls == 1 and not geometry.convolution and x.dim() == 2:
            a, b = x.double(), gy.double()
            self.matrix += (a @ a.t()) * (b @ b.t())
        else:
            self._add(layer, per_sample_gradient(geometry, x, gy, layer.weight, in_order=layer.calls > 1))
        if call.bias is not None:
            self._add(call.bias, geometry.bias_adjoint(gy))

    def _add_rows(self, call: Call, owner: Tensor, x: Tensor, gy: Tensor) -> None:
        """Rows in any order, with the sample of each, −1 where it has a share in no logit."""
        layer, geometry, m = call.layer, call.geometry, len(self.matrix)
        if not geometry.convolution:
            x, gy = x.flatten(0, -2), gy.flatten(0, -2)
        if bool(gy.flatten(1)[owner < 0].any()):
            raise UsageError(
                f"layer {layer.name} has rows that reach the logits through the batch's statistics alone, so they "
                'belong to no sample; ntk="exact" does without'
            )
        each = len(owner) // m
        if not geometry.convolution and bool(
            (owner.bincount(minlength=m) == each).all() if (owner >= 0).all() else False
        ):
            places = owner.argsort(stable=True)
            self._add_in_order(call, *(rows[places].view(m, each, -1) for rows in (x, gy)))
            return
        weight, bias = gy.new_zeros((m, layer.weight.numel())), gy.new_zeros((m, len(layer.weight)))
        for start in range(0, len(owner), m):  # no more gradients at once than there are samples
            places = start + (owner[start : start + m] >= 0).nonzero()[:, 0]
            weight.index_add_(
                0, owner[places], per_sample_gradient(geometry, x[places], gy[places], layer.weight, in_order=True)
            )
            bias.index_add_(0, owner[places], geometry.bias_adjoint(gy[places]))
        self._add(layer, weight)
        if call.bias is not None:
            self._add(call.bias, bias)

    def _add(self, owner: Layer | Bias, rows: Tensor) -> None:
        if owner.calls == 1:
            self.add_gradients(rows)
        elif id(owner) in self._shared:
            self._shared[id(owner)] = self._shared[id(owner)] + rows
        else:
            self._shared[id(owner)] = rows

    def add_gradients(self, rows: Tensor) -> None:
        """Add `rows @ rowsᵀ` for gradients `rows` (m, P) of one weight or bias."""
        half = len(rows) // 2
        columns = _COLUMNS if rows.device.type == "cpu" else _COLUMNS_ON_DEVICE
        for start in range(0, rows.shape[1], columns):
            block = rows[:, start : start + columns].double()
            # Θ₀ is symmetric: its upper right quarter need not be summed.
            self.matrix[:half, :half].addmm_(block[:half], block[:half].t())
            self.matrix[half:].addmm_(block[half:], block.t())

    def finish(self) -> Tensor:
        """Θ₀ (m, m), exactly symmetric."""
        for rows in self._shared.values():
            self.add_gradients(rows)
        self._shared.clear()
        return self.matrix.tril() + self.matrix.tril(-1).t()


def per_sample_gradient(geometry: Geometry, x: Tensor, gy: Tensor, weight: Tensor, *, in_order: bool) -> Tensor:
    """The gradients `J_s = ∂⟨gy_s, θ * x_s⟩/∂θ`, (m, P), for inputs x (m, …) and output gradients gy (m, …).

    The P entries are in the order of the weight's. Unless `in_order`, they are in any order, the same for every sample:
    enough for products of gradients of one call, and a copy less.
    """
    m = x.shape[0]
    if not geometry.convolution:
        if x.dim() == 2:
            return (gy[:, :, None] * x[:, None, :]).flatten(1)
        return torch.bmm(gy.flatten(1, -2).transpose(1, 2), x.flatten(1, -2)).flatten(1)
    if geometry.groups == 1 and x.dim() == 4:
        return _unfolded(geometry, x, gy, weight, in_order)
    if geometry.is_depthwise(x, weight):
        return geometry.depthwise_gradients(gy, x, weight).flatten(1)
    # Every sample becomes a group of one convolution, whose weight gradient is then theirs side by side.
    one = Geometry(True, geometry.stride, geometry.padding, geometry.dilation, geometry.groups * m)
    wide = weight.detach().expand(m, *weight.shape).flatten(0, 1)
    _, gw = one.adjoint(gy.flatten(0, 1)[None], x.flatten(0, 1)[None], wide, to_x=False, to_kernel=True)
    assert gw is not None
    return gw.reshape(m, -1)


def _unfolded(geometry: Geometry, x: Tensor, gy: Tensor, weight: Tensor, in_order: bool) -> Tensor:
    """Products of output gradients with input patches, a few samples at a time, channels last.

    With the channels innermost a row of a patch is one run of memory, and the patches of a few samples stay in cache.
    Unless rows are skipped, a patch is not unfolded but along its rows: those of the output, one after the other, meet
    in turn the rows of the input that start at each row of the kernel, which are one run of memory too.
    """
    m, height, width = gy.shape[0], gy.shape[2], gy.shape[3]
    outputs, inputs, kh, kw = weight.shape
    (sh, sw), (ph, pw), (dh, dw) = geometry.stride, geometry.padding, geometry.dilation
    rows = gy.permute(0, 2, 3, 1).reshape(m, height * width, outputs).transpose(1, 2)
    if (kh, kw, ph, pw) == (1, 1, 0, 0):
        pixels = x[:, :, ::sh, ::sw].permute(0, 2, 3, 1).reshape(m, height * width, inputs)
        return torch.bmm(rows, pixels).flatten(1)
    # Kernel rows unfolded with each pixel, and those met in turn.
    unfolded, turns = (kh, 1) if sh > 1 else (1, kh)
    lines = height + (turns - 1) * dh
    patch = unfolded * kw * inputs
    patches_at_once = _PATCHES if x.device.type == "cpu" else _PATCHES_ON_DEVICE
    step = max(1, min(m, patches_at_once // (lines * width * patch)))
    out = x.new_empty((m, turns, outputs, patch))
    buffer = x.new_empty((step, lines, width, unfolded, kw, inputs))
    for start in range(0, m, step):
        part = F.pad(x[start : start + step], (pw, pw, ph, ph)).permute(0, 2, 3, 1).contiguous()
        b, h, w, c = part.stride()
        patches = buffer[: len(part)]
        patches.copy_(part.as_strided(patches.shape, (b, h * sh, w * sw, h * dh, w * dw, c)))
        pixels = patches.view(len(part), lines * width, patch)
        for turn in range(turns):
            first = turn * dh * width
            torch.bmm(
                rows[start : start + step],
                pixels[:, first : first + height * width],
                out=out[start : start + step, turn],
            )
    if in_order:
        out = out.view(m, turns, outputs, unfolded, kw, inputs).permute(0, 2, 5, 1, 3, 4)
    return out.flatten(1)
