"""Random augmentation of training images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def crop_padding(height: int, width: int) -> int:
    """Return the pixels of black padding per side before the random crop: 4 from 32 pixels up, 2 from 16, else 1.

    The benchmark uses 4 for CIFAR (32 pixels) and 2 for ImageNet16-120 (16 pixels), an eighth of the side; a shift of 4
    would cut an 8-pixel digit in half.
    """
    side = min(height, width)
    if side < 16:
        return 1
    return 2 if side < 32 else 4


def augment(images: Tensor, flips: Tensor, shifts: Tensor, padding: int) -> Tensor:
    """Mirror the chosen images left to right, pad all with black, and crop to the original size.

    `images` are uint8 (n, 3, H, W), `flips` bool (n,). `shifts` (n, 2) int64 are row and column of the crop's upper
    left corner in the padded image, each in 0, …, 2 `padding`, where `padding` is in pixels per side. Returns uint8 (n,
    3, H, W).
    """
    height, width = images.shape[2:]
    images = torch.where(flips[:, None, None, None], images.flip(3), images)
    if not padding:
        return images
    # A strided view of all possible crops, (n, 3, 2p + 1, 2p + 1, H, W): only the chosen ones are copied.
    crops = F.pad(images, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return crops[torch.arange(len(images), device=images.device), :, shifts[:, 0], shifts[:, 1]]


def cut_out(inputs: Tensor, centres: Tensor, side: int) -> Tensor:
    """Set a square of each image to 0, the mean colour, in place: "Cutout" (DeVries and Taylor, arXiv:1708.04552).

    `inputs` (n, 3, H, W) are normalised, `side` is in pixels. `centres` (n, 2) int64 are row and column, in 0, …, H - 1
    and 0, …, W - 1; the square is clipped at the border.
    """
    rows, columns = (
        (torch.arange(size, device=inputs.device) - centre[:, None] + side // 2) for size, centre in
        zip(inputs.shape[2:], centres.unbind(1), strict=True)
    )  # fmt: skip
    inside = [(line >= 0) & (line < side) for line in (rows, columns)]
    return inputs.masked_fill_((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0.0)
