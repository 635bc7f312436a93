"""Estimates the cost of trainings from one step and one evaluation."""

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
    """Everything that determines the time of a training: network size, images, and recipe.

    `parameters` are the parameter counts of the smallest and largest candidate network. `recipe` is the name of a
    non-default recipe. `known` is the number of trainings on this scale in the store. `asked` says whether the network
    size was given explicitly.
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
    """The cost of training the smallest and the largest network, measured on one batch of each.

    seconds: the whole training, including its evaluations.
    memory: bytes of the process.
    step: seconds of one of the `steps` of a training.
    operations: floating-point operations of the whole training: 3 forward passes per training image (a backward pass
        costs about two), and one per image that is only evaluated. A multiply-add counts as two operations.
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
    """Estimate the training of each of `networks`, the smallest first, on `images` (n, 3, H, W) and `labels` (n,).

    `measured` is the total number of evaluated images. The second of two steps is timed, because the first includes
    one-time set-up.
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
        half = len(ends) // 2  # one epoch: a step, then the batches of an evaluation
        step.append(ends[half] - ends[half - 1])
        seconds.append(step[-1] * steps + (ends[-1] - ends[half]) / len(some) * measured)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network.eval()(torch.zeros(1, *images.shape[1:], device=images.device))
        operations.append(float(counter.get_total_flops()) * (3 * recipe.epochs * len(images) + measured))
    return TrainingEstimate(
        (seconds[0], seconds[-1]), peak_memory(), (step[0], step[-1]), steps, (operations[0], operations[-1])
    )
