"""What `compute_metrics` is given, brought into the form that it works on, or refused in one sentence."""

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

# The kinds of NumPy arrays that are numbers: truth values, integers without and with a sign, floating-point numbers.
_NUMBERS = "buif"


def checked_network(network: Any) -> Modules:
    """The modules of `network`. Raises `UsageError` where it is none that can be measured, or none at all."""
    if not isinstance(network, nn.Module):
        raise UsageError(f"the network is {_type(network)}, but a torch.nn.Module is needed")
    modules = modules_of(network)
    refuse_scripted(modules)
    refuse_parametrised(modules)
    for name, module in modules.items():
        for own, parameter in module._parameters.items():
            if parameter is not None and is_lazy(parameter):
                raise UsageError(
                    f"the {own} of {name} has no values yet, because the module is lazy; call the network once on a "
                    "batch before it is measured"
                )
            if parameter is not None and parameter.is_inference():
                raise UsageError(
                    f"the {own} of {name} was made in torch.inference_mode, so that it has no derivatives; make the "
                    "network outside of it"
                )
    return modules


def checked_batch(modules: Modules, images: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Images (m, …) in the precision of the network's layers and labels (m,) int64.

    Raises `UsageError` for weights, images or labels that cannot be measured.
    """
    images, labels = _tensor(images, "images"), _tensor(labels, "labels")
    if images.dim() == 0:
        raise UsageError("images are a single number; a batch is needed, one image after the other")
    m = images.shape[0]
    if m < 2:
        raise UsageError(f"the batch holds {m} samples; the condition number needs at least 2")
    if labels.shape != (m,):
        raise UsageError(f"labels have shape {tuple(labels.shape)} for {m} images; one class index per image is needed")
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise UsageError(f"labels are {labels.dtype}, but class indices are needed: torch.int64")
    weight = _checked_weights(modules)
    if images.device != weight.device:
        raise UsageError(f"images are on {images.device}, but the network is on {weight.device}; move one of them")
    if images.is_floating_point():
        images = images.to(weight.dtype)
    return images, labels.to(weight.device, torch.int64)


def _tensor(value: Any, what: str) -> Tensor:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in _NUMBERS or value.dtype.itemsize > 8:
            raise UsageError(f"{what} are an array of {value.dtype}, but numbers are needed that torch has")
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))
    if not isinstance(value, Tensor):
        raise UsageError(f"{what} are {_type(value)}, but a torch tensor or a NumPy array is needed")
    kind = "sparse" if value.layout != torch.strided else "quantised" if value.is_quantized else ""
    kind = "complex" if value.is_complex() else kind
    if kind or value.is_nested:
        raise UsageError(f"{what} are {kind or 'nested'}; a plain tensor of real numbers is needed")
    return value.clone() if value.is_inference() else value


def _type(value: Any) -> str:
    return f"of type {type(value).__name__}"


def _checked_weights(modules: Modules) -> Tensor:
    """One of the weights that are measured, all of which are real numbers of one precision on one device."""
    first = None
    for name, module in modules.items():
        if not isinstance(module, MODULES) or not isinstance(module.weight, Tensor):
            continue
        weight = module.weight
        kind = "" if weight.layout == torch.strided else "sparse"
        kind = kind if weight.is_floating_point() else str(weight.dtype)
        if kind:
            raise UsageError(f"layer {name} has a weight that is {kind}; weights of floating-point numbers are needed")
        first = weight if first is None else first
        if weight.dtype != first.dtype or weight.device != first.device:
            raise UsageError(
                f"layer {name} has weights of {weight.dtype} on {weight.device}, another layer {first.dtype} on "
                f"{first.device}; one precision and one device are needed"
            )
    if first is None:
        raise UsageError(f"{next(iter(modules))} has no Conv or Linear layer, so it has no weights to measure")
    return first


@contextmanager
def told(network: nn.Module, images: Tensor) -> Iterator[None]:
    """What torch raises within is told in one sentence. Raises `HnasError`, but lets a lack of memory through."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError, ValueError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
        raise HnasError(
            f"{type(network).__name__} fails on images of shape {tuple(images.shape)} and {images.dtype}: {first}"
        ) from error
