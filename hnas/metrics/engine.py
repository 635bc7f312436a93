"""The eight columns of one network at initialisation, from shared passes over one batch.

    L = (1/m) Σ_i ℓ(f(x_i), y_i),   g = ∇_θ L,   H = ∇²_θ L,   θ the weights of all Conv and Linear layers

    grad_norm = Σ_l ‖g_l‖₂        grad_norm_l2 = ‖g‖₂       (2)
    snip      = Σ |θ ⊙ g|         snip_inner   = |θᵀ g|     (3)
    grasp     = −Σ θ ⊙ (H g)      grasp_abs    = |θᵀ H g|   (3)
    trace     = √(‖Θ₀‖_tr / m)    (4)
    kappa     = λ_max(Θ₀) / λ_min(Θ₀), inf where Θ₀ is numerically singular

Equation numbers: Shu, Dai, Wu, Low, "Unifying and Boosting Gradient-Based Training-Free Neural Architecture Search",
NeurIPS 2022. The first of each pair is what the published experiments used, the second is the paper read literally.

On an accelerator nothing is read back while a network is measured: `queue_metrics` puts all of it on the device's
stream, and the one copy to the host is made by `Pending.result`, which a caller may delay until other networks are
queued. The labels' range is read once for each batch, before its first network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from hnas.allocator import give_back_where_crowded
from hnas.errors import UsageError
from hnas.metrics.curvature import Trace
from hnas.metrics.gram import Gram
from hnas.metrics.layers import Layer, Layers
from hnas.metrics.names import COLUMNS, NTK_MODES

# The lowest and highest label of the batches alive, each with the version of the tensor that they were read from.
_LABEL_RANGES = WeakTensorKeyDictionary()

# Bytes of per-sample gradients that the exact Θ₀ holds at once; more layers than fit take a further m passes.
_EXACT_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Metrics:
    """The eight columns, Θ₀ and what they rest on.

    `ntk` is Θ₀ (m, m) and `eigenvalues` (m,) its spectrum in ascending order, both float64 on the CPU. `status` is
    `ok`; `constant` where the network's output does not depend on its input, `nonfinite` where a number overflowed:
    in both κ is `inf`, and no search proposes the network.
    """

    grad_norm: float
    grad_norm_l2: float
    snip: float
    snip_inner: float
    grasp: float
    grasp_abs: float
    trace: float
    kappa: float
    status: str
    ntk: Tensor
    eigenvalues: Tensor

    def columns(self) -> dict[str, float]:
        """The eight columns by name, in the order of `COLUMNS`."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name in COLUMNS}


@dataclass(frozen=True)
class Pending:
    """The metrics of a network whose computation may still be under way on its device.

    `packed` (6 + m²,) float64 on that device is all that is left of it: grad_norm, grad_norm_l2, snip, θᵀg, θᵀHg, the
    spread of the logits over the batch, then Θ₀ row by row. `dtype` is the precision of the logits.
    """

    packed: Tensor
    dtype: torch.dtype

    def result(self) -> Metrics:
        """The metrics, from one copy to the host, which waits for the device; eigenvalues are the host's."""
        return _metrics(self.packed.cpu(), self.dtype)


def compute_metrics(network: nn.Module, images: Tensor, labels: Tensor, ntk: str = "summed") -> Metrics:
    """All eight columns of `network` on the batch `images` (m, …), `labels` (m,) int64 class indices.

    Works on any module with Conv1d/2d/3d (any stride, padding, dilation, groups, bias) and Linear layers, on the
    device and in the precision of its parameters. Batch norm uses the batch's statistics, dropout is off. The network
    comes back as it was: weights, gradients, hooks, modes, running statistics.

    `ntk="summed"` back-propagates `Σ_i f_{y_i}(x_i)` once and forms each sample's gradient from its own activations:
    what the published numbers rest on, one extra backward pass. `ntk="exact"` back-propagates each `f_{y_i}(x_i)`
    through the batch statistics: m backward passes, for study. The two agree where the batch does not couple.

    GraSP comes from one forward pass in two directions (`hnas.metrics.curvature`); a network with operations that have
    no rule there is differentiated twice by autograd, to the same number in more memory.

    Cost: about one forward, two input-gradient, one weight-gradient, one per-sample and four further convolution
    passes; memory: one set of activations, the gradients at what batch norms return, and the per-sample gradients of
    the largest layer.

    Raises `UsageError` for a batch of fewer than two samples, labels that do not fit the images or the logits, an
    unknown `ntk`, a network without Conv or Linear layers, a layer whose first dimension is not the batch.
    """
    return queue_metrics(network, images, labels, ntk).result()


