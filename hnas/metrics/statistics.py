"""What one network's passes yield besides the eight columns, collected where asked for, for scores made of it."""

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
    """The statistics of one network and batch (images x_i, labels y_i) that were asked for, float64 on the CPU.

    A ReLU is a call of `relu`, `relu6`, `leaky_relu` or `prelu` by whatever module or function. Its units are all that
    it returns for one sample, and active where that is positive. What several layers read counts for each of them in
    the networks of the spaces, whose originals have a ReLU in each layer (`hnas.spaces.dag.forward.again`).
    """

    weight_norms: Tensor
    """‖θ_l‖₂ (layers,) of the weights of Conv and Linear modules, in the order of the modules."""
    gradient: Tensor
    """`θᵀ g` and `‖g‖₂` (2,) for the gradient g of the loss."""
    fisher: Tensor
    """The saliency () of the channels, `hnas.metrics.fisher`; NaN where rows of a layer belong to no one sample."""
    agreements: Tensor
    """K (m, m), the number of ReLU units in which samples i and j agree: all units where i = j. NaN where it
    cannot be found out which sample each of a ReLU's rows belongs to."""
    patterns: Tensor
    """The number () of distinct patterns among the ReLU units, the pattern of one being for which samples it is active.
    NaN as `agreements`."""
    correlations: Tensor
    """Correlation coefficients (m, m) of the gradients `∂/∂x_i Σ_jc f_c(x_j)`, over the entries of x_i. NaN in the row
    and column of a sample whose gradient is the same in all entries, and for images that have none."""
    ntk_mean: Tensor
    """`(1/m²) Σ_ij Θ₀[i, j]` ()."""
    labels: Tensor
    """y (m,)."""
    classes: Tensor
    """The number () of logits of an image."""


#: What can be asked for.
STATISTICS = tuple(Statistics.__annotations__)


class Collector:
    """Collects the statistics called `needs` in the passes over one network.

    The columns are the same to the last bit whatever it collects, and without any need it does nothing.
    """

    def __init__(self, needs: frozenset[str]) -> None:
        self.needs = needs
        self.images: Tensor | None = None
        self.fisher: FisherPass | None = None
        self._signs: Signs | None = None
        #: What ReLUs returned of which it is not known whose its rows are, with its version.
        self._doubtful: list[tuple[Tensor, int]] = []
        self._found: dict[str, Tensor] = {}

    def given(self, images: Tensor) -> Tensor:
        """What the network is given for `images` (m, …), a tensor of this computation alone."""
        m, device = len(images), images.device
        if "fisher" in self.needs:
            self.fisher = FisherPass(m, device)
        if "agreements" in self.needs or "patterns" in self.needs:
            self._signs = Signs(m, device, agreements="agreements" in self.needs, patterns="patterns" in self.needs)
        if "correlations" not in self.needs or not images.is_floating_point():
            return images
        self.images = images.requires_grad_()
        return self.images.clone()  # which the network may change in place

    def rectified(self, order: Order, values: Tensor) -> None:
        """A ReLU returned `values`."""
        if self._signs is None:
            return
        if order.knows(values):
            self._signs.add(values)
        else:
            self._doubtful.append((values, values._version))

    def find_rows(self, layers: Layers, passes: Passes, target: Tensor) -> None:
        """Find out whose the rows of layers and ReLUs are, where it matters, for the logits `target` (m,)."""
        if self.fisher is not None:
            with suppress(UsageError):  # rows of several samples have no share; Θ₀ refuses them where it needs them
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
        """The pass in which the loss is differentiated."""
        return BackwardPass() if self.fisher is None else self.fisher

    def input_pass(self, passes: Passes, logits: Tensor) -> None:
        """Differentiate the sum of all `logits` (m, classes) with respect to the images, where that is wanted."""
        if "correlations" in self.needs:
            gradient = None
            if self.images is not None and logits.requires_grad:
                (gradient,) = passes.run(_InputPass(), logits.sum(), [self.images])
            self._found["correlations"] = _correlations(gradient, logits)

    def put(self, name: str, value: Tensor) -> None:
        """`value` is the statistic `name`."""
        if name in self.needs:
            self._found[name] = value

    def collected(self, layers: Layers, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """All statistics that are needed by name, on the device."""
        self.put("labels", labels)
        self.put("classes", logits.new_full((), logits.shape[1], dtype=torch.float64))
        if "weight_norms" in self.needs:
            norms = [torch.linalg.vector_norm(weight.detach(), dtype=torch.float64) for weight in layers.weights]
            self._found["weight_norms"] = torch.stack(norms)
        if self.fisher is not None:
            self._found["fisher"] = self.fisher.total
        if self._signs is not None:
            self.put("agreements", self._signs.agreements())
            self.put("patterns", self._signs.patterns())
        return self._found


def checked(needs: Collection[str]) -> frozenset[str]:
    """The names in `needs`. Raises `UsageError` for one of no statistic."""
    for name in needs:
        if name not in STATISTICS:
            raise UsageError(f"there is no statistic {name!r}; there are {', '.join(STATISTICS)}")
    return frozenset(needs)


def _in_order(values: Tensor, gradients: list[Tensor], samples: int) -> Tensor | None:
    """`values` as (m, …), by what came back to them in the passes of `hnas.metrics.owners`.

    None where a row belongs to several samples or to none, or samples have not all the same number of rows.
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
    """The gradients of the images alone."""

    to_images = True

    def __init__(self) -> None:
        super().__init__(wanted=())


def _correlations(gradient: Tensor | None, logits: Tensor) -> Tensor:
    """Those of the rows of `gradient` (m, …), float64 (m, m); NaN where there is none."""
    m = len(logits)
    if gradient is None:
        return logits.new_full((m, m), torch.nan, dtype=torch.float64)
    rows = gradient.flatten(1).double()
    rows = rows - rows.mean(1, keepdim=True)
    rows = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    found: Tensor = (rows @ rows.t()).clamp(-1, 1)
    return found
