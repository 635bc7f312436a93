"""How often the host waits for a device: the operations that read a tensor's value, or move it off its device."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# What `.item()`, `float(t)`, `bool(t)`, `t.nonzero()`, `t.unique()` … become: the host must have their result, or its
# shape, before it goes on.
_READS = {
    "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "unique_dim", "_unique2",
    "unique_consecutive", "repeat_interleave.Tensor", "bincount",
}  # fmt: skip
_COPIES = {"_to_copy", "copy_"}


class HostReads(TorchDispatchMode):
    """Within, `found` lists the operations for which the host of a CUDA device would wait, one entry for each call.

    They are seen on the CPU too, where they cost nothing, except for the copies: those are between devices. `tolist` of
    a tensor on the CPU is no operation, so that a program counted there must not use it before it copies.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::")
        result = func(*args, **(kwargs or {}))
        source = args[1] if name.startswith("copy_") else args[0] if args else None
        if name in _READS or name.split(".")[0] in _READS or _masks(name, args):
            self.found.append(name)
        elif (
            name.split(".")[0] in _COPIES
            and isinstance(source, torch.Tensor)
            and isinstance(result, torch.Tensor)
            and source.device != result.device
            and "cpu" in (source.device.type, result.device.type)
        ):
            self.found.append(f"{name} from {source.device.type} to {result.device.type}")
        return result


def _masks(name: str, args: Any) -> bool:
    """Whether an indexing has a mask among its indices, whose true entries must be counted first."""
    if not name.startswith(("index.", "index_put", "_index_put")):
        return False
    return any(isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])
