"""Ways in which a layer could reach the logits unseen: each is made visible, run plainly, or refused.

The recorder counts a layer where it sees a call of its function (`hnas.metrics.recorder`). Activation checkpointing
calls a layer again in the backward pass; it is bypassed, which changes no value. Compiled modules run uncompiled. What
remains (a scripted module, a function in another thread) puts the module's own parameter into the graph of the logits,
where a recorded call has a leaf of `hnas.metrics.layers`.
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
from hnas.metrics.layers import MODULES, Call, Layers, Modules

_NAMES = {module.__name__ for module in MODULES}
_FUNCTIONS = ("aten::linear", "aten::conv1d", "aten::conv2d", "aten::conv3d", "aten::_convolution")
_PLAINLY = threading.local()
_LOCK = threading.Lock()
_REENTRANT: Any = checkpoints.CheckpointFunction
_GENERATOR = "_checkpoint_without_reentrant_generator"
_OTHER: Any = getattr(checkpoints, _GENERATOR, None)
_inside = 0


class _Reentrant:
    """Replaces the autograd function behind `torch.utils.checkpoint.checkpoint(…, use_reentrant=True)`."""

    @staticmethod
    def apply(function: Any, preserve: bool, *args: Any) -> Any:
        if getattr(_PLAINLY, "wanted", False):
            return function(*args)
        return _REENTRANT.apply(function, preserve, *args)


def _generator(*args: Any, **kwargs: Any) -> Iterator[None]:
    """Replaces the wrapper that `use_reentrant=False` puts around the function."""
    if getattr(_PLAINLY, "wanted", False):
        yield
    else:
        yield from _OTHER(*args, **kwargs)


@contextmanager
def layers_visible() -> Iterator[None]:
    """Run this thread's checkpointed functions once, and its compiled modules uncompiled, inside the context."""
    global _inside
    with _LOCK:  # threads share torch's module: the last one out restores it
        _inside += 1
        checkpoints.CheckpointFunction = _Reentrant  # type: ignore[assignment, misc]
        setattr(checkpoints, _GENERATOR, _generator)
    _PLAINLY.wanted = True
    try:
        with ExitStack() as stack:
            if "torch._dynamo" in sys.modules:  # not imported means nothing is compiled; importing it takes seconds
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
    """Raise `UsageError` for a Conv or Linear layer inside TorchScript, whose calls the recorder cannot see."""
    for name, module in reversed(modules.items()):  # inner modules first
        if isinstance(module, torch.jit.ScriptModule) and (
            getattr(module, "original_name", "") in _NAMES or _runs_a_layer(module)
        ):
            raise UsageError(
                f"layer {name} is part of a scripted or traced module, whose calls cannot be seen; "
                "pass the network as it was before torch.jit"
            )


def _runs_a_layer(module: torch.jit.ScriptModule) -> bool:
    """Whether a TorchScript module runs a convolution or a linear map: a subclass of a layer, or a frozen one."""
    if not hasattr(module, "inlined_graph"):  # without a forward pass
        return False
    inlined: Any = module.inlined_graph
    nodes = [node for name in _FUNCTIONS for node in inlined.findAllNodes(name, recurse=True)]
    # A traced convolution says in its seventh argument whether it is transposed; layers are not.
    return any(node.kind() != "aten::_convolution" or not list(node.inputs())[6].toIValue() for node in nodes)


def refuse_unseen(logits: Tensor, layers: Layers) -> None:
    """Raise `UsageError` where the graph of `logits` contains a layer's own parameter."""
    for node in graph(logits):
        parameter = getattr(node, "variable", None)
        owner = None if parameter is None else layers.owner(parameter)
        if owner is not None:
            raise UsageError(
                f"a parameter of layer {owner} reaches the logits other than by a convolution or linear map that this "
                "thread calls, so the metrics would miss it; let the network apply it eagerly in its own thread"
            )


def refuse_derivatives(target: Tensor, layers: Layers) -> None:
    """Raise `UsageError` where `target` depends on a derivative of a layer that the network takes in its forward pass.

    The weight then reaches `target` without a call of the layer too, so its calls do not have its whole gradient.
    """
    names = {id(layer.weight): layer.name for layer in layers}
    for node in graph(target):
        if isinstance(getattr(node, "call", None), Call):
            continue
        for following, _ in node.next_functions:
            name = names.get(id(getattr(following, "variable", None)))
            if name is not None:
                raise UsageError(
                    f"the logits depend on a derivative of layer {name} that the forward pass takes, so its calls do "
                    'not have its per-sample gradients; use ntk="exact", which needs none'
                )


def cut_short(gradients: Iterable[Tensor]) -> bool:
    """Whether a function marked `once_differentiable` made one of `gradients`.

    Torch means to raise an error for such a gradient, but does not where the derivative is taken with respect to other
    inputs.
    """
    return any(node.name() == "torch::autograd::Error" for node in graph(*gradients))


def graph(*values: Tensor) -> Iterator[Any]:
    """Yield the nodes of the autograd graph behind `values`, starting at the values."""
    nodes: list[Any] = [value.grad_fn for value in values]
    met = set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in met:
            met.add(node)
            yield node
            nodes.extend(following for following, _ in node.next_functions)
