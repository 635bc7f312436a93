"""`fisher = Σ_l n_l Σ_c (1/2m) Σ_i (Σ_positions z_ic ∂L/∂z_ic)²`, the saliency of the channels under the loss L.

z is what a Conv or Linear layer l returns, bias included, for sample i in channel c; L is the mean cross entropy, and
`n_l` the number of weights that make one channel: inputs over groups, times the kernel's size.

Source: Turner, Crowley, O'Boyle, Storkey, Gray, "BlockSwap: Fisher-guided Block Substitution for Network Compression on
a Budget", ICLR 2020, in the form of the program of Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR
2021, which NAS-Bench-Suite-Zero uses: it gives a channel's saliency to each of its weights and sums over these, hence
`n_l`. That program keeps one value for a module that is called several times, and takes the second dimension of
what a Linear layer returns for channels; here calls are added, and channels are the last dimension there.

Invariant to the scale of a layer that batch norm follows. NaN where rows of a layer belong to no one sample.

Cost: a product with each layer's output beside the columns, in memory those outputs; a plain step alone.
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
        """The sum over layers and channels."""
        return {"fisher": float(seen["fisher"])}
