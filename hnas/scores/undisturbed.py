"""What scores with their own passes share: restoring the network, and reproducible random draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hnas.errors import HnasError
from hnas.metrics import ops  # noqa: F401  (registers the operations)
from hnas.metrics.inputs import checked_network, errors_named
from hnas.metrics.layers import Layers, Modules
from hnas.metrics.layout import fastest
from hnas.metrics.ops.attention import multi_head
from hnas.metrics.ops.dropout import dropout, random_slope, recurrent
from hnas.metrics.passes import BackwardPass
from hnas.metrics.randomness import Forward, Generators, deterministic_forward, moved
from hnas.metrics.recorder import OPERATIONS, Recorder
from hnas.metrics.state import measuring
from hnas.metrics.unseen_uses import layers_visible
from hnas.scores.protocol import Subject

_Made = TypeVar("_Made")


@contextmanager
def undisturbed(network: nn.Module, images: Tensor) -> Iterator[tuple[Modules, Generators]]:
    """Enter training mode without dropout and enable autograd; restore the network and all random states on exit.

    Checkpointed functions run once and compiled modules uncompiled, as for the columns. Yields the modules by name, and
    the generators, in which the passes inside note those that the network passes to torch functions.

    Raises `UsageError` for a network that cannot be measured, and `HnasError` with torch's reason where it fails on the
    images.
    """
    modules = checked_network(network)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        errors_named(network, images),
        measuring(modules),
        layers_visible(),
        draws_undone(images.device) as generators,
    ):
        yield modules, generators


@contextmanager
def draws_undone(device: torch.device) -> Iterator[Generators]:
    """Restore all random generators on exit, also those that are noted in the yielded `passed`."""
    generators = Generators(device)
    generators.drawn = True  # putting back what did not move costs less than reading whether it did
    try:
        yield generators
    finally:
        generators.put_back()


@contextmanager
def left_alone(subject: Subject) -> Iterator[None]:
    """Raise `HnasError` if the code inside changes weights, images or modes, which later scores would see.

    A change through `.data` goes unnoticed, because torch does not count it.
    """
    before = _state_of(subject)
    yield
    if _state_of(subject) != before:
        raise HnasError("a score must leave the network and the images unchanged, but weights, modes or images changed")


def _state_of(subject: Subject) -> list[tuple[int, int] | bool]:
    tensors = [subject.images, subject.labels, *(subject.further or ()), *subject.network.parameters()]
    # A tensor counts its in-place changes unless it was created under torch.inference_mode.
    counted: list[tuple[int, int] | bool] = [(id(each), each._version) for each in tensors if not each.is_inference()]
    return counted + [module.training for module in subject.network.modules()]


def deterministic(modules: Modules, images: Tensor, generators: Generators, passes: Callable[[], _Made]) -> _Made:
    """Return what `passes`, which calls the network under `Functions`, returns without drawing a random number.

    Where it draws, the modules that draw are put into evaluation mode by the rule of the columns, and `passes` is
    called again. `images` are the run's. Raises `UsageError` for a network whose logits depend on random numbers.
    """
    before = generators.state()
    made = passes()
    if not moved(before, generators.state()) and not any(
        not torch.equal(each.get_state(), state) for each, state in generators.passed.items()
    ):
        return made
    del made
    forward(modules, images, generators)
    return passes()


def forward(modules: Modules, images: Tensor, generators: Generators, recorder: type[Recorder] = Recorder) -> Forward:
    """Record a forward pass of all `images` with the engine's layers and batch norms.

    Raises `UsageError` for a network whose logits depend on random numbers.
    """
    network = next(iter(modules.values()))

    def run(watch: Any) -> Forward:
        made = recorder(Layers.of(modules))
        made.tape.stop("no tangents needed")
        copy = images.detach().clone(memory_format=fastest(images))  # the network may change its input in place
        if watch is None:
            return Forward(made, made.run(network, copy))
        with watch.around(network, made):
            return Forward(made, made.run(network, copy))

    return deterministic_forward(modules, generators, run)


def gradients(modules: Modules, images: Tensor, labels: Tensor, generators: Generators) -> list[Tensor | None]:
    """Return the gradient of the mean cross entropy for each layer's weight, None if the loss is independent of it."""
    done = forward(modules, images, generators)
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
    return torch.Generator("cpu").manual_seed(key)


def drawn(shape: Sequence[int], source: torch.Generator, like: Tensor) -> Tensor:
    """Draw standard normal numbers from `source`, in the precision and on the device of `like`."""
    return torch.randn(tuple(shape), generator=source, dtype=torch.float32, device="cpu").to(like)


_HANDLERS = (dropout, recurrent, random_slope, multi_head, OPERATIONS[F.scaled_dot_product_attention].handler)
#: The functions that draw random numbers, and how the engine runs them without.
_WITHOUT_DRAWS: dict[Any, Any] = {
    function: operation.handler for function, operation in OPERATIONS.items() if operation.handler in _HANDLERS
}


class Functions(TorchFunctionMode):
    """While active, runs each torch function through `call`. Dropout and other random functions are off.

    Notes the generators that functions are given in `generators`.
    """

    def __init__(self, generators: Generators) -> None:
        super().__init__()
        self._generators = generators

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = kwargs.get("generator")
        if given is not None:
            self._generators.passed.setdefault(given, given.get_state())
        handler = _WITHOUT_DRAWS.get(func)
        return self.call(func, args, kwargs) if handler is None else handler(self, func, args, kwargs)

    def call(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run `func`."""
        return func(*args, **kwargs)

    def plain(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run `func` for a handler of the engine."""
        return self.call(func, args, kwargs)


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
