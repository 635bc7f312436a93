"""`knas_program = Σ_t Σ_{i<50} cov_i(t) / 2500`, of the first 11 parameters t with at least 50 entries.

`cov_i(t) = Σ_{k<25} (g_k[i] − ḡ₁[i]) (g_{25+k}[i] − ḡ₂[i])`, g_k the gradient of t for the cross entropy of image k, a
batch alone, ḡ₁ and ḡ₂ the means over images 0 to 24 and 25 to 49: the products of the k-th image of one half with the
k-th of the other. The images are the first 50 of the run's batch.

Source: the program of Xu et al., "KNAS: Green Neural Architecture Search", ICML 2021
(`exps/NAS-Bench-201/functions.py`, `procedure`), which does not compute the paper's mean of the gradients' Gram matrix,
eq. (14). Parameters are in the order of `named_parameters()`, which in the program's network has the residual blocks
between the stages and here behind them. Where a batch holds fewer than 50 images the halves are smaller. Invariant to
the parameters behind the eleventh.

Cost: a pass of each of 50 images. NaN where a batch norm has one value a channel of an image, and of fewer than 4
images.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hnas.scores.alone import NoStatisticsError
from hnas.scores.protocol import Subject
from hnas.scores.undisturbed import Functions, undisturbed

_IMAGES = 50
_PARAMETERS = 11
_ENTRIES = 50


class KNASProgram:
    """Products of gradients of single images, as the program of KNAS takes them."""

    columns: ClassVar[tuple[str, ...]] = ("knas_program",)
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = False

    def __call__(self, subject: Subject) -> dict[str, float]:
        """Σ_t Σ_i cov_i(t) / 2500."""
        half = min(len(subject.images), _IMAGES) // 2
        if half < 2:
            return {"knas_program": math.nan}
        images, labels = subject.images[: 2 * half], subject.labels[: 2 * half]
        try:
            with undisturbed(subject.network, images), _OneImage():
                gradients = _gradients(subject.network, images, labels)
        except NoStatisticsError:
            return {"knas_program": math.nan}
        halves = gradients.view(2, half, gradients.shape[1])
        one, two = halves - halves.mean(1, keepdim=True)
        return {"knas_program": float((one * two).sum()) / 2500}


def _gradients(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The first entries of each image's gradients, (m, entries) in float64, of the parameters that count."""
    parameters = [p for p in network.parameters() if p.is_floating_point() and p.requires_grad_().numel() >= _ENTRIES]
    rows: list[Tensor] = []
    for image, label in zip(images[:, None], labels[:, None], strict=True):
        loss = F.cross_entropy(network(image.clone()), label)
        parameters = parameters if loss.requires_grad else []
        found = torch.autograd.grad(loss, parameters, allow_unused=True) if parameters else ()
        reached = [(p, g) for p, g in zip(parameters, found, strict=True) if g is not None][:_PARAMETERS]
        parameters = [p for p, _ in reached]
        rows.append(torch.cat([g.flatten()[:_ENTRIES].double() for _, g in reached] or [loss.new_zeros(0)]))
    return torch.stack(rows)


class _OneImage(Functions):
    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func is F.batch_norm and kwargs.get("training", args[5] if len(args) > 5 else False):
            x = args[0] if args else kwargs["input"]
            if x[:, 0].numel() == 1:
                raise NoStatisticsError
        return super().call(func, args, kwargs)
