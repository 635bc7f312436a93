"""`knas_program = Σ_t Σ_{i<50} cov_i(t) / 2500` over the first 11 parameters t with at least 50 entries.

`cov_i(t) = Σ_{k<25} (g_k[i] − ḡ₁[i]) (g_{25+k}[i] − ḡ₂[i])`, where g_k is the gradient with respect to t of the cross
entropy of image k as a batch of its own, and ḡ₁, ḡ₂ are the means over images 0 to 24 and 25 to 49. Thus the k-th image
of one half is multiplied with the k-th of the other. The images are the first 50 of the run's batch.

Source: the program of Xu et al., "KNAS: Green Neural Architecture Search", ICML 2021
(`exps/NAS-Bench-201/functions.py`, `procedure`), which does not compute the paper's mean of the gradients' Gram matrix,
eq. (14). Parameters are in the order of `named_parameters()`, in which the residual blocks come between the stages in
the program's network, and after them here. With fewer than 50 images in the batch, the halves are smaller. Invariant to
the parameters after the eleventh.

Cost: 50 passes of one image. NaN where a batch norm has one value per channel and image, and for fewer than 4 images.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hnas.scores.alone import NoStatisticsError
from hnas.scores.protocol import Subject
from hnas.scores.undisturbed import Functions, deterministic, undisturbed

_IMAGES = 50
_PARAMETERS = 11
_ENTRIES = 50


class KNASProgram:
    """Products of the gradients of single images, as in the program of KNAS."""

    columns: ClassVar[tuple[str, ...]] = ("knas_program",)
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = False

    def __call__(self, subject: Subject) -> dict[str, float]:
        """Return Σ_t Σ_i cov_i(t) / 2500."""
        half = min(len(subject.images), _IMAGES) // 2
        if half < 2:
            return {"knas_program": math.nan}
        network, images, labels = subject.network, subject.images[: 2 * half], subject.labels[: 2 * half]
        try:
            with undisturbed(network, images) as (modules, generators):

                def each() -> Tensor:
                    with _OneImage(generators):
                        return _gradients(network, images, labels)

                gradients = deterministic(modules, images, generators, each)
        except NoStatisticsError:
            return {"knas_program": math.nan}
        halves = gradients.view(2, half, gradients.shape[1])
        one, two = halves - halves.mean(1, keepdim=True)
        return {"knas_program": float((one * two).sum()) / 2500}


def _gradients(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the first entries of each image's gradients for the parameters that count, (m, entries) in float64."""
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
