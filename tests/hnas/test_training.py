"""Training of networks: on scikit-learn's digits, and against slow or independent computations."""

from __future__ import annotations

import copy
import dataclasses
import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor, nn

from hnas.errors import HnasError, UsageError
from hnas.spaces import search_spaces
from hnas.training import (
    RECIPES,
    Recipe,
    TrainingResult,
    accuracy,
    augment,
    crop_padding,
    learning_rate,
    recipe_named,
    stratified_split,
    train,
)
from hnas.training.augmentation import cut_out

MEAN = (0.3, 0.3, 0.3)
STD = (0.35, 0.35, 0.35)
QUICK = Recipe(epochs=2, batch_size=64, flip=False)

Data = tuple[Tensor, Tensor]


def small_network(seed: int = 0, pool: nn.Module | None = None) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            pool or nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(128, 10),
        )


def linear_network(size: int, classes: int = 10) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, classes))


class Recorder(nn.Module):
    """Records the inputs it is trained on."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.inputs: list[Tensor] = []

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.inputs.append(inputs.detach().clone())
        return self.network(inputs)


@pytest.fixture(scope="module")
def digits() -> tuple[Data, Data]:
    """Training and validation part, (n, 3, 8, 8) uint8 and (n,) int64."""
    bunch = load_digits()
    grey = torch.from_numpy((bunch.images * 255 / 16).round().astype(np.uint8))
    images, labels = grey[:, None].expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(bunch.target.astype(np.int64))
    training, validation = (torch.from_numpy(part) for part in stratified_split(bunch.target, 0.25, seed=0))
    return (images[training], labels[training]), (images[validation], labels[validation])


def noise(n: int, size: int = 8, classes: int = 10, seed: int = 0) -> Data:
    rng = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (n, 3, size, size), generator=rng, dtype=torch.uint8)
    return images, torch.randint(classes, (n,), generator=rng)


def fit(network: nn.Module, data: Data, recipe: Recipe = QUICK, seed: int = 0, **more: Any) -> TrainingResult:
    return train(network, *data, mean=MEAN, std=STD, recipe=recipe, seed=seed, **more)


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def comparable(result: TrainingResult) -> TrainingResult:
    return dataclasses.replace(result, seconds=0.0)


# Learning


def test_digits_are_learned_within_a_few_epochs(digits: tuple[Data, Data]) -> None:
    network = small_network()
    steps: list[tuple[int, int, float]] = []
    recipe = Recipe(epochs=6, batch_size=64, flip=False)
    result = fit(network, digits[0], recipe, valid=digits[1], test=digits[0], progress=lambda *step: steps.append(step))
    assert result.valid_accuracy is not None
    assert result.test_accuracy is not None
    assert result.valid_accuracy > 85
    assert result.valid_accuracy == accuracy(network, *digits[1], MEAN, STD)
    assert result.test_accuracy == accuracy(network, *digits[0], MEAN, STD)
    assert result.train_accuracy > 80
    assert result.epochs == 6
    assert result.parameters == sum(p.numel() for p in network.parameters())
    assert 0 < result.seconds < 60
    batches = math.ceil(len(digits[0][0]) / 64)
    expected = [(i + 1, 6 * batches) for i in range(6 * batches) for _ in range(1 + (i % batches == batches - 1))]
    assert [step[:2] for step in steps] == [*expected, *expected[-1:] * math.ceil(len(digits[0][0]) / 512)], (
        "with evaluations"
    )
    assert steps[-1][2] == pytest.approx(result.train_loss)
    assert all(p.grad is None for p in network.parameters())


def test_accuracies_without_held_out_data_are_none() -> None:
    result = fit(small_network(), noise(64))
    assert result.valid_accuracy is None
    assert result.test_accuracy is None


def test_a_float64_network_trains_in_float64() -> None:
    network = Recorder(small_network().double())
    result = fit(network, noise(64), valid=noise(32))
    assert result.valid_accuracy is not None
    assert network.inputs[0].dtype == torch.float64


def test_weights_match_a_plain_loop_with_torchs_scheduler() -> None:
    """One batch holds all images, so their order does not matter to the loop below."""
    images, labels = noise(40, size=4)
    network = linear_network(4).double()
    reference = copy.deepcopy(network)
    recipe = Recipe(epochs=7, batch_size=64, flip=False, crop=False)
    result = fit(network, (images, labels), recipe)

    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=7, eta_min=0)
    inputs = (images.double() / 255 - 0.3) / 0.35
    for _ in range(7):
        optimizer.zero_grad()
        loss = F.cross_entropy(reference(inputs), labels)
        loss.backward()
        optimizer.step()
        scheduler.step()
    assert result.train_loss == pytest.approx(loss.item(), rel=1e-10)
    for ours, theirs in zip(network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("lr", "epochs"), [(0.1, 200), (0.025, 12), (1.0, 1)])
def test_the_learning_rate_matches_torchs_cosine_annealing(lr: float, epochs: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=lr)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs, eta_min=0)
    recipe = Recipe(epochs=epochs, lr=lr)
    for epoch in range(epochs):
        assert learning_rate(recipe, epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        scheduler.step()


def test_training_without_momentum_is_plain_sgd() -> None:
    images, labels = noise(8, size=4)
    network = linear_network(4).double()
    reference = copy.deepcopy(network)
    fit(network, (images, labels), Recipe(epochs=1, lr=0.5, momentum=0, weight_decay=0, flip=False, crop=False))
    F.cross_entropy(reference((images.double() / 255 - 0.3) / 0.35), labels).backward()
    for ours, theirs in zip(network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.detach(), theirs.detach() - 0.5 * theirs.grad)


def test_loss_and_accuracy_are_means_over_images_not_batches() -> None:
    images, labels = noise(10)
    network = linear_network(8).double()
    with torch.no_grad():
        logits = network((images.double() / 255 - 0.3) / 0.35)
    result = fit(network, (images, labels), Recipe(epochs=1, batch_size=8, lr=1e-300, crop=False, flip=False))
    assert result.train_loss == pytest.approx(F.cross_entropy(logits, labels).item())
    assert result.train_accuracy == pytest.approx(100 * (logits.argmax(1) == labels).double().mean().item())


# Reproducibility


def test_the_same_seed_gives_the_same_bits(digits: tuple[Data, Data]) -> None:
    runs = [(network := small_network(), fit(network, digits[0], valid=digits[1], seed=3)) for _ in range(2)]
    assert comparable(runs[0][1]) == comparable(runs[1][1])
    assert same_weights(runs[0][0], runs[1][0])


def test_another_seed_gives_another_result(digits: tuple[Data, Data]) -> None:
    losses = {fit(small_network(), digits[0], seed=seed).train_loss for seed in (0, 1)}
    assert len(losses) == 2


def test_dropout_is_reproducible_and_global_generators_do_not_advance() -> None:
    results = []
    for state in (1, 2):
        torch.manual_seed(state)
        np.random.seed(state)
        before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
        network = nn.Sequential(linear_network(8), nn.Dropout(0.5))
        results.append(fit(network, noise(64), valid=noise(16)))
        stratified_split(np.arange(20) % 4, 0.5, seed=0)
        assert torch.equal(torch.get_rng_state(), before)
        assert np.array_equal(np.random.get_state()[1], numpy_before)
    assert comparable(results[0]) == comparable(results[1])


def test_held_out_data_is_never_trained_on(digits: tuple[Data, Data]) -> None:
    networks = [small_network() for _ in range(3)]
    fit(networks[0], digits[0])
    fit(networks[1], digits[0], valid=digits[1])
    fit(networks[2], digits[0], valid=noise(100), test=noise(50, seed=1))
    assert same_weights(networks[0], networks[1])
    assert same_weights(networks[0], networks[2])


def test_the_callers_tensors_are_unchanged() -> None:
    images, labels = noise(64)
    kept = images.clone(), labels.clone()
    fit(small_network(), (images, labels), Recipe(epochs=1, batch_size=32))
    assert torch.equal(images, kept[0])
    assert torch.equal(labels, kept[1])


def test_each_module_keeps_its_mode() -> None:
    network = small_network()
    network[1].eval()
    before = [module.training for module in network.modules()]
    fit(network, noise(64), valid=noise(8))
    accuracy(network, *noise(8), MEAN, STD)
    assert [module.training for module in network.modules()] == before


# Augmentation


def slow_augment(image: np.ndarray, flip: bool, shift: tuple[int, int], padding: int) -> np.ndarray:
    """Return one image (3, H, W) augmented pixel by pixel: torchvision's RandomHorizontalFlip, then RandomCrop."""
    channels, height, width = image.shape
    out = np.zeros_like(image)
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                row, column = i + shift[0] - padding, j + shift[1] - padding
                if 0 <= row < height and 0 <= column < width:
                    out[c, i, j] = image[c, row, width - 1 - column if flip else column]
    return out


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_augmentation_equals_a_loop_over_images_and_pixels(padding: int) -> None:
    images = torch.randint(1, 256, (30, 3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rng = np.random.default_rng(1)
    flips, shifts = rng.random(30) < 0.5, rng.integers(0, 2 * padding + 1, (30, 2))
    fast = augment(images, torch.from_numpy(flips), torch.from_numpy(shifts), padding)
    slow = [slow_augment(x, f, tuple(s), padding) for x, f, s in zip(images.numpy(), flips, shifts, strict=True)]
    assert fast.dtype == torch.uint8
    assert np.array_equal(fast.numpy(), np.stack(slow))


@pytest.mark.parametrize(("size", "padding"), [(8, 1), (15, 1), (16, 2), (28, 2), (32, 4), (224, 4)])
def test_crop_padding_suits_the_image_size(size: int, padding: int) -> None:
    assert crop_padding(size, size) == padding
    assert crop_padding(size, 1000) == padding


def recorded(data: Data, **recipe: Any) -> Tensor:
    network = Recorder(linear_network(data[0].shape[2]).double())
    fit(network, data, Recipe(batch_size=100, lr=1e-6, **recipe))
    return torch.cat(network.inputs)


def test_padding_is_black_before_normalisation() -> None:
    white = torch.full((50, 3, 8, 8), 255, dtype=torch.uint8), torch.zeros(50, dtype=torch.int64)
    inputs = recorded(white, epochs=2)
    black, full = (0 - 0.3) / 0.35, (1 - 0.3) / 0.35
    assert torch.isclose(inputs.unique(), torch.tensor([black, full], dtype=torch.float64)).all()
    assert torch.isclose(inputs[:, :, 1:-1, 1:-1], torch.tensor(full, dtype=torch.float64)).all()


def test_exactly_all_flips_and_shifts_are_drawn(digits: tuple[Data, Data]) -> None:
    image, label = digits[0][0][:1], digits[0][1][:1]
    data = image.expand(400, -1, -1, -1), label.expand(400)
    pixels = (recorded(data, epochs=1) * 0.35 + 0.3).mul(255).round().to(torch.uint8).numpy()
    choices = {
        slow_augment(image[0].numpy(), flip, (row, column), 1).tobytes(): (flip, row, column)
        for flip in (False, True)
        for row in range(3)
        for column in range(3)
    }
    assert len(choices) == 18
    drawn = [choices[x.tobytes()] for x in pixels]
    assert set(drawn) == set(choices.values())
    assert 150 < sum(flip for flip, _, _ in drawn) < 250


def test_flip_and_crop_can_be_turned_off() -> None:
    images, labels = noise(50)
    plain = {x.tobytes() for x in images.numpy()}
    flipped = plain | {x.tobytes() for x in images.flip(3).numpy()}
    for flip, allowed in ((False, plain), (True, flipped)):
        inputs = recorded((images, labels), epochs=1, flip=flip, crop=False)
        seen = {x.tobytes() for x in (inputs * 0.35 + 0.3).mul(255).round().to(torch.uint8).numpy()}
        assert seen <= allowed
        assert (seen == plain) is not flip


def test_an_epoch_sees_every_image_once_in_the_same_order_without_augmentation() -> None:
    flat = torch.arange(50, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8), torch.zeros(50).long()
    orders = []
    for crop in (True, False):
        inputs = recorded(flat, epochs=2, flip=False, crop=crop)
        orders.append((inputs[:, 0, 4, 4] * 0.35 + 0.3).mul(255).round().long())
    assert torch.equal(orders[0], orders[1])
    assert torch.equal(orders[0][:50].sort().values, torch.arange(50))
    assert torch.equal(orders[0][50:].sort().values, torch.arange(50))
    assert not torch.equal(orders[0][:50], orders[0][50:])


# Batches


@pytest.mark.parametrize(("images", "sizes"), [(32, [16, 16]), (35, [16, 16, 3]), (33, [16, 16]), (3, [3]), (2, [2])])
def test_the_last_batch_is_used_unless_it_is_one_image(images: int, sizes: list[int]) -> None:
    """After global pooling, batch norm fails in training mode on a single image."""
    network = Recorder(
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 10)),
    )
    fit(network, noise(images), Recipe(epochs=1, batch_size=16))
    assert [len(x) for x in network.inputs] == sizes


