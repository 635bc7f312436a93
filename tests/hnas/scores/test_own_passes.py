"""Scores with their own passes, against slow and obvious computations in float64."""

from __future__ import annotations

import copy
import json
import math
import os
from ast import literal_eval
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hnas import compute_metrics
from hnas.scores.protocol import Subject
from hnas.scores.registry import scores
from hnas.scores.undisturbed import generator
from hnas.spaces import search_spaces
from tests.support import networks
from tests.support.networks import CLASSES, Forward
from tests.support.references import distinct, measured, training_copy

OWN = ("gradsign", "knas_program", "meco", "synflow", "te_nas", "zen", "zico")

CELLS = {
    "nasbench201": "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|",
    "nasbench201 without layers": "|avg_pool_3x3~0|+|none~0|none~1|+|skip_connect~0|skip_connect~1|none~2|",
    "nasbench101": "input,conv3x3-bn-relu,maxpool3x3,conv1x1-bn-relu,output:0101000110000010000100000",
    "darts": search_spaces["darts"].sample(1, 5)[0],
}
FOREIGN = (
    "mlp",
    "mlp_batch_norm",
    "residual",
    "residual_in_place",
    "depthwise_batch_norm",
    "conv_called_twice",
    "tokens",
)


def attention() -> nn.Module:
    """Scaled dot-product attention written out."""

    def forward(s: Any, x: Tensor) -> Tensor:
        q, k, v = s.qkv(x).chunk(3, -1)
        return s.out(torch.relu((q @ k.transpose(1, 2) / math.sqrt(6)).softmax(-1) @ v).mean(1))

    return Forward(forward, qkv=nn.Linear(6, 18), out=nn.Linear(6, CLASSES))


@cache
def subject(name: str) -> Subject:
    """Return the network called `name` and images of its shape, in float64."""
    if name in CELLS:
        space = search_spaces[name.split()[0]]

        def build(classes: int = CLASSES, channels: int = 6, cells: int = 0, seed: int = 0) -> nn.Module:
            cells = cells or (3 if space.name == "darts" else 1)
            return space.network(CELLS[name], classes=classes, channels=channels, cells=cells, seed=seed)

        network, shape = build().double(), (3, 16, 16)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            networks.shake(network)
        return _subject(network, shape, build)
    if name == "attention":
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return _subject(attention().double(), (7, 6))
    return _subject(*networks.build(name))


def _subject(network: nn.Module, shape: tuple[int, ...], build: Callable[..., nn.Module] | None = None) -> Subject:
    further = networks.batch(shape, size=8, seed=2)
    return Subject(network, *networks.batch(shape), further, build, seed=3)


def computed(name: str, subject: Subject) -> dict[str, float]:
    return scores[name](subject)  # type: ignore[operator, no-any-return]


def gradient(network: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    weights = distinct([layer.weight for layer in measured(network)])  # type: ignore[misc]
    found = torch.autograd.grad(F.cross_entropy(network(images.clone()), labels), weights, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)]


def synflow(subject: Subject) -> float:
    network = copy.deepcopy(subject.network).double()
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            network.set_submodule(name, nn.Identity())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    network(torch.ones_like(subject.images[:1])).sum().backward()
    weights = distinct([layer.weight for layer in measured(network)])  # type: ignore[misc]
    return sum(float((w.detach() * w.grad).abs().sum()) for w in weights if w.grad is not None)


def zico(subject: Subject) -> float:
    assert subject.further is not None
    m = len(subject.images)
    first = gradient(training_copy(subject.network), subject.images, subject.labels)
    second = gradient(training_copy(subject.network), *(values[:m] for values in subject.further))
    total = 0.0
    for pair in zip(first, second, strict=True):
        both = np.stack([g.flatten().numpy() for g in pair])
        mean, deviation = np.abs(both).mean(0), both.std(0)
        if deviation.any():
            total += math.log((mean[deviation > 0] / deviation[deviation > 0]).sum())
    return total


def alone(subject: Subject) -> list[list[Tensor]]:
    network = training_copy(subject.network)
    return [
        gradient(network, image, label)
        for image, label in zip(subject.images.split(1), subject.labels.split(1), strict=True)
    ]


def gradsign(subject: Subject) -> float:
    total: Any = 0
    for each in alone(subject):
        g = torch.cat([part.flatten() for part in each])
        total = total + torch.where(g.abs() > 1e-12 * g.abs().max(), g.sign(), 0)  # zero up to rounding
    return float(total.abs().sum())


