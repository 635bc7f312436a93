"""The eight columns of one network at initialisation, from shared passes over one batch.

    L = (1/m) Σ_i ℓ(f(x_i), y_i),   g = ∇_θ L,   H = ∇²_θ L,   θ the weights of all Conv and Linear layers

    grad_norm = Σ_l ‖g_l‖₂        grad_norm_l2 = ‖g‖₂       (2)
    snip      = Σ |θ ⊙ g|         snip_inner   = |θᵀ g|     (3)
    grasp     = −Σ θ ⊙ (H g)      grasp_abs    = |θᵀ H g|   (3)
    trace     = √(‖Θ₀‖_tr / m)    (4)
    kappa     = λ_max(Θ₀) / λ_min(Θ₀), inf where Θ₀ is numerically singular

Equation numbers: Shu, Dai, Wu, Low, "Unifying and Boosting Gradient-Based Training-Free Neural Architecture Search",
NeurIPS 2022. The first of each pair is what the published experiments used, the second follows the paper's
equations, except for GraSP: eq. (3) multiplies each sample's Hessian and gradient, |1/m Σ θᵀ H_i ∇ℓ_i|, whereas
grasp_abs is the absolute value of the batch form.

On an accelerator, measuring a network does not synchronise with the host: `queue_metrics` puts all work on the device's
stream, and `Pending.result` makes the one copy to the host, which a caller may delay until it has queued other
networks. There are two exceptions. The range of the labels is read once per batch, before its first network. And where
the samples of a layer's rows must be identified (`hnas.metrics.owners`), values are read in between.
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
from hnas.metrics.inputs import checked_batch, checked_network, errors_named
from hnas.metrics.layers import Layers, Modules
from hnas.metrics.layout import fastest
from hnas.metrics.ntk import exact_ntk, find_rows, summed_ntk
from hnas.metrics.randomness import Forward, Generators, Watch, deterministic_forward
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
from hnas.metrics.unseen_uses import layers_visible, refuse_unseen

__all__ = [
    "Metrics",
    "Pending",
    "PendingStatistics",
    "condition_number",
    "queue_metrics",
    "queue_statistics",
]

_Queued = TypeVar("_Queued")

# The lowest and highest label of each live batch, with the version of the label tensor that was read.
_LABEL_RANGES = WeakTensorKeyDictionary()


def queue_metrics(
    network: nn.Module, images: Any, labels: Any, ntk: str = "summed", statistics: Collection[str] = ()
) -> Pending:
    """Queue all eight columns of `network` on a batch without waiting for the device.

    Arguments and errors are those of `hnas.compute_metrics`. `statistics` names the fields of
    `hnas.metrics.statistics.Statistics` to add to the result.

    On an accelerator the host can build and queue the next network meanwhile. It waits for the device only for the
    first network of a batch, to read the range of its labels, and for networks whose rows must be assigned to samples.
    On the CPU all work is done on return.
    """
    needs = checked(statistics)
    return _queued(network, images, labels, ntk, needs, _measured, with_tape=True)


def queue_statistics(
    network: nn.Module, images: Any, labels: Any, statistics: Collection[str], ntk: str = "summed"
) -> PendingStatistics:
    """Queue only `statistics`, bit-identical to those of `queue_metrics`, with no more passes than they need.

    These are one forward pass, one backward pass for `correlations`, one for `gradient` and `fisher`, and the passes
    of Θ₀ for `ntk_mean`.
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
    """Record the forward pass and return `measure` of it, the labels (m,) and `ntk`."""
    if ntk not in NTK_MODES:
        raise UsageError(f"ntk={ntk!r} is unknown; choose one of {', '.join(NTK_MODES)}")

    def forward(watch: Watch | None) -> Forward:
        return _forward(modules, images, watch, needs, with_tape=with_tape)

    with torch.inference_mode(False), torch.enable_grad():
        modules = checked_network(network)
        images, labels = checked_batch(modules, images, labels)
        generators = Generators(images.device)
        with errors_named(network, images), measuring(modules), layers_visible():
            try:
                done = deterministic_forward(modules, generators, forward)
                before = generators.torch_state()
                pending = measure(done, labels, ntk)
                if before != generators.torch_state():
                    generators.drawn = True
                    raise UsageError(
                        f"{type(network).__name__} draws random numbers in its backward pass, so its gradients "
                        "differ from call to call; make its backward pass deterministic"
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
    # Copied, because the network may change its input in place.
    images = recorder.collector.prepare(images.detach().clone(memory_format=fastest(images)))
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
        logits = done.logits = done.logits.detach()  # frees the graph except for what the tape holds
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
                f"grasp and grasp_abs are NaN because torch cannot differentiate this network twice: {error}",
                stacklevel=5,
            )
    packed = packed_results(layers, gradients, product, matrix, done.logits.detach())
    collector.put("gradient", packed[1:4:2].flip(0))
    rest, shapes = packed_statistics(collector.collected(layers, done.logits, labels), packed.device)
    return Pending(torch.cat([packed, rest]), done.logits.dtype, twice=product is not None, statistics=shapes)


def _observed(done: Forward, labels: Tensor, ntk: str) -> PendingStatistics:
    layers, passes, collector = done.recorder.layers, done.recorder.passes, done.recorder.collector
    loss, target = _differentiable(done, labels)
    if collector.needs & {"gradient", "fisher"}:
        gradients = passes.run(collector.gradient_pass(), loss, layers.weights)
        collector.put("gradient", gradient_sums(layers, gradients, loss.device)[1:4:2].flip(0))
    collector.input_pass(passes, done.logits)
    if "ntk_mean" in collector.needs:
        _ntk(done, target, ntk, keep_graph=False)
    return PendingStatistics(*packed_statistics(collector.collected(layers, done.logits, labels), loss.device))


def _differentiable(done: Forward, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss and each sample's logit `f_{y_i}(x_i)` (m,), both differentiable.

    Where they depend on no weight, a constant zero with a gradient is added, so that all gradients are zero.
    """
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
    """Return Θ₀ (m, m)."""
    layers, passes = done.recorder.layers, done.recorder.passes
    if ntk == "summed":
        find_rows(layers, passes, target)
        matrix = summed_ntk(layers, passes, target, keep_graph=keep_graph)
    else:
        matrix = exact_ntk(layers, passes, target)
    done.recorder.collector.put("ntk_mean", matrix.mean())
    return matrix


def _check_logits(logits: Any, labels: Tensor) -> None:
    """Raise `UsageError` unless there is one row of logits per label, with an entry for that label."""
    if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[0] != labels.shape[0]:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(f"the network must return one row of logits per image, (m, classes), got {shape}")
    check_labels(labels, logits.shape[1])


def check_labels(labels: Tensor, classes: int, of: str = "") -> None:
    """Raise `UsageError`, which calls them `of` labels, unless all `labels` (n,) lie in 0..classes-1."""
    low, high = _label_range(labels) if len(labels) else (0, 0)
    if low < 0 or high >= classes:
        raise UsageError(f"{of}labels must lie between 0 and {classes - 1}, got {low} to {high}")


def _label_range(labels: Tensor) -> tuple[int, int]:
    """Return the lowest and the highest label, read once per version of the tensor.

    The check happens on the host, before the loss: on CUDA, a label without a logit makes the device unusable for the
    rest of the process.
    """
    version, low, high = _LABEL_RANGES.get(labels, (None, 0, 0))  # type: ignore[no-untyped-call]
    if version != labels._version:
        low, high = torch.stack(torch.aminmax(labels)).tolist()
        _LABEL_RANGES[labels] = labels._version, low, high
    return low, high
