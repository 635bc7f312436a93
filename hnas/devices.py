"""Devices: the visible GPUs, and the settings that make a GPU compute in full float32.

On NVIDIA GPUs torch may multiply float32 matrices in TF32, with a 10-bit mantissa, while κ depends on far smaller
differences. Workers turn TF32 off, and `run.json` records the settings of each session.
"""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch

from hnas.errors import HnasError


def choose_device(device: str) -> str:
    """Resolve `auto` on this machine. Raises `HnasError` where `cuda` is requested but not available."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise HnasError("device cuda was requested, but torch finds no CUDA device; use device cpu or auto")
    return device


@dataclass(frozen=True, order=True)
class Numerics:
    """What computed a chunk: `device` (cpu or cuda), the processor's or GPU's `name`, and its numerical settings.

    `tf32`: whether float32 products may be rounded to a 10-bit mantissa. `deterministic`: whether results are requested
    to be bit-identical on the same hardware and versions.
    """

    device: str
    name: str
    tf32: bool
    deterministic: bool


def use_float32(device: str) -> None:
    """Make this process compute in full float32 and deterministically on `device`.

    The CPU is always deterministic, but some processors multiply in bfloat16 where torch's settings allow it. cuDNN's
    benchmark mode is turned off, because it picks algorithms by timing, so that a row would depend on the load.
    Its deterministic mode is turned on. `torch.use_deterministic_algorithms` stays off: it refuses operations without a
    deterministic form, such as the backward pass of max pooling, which add in varying order and change the last bits.
    """
    torch.set_float32_matmul_precision("highest")
    for part in _of_cpus():
        part.fp32_precision = "ieee"
    if device != "cuda":
        return
    # These are the attributes of torch 2.6, which later versions keep beside `fp32_precision`. Setting them is always
    # safe, whereas reading one kind after another library set the other kind raises.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def _of_cpus() -> list[Any]:
    """Return what has a precision of its own on a CPU."""
    cpu: Any = torch.backends.mkldnn
    return [cpu.matmul, cpu.conv, cpu.rnn] if hasattr(cpu, "matmul") else []  # torch 2.9


_LOCK = threading.Lock()
_inside = 0
_before: Callable[[], None]


@contextmanager
def full_float32() -> Iterator[None]:
    """Make CPUs and GPUs compute as `use_float32` says, and restore the settings of before on exit.

    The settings are those of the process: the last thread to leave restores what the first one found.
    """
    global _inside, _before
    with _LOCK:
        if not _inside:
            _before = _settings()
            use_float32("cuda")
        _inside += 1
    try:
        yield
    finally:
        with _LOCK:
            _inside -= 1
            if not _inside:
                _before()


def _settings() -> Callable[[], None]:
    """Return a function that restores the settings that `use_float32` changes."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    settings: list[tuple[Any, str]] = [(cudnn, "benchmark"), (cudnn, "deterministic")]
    settings += [(matmul, "allow_tf32"), (cudnn, "allow_tf32")]
    if hasattr(cudnn, "conv"):  # torch 2.9
        settings += [(owner, "fp32_precision") for owner in (matmul, cudnn.conv, cudnn.rnn, *_of_cpus())]
    before = []
    for owner, name in settings:
        with suppress(RuntimeError):  # `allow_tf32` cannot be read after `fp32_precision` was set differently
            before.append((owner, name, getattr(owner, name)))
    precision = None
    with suppress(RuntimeError):
        precision = torch.get_float32_matmul_precision()

    def restore() -> None:
        for owner, name, value in before:
            setattr(owner, name, value)
        if precision is not None:  # last, because `allow_tf32` sets it to one of two of its three values
            torch.set_float32_matmul_precision(precision)

    return restore


def numerics(device: str) -> Numerics:
    """Return how this process computes on `device`, as torch reports it."""
    if device != "cuda":
        return Numerics(device, platform.processor() or platform.machine(), tf32=False, deterministic=True)
    tf32 = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
    return Numerics(device, torch.cuda.get_device_name(), tf32, torch.backends.cudnn.deterministic)


def visible_gpus() -> list[str]:
    """Return the GPUs that torch finds, as named in `CUDA_VISIBLE_DEVICES`; none without CUDA."""
    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    # CUDA ignores all names from the first unknown one on.
    return named[:count] if named != [""] else [str(index) for index in range(count)]