def test_channels_last_is_used_only_if_the_network_accepts_it() -> None:
    class View(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs.view(len(inputs), -1)

    images, labels = noise(16, size=4)
    picky = Recorder(nn.Sequential(View(), nn.Linear(48, 10)))
    fit(picky, (images, labels))
    assert picky.inputs[0].is_contiguous()
    easy = Recorder(linear_network(4))
    fit(easy, (images, labels))
    assert easy.inputs[0].is_contiguous(memory_format=torch.channels_last)


# Accuracy


def test_accuracy_is_the_share_of_correct_answers_for_any_batch_size() -> None:
    images, labels = noise(53)
    network = small_network().double()
    network.eval()
    with torch.no_grad():
        answers = network((images.double() / 255 - 0.3) / 0.35).argmax(1)
    expected = 100 * (answers == labels).sum().item() / 53
    network.train()
    state = copy.deepcopy(network.state_dict())
    for batch_size in (1, 7, 512):
        assert accuracy(network, images, labels, MEAN, STD, batch_size) == expected
    assert accuracy(network, images, answers, MEAN, STD) == 100
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


# Splitting


@settings(max_examples=200)
@given(
    sizes=st.lists(st.integers(2, 40), min_size=1, max_size=12),
    share=st.floats(0.001, 0.999),
    seed=st.integers(0, 2**32),
)
def test_a_split_is_complete_disjoint_stratified_and_repeatable(sizes: list[int], share: float, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)) - 3, sizes))
    training, validation = stratified_split(labels, share, seed)
    assert np.array_equal(np.sort(np.concatenate([training, validation])), np.arange(len(labels)))
    counts = {}
    for label, size in zip(range(-3, len(sizes) - 3), sizes, strict=True):
        count = int((labels[validation] == label).sum())
        assert 1 <= count <= size - 1
        assert abs(count - share * size) < 1
        assert counts.setdefault(size, count) == count
    again = stratified_split(labels, share, seed)
    assert np.array_equal(again[0], training)
    assert np.array_equal(again[1], validation)


