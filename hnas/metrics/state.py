"""The state of a network during measurement, restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from hnas.metrics.layers import MODULES, Modules


@contextmanager
def measuring(modules: Modules) -> Iterator[None]:
    """Set training mode without dropout, and `requires_grad` for the parameters of measured layers only.

    The layers' parameters then enter a graph only through uses that the recorder does not see
    (`hnas.metrics.unseen_uses`). Restores everything on exit, except values of parameters that the forward pass changes
    in place, as it does in training: a copy of all parameters costs more than such networks are worth.
    """
    members = list(modules.values())
    # A frozen TorchScript module has no mode.
    modes = {module: module.training for module in members if hasattr(module, "training")}
    needs = {p: p.requires_grad for module in members for p in module._parameters.values() if p is not None}
    measured = [module._parameters for module in members if isinstance(module, MODULES)]
    values = {p: p.data for own in measured for p in (own.get("weight"), own.get("bias")) if p is not None}
    buffers = [(module._buffers, name, b) for module in members for name, b in module._buffers.items() if b is not None]
    copies = {b: b.detach().clone() for _, _, b in buffers}
    try:
        for owner, name, buffer in buffers:
            owner[name] = copies[buffer]
        for module in modes:
            module.training = not isinstance(module, nn.modules.dropout._DropoutNd)
        for p in needs:
            p.requires_grad_(p in values)
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for p, need in needs.items():
            p.requires_grad_(need)
        for p, value in values.items():
            if p.data_ptr() != value.data_ptr():
                p.data = value
        for owner, name, buffer in buffers:
            owner[name] = buffer