def knas_program(subject: Subject) -> float:
    network, found = training_copy(subject.network), {}
    for image, label in zip(subject.images.split(1), subject.labels.split(1), strict=True):
        network.zero_grad()
        F.cross_entropy(network(image.clone()), label).backward()
        for name, p in network.named_parameters():
            if p.grad is not None and p.grad.numel() >= 50:
                found.setdefault(name, []).append(p.grad.flatten()[:50].numpy().copy())
    total, half = 0.0, len(subject.images) // 2
    for name in list(found)[:11]:
        for i in range(50):
            one, two = ([g[i] for g in part] for part in (found[name][:half], found[name][half:]))
            total += float((np.array(one) - np.mean(one)) @ (np.array(two) - np.mean(two))) / 2500
    return total


def meco(subject: Subject) -> float:
    if subject.images.dim() != 4:
        return math.nan
    image = torch.randn((1, subject.images.shape[1], 64, 64), generator=generator(3, "meco")).double()
    found: list[float] = []

    def add(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() > 2:
            channels = output[0].flatten(1).numpy()
            with np.errstate(invalid="ignore"):
                constant = channels.shape[1] == 1
                correlations = np.zeros((1, 1)) if constant else np.atleast_2d(np.corrcoef(channels))
            found.append(np.linalg.eigvals(np.nan_to_num(correlations)).real.min())

    network = training_copy(subject.network)
    for module in network.modules():
        module.register_forward_hook(add)
    with torch.no_grad():
        network(image)
    return sum(found)


def before_pooling(network: nn.Module) -> tuple[nn.Module, Callable[[Any], Tensor]]:
    """Return the module whose output holds the maps before the last pooling, and how to get them."""
    kind = type(network).__name__
    if kind == "NASBench201Network":
        return network.head, torch.relu
    if kind == "NASBench101Network":
        return network.stacks[2][-1], lambda x: x
    if kind == "DARTSNetwork":
        return network.cells[-1], lambda blocks: torch.cat(blocks, 1)
    return network, lambda x: x


def zen(subject: Subject) -> float:
    network, source = training_copy(subject.network), generator(3, "zen")
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.reset_parameters()
            elif module in measured(network):
                module.weight.copy_(torch.randn(module.weight.shape, generator=source))
                if module.bias is not None:
                    module.bias.zero_()
        shape = subject.images.shape
        x = torch.randn(shape, generator=source).double()
        moved = x + 0.01 * torch.randn(shape, generator=source).double()
        maps: list[Tensor] = []
        module, after = before_pooling(network)
        module.register_forward_hook(lambda module, args, output: maps.append(after(output).clone()))
        network(x)
        network(moved)
    score = math.log(float((maps[0] - maps[1]).abs().flatten(1).sum(1).mean()))
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            score += math.log(math.sqrt(float(module.running_var.mean())))
    return score


REFERENCES = {
    "gradsign": gradsign,
    "knas_program": knas_program,
    "meco": meco,
    "synflow": synflow,
    "zico": zico,
}


@pytest.mark.parametrize("network", [*CELLS, *FOREIGN, "attention"])
@pytest.mark.parametrize("name", list(REFERENCES))
def test_scores_match_slow_computations(name: str, network: str) -> None:
    given = subject(network)
    found = computed(name, given)[name]
    if network == "mlp_batch_norm" and name in ("gradsign", "knas_program"):
        assert math.isnan(found)  # one image has no statistics
        return
    expected = REFERENCES[name](given)
    exact = name == "gradsign"
    assert found == pytest.approx(expected, rel=0 if exact else 1e-8, abs=0, nan_ok=True)


@pytest.mark.parametrize("network", list(CELLS))
def test_zen_matches_a_slow_computation(network: str) -> None:
    assert computed("zen", subject(network))["zen"] == pytest.approx(zen(subject(network)), rel=1e-8)


def test_zen_of_a_network_without_maps_reads_the_input_of_its_last_layer() -> None:
    network = nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, CLASSES)).double()
    images, labels = networks.batch((12,))
    source = generator(0, "zen")
    first = torch.randn((9, 12), generator=source).double()
    torch.randn((CLASSES, 9), generator=source)
    x = torch.randn(images.shape, generator=source).double()
    moved = x + 0.01 * torch.randn(images.shape, generator=source).double()
    apart = (torch.relu(x @ first.t()) - torch.relu(moved @ first.t())).abs().sum(1).mean()
    assert computed("zen", Subject(network, images, labels))["zen"] == pytest.approx(float(apart.log()), rel=1e-8)


def draw(network: nn.Module, source: torch.Generator, fan: Callable[[Tensor], int]) -> None:
    with torch.no_grad():
        for layer in measured(network):
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=source) * math.sqrt(2 / fan(layer.weight)))
            if layer.bias is not None:
                layer.bias.zero_()