def test_another_seed_splits_differently() -> None:
    labels = np.arange(200) % 4
    assert not np.array_equal(stratified_split(labels, 0.5, 0)[1], stratified_split(labels, 0.5, 1)[1])


# Errors


@pytest.mark.parametrize(
    ("labels", "share", "seed", "message"),
    [
        (np.arange(10) % 2, 0.0, 0, "share .*, got 0.0"),
        (np.arange(10) % 2, 1.0, 0, "share .*, got 1.0"),
        (np.arange(10) % 2, float("nan"), 0, "share .*, got nan"),
        (np.arange(10) % 2, 0.5, -1, "seed must be a whole number between 0 and .*, got -1"),
        (np.array([0, 0, 1]), 0.5, 0, "class 1 has a single image"),
        (np.array([], dtype=np.int64), 0.5, 0, "no images"),
        (np.zeros((4, 1), dtype=np.int64), 0.5, 0, r"shape \(4, 1\)"),
        (np.zeros(4), 0.5, 0, "float64"),
    ],
)
def test_wrong_splits_are_refused(labels: np.ndarray, share: float, seed: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        stratified_split(labels, share, seed)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"epochs": 0}, "epochs .* at least 1, got 0"),
        ({"epochs": 2.0}, "epochs .* a whole number, got 2.0"),
        ({"batch_size": 1}, "batch_size .* at least 2, .*, got 1"),
        ({"lr": 0.0}, "lr .*, got 0.0"),
        ({"lr": -0.1}, "lr .*, got -0.1"),
        ({"lr": math.nan}, "lr .*, got nan"),
        ({"lr": math.inf}, "lr .*, got inf"),
        ({"momentum": 1.0}, "momentum .*, got 1.0"),
        ({"weight_decay": -1.0}, "weight_decay .*, got -1.0"),
    ],
)
def test_wrong_recipes_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Recipe(**setting)


