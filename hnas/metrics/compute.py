"""The eight columns of one network at initialisation, from shared passes over one batch.

    L = (1/m) Σ_i ℓ(f(x_i), y_i),   g = ∇_θ L,   H = ∇²_θ L,   θ the weights of all Conv and Linear layers

    grad_norm = Σ_l ‖g_l‖₂        grad_norm_l2 = ‖g‖₂       (2)
    snip      = Σ |θ ⊙ g|         snip_inner   = |θᵀ g|     (3)
    grasp     = −Σ θ ⊙ (H g)      grasp_abs    = |θᵀ H g|   (3)
    trace     = √(‖Θ₀‖_tr / m)    (4)
    kappa     = λ_max(Θ₀) / λ_min(Θ₀), inf where Θ₀ is numerically singular

Equation numbers: Shu, Dai, Wu, Low, "Unifying and Boosting Gradient-Based Training-Free Neural Architecture Search",
NeurIPS 2022. The first of each pair is what the published experiments used, the second follows the paper's
equations, but for GraSP: eq. (3) has each sample's Hessian with that sample's gradient, |1/m Σ θᵀ H_i ∇ℓ_i|, and
grasp_abs is the absolute value of the batch form.

On an accelerator nothing is read back while a network is measured: `queue_metrics` puts all of it on the device's
stream, and the one copy to the host is made by `Pending.result`, which a caller may delay until other networks are
queued. The labels' range is read once for each batch, before its first network. Only where it has to be found out which
rows of a layer belong to which sample are values read in between.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from hnas.allocator import give_back_where_crowded
from hnas.errors import UsageError
from hnas.metrics import ops  # noqa: F401  (registers the operations)
from hnas.metrics.columns import NTK_MODES
from hnas.metrics.grasp import NoSecondDerivativeError, by_autograd, by_tangents
from hnas.metrics.inputs import checked_batch, checked_network, told
from hnas.metrics.layers import Layers, Modules
from hnas.metrics.ntk import exact_ntk, find_rows, summed_ntk
from hnas.metrics.randomness import Forward, Generators, Watch, settled
from hnas.metrics.recorder import Recorder
from hnas.metrics.results import (
    Metrics,
    Pending,
    PendingStatistics,
    condition_number,
    gradient_sums,
    packed_results,
    packed_statistics,
)
from hnas.metrics.state import measuring
from hnas.metrics.statistics import Collector, checked
from hnas.metrics.unseen_uses import refuse_unseen, shown

__all__ = [
    "Metrics",
    "Pending",
    "PendingStatistics",
    "condition_number",
    "queue_metrics",
    "queue_statistics",
]

_Queued = TypeVar("_Queued")

# The lowest and highest label of the batches alive, each with the version of the tensor that they were read from.
_LABEL_RANGES = WeakTensorKeyDictionary()


def queue_metrics(
    network: nn.Module, images: Any, labels: Any, ntk: str = "summed", statistics: Collection[str] = ()
) -> Pending:
    """All eight columns of `network` on a batch, as `hnas.compute_metrics` says, without waiting for the device.

    `statistics` are the names of those fields of `hnas.metrics.statistics.Statistics` that the result is to have too.

    A network on an accelerator is measured without one value read back, so that the host can build and queue the next
    one meanwhile; only the first network of a batch waits, for the labels' range, and one in which it has to be found
    out to which samples a layer's rows belong. On the CPU all is done on return.
    """
    needs = checked(statistics)
    return _queued(network, images, labels, ntk, needs, _measured, with_tape=True)


def queue_statistics(
    network: nn.Module, images: Any, labels: Any, statistics: Collection[str], ntk: str = "summed"
) -> PendingStatistics:
    """The `statistics` alone, to the last bit those of `queue_metrics`, in the passes that they need.

    That is a forward pass, and a backward pass for `correlations`, one for `gradient` and `fisher`, and Θ₀'s for
    `ntk_mean`.
    """
    return _queued(network, images, labels, ntk, checked(statistics), _observed, with_tape=False)


def _queued(
    network: nn.Module,
    images: Any,
    labels: Any,
    ntk: str,
    needs: frozenset[str],
    measure: Callable[[Forward, Tensor, str], _Queued],
    *,
    with_tape: bool,
) -> _Queued:
    """What `measure` makes of the forward pass, the labels (m,) and `ntk`."""
    if ntk not in NTK_MODES:
        raise UsageError(f"ntk={ntk!r} is unknown; choose one of {', '.join(NTK_MODES)}")

    def forward(watch: Watch | None) -> Forward:
        return _forward(modules, images, watch, needs, with_tape=with_tape)

    with torch.inference_mode(False), torch.enable_grad():
        modules = checked_network(network)
        images, labels = checked_batch(modules, images, labels)
        generators = Generators(images.device)
        with told(network, images), measuring(modules), shown():
            try:
                done = settled(modules, generators, forward)
                before = generators.torch_state()
                pending = measure(done, labels, ntk)
                if before != generators.torch_state():
                    generators.drawn = True
                    raise UsageError(
                        f"{type(network).__name__} draws random numbers in its backward pass, so that its gradients "
                        "differ from call to call"
                    )
                return pending
            finally:
                generators.put_back()


def _forward(
    modules: Modules, images: Tensor, watch: Watch | None, needs: frozenset[str], *, with_tape: bool
) -> Forward:
    network = next(iter(modules.values()))
    recorder = Recorder(Layers.of(modules), Collector(needs))
    if not with_tape:
        recorder.tape.stop("nobody replays it")
    # Channels last is the layout that convolutions, batch norm and pooling run fastest in; values are the same. A copy,
    # because the network may change its input in place.
    layout = torch.channels_last if images.dim() == 4 else torch.contiguous_format
    images = recorder.collector.given(images.detach().clone(memory_format=layout))
    with nullcontext() if watch is None else watch.around(network, recorder):
        logits = recorder.run(network, images)
    return Forward(recorder, logits)


def _measured(done: Forward, labels: Tensor, ntk: str) -> Pending:
    layers, passes, tape, collector = (
        done.recorder.layers,
        done.recorder.passes,
        done.recorder.tape,
        done.recorder.collector,
    )
    loss, target = _differentiable(done, labels)
    tape.finish(done.logits)
    give_back_where_crowded()
    gradients = passes.run(collector.gradient_pass(), loss, layers.weights)
    give_back_where_crowded()
    collector.input_pass(passes, done.logits)
    matrix = _ntk(done, target, ntk, keep_graph=tape.incomplete is not None)
    product: Tensor | None = None
    if tape.incomplete is None:
        logits = done.logits = done.logits.detach()  # of the graph nothing is left then but what the tape holds
        del loss, target
        give_back_where_crowded()
        named = {layer.name: gradient for layer, gradient in zip(layers, gradients, strict=True)}
        with torch.no_grad():
            product = by_tangents(tape, named, logits, labels)
    else:
        try:
            product = by_autograd(loss, layers.weights, gradients)
        except NoSecondDerivativeError as error:
            warnings.warn(
                f"grasp and grasp_abs are NaN, because torch cannot differentiate this network twice: {error}",
                stacklevel=5,
            )
    packed = packed_results(layers, gradients, product, matrix, done.logits.detach())
    collector.put("gradient", packed[[3, 1]])
    rest, shapes = packed_statistics(collector.collected(layers, done.logits, labels), packed.device)
    return Pending(torch.cat([packed, rest]), done.logits.dtype, twice=product is not None, statistics=shapes)


def _observed(done: Forward, labels: Tensor, ntk: str) -> PendingStatistics:
    layers, passes, collector = done.recorder.layers, done.recorder.passes, done.recorder.collector
    loss, target = _differentiable(done, labels)
    if collector.needs & {"gradient", "fisher"}:
        gradients = passes.run(collector.gradient_pass(), loss, layers.weights)
        collector.put("gradient", gradient_sums(layers, gradients, loss.device)[[3, 1]])
    collector.input_pass(passes, done.logits)
    if "ntk_mean" in collector.needs:
        _ntk(done, target, ntk, keep_graph=False)
    return PendingStatistics(*packed_statistics(collector.collected(layers, done.logits, labels), loss.device))


def _differentiable(done: Forward, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The loss and each sample's logit `f_{y_i}(x_i)` (m,), which no weight need reach: every gradient is zero then."""
    layers, logits = done.recorder.layers, done.logits
    _check_logits(logits, labels)
    refuse_unseen(logits, layers)
    loss = F.cross_entropy(logits, labels)
    target = logits.gather(1, labels[:, None])[:, 0]
    if not loss.requires_grad:
        loss, target = (t + t.new_zeros(()).requires_grad_() for t in (loss, target))
    done.recorder.collector.find_rows(layers, done.recorder.passes, target)
    return loss, target