def queue_metrics(network: nn.Module, images: Tensor, labels: Tensor, ntk: str = "summed") -> Pending:
    """`compute_metrics` without waiting for the device: the same arguments, errors and numbers.

    A network on an accelerator is measured without one value read back, so that the host can build and queue the next
    one meanwhile; only the first network of a batch waits, for the labels' range. On the CPU all is done on return.
    """
    if ntk not in NTK_MODES:
        raise UsageError(f"ntk={ntk!r} is unknown; choose one of {', '.join(NTK_MODES)}")
    m = images.shape[0]
    if m < 2:
        raise UsageError(f"the batch holds {m} samples; the condition number needs at least 2")
    if labels.shape != (m,):
        raise UsageError(f"labels have shape {tuple(labels.shape)} for {m} images; one class index per image is needed")
    if labels.dtype != torch.int64:
        raise UsageError(f"labels are {labels.dtype}, but class indices are needed: torch.int64")
    trace = Trace()
    layers = Layers.of(network)
    if not layers.by_weight:
        raise UsageError(f"{type(network).__name__} has no Conv or Linear layer, so it has no weights to measure")

    # Channels last is the layout that convolutions, batch norm and pooling run fastest in; values are the same. A copy,
    # because the network may change its input in place.
    layout = torch.channels_last if images.dim() == 4 else torch.contiguous_format
    images = images.detach().clone(memory_format=layout)
    with _measuring(network), torch.enable_grad():
        with layers.recorded(m, trace):
            logits = network(images)
        _check_logits(logits, labels)
        trace.finish(logits)
        give_back_where_crowded()
        loss = F.cross_entropy(logits, labels)
        target = logits.gather(1, labels[:, None])[:, 0]
        if not loss.requires_grad:  # no weight reaches the logits: every gradient is zero
            loss, target = (t + 0 * next(iter(layers)).factor for t in (loss, target))
        weights = [layer.weight for layer in layers]
        twice = trace.incomplete is not None
        gradients = torch.autograd.grad(loss, weights, create_graph=twice, retain_graph=True, allow_unused=True)
        give_back_where_crowded()
        matrix = _summed_ntk(layers, target, m, keep=twice) if ntk == "summed" else _exact_ntk(layers, target, m)
        if twice:
            curvature = _curvature(layers, gradients)
        else:
            logits = logits.detach()  # of the graph nothing is left then but what the trace holds
            del loss, target
            give_back_where_crowded()
            named = {layer.name: gradient for layer, gradient in zip(layers, gradients, strict=True)}
            with torch.no_grad():
                curvature = trace.curvature(named, logits, labels)
    return Pending(_packed(layers, gradients, curvature, matrix, logits.detach()), logits.dtype)


@contextmanager
def _measuring(network: nn.Module) -> Iterator[None]:
    """Training mode without dropout and without parameter gradients; everything is put back on leaving."""
    modes = {module: module.training for module in network.modules()}
    needs = {p: p.requires_grad for p in network.parameters()}
    buffers = [(module._buffers, name, b) for module in modes for name, b in module._buffers.items() if b is not None]
    copies = {b: b.detach().clone() for _, _, b in buffers}
    try:
        for owner, name, buffer in buffers:
            owner[name] = copies[buffer]
        for module in modes:
            module.training = not isinstance(module, nn.modules.dropout._DropoutNd)
        for p in needs:
            p.requires_grad_(False)
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for p, need in needs.items():
            p.requires_grad_(need)
        for owner, name, buffer in buffers:
            owner[name] = buffer


def _check_logits(logits: Tensor, labels: Tensor) -> None:
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


def _summed_ntk(layers: Layers, target: Tensor, m: int, *, keep: bool) -> Tensor:
    gram = Gram(m, target.device)
    layers.phase, layers.visit = "ntk", gram.add
    factors = [layer.factor for layer in layers]
    torch.autograd.grad(target.sum(), factors, retain_graph=keep, allow_unused=True)
    return gram.finish()


