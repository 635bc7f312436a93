"""Functions that others stand in for while a network is measured.

Poolings and concatenations have faster ways back; functions that drop or draw at random have a form for evaluation; and
fused attention, whose kernels have no second derivative, has the form that it was fused from.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hnas.metrics.functions import named
from hnas.metrics.joins import cat
from hnas.metrics.pooling import average_pool

#: These return their input.
DROPOUTS = named(
    "dropout dropout_ dropout1d dropout2d dropout3d alpha_dropout alpha_dropout_ feature_dropout feature_dropout_ "
    "feature_alpha_dropout feature_alpha_dropout_"
)
_RECURRENT = {torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu}


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **kwargs: Any,
) -> Tensor:
    """Stands in for `torch.nn.functional.scaled_dot_product_attention`: unfused, without dropout."""
    if attn_mask is not None and attn_mask.dtype == torch.bool:  # true where a key is taken
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, -torch.inf)
    product = torch.ops.aten._scaled_dot_product_attention_math
    out: Tensor = product(query, key, value, attn_mask, 0.0, is_causal, **kwargs)[0]
    return out


def leaky_relu(
    input: Tensor,  # noqa: A002
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,
    **kwargs: Any,
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """The call that stands in for one of `torch.nn.functional.rrelu`: its mean slope, as in evaluation."""
    return F.leaky_relu, (input, (lower + upper) / 2, inplace), {}


def standing_in(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The call that is made instead of `func(*args, **kwargs)`."""
    if func in _RECURRENT:
        return func, _without_dropout(args), kwargs
    if func is F.rrelu or func is torch.rrelu:
        return leaky_relu(*args, **kwargs)
    if func is torch.rrelu_:
        return leaky_relu(*args, **{**kwargs, "inplace": True})
    return _STAND_INS.get(func, func), args, kwargs


def _without_dropout(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments of a recurrent function: (…, whether there are biases, number of layers, dropout, …)."""
    biases = next(place for place, value in enumerate(args) if isinstance(value, bool))
    return (*args[: biases + 2], 0.0, *args[biases + 3 :])


def _opened(func: Any) -> Callable[..., Any]:
    """`func` with each function that it calls told to the mode that is entered."""
    # Torch asks in such a function whether to hand over the call as a whole, and this time the answer is no.
    inside = {**func.__globals__, "has_torch_function": lambda arguments: False}
    opened = FunctionType(func.__code__, inside, func.__name__, func.__defaults__, func.__closure__)
    opened.__kwdefaults__ = func.__kwdefaults__
    return opened


_STAND_INS: dict[Any, Any] = {
    F.avg_pool2d: average_pool,
    torch.cat: cat,
    torch.concat: cat,
    F.scaled_dot_product_attention: attention,
}

#: The functions whose calls `standing_in` replaces.
REPLACED = {*_STAND_INS, *_RECURRENT, F.rrelu, torch.rrelu, torch.rrelu_}
#: The functions that call layers out of sight, each with one that calls them in sight.
OPENED = {F.multi_head_attention_forward: _opened(F.multi_head_attention_forward)}
