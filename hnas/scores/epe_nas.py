"""`epe_nas = Σ_c |S_c|`, `S_c = Σ_ij ln(|R_ij| + ε)`, ε = 1e-5, over the classes c and the images i, j of each.

R is the matrix of correlation coefficients of input gradients, as in `jacov`. With more than 100 classes, S_c is
divided by the number of images of the class, and the score is `Σ_cd |S_c − S_d|` over pairs, divided by the number of
classes in the batch.

Source: Lopes, Alirezazadeh, Alexandre, "EPE-NAS: Efficient Performance Estimation Without Training for Neural
Architecture Search", ICANN 2021, as in its program and in NAS-Bench-Suite-Zero.

Invariant to a factor on the logits and to the numbering of the classes. NaN where `jacov` is.

Cost: that of `jacov`, shared with it.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from hnas.metrics.statistics import Statistics
from hnas.scores.jacov import EPSILON


class EPENAS:
    """The correlation of input gradients within classes."""

    columns: ClassVar[tuple[str, ...]] = ("epe_nas",)
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("correlations", "labels", "classes")

    def __call__(self, seen: Statistics) -> dict[str, float]:
        """Return the sum over the classes in the batch."""
        logarithms = (seen["correlations"].abs() + EPSILON).log()
        many = bool(seen["classes"] > 100)
        sums = []
        for label in torch.unique(seen["labels"]):
            members = (seen["labels"] == label).nonzero()[:, 0]
            total = logarithms[members][:, members].sum()
            sums.append(total / len(members) if many else total)
        totals = torch.stack(sums)
        if many:
            return {"epe_nas": float((totals[:, None] - totals).abs().sum() / len(totals))}
        return {"epe_nas": float(totals.abs().sum())}