def _ntk(done: Forward, target: Tensor, ntk: str, *, keep_graph: bool) -> Tensor:
    """Θ₀ (m, m)."""
    layers, passes = done.recorder.layers, done.recorder.passes
    if ntk == "summed":
        find_rows(layers, passes, target)
        matrix = summed_ntk(layers, passes, target, keep_graph=keep_graph)
    else:
        matrix = exact_ntk(layers, passes, target)
    done.recorder.collector.put("ntk_mean", matrix.mean())
    return matrix


def _check_logits(logits: Any, labels: Tensor) -> None:
    """Raise `UsageError` unless there is a row of logits for each label, and in it a place for the label."""
    if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[0] != labels.shape[0]:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(f"the network returned {shape}; one row of logits per image is needed: (m, classes)")
    low, high = _label_range(labels)
    if low < 0 or high >= logits.shape[1]:
        raise UsageError(f"labels run from {low} to {high}, but the network has {logits.shape[1]} classes, 0 first")


def _label_range(labels: Tensor) -> tuple[int, int]:
    """The lowest and the highest label, read once for a tensor that does not change.

    They are checked on the host before the loss is taken: on CUDA a label without a logit ends the process's device.
    """
    version, low, high = _LABEL_RANGES.get(labels, (None, 0, 0))  # type: ignore[no-untyped-call]
    if version != labels._version:
        low, high = torch.stack(torch.aminmax(labels)).tolist()
        _LABEL_RANGES[labels] = labels._version, low, high
    return low, high
