"""What scores with their own passes share: restoring the network, and reproducible random draws."""

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
from hnas.metrics.inputs import checked_network, errors_named
from hnas.metrics.layers import Layers, Modules
from hnas.metrics.ops.dropout import dropout
from hnas.metrics.passes import BackwardPass
from hnas.metrics.randomness import Forward, Generators, deterministic_forward, moved
from hnas.metrics.recorder import OPERATIONS, Recorder
from hnas.metrics.state import measuring
from hnas.scores.protocol import Subject


@contextmanager
def undisturbed(network: nn.Module, images: Tensor) -> Iterator[Modules]:
    """Enter training mode without dropout and enable autograd; restore the network and all random states on exit.

    Yields the modules by name. Raises `UsageError` for a network that cannot be measured, and `HnasError` with torch's
    reason where it fails on the images.
    """
    modules = checked_network(network)
    generators = Generators(images.device)
    before = generators.state()
    with torch.inference_mode(False), torch.enable_grad(), errors_named(network, images), measuring(modules):
        try:
            yield modules
        finally:
            generators.drawn = moved(before, generators.state())
            generators.put_back()


@contextmanager
def left_alone(subject: Subject) -> Iterator[None]:
    """Raise `HnasError` if the code inside changes weights, images or modes, which later scores would see."""
    before = _state_of(subject)
    yield
    if _state_of(subject) != before:
        raise HnasError("a score must leave the network and the images unchanged, but weights, modes or images changed")


def _state_of(subject: Subject) -> list[tuple[int, int] | bool]:
    tensors = [subject.images, subject.labels, *(subject.further or ()), *subject.network.parameters()]
    # A tensor counts its in-place changes unless it was created under torch.inference_mode.
    counted: list[tuple[int, int] | bool] = [(id(each), each._version) for each in tensors if not each.is_inference()]
    return counted + [module.training for module in subject.network.modules()]


def forward(modules: Modules, images: Tensor, recorder: type[Recorder] = Recorder) -> Forward:
    """Record a forward pass of all `images` with the engine's layers and batch norms.

    Raises `UsageError` for a network whose logits depend on random numbers.
    """
    network = next(iter(modules.values()))
    layout = torch.channels_last if images.dim() == 4 else torch.contiguous_format

    def run(watch: Any) -> Forward:
        made = recorder(Layers.of(modules))
        made.tape.stop("no tangents needed")
        copy = images.detach().clone(memory_format=layout)  # the network may change its input in place
        if watch is None:
            return Forward(made, made.run(network, copy))
        with watch.around(network, made):
            return Forward(made, made.run(network, copy))

    return deterministic_forward(modules, Generators(images.device), run)


def gradients(modules: Modules, images: Tensor, labels: Tensor) -> list[Tensor | None]:
    """Return the gradient of the mean cross entropy for each layer's weight, None if the loss is independent of it."""
    done = forward(modules, images)
    loss = F.cross_entropy(done.logits, labels)
    layers = done.recorder.layers
    if not loss.requires_grad:  # no weight reaches the logits
        return [None for _ in layers]
    return list(done.recorder.passes.run(BackwardPass(), loss, layers.weights, keep_graph=False))


def tensors_of(modules: Modules) -> list[Tensor]:
    """Return all parameters and buffers of the network, each once."""
    owners = [own for module in modules.values() for own in (module._parameters, module._buffers)]
    return list({id(value): value for own in owners for value in own.values() if value is not None}.values())


def generator(seed: int, score: str) -> torch.Generator:
    """Return the CPU generator of `score` in a run with this seed."""
    key = int.from_bytes(blake2b(f"{seed}/{score}".encode(), digest_size=8).digest(), "little")
    return torch.Generator().manual_seed(key)


def drawn(shape: Sequence[int], source: torch.Generator, like: Tensor) -> Tensor:
    """Draw standard normal numbers from `source`, in the precision and on the device of `like`."""
    return torch.randn(tuple(shape), generator=source).to(like)


class Functions(TorchFunctionMode):
    """While active, runs each torch function through `call`. Dropout and other random functions are off."""

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
    """Replace the parameters and buffers whose ids are keys of `values` inside the context.

    Unlike `torch.func.functional_call`, this works for a module that the network holds under two names.
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
