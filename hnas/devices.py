"""Devices: which GPUs there are, and the settings that make a GPU's numbers those of float32.

On an NVIDIA GPU torch may multiply float32 matrices in TF32, with 10 bits of mantissa: κ reads differences far below
that. Workers turn it off, and `run.json` says for each session what was used.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

import torch

from hnas.errors import HnasError


def choose_device(device: str) -> str:
    """`auto` resolved on this machine. Raises `HnasError` where `cuda` is asked for and there is none."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise HnasError("--device cuda was asked for, but torch finds no CUDA device here; use --device cpu or auto")
    return device


@dataclass(frozen=True, order=True)
class Numerics:
    """What computed a chunk: `device` (cpu or cuda), the processor's or GPU's `name`, and how it calculated.

    `tf32`: whether float32 products may be rounded to 10 bits. `deterministic`: whether the same row on the same
    hardware and versions is asked to be the same to the last bit.
    """

    device: str
    name: str
    tf32: bool
    deterministic: bool


def use_float32(device: str) -> None:
    """Have this process compute in full float32 and repeatably on `device`; on the CPU it does anyway.

    cuDNN's benchmark mode stays off: it picks algorithms by timing them, so that a row would depend on the load. Its
    deterministic mode is on. `torch.use_deterministic_algorithms` is not: it refuses operations, such as the backward
    pass of max pooling, that have no other form; those add in any order, which moves last bits.
    """
    if device != "cuda":
        return
    # The attributes of torch 2.6, which later versions keep beside `fp32_precision`: setting them is safe whichever of
    # the two another library used, while reading one after writing the other raises.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def numerics(device: str) -> Numerics:
    """How this process computes on `device`, as torch reports it."""
    if device != "cuda":
        return Numerics(device, platform.processor() or platform.machine(), tf32=False, deterministic=True)
    tf32 = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
    return Numerics(device, torch.cuda.get_device_name(), tf32, torch.backends.cudnn.deterministic)


def visible_gpus() -> list[str]:
    """The GPUs that torch finds, each as `CUDA_VISIBLE_DEVICES` names it; none without CUDA."""
    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    # CUDA takes the names up to the first that it does not know.
    return named[:count] if named != [""] else [str(index) for index in range(count)]
