"""The layers that the metrics are about: the weights and biases of `Conv` and `Linear` modules, and their calls.

A layer is called wherever a convolution or a linear map is applied to its weight, whichever module or function does it
(`hnas.metrics.recorder`). Each call becomes one node of the autograd graph (`hnas.metrics.ops.layer`), which the
backward passes of `hnas.metrics.passes` meet.
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


#: The modules of a network by their names, the network's own that of its class.
Modules = dict[str, nn.Module]


def modules_of(network: nn.Module) -> Modules:
    """All modules of `network`. Walking it takes a while, so it is done once."""
    return {name or type(network).__name__: module for name, module in network.named_modules()}


def refuse_parametrised(modules: Modules) -> None:
    """Raise `UsageError` for a layer with torch's parametrisations, before one is computed: spectral norm's counts."""
    for name, module in modules.items():
        if isinstance(module, MODULES) and (is_parametrized(module, "weight") or is_parametrized(module, "bias")):
            raise computed(name)


def computed(name: str) -> UsageError:
    """What is wrong with a layer whose parameters others determine."""
    return UsageError(
        f"layer {name} has a weight or bias that is computed from other parameters, so it has no gradient of its own; "
        "remove its parametrisation first"
    )


class LayerMap(ABC):
    """The map (x, W) ↦ W x of a layer, linear in either, and its adjoints. What its first axis lists are the rows."""

    #: Whether a row is a sample's map, (C, …), rather than one vector (C,) of it.
    convolution: ClassVar[bool]

    @abstractmethod
    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """`W x + b`."""

    @abstractmethod
    def adjoint(
        self, gy: Tensor, x: Tensor, weight: Tensor, *, to_x: bool, to_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of `⟨gy, W x⟩` with respect to x and to W, each where asked for."""

    @abstractmethod
    def bias_gradients(self, gy: Tensor) -> Tensor:
        """The gradient of the bias for each sample: `gy` (m, …) summed over positions, (m, C')."""

    @abstractmethod
    def weight_gradients(self, x: Tensor, gy: Tensor, weight: Tensor, *, in_order: bool) -> Tensor:
        """The gradients `J_s = ∂⟨gy_s, W x_s⟩/∂W`, (m, P), for inputs x (m, …) and output gradients gy (m, …).

        The P entries are in the order of the weight's. Unless `in_order`, they are in any order, the same for every
        sample: enough for products of gradients of one call, and a copy less.
        """

    def products(self, x: Tensor, gy: Tensor) -> Tensor | None:
        """`⟨J_s, J_t⟩`, (m, m) float64, where they can be had without J, else None."""
        return None


@dataclass
class Layer:
    """One weight of the network, as a leaf of the graph."""

    name: str
    weight: Tensor
    calls: int = 0


@dataclass
class Bias:
    """One bias of the network as a leaf of the graph, whichever layers use it, and the name of one of them."""

    owner: str
    value: Tensor
    calls: int = 0


@dataclass(eq=False)
class Call:
    """One call of a layer. `rows` says to which samples its rows belong, None where that is not known (yet).

    `reads_images` where its input depends on no weight, but on images whose gradient is wanted.
    """

    layer: Layer
    bias: Bias | None
    map: LayerMap
    rows: Rows | None
    reads_images: bool = False
    _kept: tuple[Tensor, int] | None = None

    def keep(self, y: Tensor) -> None:
        """It returned y, which is wanted in the next backward pass."""
        self._kept = y.detach(), y._version

    def returned(self, x: Tensor) -> Tensor | None:
        """What it returned for x, once; computed again where that was changed in place, None where it was not kept."""
        kept, self._kept = self._kept, None
        if kept is None or kept[0]._version == kept[1]:
            return None if kept is None else kept[0]
        return self.map.apply(x, self.layer.weight.detach(), None if self.bias is None else self.bias.value.detach())


@dataclass
class Layers:
    """The layers of one network during one computation, found by the identity of their weights."""

    by_weight: dict[int, Layer]
    by_bias: dict[int, Bias]
    #: The calls of which it is not known to which samples their rows belong.
    doubtful: list[Call] = field(default_factory=list)

    @classmethod
    def of(cls, modules: Modules) -> Layers:
        """The Conv and Linear modules of a network; a weight shared by several modules is one layer.

        Raises `UsageError` for a weight that is computed from others, such as weight norm's.
        """
        layers: dict[int, Layer] = {}
        biases: dict[int, Bias] = {}
        for name, module in modules.items():
            if isinstance(module, MODULES):
                weight, bias = module.weight, module.bias
                if not isinstance(weight, nn.Parameter) or not (bias is None or isinstance(bias, nn.Parameter)):
                    raise computed(name)
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
        """The name of the layer whose weight or bias `parameter` is, None where it is neither."""
        layer, bias = self.by_weight.get(id(parameter)), self.by_bias.get(id(parameter))
        return layer.name if layer is not None else bias.owner if bias is not None else None

    def call(self, weight: Tensor, bias: Tensor | None, by: LayerMap, *, in_order: bool) -> Call:
        """Note a call on these parameters, the weight one of a layer."""
        layer = self.by_weight[id(weight)]
        layer.calls += 1
        known = None if bias is None else self.by_bias.get(id(bias))
        if known is not None:
            known.calls += 1
        call = Call(layer, known, by, IN_ORDER if in_order else None)
        if not in_order:
            self.doubtful.append(call)
        return call
