"""Evaluations: proposals and answers, and how several run at a time."""

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
    """The performance of an architecture in percent, and the cost in seconds to charge, by default the wall time.

    `output` and `exit_status` tell how an external program ended; they are saved with the query.
    """

    performance: float
    cost: float | None = None
    output: str | None = None
    exit_status: int | None = None


class EvaluationError(HnasError):
    """A failed evaluation, which costs the query but does not end the search. For the attributes see `Evaluation`."""

    def __init__(
        self, sentence: str, cost: float | None = None, output: str | None = None, exit_status: int | None = None
    ) -> None:
        super().__init__(sentence)
        self.cost, self.output, self.exit_status = cost, output, exit_status


class Oracle(Protocol):
    """The true performance of an architecture, higher is better: a table, or a training."""

    def __call__(self, arch: str, epochs: int | None = None, /) -> float | Evaluation:
        """Return the validation performance of `arch` in percent, after `epochs` if a method asks for a certain number.

        Without a cost, the wall time of the call is charged. Raises `EvaluationError` where this evaluation failed,
        which costs the query; any other error ends the search.
        """
        ...


@runtime_checkable
class Continuing(Protocol):
    """An oracle that can stop a training early and continue it later."""

    def continued(self, arch: str, since: int, epochs: int) -> Evaluation:
        """Return the performance of `arch` after `epochs` of the longest training, and the cost since epoch `since`."""
        ...


@dataclass(frozen=True)
class Query:
    """One step of a search. `query` counts from 1, in the order of the answers.

    `cost` is what the budget is charged: the evaluation, plus the method's own work according to the `Proposal`.
    `seconds` is the oracle's wall time, `own_seconds` the method's. `epochs`, `mu`, `nu` and `objective` are those of
    the `Proposal`. `failure` says why an evaluation failed, and the performance is then NaN; `output` and `exit_status`
    are those of the `Evaluation`. `asked` is the number of the call of `ask` that it answers, `asks` the number of all
    calls before the answer; with one evaluation at a time both equal `query`. `elapsed` are the seconds from the start
    of the search to the answer, by the costs of all evaluations before and concurrently.
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
    """A pending proposal: the `number` of its call of `ask`, from 1, and the search's clock when it `begun`."""

    proposal: Proposal
    number: int
    begun: float
    own_seconds: float

    def end(self, cost: float) -> float:
        """Return the search's clock at the end of an evaluation that takes `cost` seconds."""
        return self.begun + (0.0 if self.proposal.final else cost)


#: A pending proposal, and its answer as keyword arguments of `Search.tell`.
Ended = tuple[Asked, dict[str, Any]]


class Simulated:
    """Evaluations that run here and now, but end in the order in which they would have ended concurrently."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._made: list[Ended] = []

    def __enter__(self) -> Simulated:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin(self, asked: Asked) -> None:
        """Evaluate a pending proposal. Raises what the oracle raises."""
        self._made.append((asked, evaluate(self._oracle, asked.proposal)))

    def ended(self) -> list[Ended]:
        """Return the evaluation that ends first; of equal ones, the one asked for first."""
        first = min(self._made, key=lambda made: (made[0].end(made[1]["cost"]), made[0].number))
        self._made.remove(first)
        return [first]


class Submitted:
    """Evaluations that run in an `executor`."""

    def __init__(self, oracle: Oracle, executor: Executor) -> None:
        self._oracle, self._executor = oracle, executor
        self._running: dict[Future[dict[str, Any]], Asked] = {}

    def __enter__(self) -> Submitted:
        return self

    def __exit__(self, *_: object) -> None:
        for future in self._running:
            future.cancel()

    def begin(self, asked: Asked) -> None:
        """Submit a pending proposal for evaluation."""
        self._running[self._executor.submit(evaluate, self._oracle, asked.proposal)] = asked

    def ended(self) -> Iterator[Ended]:
        """Yield the evaluations that have ended, waiting for at least one. Raises what the oracle raises."""
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        for future in sorted(done, key=lambda future: self._running[future].number):
            yield self._running.pop(future), future.result()


def evaluate(oracle: Oracle, proposal: Proposal) -> dict[str, Any]:
    """Evaluate `proposal` and return the answer, failed or not, as keyword arguments of `Search.tell`."""
    begun = time.perf_counter()
    result: dict[str, Any]
    try:
        if proposal.epochs is None:
            answer = oracle(proposal.arch)
        elif proposal.since is None or not isinstance(oracle, Continuing):
            answer = oracle(proposal.arch, proposal.epochs)
        else:
            answer = oracle.continued(proposal.arch, proposal.since, proposal.epochs)
        result = answer._asdict() if isinstance(answer, Evaluation) else {"performance": answer, "cost": None}
    except EvaluationError as error:
        result = {"performance": math.nan, "failure": str(error), "cost": error.cost, "output": error.output}
        result["exit_status"] = error.exit_status
    seconds = time.perf_counter() - begun
    cost = seconds if result["cost"] is None else float(result["cost"])
    return {**result, "performance": float(result["performance"]), "cost": cost, "seconds": seconds}
