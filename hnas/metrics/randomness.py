"""Random numbers in the forward pass: switched off where possible, else the network is refused.

Dropout and its variants are always off (`hnas.metrics.ops.dropout`). All other draws show in the state of the
generators: torch's, NumPy's and Python's own, and those passed to torch functions. A module that draws in training mode
(stochastic depth) is put into evaluation mode, without its submodules. If the network still draws numbers and its
logits depend on them, there is no single network to measure.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from hnas.errors import UsageError
from hnas.metrics.layers import Modules
from hnas.metrics.recorder import Recorder


@dataclass
class Forward:
    """One recorded forward pass."""

    recorder: Recorder
    logits: Any


class Generators:
    """The default random generators and their state at creation."""

    def __init__(self, device: torch.device) -> None:
        self.own = [torch.default_generator]
        if device.type == "cuda":
            self.own.append(torch.cuda.default_generators[device.index or 0])
        self._start = self.state()
        self.passed: dict[torch.Generator, Tensor] = {}
        self.drawn = False

    def state(self) -> Any:
        """Return the combined state, which changes with every number drawn."""
        numbers: Any = np.random.get_state(legacy=True)
        name, keys, *rest = numbers
        tensors = [generator.get_state() for generator in self.own]
        return [t.numpy().tobytes() for t in tensors], random.getstate(), (keys.tobytes(), *rest), (tensors, name, keys)

    def torch_state(self) -> list[bytes]:
        """Return torch's part of `state`."""
        return [generator.get_state().numpy().tobytes() for generator in self.own]

    def put_back(self) -> None:
        """Restore every generator if the network drew any number."""
        if not self.drawn:
            return
        _, python, (_, *rest), (tensors, name, keys) = self._start
        for generator, state in zip(self.own, tensors, strict=True):
            generator.set_state(state)
        random.setstate(python)
        np.random.set_state((name, keys, *rest))
        for generator, state in self.passed.items():
            generator.set_state(state)


def moved(before: Any, after: Any) -> bool:
    """Whether a number was drawn between two states."""
    return bool(before[:3] != after[:3])


def deterministic_forward(
    modules: Modules, generators: Generators, forward: Callable[[Watch | None], Forward]
) -> Forward:
    """Return a forward pass whose logits depend on no random number, calling `forward` as often as that takes.

    Raises `UsageError` where there is no such pass.
    """
    first, drew = _watched(forward, generators, None)
    if not drew:
        return first
    # Other threads, such as Dask's, draw now and then, whereas a module that draws does so in every pass. The repeats
    # record no graph, because the graph of the first pass is most of the memory of a measurement.
    watch, again = Watch(modules, generators), Watch(modules, generators)
    with torch.no_grad():
        second, drew = _watched(forward, generators, watch)
        if not drew:
            return first
        _, drew = _watched(forward, generators, again)
    watch.drawing = {module: None for module in watch.drawing if module in again.drawing}
    if not drew or not watch.drawing:
        return first
    for module in watch.drawing:
        module.training = False
    fourth: Forward | None = None
    try:
        fourth, drew = _watched(forward, generators, None)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError):  # batch norm without running statistics has no evaluation mode
        pass
    if fourth is None or fourth.recorder.normalised != first.recorder.normalised:
        if not (watch.of_torch or again.of_torch) and _same(first.logits, second.logits):
            for module in watch.drawing:
                module.training = True
            return first  # some other thread draws all the time
        raise UsageError(
            f"{watch.description()}, and cannot be put into evaluation mode because it also normalises batches; "
            "make its forward pass deterministic"
        )
    if not drew:
        return fourth
    fifth, drew = _watched(forward, generators, None)
    if drew and not _same(fourth.logits, fifth.logits):
        raise UsageError(
            f"{watch.description()}, in evaluation mode too, and the logits depend on them; make its forward pass "
            "deterministic"
        )
    return fifth


def _watched(
    forward: Callable[[Watch | None], Forward], generators: Generators, watch: Watch | None
) -> tuple[Forward, bool]:
    before = generators.state()
    done = forward(watch)
    passed = done.recorder.generators
    drew = moved(before, generators.state()) or any(not torch.equal(g.get_state(), s) for g, s in passed.items())
    if drew:
        generators.drawn, generators.passed = True, {**passed, **generators.passed}
    return done, drew


def _same(a: Any, b: Any) -> bool:
    return isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b)


@dataclass
class Watch:
    """Finds the modules that draw random numbers, and the function or library that draws first."""

    members: Modules
    generators: Generators
    drawing: dict[nn.Module, None] = field(default_factory=dict)
    source: str = ""
    of_torch: bool = False

    @contextmanager
    def around(self, network: nn.Module, recorder: Recorder) -> Iterator[None]:
        """Watch all calls inside; draws outside every submodule count as those of `network` itself."""
        running, ours = [network], set(self.members.values())
        last = [self._state(recorder)]

        def look(function: Any = None) -> None:
            now = self._state(recorder)
            if moved(last[0], now):
                torchs, pythons = (last[0][i] != now[i] for i in range(2))
                by = getattr(function, "__name__", "") if torchs else "Python's random" if pythons else "numpy.random"
                self.of_torch |= torchs
                last[0] = now
                self.drawing[running[-1]] = None
                self.source = self.source or by

        def enter(module: nn.Module, args: Any) -> None:
            if module in ours:
                look()
                running.append(module)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            if module in ours:
                look()
                running.pop()

        recorder.watch = look
        handles = [
            hooks.register_module_forward_pre_hook(enter),
            hooks.register_module_forward_hook(leave, always_call=True),
        ]
        try:
            yield
            look()
        finally:
            recorder.watch = None
            for handle in handles:
                handle.remove()

    def _state(self, recorder: Recorder) -> Any:
        passed = [generator.get_state().numpy().tobytes() for generator in recorder.generators]
        tensors, python, numbers, kept = self.generators.state()
        return tensors + passed, python, numbers, kept

    def description(self) -> str:
        """Say which module draws, and by what."""
        module = next(iter(self.drawing))
        name = next(name for name, other in self.members.items() if other is module)
        kind = type(module).__name__
        by = f" by {self.source}" if self.source else ""
        return f"{kind if kind == name else f'module {name} ({kind})'} draws random numbers{by}"
