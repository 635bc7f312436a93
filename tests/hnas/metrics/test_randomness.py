"""Random draws in the forward pass are switched off, or the network is refused; the generators do not advance."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hnas import compute_metrics
from hnas.errors import UsageError
from hnas.metrics import Metrics
from tests.support.networks import CLASSES, Forward, batch


class StochasticDepth(nn.Module):
    """Drops whole samples while training."""

    def __init__(self, draw: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, x: Tensor) -> Tensor:
        return x * self.draw(x[:, :1, :1, :1]) / 0.7 if self.training else x


class OwnDropout(nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand_like(x) > self.p) if self.training else x


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], dropout: float) -> None:
        super().__init__()
        self.run = kind(6, 6, 2, dropout=dropout, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.run(x.flatten(2).transpose(1, 2))[0]
        return y.transpose(1, 2)[..., None]


class Attention(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        t = x.flatten(2).transpose(1, 2)[:, None]
        t = F.scaled_dot_product_attention(t, t, t, dropout_p=self.dropout)
        return t[:, 0].transpose(1, 2)[..., None]


GENERATOR = torch.Generator()

#: Modules that draw in training mode, and their deterministic equivalents.
OFF: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "bernoulli": (lambda: StochasticDepth(lambda x: torch.bernoulli(torch.full_like(x, 0.7))), nn.Identity),
    "bernoulli in place": (lambda: StochasticDepth(lambda x: x.new_empty(x.shape).bernoulli_(0.7)), nn.Identity),
    "numpy": (lambda: StochasticDepth(lambda x: torch.tensor(np.random.rand())), nn.Identity),
    "python": (lambda: StochasticDepth(lambda x: torch.tensor(random.random())), nn.Identity),
    "generator": (lambda: StochasticDepth(lambda x: torch.rand(x.shape, generator=GENERATOR)), nn.Identity),
    "a subclass of dropout": (lambda: OwnDropout(0.3), nn.Identity),
    "rrelu": (lambda: nn.RReLU(0.1, 0.5), lambda: nn.LeakyReLU(0.3)),
    "rrelu in place": (lambda: nn.RReLU(0.1, 0.5, inplace=True), lambda: nn.LeakyReLU(0.3)),
    "alpha dropout": (lambda: nn.FeatureAlphaDropout(0.3), nn.Identity),
    "torch.dropout": (lambda: Forward(lambda s, x: torch.dropout(x, 0.3, s.training)), nn.Identity),
    "torch.feature_dropout": (lambda: Forward(lambda s, x: torch.feature_dropout(x, 0.3, s.training)), nn.Identity),
    "lstm": (lambda: Recurrent(nn.LSTM, 0.5), lambda: Recurrent(nn.LSTM, 0.0)),
    "gru": (lambda: Recurrent(nn.GRU, 0.5), lambda: Recurrent(nn.GRU, 0.0)),
    "rnn": (lambda: Recurrent(nn.RNN, 0.5), lambda: Recurrent(nn.RNN, 0.0)),
    "fused attention": (lambda: Attention(0.5), lambda: Attention(0.0)),
    "a draw for nothing": (lambda: Forward(lambda s, x: x + 0 * torch.rand(())), nn.Identity),
}


def around(middle: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), middle(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(6, CLASSES)).double()


def states() -> list[Any]:
    numbers = np.random.get_state(legacy=False)["state"]  # type: ignore[call-overload]
    torchs = [torch.get_rng_state().tolist(), GENERATOR.get_state().tolist()]
    return [*torchs, random.getstate(), numbers["pos"], numbers["key"].tolist()]


def measured(network: nn.Module) -> Metrics:
    before = states()
    modes = [module.training for module in network.modules()]
    m = compute_metrics(network, *batch((3, 8, 8)))
    assert states() == before
    assert [module.training for module in network.modules()] == modes
    return m


@pytest.mark.parametrize("name", OFF)
def test_random_modules_are_switched_off(name: str) -> None:
    on, off = (around(middle) for middle in OFF[name])
    first = measured(on)
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    second = measured(on)
    assert first.columns() == second.columns()
    assert first.columns() == pytest.approx(measured(off).columns(), rel=1e-9)


class Encoded(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(6, 2, 12, dropout, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x.flatten(2).transpose(1, 2))
        return y.transpose(1, 2)[..., None]


def test_dropout_of_attention_layers_is_off() -> None:
    on, off = (measured(around(lambda p=p: Encoded(p))) for p in (0.5, 0.0))  # type: ignore[misc]
    assert on.columns() == off.columns()


@pytest.mark.parametrize(
    ("forward", "what"),
    [
        (lambda s, x: F.gumbel_softmax(x, dim=1), "by gumbel_softmax"),
        (lambda s, x: x + torch.randn_like(x), "by randn_like"),
        (lambda s, x: x * np.random.rand(), "by numpy.random"),
        (lambda s, x: x * random.random(), "by Python's random"),
        (lambda s, x: x * torch.rand(x.shape, generator=GENERATOR), "by rand"),
        (lambda s, x: x[torch.randperm(len(x))], "by randperm"),
    ],
)
def test_randomness_in_evaluation_mode_is_refused(forward: Callable[..., Tensor], what: str) -> None:
    network = around(lambda: Forward(forward))
    before = states()
    with pytest.raises(UsageError, match=rf"module 2 \(Forward\) draws random numbers {what}, in evaluation mode too"):
        compute_metrics(network, *batch((3, 8, 8)))
    assert states() == before
    assert all(module.training for module in network.modules())


def test_a_module_that_draws_and_normalises_batches_is_refused() -> None:
    def forward(s: Forward, x: Tensor) -> Tensor:
        x = F.batch_norm(x, s.mean, s.var, training=s.training)  # type: ignore[arg-type]
        return x + torch.rand_like(x) if s.training else x

    def middle() -> nn.Module:
        module = Forward(forward)
        module.register_buffer("mean", torch.zeros(6))
        module.register_buffer("var", torch.ones(6))
        return module

    with pytest.raises(UsageError, match=r"module 2 \(Forward\) draws .* because it also normalises batches"):
        compute_metrics(around(middle), *batch((3, 8, 8)))


def test_random_numbers_in_the_backward_pass_are_refused() -> None:
    class Noise(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 1

        @staticmethod
        def backward(ctx: Any, gy: Tensor) -> Tensor:
            return gy * torch.rand_like(gy)

    before = states()
    with pytest.raises(UsageError, match="draws random numbers in its backward pass"):
        compute_metrics(around(lambda: Forward(lambda s, x: Noise.apply(x))), *batch((3, 8, 8)))
    assert states() == before


def test_a_deterministic_network_runs_forward_once() -> None:
    calls = []

    def counted(s: Forward, x: Tensor) -> Tensor:
        calls.append(1)
        return F.dropout(x, 0.3, s.training)

    measured(around(lambda: Forward(counted)))
    assert len(calls) == 1


def test_a_thread_that_always_draws_is_not_blamed_on_the_network():
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(6))

        def forward(self, x: Tensor) -> Tensor:
            return F.batch_norm(x, None, None, self.weight, training=self.training)

    network = nn.Sequential(nn.Conv2d(3, 6, 3), Normalised(), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5))
    images, labels = torch.randn(8, 3, 8, 8), torch.randint(0, 5, (8,))
    expected = compute_metrics(network, images, labels).columns()
    stop = threading.Event()

    def draw() -> None:
        while not stop.is_set():
            random.random()

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        found = [compute_metrics(network, images, labels).columns() for _ in range(5)]
    finally:
        stop.set()
        thread.join()
    assert found == [expected] * 5
    assert all(module.training for module in network.modules())


def test_draws_in_another_thread_cost_one_more_pass_without_a_graph():
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.graphs: list[bool] = []

        def forward(self, x: Tensor) -> Tensor:
            self.graphs.append(torch.is_grad_enabled())
            if len(self.graphs) == 1:
                thread = threading.Thread(target=random.random)
                thread.start()
                thread.join()
            return x

    beside = Beside()
    network = nn.Sequential(nn.Conv2d(3, 6, 3), beside, nn.ReLU(), nn.Flatten(), nn.Linear(216, 5))
    images, labels = torch.randn(8, 3, 8, 8), torch.randint(0, 5, (8,))
    found = compute_metrics(network, images, labels).columns()
    assert beside.graphs == [True, False]
    assert compute_metrics(network, images, labels).columns() == found
