"""Θ₀, the neural tangent kernel of the batch (m, m) in float64, summed layer by layer.

A layer with per-sample weight gradients `J_s ∈ R^P` contributes `Θ_l[s, t] = ⟨J_s, J_t⟩`. Its bias contributes the
same product, with the cotangent summed over positions as `J_s`. The (samples × parameters) Jacobian of the whole
network never exists: a layer's J is freed once its products are added.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from hnas.errors import UsageError
from hnas.metrics.layers import Bias, Call, Layer, Layers
from hnas.metrics.owners import IN_ORDER, MixedRowsError, cotangents, rows_of
from hnas.metrics.passes import BackwardPass, Passes
from hnas.metrics.unseen_uses import refuse_derivatives

# Columns of J converted to float64 at once: 1 MiB for 64 samples, which fits a core's own cache.
_COLUMNS = 2048

# The same on an accelerator, for fewer kernels: 64 MiB. Not measured.
_COLUMNS_ON_DEVICE = 2**17

# Bytes of per-sample gradients that the exact Θ₀ holds at once; more layers than fit take a further m passes.
_EXACT_BYTES = 512 * 2**20


def summed_ntk(layers: Layers, passes: Passes, target: Tensor, *, keep_graph: bool) -> Tensor:
    """Return Θ₀ (m, m) from one backward pass of `Σ_i f_{y_i}(x_i)`, the sum of `target` (m,)."""
    gram = Gram(len(target), target.device)
    passes.run(NTKPass(gram), target.sum(), layers.weights, keep_graph=keep_graph)
    return gram.finish()


def exact_ntk(layers: Layers, passes: Passes, target: Tensor) -> Tensor:
    """Return Θ₀ (m, m) from one backward pass per logit `f_{y_i}(x_i)` in `target` (m,)."""
    m = len(target)
    gram = Gram(m, target.device)
    for group in _groups(list(layers), m):
        wanted = {layer.name for layer in group}
        leaves = [layer.weight for layer in group]
        leaves += [bias.value for bias in layers.by_bias.values() if bias.owner in wanted]
        rows = [torch.zeros((m, leaf.numel()), dtype=leaf.dtype, device=leaf.device) for leaf in leaves]
        for i in range(m):
            for row, gradient in zip(rows, passes.run(BackwardPass(wanted), target[i], leaves), strict=True):
                if gradient is not None:
                    row[i] = gradient.flatten()
        for row in rows:
            gram.add_gradients(row)
    return gram.finish()


def _groups(layers: list[Layer], m: int) -> Iterator[list[Layer]]:
    group: list[Layer] = []
    size = 0
    for layer in layers:
        bytes_needed = m * layer.weight.numel() * layer.weight.element_size()
        if group and size + bytes_needed > _EXACT_BYTES:
            yield group
            group, size = [], 0
        group.append(layer)
        size += bytes_needed
    yield group


class NTKPass(BackwardPass):
    """The backward pass that adds each layer's contribution to `gram`."""

    def __init__(self, gram: Gram) -> None:
        super().__init__(wanted=())
        self.gram = gram
        self._visited: set[Call] = set()

    def visit(self, call: Call, x: Tensor, gy: Tensor) -> None:
        """Add the contribution of one call. Raises `UsageError` on a second visit."""
        if call in self._visited:
            raise UsageError(
                f"layer {call.layer.name} runs again in the backward pass, so Θ₀ would count it twice; "
                "hooks and autograd functions of the network must not call layers"
            )
        self._visited.add(call)
        self.gram.add(call, x, gy)


class OwnersPass(BackwardPass):
    """A backward pass that collects the cotangents of calls whose rows are unassigned (`hnas.metrics.owners`)."""

    couples = False

    def __init__(self) -> None:
        super().__init__(wanted=())
        self.seen: dict[Call, list[Tensor]] = {}

    def visit(self, call: Call, x: Tensor, gy: Tensor) -> None:
        """Keep the cotangent gy."""
        if call.rows is None:
            self.seen.setdefault(call, []).append(gy)


