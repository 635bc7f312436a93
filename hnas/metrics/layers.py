"""Layers: the weights and biases of `Conv` and `Linear` modules, and their calls.

A call is any convolution or linear map that is applied with the layer's weight, by whichever module or function
(`hnas.metrics.recorder`). Each call becomes one node of the autograd graph (`hnas.metrics.ops.layer`), which the
backward passes of `hnas.metrics.passes` visit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from hnas.errors import UsageError
from hnas.metrics.owners import IN_ORDER, Rows

#: The modules whose weights are measured.
MODULES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


#: The modules of a network by name, the network itself first. It goes by the name of its class, which may be a child's.
Modules = dict[str, nn.Module]


def modules_of(network: nn.Module) -> Modules:
    """Return all modules of `network`. Walking the tree is slow, so do it once."""
    children = dict(network.named_modules())
    del children[""]
    name = type(network).__name__
    while name in children:
        name += " itself"
    return {name: network, **children}


def refuse_parametrised(modules: Modules) -> None:
    """Raise `UsageError` for a parametrised layer.

    Checked before any weight is read, because reading a parametrised weight may change state (spectral norm's does).
    """
    for name, module in modules.items():
        if isinstance(module, MODULES) and (is_parametrized(module, "weight") or is_parametrized(module, "bias")):
            raise computed_error(name)


def computed_error(name: str) -> UsageError:
    """Return the error for layer `name`, whose weight or bias is computed from other parameters, or a buffer."""
    return UsageError(
        f"layer {name} has a weight or bias that is computed from other parameters or a buffer, so it has no gradient "
        "of its own; remove its parametrisation, or make it a parameter"
    )


class LayerMap(ABC):
    """The map (x, W) ↦ W x of a layer, linear in x and in W, and its adjoints.

    Rows are the entries along the first axis.
    """

    #: Whether a row is a whole feature map (C, …) rather than one vector (C,).
    convolution: ClassVar[bool]

    @abstractmethod
    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return `W x + b`."""

    @abstractmethod
    def adjoint(
        self, gy: Tensor, x: Tensor, weight: Tensor, *, to_x: bool, to_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the requested gradients of `⟨gy, W x⟩` with respect to x and to W, None for the others."""

    @abstractmethod
    def bias_gradients(self, gy: Tensor) -> Tensor:
        """Return the per-sample gradients of the bias: `gy` (m, …) summed over positions, (m, C')."""

    @abstractmethod
    def weight_gradients(self, x: Tensor, gy: Tensor, weight: Tensor, *, in_order: bool) -> Tensor:
        """Return the per-sample gradients `J_s = ∂⟨gy_s, W x_s⟩/∂W`, (m, P), for x (m, …) and cotangents gy (m, …).

        With `in_order` the P entries are in the weight's order. Otherwise they are in any order that all samples share,
        which suffices for inner products within one call and saves a copy.
        """

    def products(self, x: Tensor, gy: Tensor) -> Tensor | None:
        """Return `⟨J_s, J_t⟩`, (m, m) float64, or None where they cannot be computed without J."""
        return None


@dataclass
class Layer:
    """One weight of the network, as a leaf of the graph."""

    name: str
    weight: Tensor
    calls: int = 0


@dataclass
class Bias:
    """One bias of the network, as a leaf of the graph. `owner` names one of the layers that use it."""

    owner: str
    value: Tensor
    calls: int = 0


@dataclass(eq=False)
class Call:
    """One call of a layer. `rows` maps its rows to samples, None where the mapping is not known (yet).

    `reads_images` is set where the input depends on no weight, but on images whose gradient is needed.
    """

    layer: Layer
    bias: Bias | None
    map: LayerMap
    rows: Rows | None
    reads_images: bool = False
    _kept: tuple[Tensor, int] | None = None

    def keep(self, y: Tensor) -> None:
        """Keep the output y for the next backward pass."""
        self._kept = y.detach(), y._version

    def returned(self, x: Tensor) -> Tensor | None:
        """Return the output for input x and release it, None where it was not kept.

        It is recomputed if it was changed in place.
        """
        kept, self._kept = self._kept, None
        if kept is None or kept[0]._version == kept[1]:
            return None if kept is None else kept[0]
        return self.map.apply(x, self.layer.weight.detach(), None if self.bias is None else self.bias.value.detach())


@dataclass
class Layers:
    """The layers of one network during one computation, keyed by the identity of their weights."""

    by_weight: dict[int, Layer]
    by_bias: dict[int, Bias]
    #: Calls whose mapping from rows to samples is not known.
    doubtful: list[Call] = field(default_factory=list)

    @classmethod
    def of(cls, modules: Modules) -> Layers:
        """Collect the Conv and Linear modules of a network; a weight shared by several modules is one layer.

        Raises `UsageError` for a weight that is computed from other parameters, as weight norm does, or a buffer.
        """
        layers: dict[int, Layer] = {}
        biases: dict[int, Bias] = {}
        for name, module in modules.items():
            if isinstance(module, MODULES):
                weight, bias = module.weight, module.bias
                if not isinstance(weight, nn.Parameter) or not (bias is None or isinstance(bias, nn.Parameter)):
                    raise computed_error(name)
                if id(weight) not in layers:
                    layers[id(weight)] = Layer(name, weight.detach().requires_grad_())
                if bias is not None and id(bias) not in biases:
                    biases[id(bias)] = Bias(layers[id(weight)].name, bias.detach().requires_grad_())
        return cls(layers, biases)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.by_weight.values())

    @property
    def weights(self) -> list[Tensor]:
        """The leaves θ of all layers."""
        return [layer.weight for layer in self]

    def owner(self, parameter: Tensor) -> str | None:
        """Return the name of the layer whose weight or bias is `parameter`, None where there is none."""
        layer, bias = self.by_weight.get(id(parameter)), self.by_bias.get(id(parameter))
        return layer.name if layer is not None else bias.owner if bias is not None else None

    def call(self, weight: Tensor, bias: Tensor | None, by: LayerMap, *, in_order: bool) -> Call:
        """Record a call with these parameters; `weight` must be a layer's."""
        layer = self.by_weight[id(weight)]
        layer.calls += 1
        known = None if bias is None else self.by_bias.get(id(bias))
        if known is not None:
            known.calls += 1
        call = Call(layer, known, by, IN_ORDER if in_order else None)
        if not in_order:
            self.doubtful.append(call)
        return call
