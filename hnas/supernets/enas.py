"""ENAS: an LSTM samples architectures, and learns by REINFORCE which of them perform best with the shared weights.

    w: each step trains one architecture sampled from the controller
    then, 50 times per epoch, from 20 architectures a_i and a validation batch for each:
        R_i = accuracy(a_i) + 10⁻⁴ · entropy(a_i),   b_i = b − (1 − 0.99)(b − R_i)
        θ ← Adam(θ, −(1/20) Σ_i ∇_θ log p(a_i) (R_i − b_i)),  with gradient norm at most 5
    b is the mean of the last epoch's b_i; in the first epoch b_i is the accuracy
    the result is the best of 100 samples, each on one validation batch (512 images)

The controller has a learned input for the first edge, then the embedding of the last sampled operation; two LSTM layers
of 32 units; logits 2.5 tanh(W h / 5). R_i counts as a constant in the gradient, as in ENAS' own program; that of
NATS-Bench includes the small gradient of the entropy. Validation images are not augmented, and the stem's batch norm is
in evaluation mode.

Published on NAS-Bench-201 as 93.76 / 71.11 / 41.44 (CIFAR-10, CIFAR-100, ImageNet16-120; the variant of NATS-Bench) in
15,120 s.

Source: Pham, Guan, Zoph, Le, Dean, "Efficient Neural Architecture Search via Parameter Sharing", ICML 2018.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hnas.spaces.nasbench201.cell import EDGES, OPERATIONS
from hnas.supernets.gradients import Batch
from hnas.supernets.network import Mixture
from hnas.supernets.training import SupernetRecipe, WeightSharing, second_time


@dataclass(frozen=True)
class ENASRecipe(SupernetRecipe):
    """Per epoch `controller_steps` of `controller_samples` each, `candidates` at the end, `valid_batch` images."""

    arch_lr: float = 1e-3
    arch_beta: float = 0.5
    arch_weight_decay: float = 0.0
    arch_eps: float = 1e-3
    controller_steps: int = 50
    controller_samples: int = 20
    controller_clip: float = 5.0
    entropy: float = 1e-4
    baseline_decay: float = 0.99
    lstm_size: int = 32
    lstm_layers: int = 2
    tanh_constant: float = 2.5
    temperature: float = 5.0
    candidates: int = 100
    valid_batch: int = 512


class Controller(nn.Module):
    """The distribution over architectures."""

    def __init__(self, size: int, layers: int, tanh_constant: float, temperature: float) -> None:
        super().__init__()
        self.tanh_constant, self.temperature = tanh_constant, temperature
        self.first = nn.Parameter(torch.empty(1, size))
        self.lstm = nn.LSTM(size, size, layers)
        self.embedding = nn.Embedding(len(OPERATIONS), size)
        self.head = nn.Linear(size, len(OPERATIONS))
        lstm = dict(self.lstm.named_parameters())
        embedded = (self.embedding.weight, self.head.weight)
        for weight in (self.first, lstm["weight_hh_l0"], lstm["weight_ih_l0"], *embedded):
            nn.init.uniform_(weight, -0.1, 0.1)

    def forward(
        self, decisions: Sequence[int] | None = None, *, greedy: bool = False
    ) -> tuple[tuple[int, ...], Tensor, Tensor]:
        """Return the operations of the six edges (given, greedy or sampled), their log-probability, and the entropy."""
        inputs: Tensor = self.first
        state = None
        chosen: list[int] = []
        log_p, entropy = self.first.new_zeros(()), self.first.new_zeros(())
        for edge in range(len(EDGES)):
            outputs, state = self.lstm(inputs, state)
            logits = self.tanh_constant * torch.tanh(self.head(outputs[0]) / self.temperature)
            logs = torch.log_softmax(logits, dim=0)
            if decisions is not None:
                chosen.append(decisions[edge])
            else:
                chosen.append(int(logs.argmax() if greedy else torch.multinomial(logs.exp(), 1)))
            log_p = log_p + logs[chosen[-1]]
            entropy = entropy - (logs.exp() * logs).sum()
            inputs = self.embedding.weight[chosen[-1]][None]
        return tuple(chosen), log_p, entropy


def baseline_of(before: float | None, accuracy: float, reward: float, decay: float) -> float:
    """Return the baseline b_i of a reward, from the mean b of the last epoch."""
    return accuracy if before is None else before - (1 - decay) * (before - reward)


class ENAS(WeightSharing):
    """ENAS. The controller runs on the CPU on every device, so that its samples are the same everywhere."""

    recipe_class: ClassVar[type[SupernetRecipe]] = ENASRecipe
    recipe: ENASRecipe

    def __init__(self, *args: Any, **options: Any) -> None:
        self.baseline: float | None = None
        super().__init__(*args, **options)

    def searched(self) -> list[nn.Parameter]:
        """See `WeightSharing`."""
        r = self.recipe
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._noise_seed)
            self.controller = Controller(r.lstm_size, r.lstm_layers, r.tanh_constant, r.temperature)
        return list(self.controller.parameters())

    def mixture(self, alphas: Tensor) -> Mixture:
        """See `WeightSharing`."""
        with torch.no_grad():
            decisions, _, _ = self.controller()
        return Mixture.single(decisions)

    def arch_gradient(self, train: Batch, valid: Batch) -> Tensor | None:
        """See `WeightSharing`; the controller learns after the epoch."""
        return None

    def end_epoch(self) -> None:
        """See `WeightSharing`."""
        r = self.recipe
        baselines = []
        batches = self._valid_batches()
        for _ in range(r.controller_steps):
            self.arch_optimizer.zero_grad()
            for batch in islice(batches, r.controller_samples):
                decisions, log_p, entropy = self.controller()
                accuracy = self.accuracy(decisions, batch)
                reward = accuracy + r.entropy * float(entropy.detach())
                baselines.append(baseline_of(self.baseline, accuracy, reward, r.baseline_decay))
                torch.autograd.backward(-log_p * (reward - baselines[-1]) / r.controller_samples)
            nn.utils.clip_grad_norm_(self.controller.parameters(), r.controller_clip)
            self.arch_optimizer.step()
        self.baseline = sum(baselines) / len(baselines)

    def estimate(self) -> float:
        """See `WeightSharing`; adds the time of one reward, times their number."""
        batch = next(self._valid_batches())
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            reward = second_time(lambda: self.accuracy(self.controller()[0], batch))
        r = self.recipe
        rewards = r.supernet_epochs * r.controller_steps * r.controller_samples + r.candidates
        return super().estimate() + reward * rewards

    def accuracy(self, decisions: Sequence[int], batch: Batch) -> float:
        """Return the accuracy of an architecture with the shared weights on a batch, as a fraction."""
        images, labels = batch
        self.network.eval()
        with torch.no_grad():
            logits = self.network(images, Mixture.single(decisions))
        self.network.train()
        return float((logits.argmax(1) == labels).double().mean())

    def _valid_batches(self) -> Iterator[Batch]:
        """Yield batches of the validation images in random order, endlessly."""
        while True:
            order = torch.randperm(len(self.valid), generator=self.generator)
            for index in torch.split(order, self.recipe.valid_batch):
                where = index.to(self.device)
                yield self.normalise(self.valid.images[where]), self.valid.labels[where]

    def result(self) -> tuple[int, ...]:
        """See `WeightSharing`."""
        best, winner = -1.0, (0,) * len(EDGES)
        with torch.no_grad():
            for batch in islice(self._valid_batches(), self.recipe.candidates):
                decisions, _, _ = self.controller()
                if (accuracy := self.accuracy(decisions, batch)) > best:
                    best, winner = accuracy, decisions
        return winner

    def standing(self) -> tuple[int, ...]:
        """See `WeightSharing`."""
        with torch.no_grad():
            decisions, _, _ = self.controller(greedy=True)
        return tuple(decisions)

    def extra_state(self) -> dict[str, Any]:
        """See `WeightSharing`."""
        return {"controller": self.controller.state_dict(), "baseline": self.baseline}

    def restore_extra(self, state: dict[str, Any]) -> None:
        """See `WeightSharing`."""
        self.controller.load_state_dict(state["controller"])
        self.baseline = state["baseline"]
