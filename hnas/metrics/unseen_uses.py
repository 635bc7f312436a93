"""Ways by which a layer would reach the logits unseen: each is shown, run plainly, or refused.

A layer counts where its function is seen to be called (`hnas.metrics.recorder`). Activation checkpointing, which calls
it again in the backward pass, is left out, since it changes no number. Compiled modules run uncompiled. What is left (a
scripted module, a function of another thread) has the module's own parameter in the graph of the logits, where a call
that was seen has a leaf of `hnas.metrics.layers`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.utils.checkpoint as checkpoints
from torch import Tensor

from hnas.errors import UsageError
from hnas.metrics.layers import MODULES, Layers, Modules

_NAMES = {module.__name__ for module in MODULES}
_PLAINLY = threading.local()
_LOCK = threading.Lock()
_REENTRANT: Any = checkpoints.CheckpointFunction
_GENERATOR = "_checkpoint_without_reentrant_generator"
_OTHER: Any = getattr(checkpoints, _GENERATOR, None)
_inside = 0


class _Reentrant:
    """Stands in for the autograd function behind `torch.utils.checkpoint.checkpoint(…, use_reentrant=True)`."""

    @staticmethod
    def apply(function: Any, preserve: bool, *args: Any) -> Any:
        if getattr(_PLAINLY, "wanted", False):
            return function(*args)
        return _REENTRANT.apply(function, preserve, *args)


def _generator(*args: Any, **kwargs: Any) -> Iterator[None]:
    """Stands in for what `use_reentrant=False` does before and after the function."""
    if getattr(_PLAINLY, "wanted", False):
        yield
    else:
        yield from _OTHER(*args, **kwargs)


@contextmanager
def shown() -> Iterator[None]:
    """Within, this thread's checkpointed functions are called once, and its compiled modules run uncompiled."""
    global _inside
    with _LOCK:  # torch's module is all threads': the last one out puts it back
        _inside += 1
        checkpoints.CheckpointFunction = _Reentrant  # type: ignore[assignment, misc]
        setattr(checkpoints, _GENERATOR, _generator)
    _PLAINLY.wanted = True
    try:
        with ExitStack() as stack:
            if "torch._dynamo" in sys.modules:  # nothing is compiled without it, and importing it takes seconds
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            yield
    finally:
        _PLAINLY.wanted = False
        with _LOCK:
            _inside -= 1
            if not _inside:
                checkpoints.CheckpointFunction = _REENTRANT  # type: ignore[misc]
                setattr(checkpoints, _GENERATOR, _OTHER)


def refuse_scripted(modules: Modules) -> None:
    """Raise `UsageError` for a Conv or Linear layer that TorchScript runs, out of anyone's sight."""
    for name, module in modules.items():
        if isinstance(module, torch.jit.ScriptModule) and getattr(module, "original_name", "") in _NAMES:
            raise UsageError(
                f"layer {name} is part of a scripted or traced module, where it cannot be "
                "measured; give the network as it was before torch.jit"
            )


def refuse_unseen(logits: Tensor, layers: Layers) -> None:
    """Raise `UsageError` where the graph of `logits` holds a weight or bias of a layer itself."""
    for node in graph(logits):
        parameter = getattr(node, "variable", None)
        owner = None if parameter is None else layers.owner(parameter)
        if owner is not None:
            raise UsageError(
                f"a parameter of layer {owner} reaches the logits in another way than by a convolution or linear map "
                "of its layer that this thread calls, so its share in the metrics would be missed"
            )


def cut_short(gradients: Iterable[Tensor]) -> bool:
    """Whether a function whose backward pass torch takes for constant made one of `gradients`.

    Torch means to raise an error there, but does not where the derivative with respect to other inputs is asked for.
    """
    return any(node.name() == "torch::autograd::Error" for node in graph(*gradients))


def graph(*values: Tensor) -> Iterator[Any]:
    """The nodes of the autograd graph behind `values`, those of the last operations first."""
    nodes: list[Any] = [value.grad_fn for value in values]
    met = set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in met:
            met.add(node)
            yield node
            nodes.extend(following for following, _ in node.next_functions)