def find_rows(layers: Layers, passes: Passes, target: Tensor) -> None:
    """Assign the rows of every doubtful call to samples; `target` (m,) are the samples' logits.

    Raises `UsageError` where a row contributes to several samples, and where no call has a weight's whole gradient.
    """
    if passes.nested:
        refuse_derivatives(target, layers)
    doubtful = [call for call in layers.doubtful if call.rows is None]
    if not doubtful:
        return
    probe, probes = OwnersPass(), cotangents(target.detach())
    for cotangent in probes:
        passes.run(probe, target, layers.weights, cotangent)
    for call in doubtful:
        gradients = probe.seen.pop(call, [])
        if not gradients:  # the logits do not depend on this call
            call.rows = IN_ORDER
            continue
        if len(gradients) != len(probes):
            raise UsageError(
                f"layer {call.layer.name} runs again in the backward pass, so its share of Θ₀ is unknown; "
                "hooks and autograd functions of the network must not call layers"
            )
        try:
            call.rows = rows_of(gradients, len(target), convolution=call.map.convolution)
        except MixedRowsError:
            raise UsageError(
                f"layer {call.layer.name} returns a tensor of shape {tuple(gradients[0].shape)} in which a row "
                "contributes to the logits of several samples, so there are no per-sample gradients; "
                'use ntk="exact", which needs none'
            ) from None


class Gram:
    """Accumulates Θ₀ (m, m) in float64 over layers."""

    def __init__(self, samples: int, device: torch.device) -> None:
        self.matrix = torch.zeros((samples, samples), dtype=torch.float64, device=device)
        self._shared: dict[int, Tensor] = {}

    def add(self, call: Call, x: Tensor, gy: Tensor) -> None:
        """Add one call with input x and cotangent gy, whose rows belong to samples as `call.rows` says.

        A weight or bias used several times has one gradient, the sum over its calls, which is added in `finish`.
        """
        rows = call.rows
        if rows is None:  # gradients that are not finite cannot be assigned to samples
            self.matrix += torch.nan
        elif rows.owner is None:
            if rows.dimension:
                x, gy = x.movedim(rows.dimension, 0), gy.movedim(rows.dimension, 0)
            self._add_in_order(call, x, gy)
        else:
            self._add_rows(call, rows.owner, x, gy)

    def _add_in_order(self, call: Call, x: Tensor, gy: Tensor) -> None:
        """Add a call whose x (m, …) and gy (m, …) have the samples first."""
        layer = call.layer
        products = call.map.products(x, gy) if layer.calls == 1 else None
        if products is not None:
            self.matrix += products
        else:
            self._add(layer, call.map.weight_gradients(x, gy, layer.weight, in_order=layer.calls > 1))
        if call.bias is not None:
            self._add(call.bias, call.map.bias_gradients(gy))

    def _add_rows(self, call: Call, owner: Tensor, x: Tensor, gy: Tensor) -> None:
        """Add a call with rows in any order; `owner` is the sample of each, −1 for rows that no logit depends on."""
        layer, m = call.layer, len(self.matrix)
        if not call.map.convolution:
            x, gy = x.flatten(0, -2), gy.flatten(0, -2)
        if bool(gy.flatten(1)[owner < 0].any()):
            raise UsageError(
                f"layer {layer.name} has rows that reach the logits only through batch statistics, so they "
                'belong to no sample; use ntk="exact", which needs no per-sample gradients'
            )
        each = len(owner) // m
        if not call.map.convolution and bool(
            (owner.bincount(minlength=m) == each).all() if (owner >= 0).all() else False
        ):
            places = owner.argsort(stable=True)
            self._add_in_order(call, *(rows[places].view(m, each, -1) for rows in (x, gy)))
            return
        weight, bias = gy.new_zeros((m, layer.weight.numel())), gy.new_zeros((m, len(layer.weight)))
        for start in range(0, len(owner), m):  # at most m gradients in memory at once
            places = start + (owner[start : start + m] >= 0).nonzero()[:, 0]
            if not len(places):
                continue
            weight.index_add_(
                0, owner[places], call.map.weight_gradients(x[places], gy[places], layer.weight, in_order=True)
            )
            bias.index_add_(0, owner[places], call.map.bias_gradients(gy[places]))
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
            # Θ₀ is symmetric, so its upper right quarter is skipped.
            self.matrix[:half, :half].addmm_(block[:half], block[:half].t())
            self.matrix[half:].addmm_(block[half:], block.t())

    def finish(self) -> Tensor:
        """Return Θ₀ (m, m), exactly symmetric."""
        for rows in self._shared.values():
            self.add_gradients(rows)
        self._shared.clear()
        return self.matrix.tril() + self.matrix.tril(-1).t()
