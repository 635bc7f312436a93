"""Evaluations of what a search asked for: what is asked and answered, and how several are made at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from hnas.errors import HnasError
from hnas.optim.methods.protocol import Proposal


class Evaluation(NamedTuple):
    """The performance of an architecture in percent, and the seconds that a budget is charged for it: else its time.

    `output` and `exit_status` are how a program ended that evaluated it, to be kept beside the query.
    """

    performance: float
    cost: float | None = None
    output: str | None = None
    exit_status: int | None = None


class EvaluationError(HnasError):
    """An evaluation that failed, which costs the query and not the search; see `Evaluation` for what it carries."""

    def __init__(
        self, sentence: str, cost: float | None = None, output: str | None = None, exit_status: int | None = None
    ) -> None:
        super().__init__(sentence)
        self.cost, self.output, self.exit_status = cost, output, exit_status


class Oracle(Protocol):
    """The true performance of an architecture, higher is better: a table, or a training."""

    def __call__(self, arch: str, epochs: int | None = None, /) -> float | Evaluation:
        """The validation performance of `arch` in percent, after `epochs` where a method asks for another number.

        Without a cost the time of the call is charged. Raises `EvaluationError` where this evaluation failed, which
        costs the query; any other error ends the search.
        """
        ...


@runtime_checkable
class Continuing(Protocol):
    """An oracle that can stop a training on the way, and go on with it."""

    def continued(self, arch: str, since: int, epochs: int) -> Evaluation:
        """The performance of `arch` after `epochs` of the longest training, and the cost of those from `since` on."""
        ...


@dataclass(frozen=True)
class Query:
    """One step of a search. `query` counts from 1, in the order of the answers.

    `cost` is what the budget is charged: for the evaluation, and what the `Proposal` says of the method's own work.
    `seconds` is the oracle's wall time, `own_seconds` the method's. `epochs`, `mu`, `nu` and `objective` are those of
    the `Proposal`. `failure` says why an evaluation failed, whose performance is NaN; `output` and `exit_status` are
    those of the `Evaluation`. `asked` is the number of the question that it answers, `asks` that
    of all questions before the answer: with one evaluation at a time both are `query`. `elapsed` are the seconds from
    the beginning of the search to the answer, by the costs of what was evaluated before and at the same time.
    """

    query: int
    arch: str
    performance: float
    cost: float
    seconds: float
    own_seconds: float
    epochs: int | None = None
    mu: float | None = None
    nu: float | None = None
    objective: float | None = None
    failure: str | None = None
    output: str | None = None
    exit_status: int | None = None
    asked: int | None = None
    asks: int | None = None
    elapsed: float | None = None


class Asked(NamedTuple):
    """A proposal that is pending: the `number` of the question, from 1, and the search's seconds when it `begun`."""

    proposal: Proposal
    number: int
    begun: float
    own_seconds: float

    def end(self, cost: float) -> float:
        """The search's seconds when an evaluation ends that takes `cost` seconds."""
        return self.begun + (0.0 if self.proposal.final else cost)


#: What was asked for, and the answer as `Search.tell` takes it.
Ended = tuple[Asked, dict[str, Any]]


class Simulated:
    """Evaluations made here and at once, which end in the order in which they would have ended side by side."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._made: list[Ended] = []

    def __enter__(self) -> Simulated:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin(self, asked: Asked) -> None:
        """Evaluate what was asked for. Raises what the oracle raises."""
        self._made.append((asked, evaluate(self._oracle, asked.proposal)))

    def ended(self) -> list[Ended]:
        """The evaluation that ends first: of equal ones that which was asked for first."""
        first = min(self._made, key=lambda made: (made[0].end(made[1]["cost"]), made[0].number))
        self._made.remove(first)
        return [first]


class Submitted:
    """Evaluations that `executor` makes."""

    def __init__(self, oracle: Oracle, executor: Executor) -> None:
        self._oracle, self._executor = oracle, executor
        self._running: dict[Future[dict[str, Any]], Asked] = {}

    def __enter__(self) -> Submitted:
        return self

    def __exit__(self, *_: object) -> None:
        for future in self._running:
            future.cancel()

    def begin(self, asked: Asked) -> None:
        """Have what was asked for evaluated."""
        self._running[self._executor.submit(evaluate, self._oracle, asked.proposal)] = asked

    def ended(self) -> Iterator[Ended]:
        """The evaluations that ended meanwhile, one at least. Raises what the oracle raises."""
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        for future in sorted(done, key=lambda future: self._running[future].number):
            yield self._running.pop(future), future.result()


def evaluate(oracle: Oracle, proposal: Proposal) -> dict[str, Any]:
    """The evaluation of `proposal`, failed or not, as `Search.tell` takes it."""
    asked = time.perf_counter()
    found: dict[str, Any]
    try:
        if proposal.epochs is None:
            answer = oracle(proposal.arch)
        elif proposal.since is None or not isinstance(oracle, Continuing):
            answer = oracle(proposal.arch, proposal.epochs)
        else:
            answer = oracle.continued(proposal.arch, proposal.since, proposal.epochs)
        found = answer._asdict() if isinstance(answer, Evaluation) else {"performance": answer, "cost": None}
    except EvaluationError as error:
        found = {"performance": math.nan, "failure": str(error), "cost": error.cost, "output": error.output}
        found["exit_status"] = error.exit_status
    seconds = time.perf_counter() - asked
    cost = seconds if found["cost"] is None else float(found["cost"])
    return {**found, "performance": float(found["performance"]), "cost": cost, "seconds": seconds}
