"""Functions that draw random numbers, in their evaluation form."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hnas.metrics.recorder import Recorder, handles, named


@handles(
    named(
        "dropout dropout_ dropout1d dropout2d dropout3d alpha_dropout alpha_dropout_ feature_dropout feature_dropout_ "
        "feature_alpha_dropout feature_alpha_dropout_"
    )
)
def dropout(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> Any:
    """Return the input itself."""
    return args[0] if args else kwargs["input"]


@handles({torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu})
def recurrent(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> Any:
    """Run without dropout between layers; `args` are (…, has biases, number of layers, dropout, …)."""
    biases = next(place for place, value in enumerate(args) if isinstance(value, bool))
    return recorder.plain(func, (*args[: biases + 2], 0.0, *args[biases + 3 :]), kwargs)


@handles({F.rrelu, torch.rrelu, torch.rrelu_})
def random_slope(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> Any:
    """Run as a leaky ReLU with the mean slope."""

    def leaky(
        input: Tensor,  # noqa: A002
        lower: float = 1 / 8,
        upper: float = 1 / 3,
        training: bool = False,
        inplace: bool = func is torch.rrelu_,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        return input, (lower + upper) / 2, inplace

    return recorder.call(F.leaky_relu, leaky(*args, **kwargs), {})
