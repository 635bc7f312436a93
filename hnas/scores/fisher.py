"""`fisher = Σ_l n_l Σ_c (1/2m) Σ_i (Σ_positions z_ic ∂L/∂z_ic)²`, the Fisher saliency of the channels for the loss L.

z_ic is channel c of the output of Conv or Linear layer l for sample i, bias included; L is the mean cross entropy, and
`n_l` the number of weights per output channel: input channels over groups, times the kernel size.

Source: Turner, Crowley, O'Boyle, Storkey, Gray, "BlockSwap: Fisher-guided Block Substitution for Network Compression on
a Budget", ICLR 2020, in the form of the program of Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR
2021, which NAS-Bench-Suite-Zero uses: it assigns a channel's saliency to each of its weights and sums over the weights,
hence `n_l`. Two differences: that program keeps one value of a module that is called several times, whereas calls are
added here; and it takes the second dimension of a Linear layer's output as channels, here it is the last.

Invariant to the scale of a layer followed by batch norm. NaN where some row of a layer has no single sample,
or a layer is called with a bias that is not a layer's.

Cost: with the columns, one product with each layer's output, which is kept in memory; alone, a plain training step.
"""

from __future__ import annotations

from typing import ClassVar

from hnas.metrics.statistics import Statistics


class Fisher:
    """The sum of the channels' saliencies."""

    columns: ClassVar[tuple[str, ...]] = ("fisher",)
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("fisher",)

    def __call__(self, seen: Statistics) -> dict[str, float]:
        """Return the sum over layers and channels."""
        return {"fisher": float(seen["fisher"])}
