"""Searches that train a supernet: their steps, bit-identical resuming from a checkpoint, ENAS' controller."""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import pytest
import torch

from hnas import UsageError
from hnas.supernets.darts import DARTS, SecondOrderDARTS
from hnas.supernets.drnas import DrNAS, largest, widened
from hnas.supernets.enas import ENAS, Controller, baseline_of
from hnas.supernets.gdas import GDAS
from hnas.supernets.images import TrainingImages
from hnas.supernets.nasi import NASI
from hnas.supernets.te_nas import TENAS
from tests.support.written_out import tiny_images

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"supernet_epochs": 2, "channels": 2, "cells": 1, "batch_size": 8}
SEARCHES: dict[str, tuple[Any, dict[str, Any]]] = {
    "darts": (DARTS, SMALL),
    "darts-second": (SecondOrderDARTS, SMALL),
    "gdas": (GDAS, SMALL),
    "enas": (ENAS, {**SMALL, "controller_steps": 2, "controller_samples": 2, "candidates": 3, "valid_batch": 8}),
    "drnas": (DrNAS, SMALL),
    "drnas-progressive": (DrNAS, {**SMALL, "channels": 4, "progressive": 1, "warm_up": 0}),
    "te-nas": (TENAS, {"channels": 2, "batch_size": 4, "repeats": 1, "crops": 10, "crop_batches": 1}),
    "nasi": (NASI, {"channels": 2, "cells": 1, "samples": 3, "batch_size": 6}),
}


class Kept:
    """A checkpoint in memory, serialised like a file, that interrupts the search at save number `stop`."""

    def __init__(self, stop: int = 0) -> None:
        self.states: list[Any] = []
        self.stop = stop

    def load(self) -> Any:
        return copy.deepcopy(self.states[-1]) if self.states else None

    def save(self, state: dict[str, Any]) -> None:
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        self.states.append(torch.load(file, weights_only=True))
        if len(self.states) == self.stop:
            raise KeyboardInterrupt


def make_search(name: str, seed: int = 0, **options: Any) -> Any:
    kind, usual = SEARCHES[name]
    search = kind(tiny_images(), kind.recipe_class(**{**usual, **options}), seed=seed, device=CPU)
    if name == "te-nas":
        search.left = [[1, 2, 3], [2], [1], [3, 4], [1], [2]]  # the end of a search
    return search


def everything(state: Any) -> list[Any]:
    """Return the leaves of a state in order, tensors as lists, without times."""
    if isinstance(state, dict):
        return [leaf for key in sorted(state, key=str) if key != "seconds" for leaf in everything(state[key])]
    if isinstance(state, (list, tuple)):
        return [leaf for part in state for leaf in everything(part)]
    return state.flatten().tolist() if isinstance(state, torch.Tensor) else [str(state)]


@pytest.mark.parametrize("name", SEARCHES)
def test_a_resumed_search_is_bit_identical_and_uses_no_global_generator(name: str) -> None:
    before = torch.get_rng_state()
    whole, stopped = Kept(), Kept(stop=1)
    undisturbed = make_search(name).run(whole)
    with pytest.raises(KeyboardInterrupt):
        make_search(name).run(stopped)
    resumed = make_search(name).run(stopped)
    assert (resumed.decisions, everything(resumed.course)) == (undisturbed.decisions, everything(undisturbed.course))
    assert len(whole.states) == len(stopped.states) > 1
    for state, other in zip(whole.states, stopped.states, strict=True):
        assert everything(state) == everything(other)
    assert torch.equal(torch.get_rng_state(), before)
    again = make_search(name).run(stopped)  # a finished search repeats no work
    assert (again.decisions, again.seconds, len(stopped.states)) == (
        resumed.decisions,
        resumed.seconds,
        len(whole.states),
    )


