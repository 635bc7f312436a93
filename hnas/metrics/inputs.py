"""Checks of what `compute_metrics` receives, and its conversion into what the engine works on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from hnas.errors import HnasError, UsageError
from hnas.metrics.layers import MODULES, Modules, modules_of, refuse_parametrised
from hnas.metrics.unseen_uses import refuse_scripted

# Kinds of numeric NumPy arrays: booleans, unsigned and signed integers, floating-point numbers.
_NUMBERS = "buif"


def checked_network(network: Any) -> Modules:
    """Return the modules of `network` by name. Raises `UsageError` where it cannot be measured."""
    if not isinstance(network, nn.Module):
        raise UsageError(f"the network must be a torch.nn.Module, got {_type(network)}")
    modules = modules_of(network)
    refuse_scripted(modules)
    refuse_parametrised(modules)
    for name, module in modules.items():
        for own, value in (*module._parameters.items(), *module._buffers.items()):
            if value is not None and is_lazy(value):
                raise UsageError(
                    f"the {own} of {name} has no values yet because the module is lazy; call the network once on a "
                    "batch before you measure it"
                )
            if isinstance(value, nn.Parameter) and value.is_inference():
                raise UsageError(
                    f"the {own} of {name} was created under torch.inference_mode, so it has no gradient; create the "
                    "network outside of it"
                )
    return modules


def checked_batch(modules: Modules, images: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Return images (m, …) in the precision of the network's layers, and labels (m,) as int64.

    Raises `UsageError` for weights, images or labels that cannot be measured.
    """
    images, labels = _checked(modules, images, labels)
    if len(images) < 2:
        raise UsageError(f"the batch must have at least 2 samples for the condition number, got {len(images)}")
    return images, labels


def checked_further(modules: Modules, further: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return `further`, images (n, …) and labels (n,), in the form of the batch that has the checked `images` (m, …).

    Raises `UsageError` for images or labels that the batch could not have, except for labels out of range.
    """
    if not isinstance(further, (tuple, list)) or len(further) != 2:
        raise UsageError(f"further must be a pair of images and labels, got {_type(further)}")
    more, labels = _checked(modules, further[0], further[1], "further ")
    if more.shape[1:] != images.shape[1:] or more.dtype != images.dtype:
        raise UsageError(
            f"further images must have the batch's shape (n, {', '.join(map(str, images.shape[1:]))}) and type "
            f"{images.dtype}, got {tuple(more.shape)} and {more.dtype}"
        )
    return more, labels


def _checked(modules: Modules, images: Any, labels: Any, of: str = "") -> tuple[Tensor, Tensor]:
    images, labels = _tensor(images, f"{of}images"), _tensor(labels, f"{of}labels")
    if images.dim() == 0:
        raise UsageError(f"{of}images must be a batch (m, …), got a single number")
    m = images.shape[0]
    if labels.shape != (m,):
        raise UsageError(f"{of}labels must have shape ({m},), one class index per image, got {tuple(labels.shape)}")
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise UsageError(f"{of}labels must be class indices of an integer type such as torch.int64, got {labels.dtype}")
    weight = _checked_weights(modules)
    if images.device != weight.device:
        raise UsageError(f"{of}images are on {images.device}, but the network is on {weight.device}; move one of them")
    if images.is_floating_point():
        images = images.to(weight.dtype)
    return images, labels.to(weight.device, torch.int64)


def _tensor(value: Any, what: str) -> Tensor:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in _NUMBERS or value.dtype.itemsize > 8:
            raise UsageError(f"{what} must have a numeric type that torch supports, got an array of {value.dtype}")
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))
    if not isinstance(value, Tensor):
        raise UsageError(f"{what} must be a torch tensor or a NumPy array, got {_type(value)}")
    kind = "sparse" if value.layout != torch.strided else "quantised" if value.is_quantized else ""
    kind = "complex" if value.is_complex() else kind
    if kind or value.is_nested:
        raise UsageError(f"{what} must be a dense tensor of real numbers, got a {kind or 'nested'} one")
    return value.clone() if value.is_inference() else value


def _type(value: Any) -> str:
    return f"an object of type {type(value).__name__}"


def _checked_weights(modules: Modules) -> Tensor:
    """Return one of the measured weights after checking that all are real, of one precision and on one device."""
    first = None
    for name, module in modules.items():
        if not isinstance(module, MODULES) or not isinstance(module.weight, Tensor):
            continue
        weight = module.weight
        kind = "" if weight.layout == torch.strided else "sparse"
        kind = kind if weight.is_floating_point() else str(weight.dtype)
        if kind:
            raise UsageError(f"layer {name} must have a dense floating-point weight, got one that is {kind}")
        first = weight if first is None else first
        if weight.dtype != first.dtype or weight.device != first.device:
            raise UsageError(
                f"all layers must have one precision and one device, but layer {name} has {weight.dtype} on "
                f"{weight.device} and another has {first.dtype} on {first.device}"
            )
    if first is None:
        raise UsageError(f"{next(iter(modules))} must have a Conv or Linear layer; it has no weights to measure")
    return first


@contextmanager
def errors_named(network: nn.Module, images: Tensor) -> Iterator[None]:
    """Turn errors inside into a one-sentence `HnasError` that names the network.

    These are errors of the kinds that torch raises; out-of-memory errors and all others pass.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError, ValueError, TypeError, AssertionError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
        raise HnasError(
            f"{type(network).__name__} fails on images of shape {tuple(images.shape)} and {images.dtype}: {first}"
        ) from error
