"""Loads a saved model as a torch module."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from hnas.errors import HnasError
from hnas.models import Classifier
from hnas.pipeline.io.printable import printable
from hnas.pipeline.models.folder import WEIGHTS, ModelInfo, read_model
from hnas.pipeline.models.inputs import inputs
from hnas.pipeline.models.networks import networks, shapes, shapes_of
from hnas.pipeline.models.predictions import Prediction, predictions
from hnas.spaces import search_spaces


class Model(Classifier):
    """A trained network with its normalisation: uint8 pixels (n, 3, S, S) to logits (n, classes).

    `info` is everything saved besides the weights; `network` is the bare network, which takes normalised images.
    """

    def __init__(self, network: nn.Module, info: ModelInfo) -> None:
        super().__init__(network, info.mean, info.std)
        self.info = info

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return self.info.classes

    def predict(self, images: Any) -> list[Prediction]:
        """Label images: a path, a folder, a Pillow image, an array, a tensor, or a list of these.

        Arrays are uint8 in Pillow's layout, (H, W), (H, W, 3) or (n, H, W, 3); tensors in torch's, (3, H, W) or
        (n, 3, H, W). Images of another size are resized (bilinear, without keeping the aspect ratio).

        Raises `UsageError` for anything that is not an image, and `HnasError` for an image that cannot be read.
        """

        def fail(error: HnasError) -> None:
            raise error

        return list(self.predict_each(images, fail))

    def predict_each(self, images: Any, unreadable: Callable[[HnasError], None]) -> Iterator[Prediction]:
        """Yield the predictions one at a time; the error of an unreadable image goes to `unreadable`."""
        return predictions(self, self.classes, self.info.image_size, inputs(images), unreadable)


def load(folder: str | os.PathLike[str]) -> Model:
    """Load the model that `--save` or `save_model` wrote to `folder`, in evaluation mode, on the CPU.

    Nothing in the folder is run: weights are tensors, the rest is JSON, and the installed search space builds the
    network.

    Raises `UsageError` if the folder does not exist or is not a model's, or if its search space is not installed, and
    `HnasError` if a file in it is damaged, foreign, or written by a newer hnas.
    """
    info, state = read_model(folder)
    kinds = dict(
        networks(
            search_spaces[info.space],
            info.definition,
            classes=len(info.classes),
            channels=info.channels,
            cells=info.cells,
        )
    )
    build = kinds.get(info.network)
    # Compare shapes before building the network, because what a foreign record asks for may not fit into memory.
    if build is None or shapes_of(build) != shapes(state):
        where = printable(os.path.join(folder, WEIGHTS))  # noqa: PTH118
        raise HnasError(
            f"{where} does not hold the weights of the network that model.json names, {info.arch} of {info.space}; "
            "restore the folder, or save the model again"
        )
    network = build()
    network.load_state_dict(state)
    return Model(network, info).eval()
