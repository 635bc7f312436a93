"""Image data sets that read pixels on demand, and the batch on which every architecture of a run is measured.

To add a layout, write a module here and let `opening` try it. The content of a batch is part of a run's name, so it
must never change.

dataset = open_dataset("cifar10")                  # or "digits", or a path in any known layout
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