def _exact_ntk(layers: Layers, target: Tensor, m: int) -> Tensor:
    gram = Gram(m, target.device)
    layers.phase = "gradient"
    for group in _groups(list(layers), m):
        layers.wanted = {layer.name for layer in group}
        leaves = [layer.weight for layer in group]
        leaves += [bias.value for bias in layers.by_bias.values() if bias.owner in layers.wanted]
        rows = [torch.zeros((m, leaf.numel()), dtype=leaf.dtype, device=leaf.device) for leaf in leaves]
        for i in range(m):
            for row, gradient in zip(
                rows, torch.autograd.grad(target[i], leaves, retain_graph=True, allow_unused=True), strict=True
            ):
                if gradient is not None:
                    row[i] = gradient.flatten()
        for row in rows:
            gram.add_gradients(row)
    layers.wanted = None
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


def _curvature(layers: Layers, gradients: tuple[Tensor | None, ...]) -> Tensor:
    """`θᵀ H g`, a float64 scalar: a backward pass through the gradients with themselves as cotangents."""
    layers.phase = "grasp"
    total = torch.zeros((), dtype=torch.float64, device=next(iter(layers)).weight.device)
    reached = [g for g in gradients if g is not None and g.requires_grad]
    if not reached:
        return total
    factors = [layer.factor for layer in layers]
    terms = torch.autograd.grad(reached, factors, [g.detach() for g in reached], allow_unused=True)
    return sum((term.double() for term in terms if term is not None), total)


def _packed(
    layers: Layers,
    gradients: tuple[Tensor | None, ...],
    curvature: Tensor,
    matrix: Tensor,
    logits: Tensor,
) -> Tensor:
    """What `Pending` holds, on the device of the logits."""
    double = torch.float64
    norms, snips, inners = [], [], []
    for layer, gradient in zip(layers, gradients, strict=True):
        if gradient is not None:
            g = gradient.detach()
            product = layer.weight.detach() * g
            norms.append(torch.linalg.vector_norm(g, dtype=double))
            snips.append(product.abs().sum(dtype=double))
            inners.append(product.sum(dtype=double))
    zero = torch.zeros((), dtype=double, device=logits.device)
    per_layer = torch.stack(norms) if norms else zero[None]
    scalars = torch.stack(
        [
            per_layer.sum(),
            torch.linalg.vector_norm(per_layer),
            sum(snips, zero),
            sum(inners, zero),
            curvature,
            (logits - logits[:1]).abs().max().to(double),
        ]
    )
    return torch.cat([scalars, matrix.flatten()])


def _metrics(packed: Tensor, dtype: torch.dtype) -> Metrics:
    """The metrics of what `Pending` holds, on the host."""
    double = torch.float64
    grad_norm, grad_norm_l2, snip, inner, hessian, spread = packed[:6].tolist()
    m = math.isqrt(len(packed) - 6)
    ntk = packed[6:].view(m, m).clone()  # a tensor of its own: no result holds on to what was packed with it
    finite = all(map(math.isfinite, (grad_norm, snip, inner, hessian, spread))) and bool(torch.isfinite(ntk).all())
    status = "nonfinite" if not finite else "constant" if spread == 0.0 else "ok"
    eigenvalues = torch.linalg.eigvalsh(ntk) if finite else torch.full((len(ntk),), math.nan, dtype=double)
    return Metrics(
        grad_norm=grad_norm,
        grad_norm_l2=grad_norm_l2,
        snip=snip,
        snip_inner=abs(inner),
        grasp=-hessian,
        grasp_abs=abs(hessian),
        trace=math.sqrt(max(float(ntk.trace()), 0.0) / m) if finite else math.nan,
        kappa=condition_number(eigenvalues, dtype) if status == "ok" else math.inf,
        status=status,
        ntk=ntk,
        eigenvalues=eigenvalues,
    )


def condition_number(eigenvalues: Tensor, dtype: torch.dtype) -> float:
    """κ = λ_max / λ_min of Θ₀ with `eigenvalues` (m,) ascending, computed from gradients of precision `dtype`.

    `inf` where Θ₀ = J Jᵀ is singular to working precision: λ_min = σ_min(J)² at most `(m ε)² λ_max` with ε the
    gradients' precision, or at most `m ε λ_max` with ε float64's, in which the products were summed.
    """
    m = len(eigenvalues)
    low, high = float(eigenvalues[0]), float(eigenvalues[-1])
    floor = max((m * torch.finfo(dtype).eps) ** 2, m * torch.finfo(torch.float64).eps)
    return high / low if low > floor * high else math.inf
