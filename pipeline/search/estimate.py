"""What trainings would take, from one step and one evaluation."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from hnas.pipeline.io.memory import peak_memory
from hnas.training import Recipe, train


@dataclass(frozen=True)
class TrainingSize:
    """What determines the time of a training: the network's size, the images, and how it is trained.

    `parameters` are those of the smallest and the largest network that may be trained, `recipe` is the name of the
    recipe where it is not the usual one, `known` the number of trainings on this scale that the store has, `asked`
    says that somebody asked for the networks' size.
    """

    space: str
    channels: int
    cells: int
    image_size: int
    parameters: tuple[int, int]
    images: int
    epochs: int
    batch_size: int
    threads: int
    device: str
    recipe: str = ""
    known: int = 0
    asked: bool = False


@dataclass(frozen=True)
class TrainingEstimate:
    """What a training of the smallest and the largest network takes, measured on one batch of each.

    seconds: of the whole training, its evaluations included.
    memory: bytes of the process.
    step: seconds of one of the `steps` of a training.
    operations: floating-point operations of the whole: 3 forward passes an image that is trained on (a backward pass
        costs about two), and one for each that is only evaluated. A multiplication and an addition are two.
    """

    seconds: tuple[float, float]
    memory: int
    step: tuple[float, float]
    steps: int
    operations: tuple[float, float]


def estimate_training(
    networks: Iterable[nn.Module],
    images: Tensor,
    labels: Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    recipe: Recipe,
    seed: int,
    measured: int,
) -> TrainingEstimate:
    """What a training of each of `networks`, the smallest first, on `images` (n, 3, H, W) and `labels` (n,) takes.

    `measured` is the number of images that are evaluated in all. The step is the second of two, since the first pays
    for what is set up once.
    """
    from torch.utils.flop_counter import FlopCounterMode

    some, truth = images[: recipe.batch_size], labels[: recipe.batch_size]
    steps = recipe.epochs * math.ceil(len(images) / recipe.batch_size)
    step, seconds, operations = [], [], []
    for network in networks:
        ends: list[float] = []

        def advance(done: int, total: int, loss: float, ends: list[float] = ends) -> None:
            ends.append(time.perf_counter())

        train(
            network, some, truth, mean=mean, std=std, recipe=replace(recipe, epochs=2, warmup=0), seed=seed,
            valid=(some, truth), progress=advance,
        )  # fmt: skip
        half = len(ends) // 2  # an epoch: a step, then the batches of an evaluation
        step.append(ends[half] - ends[half - 1])
        seconds.append(step[-1] * steps + (ends[-1] - ends[half]) / len(some) * measured)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network.eval()(torch.zeros(1, *images.shape[1:], device=images.device))
        operations.append(float(counter.get_total_flops()) * (3 * recipe.epochs * len(images) + measured))
    return TrainingEstimate(
        (seconds[0], seconds[-1]), peak_memory(), (step[0], step[-1]), steps, (operations[0], operations[-1])
    )
