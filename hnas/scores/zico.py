"""`zico = Σ_l ln Σ_θ mean(|g|) / std(g)` over the weights θ of layer l, mean and deviation over two batches' gradients.

`g` is the gradient of a batch's mean cross entropy. With the gradients a and b of two batches, the ratio of a weight is
`(|a| + |b|) / |a − b|`. Weights with equal gradients have no ratio and do not count, nor does a layer of such weights
only.

Source: Li, Yang, Bhardwaj, Marculescu, "ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on Gradients", ICLR
2023, eq. (9), and its program (`ZeroShotProxy/compute_zico.py`); the only difference is that deviations are float64
here. The two batches are the run's and equally many further images. Invariant to a factor on a layer's gradients, and
thus to one on the loss.

Cost: two plain training steps. NaN where there are too few further images, or no layer has a ratio.
"""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor

from hnas.scores.protocol import Subject
from hnas.scores.undisturbed import gradients, undisturbed


class ZiCo:
    """The inverse coefficient of variation of the gradients."""

    columns: ClassVar[tuple[str, ...]] = ("zico",)
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = False

    def __call__(self, subject: Subject) -> dict[str, float]:
        """Return Σ_l ln Σ_θ (|a| + |b|) / |a − b|."""
        m = len(subject.images)
        if subject.further is None or len(subject.further[0]) < m:
            return {"zico": math.nan}
        batches = [(subject.images, subject.labels), tuple(values[:m] for values in subject.further)]
        with undisturbed(subject.network, subject.images) as (modules, generators):
            first, second = (gradients(modules, images, labels, generators) for images, labels in batches)
        logs = [_log_ratio(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
        finite = [value for value in logs if value != -math.inf]
        return {"zico": sum(finite) if finite else math.nan}


def _log_ratio(a: Tensor, b: Tensor) -> float:
    """Return ln Σ (|a| + |b|) / |a − b|, −inf where no weight has a ratio."""
    a, b = a.double(), b.double()
    apart = (a - b).abs()
    ratios = (a.abs() + b.abs())[apart > 0] / apart[apart > 0]
    return float(ratios.sum().log())