def test_te_nas_matches_a_slow_computation() -> None:
    space = search_spaces["nasbench201"]
    chain = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|none~0|none~1|skip_connect~2|"

    def build(channels: int, cells: int) -> Any:
        return space.network(chain, classes=CLASSES, channels=channels, cells=cells, seed=0)

    given = _subject(build(4, 1).double(), (3, 8, 8), build)
    assert given.further is not None
    found = computed("te_nas", given)
    source = generator(3, "te_nas")
    images = torch.cat([given.images, given.further[0]])
    kappas = []
    network = build(3, 1).double()
    for _ in range(3):
        draw(network, source, lambda weight: weight[:, 0].numel())
        rows = []
        for i in range(len(images)):
            network.zero_grad()
            network(images)[i].sum().backward()
            rows.append(torch.cat([p.grad.flatten() for name, p in network.named_parameters() if "weight" in name]))
        singular = np.linalg.svd(torch.stack(rows).numpy(), compute_uv=False)
        kappas.append((singular[0] / singular[-1]) ** 2)
    assert found["te_nas_kappa"] == pytest.approx(np.mean(kappas), rel=1e-8)

    image, row, column = (torch.randint(n, (3000,), generator=source).tolist() for n in (len(images), 6, 6))
    channel = torch.rand((3000, 3), generator=source).argsort(1)[:, 0].tolist()
    crops = [images[i, c, y : y + 3, x : x + 3] for i, c, y, x in zip(image, channel, row, column, strict=True)]
    thin, counts = build(1, 1).double(), []
    for _ in range(3):
        draw(thin, source, lambda weight: weight[0].numel())
        first, second = thin.stages[0][0].layers
        patterns = set()
        for batch in torch.stack(crops)[:, None].split(1000):
            with torch.no_grad():
                a = first(torch.relu(batch))
                b = second(torch.relu(a))
            read = [batch, a, F.batch_norm(b, None, None, training=True)]
            patterns |= {tuple(row) for row in torch.cat([x.flatten(1) > 0 for x in read], 1).tolist()}
        counts.append(len(patterns))
    assert 1 < min(counts) < max(counts) < 3000
    assert found["te_nas_regions"] == np.mean(counts)


def test_te_nas_is_nan_without_its_small_networks() -> None:
    assert all(map(math.isnan, computed("te_nas", subject("residual")).values()))
    found = computed("te_nas", subject("nasbench101"))
    assert found["te_nas_kappa"] > 1
    assert math.isnan(found["te_nas_regions"])
    darts = subject("darts")
    few = Subject(darts.network, darts.images[:3], darts.labels[:3], None, darts.build)
    assert 1 < computed("te_nas", few)["te_nas_regions"] <= 3000


@pytest.mark.parametrize("turned", [False, True])
def test_gradsign_of_coupled_or_reordered_images_goes_one_by_one(turned: bool) -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        x = torch.tanh(s.first(x.flip(0))).flip(0) if turned else torch.tanh(s.first(x))
        return s.out(x if turned else x - x.mean(0) / 2)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        given = _subject(Forward(forward, first=nn.Linear(12, 9), out=nn.Linear(9, CLASSES)).double(), (12,))
    assert computed("gradsign", given)["gradsign"] == gradsign(given)


def test_synflow_overflows_to_infinity() -> None:
    network = nn.Sequential(nn.Linear(12, 4), nn.Linear(4, CLASSES)).double()
    for layer in network:
        nn.init.constant_(layer.weight, -1e200)  # type: ignore[arg-type]
    assert computed("synflow", _subject(network, (12,)))["synflow"] == math.inf


def test_networks_of_fixed_size_or_precision_have_no_meco_or_synflow() -> None:
    assert math.isnan(computed("meco", subject("views"))["meco"])
    single = Forward(lambda s, x: s.out(x.float()), out=nn.Linear(12, CLASSES))
    assert math.isnan(computed("synflow", _subject(single, (12,)))["synflow"])


@pytest.mark.parametrize("kind", ["tokens", "pixels"])
def test_images_of_integers_have_all_scores_that_need_no_other_images(kind: str) -> None:
    """Those that draw images, or differentiate by them, are NaN, also where the network would take any numbers."""

    def forward(s: Any, x: Tensor) -> Tensor:
        if kind == "tokens":
            return s.out(torch.relu(s.hidden(s.embedded(x))).mean(1))
        return s.out(torch.relu(s.conv(x.to(s.conv.weight.dtype) / 255)).mean((2, 3)))

    parts = (
        {"conv": nn.Conv2d(3, 8, 3)}
        if kind == "pixels"
        else {"embedded": nn.Embedding(20, 8), "hidden": nn.Linear(8, 8)}
    )
    network = Forward(forward, **parts, out=nn.Linear(8, CLASSES))
    network.smallest = 1, 1  # type: ignore[assignment]
    random = torch.Generator().manual_seed(0)
    shape, dtype = ((16, 7), torch.int64) if kind == "tokens" else ((16, 3, 8, 8), torch.uint8)
    images, labels = torch.randint(20, shape, generator=random).to(dtype), torch.arange(16) % CLASSES
    found = compute_metrics(
        network,
        images[:8],
        labels[:8],
        scores="all",
        further=(images[8:], labels[8:]),
        build=lambda **sizes: copy.deepcopy(network),
    ).scores
    without = {"epe_nas", "jacov", "meco", "te_nas_kappa", "te_nas_regions", "zen"}
    without |= {"synflow"} if kind == "tokens" else set()  # an embedding takes no image of ones in float64
    assert {name for name, value in found.items() if math.isnan(value)} == without


