"""Small networks of each space, trained on digits, and their model folders."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hnas import Recipe, search_spaces, train
from hnas.pipeline.images import ImageDataset, open_dataset
from hnas.pipeline.models import ModelInfo, save_model

ARCHS = {
    "nasbench201": "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|",
    "nasbench101": "input,conv3x3-bn-relu,maxpool3x3,conv1x1-bn-relu,output:0110100010000010000100000",
    "darts": "DARTS_V2",
}
CLASSES = tuple(f"digit {i}" for i in range(10))
SIZE = {"channels": 4, "cells": 1}


class Trained(NamedTuple):
    """A trained network with the arguments of `save_model` except the folder."""

    network: nn.Module
    saved_with: dict[str, Any]
    images: Tensor
    labels: Tensor

    def save(self, folder: Path, **changes: Any) -> ModelInfo:
        return save_model(folder, self.network, **{**self.saved_with, **changes})


@cache
def digits() -> ImageDataset:
    return open_dataset("digits")


@cache
def trained(space: str, *, evaluation: bool = False) -> Trained:
    """A network of `space` after five epochs on 300 digits; with `evaluation`, DARTS' evaluation network."""
    data, arch = digits(), ARCHS[space]
    size = {**SIZE, "cells": 3} if space == "darts" else SIZE
    chosen: Any = search_spaces[space]
    if evaluation:
        network = chosen.evaluation_network(arch, classes=10, channels=4, layers=3, auxiliary=False, drop_path=0.0)
    else:
        network = chosen.network(arch, classes=10, **size, seed=0)
    images = torch.from_numpy(data.train.images(range(300)))  # type: ignore[arg-type]
    labels = torch.from_numpy(data.train.labels[:300])
    recipe = Recipe(epochs=5, batch_size=20, lr=0.025, flip=False)
    result = train(network, images, labels, mean=data.mean, std=data.std, recipe=recipe, seed=0, valid=(images, labels))
    saved_with = {
        "space": space, "arch": arch, **size, "classes": CLASSES, "image_size": data.size, "mean": data.mean,
        "std": data.std, "recipe": asdict(recipe), "accuracies": {"valid_accuracy": result.valid_accuracy},
        "curve": [{"epoch": 5, "train_loss": result.train_loss}], "provenance": {"seed": 0, "search": "0123456789"},
    }  # fmt: skip
    return Trained(network, saved_with, images, labels)