GOOD = noise(8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": GOOD[0].float()}, "training images must be .*float32"),
        ({"images": GOOD[0][:, :1]}, r"training images must be .* shape \(8, 1, 8, 8\)"),
        ({"images": GOOD[0][0]}, r"training images must be .* shape \(3, 8, 8\)"),
        ({"labels": GOOD[1].int()}, "training labels must be .*int32"),
        ({"labels": GOOD[1][:7]}, "8 training images needs one label, got 7 labels"),
        ({"labels": GOOD[1] + 5}, "training labels must lie between 0 and 9 .* 10 classes"),
        ({"labels": GOOD[1] - 10}, "training labels must lie between 0 and 9 .* got -"),
        ({"images": GOOD[0][:1], "labels": GOOD[1][:1]}, "training needs at least 2 images, .* got 1"),
        ({"images": GOOD[0][:0], "labels": GOOD[1][:0]}, "no training images"),
        ({"valid": (GOOD[0], GOOD[1][:3])}, "8 validation images needs one label, got 3 labels"),
        ({"valid": (GOOD[0], GOOD[1] + 10)}, "validation labels must lie between 0 and 9"),
        ({"test": (GOOD[0].double(), GOOD[1])}, "test images must be .*float64"),
        ({"test": (GOOD[0][:0], GOOD[1][:0])}, "no test images"),
        ({"mean": (0.5,)}, "mean must be 3 finite numbers"),
        ({"mean": (0.5, math.nan, 0.5)}, "mean must be 3 finite numbers"),
        ({"std": (0.5, 0.0, 0.5)}, "std must be above 0"),
        ({"seed": -1}, "seed must be a whole number between 0 and .*, got -1"),
        ({"network": nn.Flatten()}, "no trainable parameters"),
        ({"network": nn.Conv2d(3, 4, 3)}, r"returned \(2, 4, 6, 6\)"),
        ({"network": nn.LSTM(8, 8).requires_grad_(False)}, "no trainable parameters"),
    ],
)
def test_wrong_training_requests_are_refused(change: dict[str, Any], message: str) -> None:
    request = {
        "network": linear_network(8),
        "images": GOOD[0],
        "labels": GOOD[1],
        "mean": MEAN,
        "std": STD,
        "recipe": QUICK,
        "seed": 0,
        "valid": GOOD,
    } | change
    with pytest.raises(UsageError, match=message):
        train(**request)


