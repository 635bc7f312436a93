"""What scores with passes of their own share: a network that comes back as it was, and repeatable draws."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hnas.errors import HnasError
from hnas.metrics import ops  # noqa: F401  (registers the operations)
from hnas.metrics.inputs import checked_network, told
from hnas.metrics.layers import Layers, Modules
from hnas.metrics.ops.dropout import dropout
from hnas.metrics.passes import BackwardPass
from hnas.metrics.randomness import Forward, Generators, moved, settled
from hnas.metrics.recorder import OPERATIONS, Recorder
from hnas.metrics.state import measuring
from hnas.scores.protocol import Subject


@contextmanager
def undisturbed(network: nn.Module, images: Tensor) -> Iterator[Modules]:
    """Training mode without dropout, autograd on; afterwards the network and all random states are as before.

    Yields the modules by name. Raises `UsageError` for a network that cannot be measured, and `HnasError` with torch's
    own reason where it fails on images.
    """
    modules = checked_network(network)
    generators = Generators(images.device)
    before = generators.state()
    with torch.inference_mode(False), torch.enable_grad(), told(network, images), measuring(modules):
        try:
            yield modules
        finally:
            generators.drawn = moved(before, generators.state())
            generators.put_back()


@contextmanager
def left_alone(subject: Subject) -> Iterator[None]:
    """Raises `HnasError` where what is done within changes weights, images or modes, which later scores would see."""
    before = _state_of(subject)
    yield
    if _state_of(subject) != before:
        raise HnasError("it changed the network's weights or modes or the images, which a score leaves as they were")


def _state_of(subject: Subject) -> list[tuple[int, int] | bool]:
    given = [subject.images, subject.labels, *(subject.further or ()), *subject.network.parameters()]
    # A tensor counts its changes in place, but for one of torch.inference_mode.
    counted: list[tuple[int, int] | bool] = [(id(each), each._version) for each in given if not each.is_inference()]
    return counted + [module.training for module in subject.network.modules()]


def forward(modules: Modules, images: Tensor, recorder: type[Recorder] = Recorder) -> Forward:
    """A recorded forward pass of all of `images`, whose layers and batch norms are the engine's.

    Raises `UsageError` for a network whose logits depend on random numbers.
    """
    network = next(iter(modules.values()))
    layout = torch.channels_last if images.dim() == 4 else torch.contiguous_format

    def run(watch: Any) -> Forward:
        made = recorder(Layers.of(modules))
        made.tape.stop("tangents are not wanted")
        given = images.detach().clone(memory_format=layout)  # the network may change its input in place
        if watch is None:
            return Forward(made, made.run(network, given))
        with watch.around(network, made):
            return Forward(made, made.run(network, given))

    return settled(modules, Generators(images.device), run)


def gradients(modules: Modules, images: Tensor, labels: Tensor) -> list[Tensor | None]:
    """The gradient of the mean cross entropy with respect to each layer's weight, None where none comes."""
    done = forward(modules, images)
    loss = F.cross_entropy(done.logits, labels)
    layers = done.recorder.layers
    if not loss.requires_grad:  # no weight reaches the logits
        return [None for _ in layers]
    return list(done.recorder.passes.run(BackwardPass(), loss, layers.weights, keep_graph=False))


def tensors_of(modules: Modules) -> list[Tensor]:
    """All parameters and buffers of the network, each once."""
    owners = [own for module in modules.values() for own in (module._parameters, module._buffers)]
    return list({id(value): value for own in owners for value in own.values() if value is not None}.values())


def generator(seed: int, score: str) -> torch.Generator:
    """The generator, on the CPU, of what `score` draws in a run of `seed`."""
    key = int.from_bytes(blake2b(f"{seed}/{score}".encode(), digest_size=8).digest(), "little")
    return torch.Generator().manual_seed(key)


def drawn(shape: Sequence[int], source: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal numbers from `source`, in the precision and on the device of `like`."""
    return torch.randn(tuple(shape), generator=source).to(like)


class Functions(TorchFunctionMode):
    """While it is entered, `call` runs each torch function. Dropout, and what else draws at random, is off."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operation = OPERATIONS.get(func)
        if operation is not None and operation.handler is dropout:
            return args[0] if args else kwargs["input"]
        return self.call(func, args, kwargs or {})

    def call(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run `func`."""
        return func(*args, **kwargs)


@contextmanager
def replaced(modules: Modules, values: Mapping[int, Tensor]) -> Iterator[None]:
    """Within, the network has other tensors for those parameters and buffers whose ids `values` has.

    Unlike `torch.func.functional_call` this leaves a module alone that the network has under two names.
    """
    owners = [own for module in modules.values() for own in (module._parameters, module._buffers)]
    places = [(own, name, value) for own in owners for name, value in own.items() if value is not None]
    try:
        for own, name, value in places:
            own[name] = values.get(id(value), value)  # type: ignore[assignment]
        yield
    finally:
        for own, name, value in places:
            own[name] = value  # type: ignore[assignment]
