"""Image data sets, opened lazily, and the one batch that every architecture of a run is measured on.

A new layout is a module here that `opening` tries. What a batch holds is part of a run's name, so it never changes.

dataset = open_dataset("cifar10")                  # or "digits", or any path in a layout it knows
batch = training_batch(dataset, size=64, seed=0)   # decodes 64 images, not 50,000
batch.images.shape                                 # (64, 3, 32, 32)
"""

from __future__ import annotations

from hnas.pipeline.images.dataset import Batch, ImageDataset, Split, further_batch, training_batch
from hnas.pipeline.images.opening import DATA_VARIABLE, NAMED, data_folder, open_dataset

__all__ = [
    "DATA_VARIABLE",
    "NAMED",
    "Batch",
    "ImageDataset",
    "Split",
    "data_folder",
    "further_batch",
    "open_dataset",
    "training_batch",
]