@pytest.mark.parametrize("name", ["gdas", "enas", "te-nas", "nasi"])
def test_an_estimate_is_the_time_of_a_step_times_the_number_of_steps(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("training", "enas", "te_nas", "nasi"):
        monkeypatch.setattr(f"hnas.supernets.{module}.second_time", lambda step: 1.0)
    # 2 epochs of 3 steps; plus 2 · 2 · 2 + 3 rewards; 5 and then 2 choices of two measures; 3 samples.
    assert make_search(name).estimate() == {"gdas": 6, "enas": 6 + 11, "te-nas": 2 * (5 + 2), "nasi": 3}[name]


def test_an_epoch_sees_each_training_image_once_with_random_validation_images() -> None:
    search = make_search("darts")
    assert (len(search.train), len(search.valid)) == (21, 19)
    sizes = [(len(a[1]), len(b[1])) for a, b in search.pairs()]
    assert sizes == [(8, 8), (8, 8), (5, 5)]
    labels = sorted(int(x) for train, _ in search.pairs() for x in train[1])
    assert labels == sorted(search.train.labels.tolist())


def test_a_step_updates_weights_by_sgd_and_then_alpha_by_adam() -> None:
    search = make_search("darts", seed=1)
    train, valid = next(iter(search.pairs()))
    network, at = copy.deepcopy(search.network), search.alphas.detach().clone()
    search.step(train, valid)
    value = torch.nn.functional.cross_entropy(network(train[0], search.mixture(at)), train[1])
    gradients = torch.autograd.grad(value, list(network.parameters()))
    for p, g, after in zip(network.parameters(), gradients, search.network.parameters(), strict=True):
        decayed = g + 5e-4 * p
        p.data -= 0.025 * (decayed + 0.9 * decayed)  # Nesterov's first step
        torch.testing.assert_close(after, p, rtol=1e-4, atol=1e-6)
    moved = at.requires_grad_()
    value = torch.nn.functional.cross_entropy(network(valid[0], search.mixture(moved)), valid[1])
    (gradient,) = torch.autograd.grad(value, [moved])
    gradient = gradient + 1e-3 * at
    # Adam's first step is the learning rate times the sign, up to ε.
    expected = at - 3e-4 * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(search.alphas.detach(), expected.detach(), rtol=1e-3, atol=2e-6)


def test_the_temperature_of_gdas_falls_linearly_to_its_minimum() -> None:
    search = make_search("gdas", supernet_epochs=5)
    temperatures = []
    for search.epoch in range(5):
        temperatures.append(search.temperature)
    assert temperatures == pytest.approx([10, 7.525, 5.05, 2.575, 0.1])


def test_drnas_keeps_the_largest_alpha_and_widens_layers_with_copies() -> None:
    alphas = torch.tensor([[0.1, 0.5, 0.3, 0.2, 0.4]])
    assert largest(alphas, 3).tolist() == [[False, True, True, False, True]]
    weight = torch.arange(4.0).view(2, 2, 1, 1)
    wide = widened(weight, torch.tensor([0, 1]), torch.tensor([1, 1]))
    assert wide[:, :, 0, 0].tolist() == [[0, 1, 0, 1], [2, 3, 2, 3], [2, 3, 2, 3], [2, 3, 2, 3]]
    search = make_search("drnas-progressive")
    search.run()
    assert search.kept is not None
    assert search.kept.sum(1).tolist() == [3] * 6
    assert all(search.kept[edge, o] for edge, o in enumerate(search.result()))


def test_alpha_of_drnas_is_fixed_during_the_warm_up_of_each_stage() -> None:
    search = make_search("drnas-progressive", supernet_epochs=4, warm_up=1)
    pair = next(iter(search.pairs()))
    rests = []
    for search.epoch in range(4):
        rests.append(search.arch_gradient(*pair) is None)
    assert rests == [True, False, True, False]


def controller(seed: int = 0) -> Controller:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Controller(8, 2, 2.5, 5.0).double()


def test_the_controllers_probabilities_match_its_samples_and_gradient() -> None:
    model = controller()
    for p in model.parameters():
        p.data *= 20  # far from uniform
    with torch.random.fork_rng():
        torch.manual_seed(0)
        n = 500
        firsts = torch.zeros(5)
        for _ in range(n):
            with torch.no_grad():
                firsts[model()[0][0]] += 1
    p = torch.stack([sum_over_rest(model, first) for first in range(5)])
    assert float(p.sum()) == pytest.approx(1)
    assert ((firsts / n - p).abs() < 5 * (p * (1 - p) / n).sqrt()).all()

    decisions = (1, 3, 0, 4, 2, 1)
    weight = model.head.weight
    _, log_p, _ = model(decisions)
    (found,) = torch.autograd.grad(log_p, [weight])
    for place in ((0, 0), (3, 5)):
        ends = []
        for h in (1e-6, -1e-6):
            weight.data[place] += h
            ends.append(float(model(decisions)[1].detach()))
            weight.data[place] -= h
        assert float(found[place]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-9)


def sum_over_rest(model: Controller, first: int) -> torch.Tensor:
    """p(first operation) from the joint probabilities, with the greedy rest by the chain rule."""
    with torch.no_grad():
        chosen, log_p, _ = model((first, 0, 0, 0, 0, 0))
        inputs, state = model.embedding.weight[first][None], model.lstm(model.first)[1]
        for operation in chosen[1:]:
            out, state = model.lstm(inputs, state)
            logits = 2.5 * torch.tanh(model.head(out[0]) / 5.0)
            log_p = log_p - torch.log_softmax(logits, 0)[operation]
            inputs = model.embedding.weight[operation][None]
    return log_p.exp()


def test_controller_steps_are_reinforce_with_the_last_epochs_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    search = make_search("enas", controller_steps=1, controller_samples=3, controller_clip=1e9, entropy=0.1)
    search.baseline = 0.4
    drawn: list[tuple[int, ...]] = []

    def accuracy(decisions: tuple[int, ...], batch: object) -> float:
        drawn.append(decisions)
        return sum(decisions) / 24

    monkeypatch.setattr(search, "accuracy", accuracy)
    model = copy.deepcopy(search.controller)
    search.end_epoch()
    expected, baselines = None, []
    for decisions in drawn:
        _, log_p, entropy = model(decisions)
        reward = sum(decisions) / 24 + 0.1 * float(entropy.detach())
        baselines.append(0.4 - 0.01 * (0.4 - reward))
        gradient = torch.autograd.grad(-log_p * (reward - baselines[-1]) / 3, list(model.parameters()))
        expected = gradient if expected is None else [a + b for a, b in zip(expected, gradient, strict=True)]
    assert len(drawn) == 3
    assert expected is not None
    for p, g in zip(search.controller.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-4, atol=1e-8)
    assert search.baseline == pytest.approx(sum(baselines) / 3)
    assert baseline_of(None, 0.3, 0.5, 0.99) == 0.3


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("darts", {"supernet_epochs": 0}, "supernet_epochs must be .* got 0"),
        ("darts", {"lr": -1.0}, "lr must be .* got -1.0"),
        ("darts", {"lr": 0.01, "lr_min": 0.1}, "lr_min must be .* got 0.1"),
        ("gdas", {"tau_min": "cold"}, "tau_min must be .* got 'cold'"),
        ("te-nas", {"repeats": 1.5}, "repeats must be .* got 1.5"),
        ("nasi", {"temperature": 0}, "temperature must be .* got 0"),
    ],
)
def test_impossible_options_are_refused(name: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        make_search(name, **options)


def test_too_few_images_to_split_are_refused() -> None:
    with pytest.raises(UsageError, match="so at least 4"):
        tiny_images().halves(seed=0, most=1)
    with pytest.raises(UsageError, match="so at least 4"):
        DARTS(tiny_images(2, classes=1), DARTS.recipe_class(**SMALL), seed=0, device=CPU)
    with pytest.raises(UsageError, match="a network with 2 classes"):
        TrainingImages(tiny_images().images, tiny_images().labels, 2, (0.5,) * 3, (0.5,) * 3)


def test_a_diverging_supernet_raises() -> None:
    search = make_search("darts")
    search.network.classifier.weight.data.fill_(math.nan)
    with pytest.raises(Exception, match="diverged in epoch 1 of 2"):
        search.run()