def test_a_nan_gradient_has_no_sign_and_no_ratio() -> None:
    network = nn.Sequential(nn.Linear(12, 4), nn.Linear(4, CLASSES)).double()
    nn.init.constant_(network[0].weight, math.nan)  # type: ignore[arg-type]
    given = _subject(network, (12,))
    assert computed("gradsign", given)["gradsign"] == 0
    assert math.isnan(computed("zico", given)["zico"])


def test_zico_needs_a_second_batch_of_the_same_size() -> None:
    given = subject("residual")
    assert given.further is not None
    for further in (None, tuple(values[:5] for values in given.further)):
        few = Subject(given.network, given.images, given.labels, further)  # type: ignore[arg-type]
        assert math.isnan(computed("zico", few)["zico"])


@pytest.mark.parametrize("name", OWN)
def test_scores_are_repeatable_and_leave_network_and_generators_alone(name: str) -> None:
    given = subject("nasbench201")
    given.network.train()
    given.network.get_parameter("classifier.weight").grad = torch.ones(CLASSES, 24).double()
    before = {key: value.clone() for key, value in given.network.state_dict().items()}
    hooks, numbers, images = hooked(given.network), torch.get_rng_state(), given.images.clone()
    first = computed(name, given)
    torch.rand(3)
    torch.set_rng_state(numbers)
    assert computed(name, given) == first
    assert all(torch.equal(value, before[key]) for key, value in given.network.state_dict().items())
    gradients = {key: p.grad for key, p in given.network.named_parameters() if p.grad is not None}
    assert list(gradients) == ["classifier.weight"]
    assert bool((gradients["classifier.weight"] == 1).all())
    assert all(module.training for module in given.network.modules())
    assert all(p.requires_grad for p in given.network.parameters())
    assert hooked(given.network) == hooks
    assert torch.equal(torch.get_rng_state(), numbers)
    assert torch.equal(given.images, images)


def test_scores_of_both_kinds_are_computed_together() -> None:
    given = subject("nasbench201")
    given.network.eval()
    found = compute_metrics(
        given.network,
        given.images,
        given.labels,
        scores="all",
        further=given.further,
        build=given.build,
        seed=given.seed,
    ).scores
    assert not any(module.training for module in given.network.modules()), "the modes are restored"
    given.network.train()
    assert set(found) == {column for name in scores for column in scores[name].columns}
    for name in OWN:
        assert {column: found[column] for column in scores[name].columns} == computed(name, given)


def hooked(network: nn.Module) -> int:
    return sum(len(hooks) for m in network.modules() for key, hooks in vars(m).items() if "hooks" in key and hooks)


@pytest.mark.parametrize("name", ["meco", "te_nas", "zen"])
def test_random_draws_of_a_score_depend_on_the_seed(name: str) -> None:
    given = subject("nasbench201")
    other = Subject(given.network, given.images, given.labels, given.further, given.build, seed=4)
    assert computed(name, other) != computed(name, given)


@pytest.mark.skipif("HNAS_TEST_DATA" not in os.environ, reason="HNAS_TEST_DATA is unset")
def test_synflow_ranks_real_cells_like_published_values() -> None:
    operations = ("skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3")
    path = Path(os.environ["HNAS_TEST_DATA"]) / "nasbench201" / "zc_nasbench201.json"
    published = json.loads(path.read_text())["nasbench201"]["cifar10"]
    ours, theirs = [], []
    images, labels = networks.batch((3, 32, 32), size=2, dtype=torch.float32)
    for encoding in list(published)[:16]:
        a, b, c, d, e, f = (operations[i] for i in literal_eval(encoding))
        cell = f"|{a}~0|+|{b}~0|{d}~1|+|{c}~0|{e}~1|{f}~2|"
        network = search_spaces["nasbench201"].network(cell, classes=10, channels=16, cells=5, seed=0)
        ours.append(computed("synflow", Subject(network, images, labels))["synflow"])
        theirs.append(published[encoding]["synflow"])
    ranks = [np.argsort(np.argsort(values)) for values in (ours, theirs)]
    assert np.corrcoef(ranks)[0, 1] >= 0.97
