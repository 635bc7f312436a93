"""Statistics of one network's passes besides the eight columns, collected on request for scores."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import TypedDict

import torch
from torch import Tensor

from hnas.errors import UsageError
from hnas.metrics.fisher import FisherPass
from hnas.metrics.layers import Layers
from hnas.metrics.ntk import OwnersPass, find_rows
from hnas.metrics.order import Order
from hnas.metrics.owners import MixedRowsError, cotangents, rows_of
from hnas.metrics.passes import BackwardPass, Passes
from hnas.metrics.signs import Signs


class Statistics(TypedDict, total=False):
    """The requested statistics of one network and batch (images x_i, labels y_i), float64 on the CPU.

    A ReLU is any call of `relu`, `relu6`, `leaky_relu` or `prelu`, or of `hardtanh` with the lower bound 0, which
    `nn.ReLU6` calls. Its units are its outputs for one sample; a unit is active where its output is positive. In the
    networks of the spaces, a ReLU output that several layers read counts once per layer, because the original networks
    have one ReLU in each layer (`hnas.spaces.dag.forward.again`).
    """

    weight_norms: Tensor
    """‖θ_l‖₂ (layers,) of the weights of Conv and Linear modules, in module order."""
    gradient: Tensor
    """`θᵀ g` and `‖g‖₂` (2,) for the gradient g of the loss."""
    fisher: Tensor
    """Fisher saliency () of the channels, `hnas.metrics.fisher`; NaN where some row has no single sample."""
    agreements: Tensor
    """K (m, m), the number of ReLU units in which samples i and j agree; all units on the diagonal. NaN where the rows
    of a ReLU cannot be assigned to samples."""
    patterns: Tensor
    """Number () of distinct activation patterns of the ReLU units; a unit's pattern is the set of samples for which it
    is active. NaN where `agreements` is."""
    correlations: Tensor
    """Correlation coefficients (m, m) of the gradients `∂/∂x_i Σ_jc f_c(x_j)`, over the entries of x_i. NaN in the row
    and column of a sample whose gradient is constant over its entries, and for images without a gradient."""
    ntk_mean: Tensor
    """`(1/m²) Σ_ij Θ₀[i, j]` ()."""
    labels: Tensor
    """y (m,)."""
    classes: Tensor
    """Number () of logits per image."""


#: The names of all statistics.
STATISTICS = tuple(Statistics.__annotations__)


class Collector:
    """Collects the statistics in `needs` during the passes over one network.

    Collecting never changes a bit of the columns. With empty `needs` it does nothing.
    """

    def __init__(self, needs: frozenset[str]) -> None:
        self.needs = needs
        self.images: Tensor | None = None
        self.fisher: FisherPass | None = None
        self._signs: Signs | None = None
        #: ReLU outputs whose rows are not assigned to samples, with their versions.
        self._doubtful: list[tuple[Tensor, int]] = []
        self._values: dict[str, Tensor] = {}

    def prepare(self, images: Tensor) -> Tensor:
        """Return the network's input for `images` (m, …), a tensor that this computation owns."""
        m, device = len(images), images.device
        if "fisher" in self.needs:
            self.fisher = FisherPass(m, device)
        if "agreements" in self.needs or "patterns" in self.needs:
            self._signs = Signs(m, device, agreements="agreements" in self.needs, patterns="patterns" in self.needs)
        if "correlations" not in self.needs or not images.is_floating_point():
            return images
        self.images = images.requires_grad_()
        return self.images.clone()  # the network may change its input in place

    def rectified(self, order: Order, values: Tensor) -> None:
        """Count the output `values` of a ReLU."""
        if self._signs is None:
            return
        if order.knows(values):
            self._signs.add(values)
        else:
            self._doubtful.append((values, -1 if values.is_inference() else values._version))

    def find_rows(self, layers: Layers, passes: Passes, target: Tensor) -> None:
        """Assign the rows of layers and ReLUs to samples where needed; `target` (m,) are the samples' logits."""
        if self.fisher is not None:
            with suppress(UsageError):  # `fisher` is NaN for mixed rows; only Θ₀ must refuse them
                find_rows(layers, passes, target)
        doubtful, self._doubtful = self._doubtful, []
        if self._signs is None or not doubtful:
            return
        values = [value for value, _ in doubtful]
        probes: list[Sequence[Tensor | None]] = [[] for _ in values]
        if all(value.requires_grad and value._version == version for value, version in doubtful):
            found = [passes.run(OwnersPass(), target, values, probe) for probe in cotangents(target.detach())]
            probes = list(zip(*found, strict=True))
        for value, gradients in zip(values, probes, strict=True):
            self._signs.add(_in_order(value, [g for g in gradients if g is not None], len(target)))

    def gradient_pass(self) -> BackwardPass:
        """Return the pass in which to differentiate the loss."""
        return BackwardPass() if self.fisher is None else self.fisher

    def input_pass(self, passes: Passes, logits: Tensor) -> None:
        """Differentiate the sum of all `logits` (m, classes) with respect to the images, if requested."""
        if "correlations" in self.needs:
            gradient = None
            if self.images is not None and logits.requires_grad:
                (gradient,) = passes.run(_InputPass(), logits.sum(), [self.images])
            self._values["correlations"] = _correlations(gradient, logits)

    def put(self, name: str, value: Tensor) -> None:
        """Set the statistic `name` if it is needed."""
        if name in self.needs:
            self._values[name] = value

    def collected(self, layers: Layers, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return all needed statistics by name, on the device."""
        self.put("labels", labels)
        self.put("classes", logits.new_full((), logits.shape[1], dtype=torch.float64))
        if "weight_norms" in self.needs:
            norms = [torch.linalg.vector_norm(weight.detach(), dtype=torch.float64) for weight in layers.weights]
            self._values["weight_norms"] = torch.stack(norms)
        if self.fisher is not None:
            self._values["fisher"] = self.fisher.total
        if self._signs is not None:
            self.put("agreements", self._signs.agreements())
            self.put("patterns", self._signs.patterns())
        return self._values


def checked(needs: Collection[str]) -> frozenset[str]:
    """Return `needs` as a set. Raises `UsageError` for an unknown name."""
    for name in needs:
        if name not in STATISTICS:
            raise UsageError(f"the statistic {name!r} is unknown; choose from {', '.join(STATISTICS)}")
    return frozenset(needs)


def _in_order(values: Tensor, gradients: list[Tensor], samples: int) -> Tensor | None:
    """Return `values` as (m, …), by their `gradients` in the passes of `hnas.metrics.owners`.

    None where a row belongs to several samples or to none, or where samples have different numbers of rows.
    """
    rows = None
    with suppress(MixedRowsError):
        rows = rows_of(gradients, samples, convolution=False) if gradients else None
    if rows is None or rows.owner is None:
        return None if rows is None else values.movedim(rows.dimension, 0)
    shares = (rows.owner + 1).bincount(minlength=samples + 1)
    if shares[0] or not bool((shares[1:] * samples == len(rows.owner)).all()):
        return None
    return values.flatten(0, -2)[rows.owner.argsort(stable=True)].view(samples, -1)


class _InputPass(BackwardPass):
    """The backward pass for the gradients of the images alone."""

    to_images = True

    def __init__(self) -> None:
        super().__init__(wanted=())


def _correlations(gradient: Tensor | None, logits: Tensor) -> Tensor:
    """Return the correlation coefficients (m, m), float64, of the rows of `gradient` (m, …); NaN without a gradient."""
    m = len(logits)
    if gradient is None:
        return logits.new_full((m, m), torch.nan, dtype=torch.float64)
    rows = gradient.flatten(1).double()
    rows = rows - rows.mean(1, keepdim=True)
    rows = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    coefficients: Tensor = (rows @ rows.t()).clamp(-1, 1)
    return coefficients