def test_a_network_that_does_not_return_a_tensor_is_refused() -> None:
    class Pair(nn.Linear):
        def forward(self, inputs: Tensor) -> Any:
            return inputs, super().forward(inputs.flatten(1))

    with pytest.raises(UsageError, match=r"Pair must return logits .* but returned tuple"):
        fit(Pair(192, 10), GOOD)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: accuracy(linear_network(8), GOOD[0], GOOD[1][:2], MEAN, STD),
            "8 evaluation images needs one label, got 2 labels",
        ),
        (lambda: accuracy(linear_network(8), GOOD[0][:0], GOOD[1][:0], MEAN, STD), "no evaluation images"),
        (lambda: accuracy(linear_network(8), GOOD[0], GOOD[1] + 9, MEAN, STD), "10 classes"),
        (lambda: accuracy(linear_network(8), *GOOD, MEAN, STD, batch_size=0), "batch_size .* at least 1, got 0"),
        (lambda: accuracy(nn.Flatten(), *GOOD, MEAN, STD), "Flatten must have parameters"),
        (lambda: accuracy(linear_network(8), *GOOD, MEAN, (1.0, 1.0)), "std must be 3 finite numbers"),
    ],
)
def test_wrong_evaluations_are_refused(call: Callable[[], float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()


@pytest.mark.parametrize("broken", ["loss", "weight"])
def test_divergence_errors_name_the_epoch_and_a_remedy(broken: str) -> None:
    network = linear_network(8)
    if broken == "loss":
        recipe = Recipe(epochs=3, batch_size=4, lr=1e38)
    else:  # the only step starts from a finite loss and leaves infinite weights
        recipe = Recipe(epochs=1, batch_size=8, lr=1e38, weight_decay=1e6)
    with pytest.raises(HnasError, match=r"diverged in epoch 1 of .*learning rate below 1e\+38") as error:
        fit(network, GOOD, recipe)
    assert not isinstance(error.value, UsageError)


def test_errors_of_the_network_reach_the_caller() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        fit(linear_network(4), GOOD)


class Kept:
    """A checkpoint in memory, serialised like a file; `stop` ends the training after that many epochs."""

    def __init__(self, stop: int | None = None) -> None:
        self.content: bytes | None = None
        self.stop, self.saved = stop, 0

    def load(self) -> dict[str, Any] | None:
        if self.content is None:
            return None
        return torch.load(io.BytesIO(self.content), weights_only=True)

    def save(self, state: dict[str, Any]) -> None:
        file = io.BytesIO()
        torch.save(state, file)
        self.content = file.getvalue()
        self.saved += 1
        if self.saved == self.stop:
            raise KeyboardInterrupt


class Noisy(nn.Sequential):
    """A network that draws in training mode, with drop path and a second classifier."""

    drop_path = 0.0

    def forward(self, images: Tensor) -> Any:
        logits = super().forward(images)
        if self.training and self.drop_path:
            logits = F.dropout(logits, self.drop_path)
        return (logits, 2 * logits) if self.training else logits


ALL_OF_IT = Recipe(
    epochs=4, batch_size=64, flip=False, lr=0.05, lr_min=0.01, warmup=1, clip=1.0, label_smoothing=0.1, cutout=3,
    drop_path=0.3, auxiliary=0.4,
)  # fmt: skip


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize("recipe", [ALL_OF_IT, dataclasses.replace(ALL_OF_IT, optimizer="rmsprop")])
def test_a_resumed_training_is_bit_identical(digits: tuple[Data, Data], recipe: Recipe, stop: int):
    training, valid = digits

    def trained(network: nn.Module, checkpoint: Kept | None) -> TrainingResult:
        return train(
            network, *training, mean=MEAN, std=STD, recipe=recipe, seed=3, valid=valid, checkpoint=checkpoint
        )  # fmt: skip

    undisturbed, stopped, other = (Noisy(*small_network()) for _ in range(3))
    expected = trained(undisturbed, None)
    kept = Kept(stop)
    with pytest.raises(KeyboardInterrupt):
        trained(stopped, kept)
    assert kept.saved == stop
    kept.stop = None
    found = trained(other, kept)
    assert kept.saved == recipe.epochs - 1
    assert dataclasses.replace(found, seconds=0) == dataclasses.replace(expected, seconds=0)
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_the_curve_has_all_epochs_and_ends_with_the_result(digits: tuple[Data, Data]):
    training, valid = digits
    result = train(small_network(), *training, mean=MEAN, std=STD, recipe=QUICK, seed=0, valid=valid)
    assert [epoch.epoch for epoch in result.curve] == [1, 2]
    assert [epoch.lr for epoch in result.curve] == [learning_rate(QUICK, 0), learning_rate(QUICK, 1)]
    last = result.curve[-1]
    assert (last.loss, last.train_accuracy) == (result.train_loss, result.train_accuracy)
    assert last.valid_accuracy == result.valid_accuracy
    assert 0 < result.curve[0].seconds < last.seconds <= result.seconds


def test_the_learning_rate_warms_up_and_falls_to_lr_min():
    recipe = Recipe(epochs=10, lr=0.2, lr_min=0.02, warmup=3)
    rates = [learning_rate(recipe, epoch) for epoch in range(11)]
    assert rates[:4] == pytest.approx([0.05, 0.1, 0.15, 0.2])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[10] == pytest.approx(0.02)


def test_cutout_blanks_one_square_and_nothing_else():
    inputs = torch.ones(3, 3, 6, 6)
    cut = cut_out(inputs.clone(), torch.tensor([[2, 3], [0, 0], [5, 5]]), 4)
    squares = ((range(4), range(1, 5)), (range(2), range(2)), (range(3, 6), range(3, 6)))
    for image, (rows, columns) in zip(cut, squares, strict=True):
        for i in range(6):
            for j in range(6):
                assert (image[:, i, j] == (0 if i in rows and j in columns else 1)).all()


def test_recipes_are_found_by_name_and_fields_can_be_changed():
    assert recipe_named("nasbench201", {}) == Recipe()
    changed = recipe_named(
        "hnas-darts", {"epochs": "3", "lr": 1, "drop_path": "0", "flip": "False", "optimizer": "RMSprop"}
    )
    assert (changed.epochs, changed.lr, changed.drop_path, changed.flip, changed.optimizer) == (
        3,
        1,
        0,
        False,
        "rmsprop",
    )
    assert changed.batch_size == RECIPES["hnas-darts"].batch_size == 576
    for name, options, words in (
        ("dart", {}, "recipe 'dart' is unknown; .*did you mean 'darts'"),
        ("darts", {"cutuot": 3}, "field of a recipe 'cutuot' is unknown; .*'cutout'"),
        ("darts", {"cutout": "big"}, "cutout of the training recipe must be a whole number, got 'big'"),
        ("darts", {"flip": "maybe"}, "flip .* must be true or false, got 'maybe'"),
        ("darts", {"lr_min": 2}, "lr_min .* at most lr, got 2.0"),
        ("darts", {"optimizer": "adam"}, "sgd or rmsprop"),
    ):
        with pytest.raises(UsageError, match=words):
            recipe_named(name, options)


def test_recipes_that_the_network_does_not_support_are_refused(digits: tuple[Data, Data]):
    training, _ = digits
    for change, words in (({"drop_path": 0.2}, "has no drop path"), ({"auxiliary": 0.4}, "no second classifier")):
        recipe = dataclasses.replace(QUICK, **change)
        with pytest.raises(UsageError, match=words):
            train(small_network(), *training, mean=MEAN, std=STD, recipe=recipe, seed=0)


def test_a_darts_network_trains_with_drop_path_and_auxiliary_head():
    space = search_spaces["darts"]
    network = space.evaluation_network(space.sample(1, 0)[0], channels=4, layers=3, drop_path=0)
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    recipe = dataclasses.replace(RECIPES["darts"], epochs=2, batch_size=4)
    result = train(network, images, torch.arange(8), mean=MEAN, std=STD, recipe=recipe, seed=0)
    assert math.isfinite(result.train_loss)
    assert network.drop_path == 0.0
