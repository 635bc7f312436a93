"""Oracles of one's own, as command lines and programs name them: commands, installed packages, Python functions.

Nothing that lies in a store runs. A saved search says what evaluated it, and goes on where the same is given again.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hnas.errors import UsageError
from hnas.optim.algorithm import Oracle
from hnas.optim.oracles import PythonOracle, installed_oracle, name_of, oracles
from hnas.pipeline.io.printable import printable
from hnas.pipeline.search.commands import PREFIX, CommandOracle, parse_command, placeholders
from hnas.pipeline.search.settings import BUILT_IN, OwnOracle, SearchSettings, assignments

# How the settings of a search name a Python function that a program gave.
_FUNCTION = "function: "


def own_oracle(
    oracle: str, options: Sequence[str] = (), *, timeout: float | None = None, epochs: int | None = None
) -> OwnOracle | None:
    """The settings of the oracle that a command line names; None for `table` and `train`.

    `options` are texts such as `samples=3`. Raises `UsageError` for an unknown oracle, a command that is none, and what
    the oracle does not take.
    """
    command = oracle.startswith(PREFIX)
    if options and (command or oracle in BUILT_IN):
        raise UsageError(f"--oracle-option {options[0]!r:.100} belongs to an installed oracle, not to {oracle:.100}")
    if timeout is not None and not command:
        raise UsageError(f"--oracle-timeout belongs to a command, not to --oracle {oracle!r:.100}")
    if timeout is not None and not 0 < timeout < math.inf:
        raise UsageError(f"--oracle-timeout {timeout:g} cannot be; give a positive number of seconds")
    if oracle in BUILT_IN:
        return None
    if command:
        takes = "epochs" in placeholders(parse_command(oracle))
        if takes and epochs is None:
            raise UsageError("the command has {epochs}; say how many with --epochs")
        if epochs is not None and not takes:
            raise UsageError("the command has no {epochs}, so --epochs would change nothing")
    else:
        oracles[oracle]
    if epochs is not None and epochs < 1:
        raise UsageError(f"--epochs {epochs} cannot be; 1 is the least")
    return OwnOracle(options=assignments(options, "--oracle-option", "samples=3"), timeout=timeout, epochs=epochs)


def open_oracle(settings: SearchSettings) -> Oracle:
    """The oracle of one's own that `settings` name, which must come from a command line and never from a store."""
    own = settings.own
    assert own is not None
    context: dict[str, Any] = {"epochs": own.epochs, "seed": settings.seed, "dataset": settings.dataset}
    if not settings.oracle.startswith(PREFIX):
        return installed_oracle(settings.oracle, own.options, **context)
    values = {name: str(value) for name, value in context.items() if value is not None}
    return CommandOracle(parse_command(settings.oracle), values, own.timeout)


def confirmed_oracle(settings: SearchSettings, oracle: str, own: OwnOracle | None) -> Oracle | None:
    """The oracle of a search where the command line names it, `oracle` and `own`; None where it is built in.

    Raises `UsageError` where the settings, which may be a store's, name another one.
    """
    if settings.own is None and own is None:
        if oracle not in ("table", settings.oracle):  # the first is what it is where none is given
            raise refused(settings)
        return None
    saved = settings.own
    if saved is None or own is None or settings.oracle != oracle or replace(saved, timeout=own.timeout) != own:
        raise refused(settings)
    return open_oracle(replace(settings, own=replace(own, timeout=own.timeout or saved.timeout)))


def refused(settings: SearchSettings) -> UsageError:
    """The error for a search that was evaluated otherwise than now."""
    if settings.own is None:
        return UsageError(f"this search goes on with --oracle {settings.oracle}, as it was begun; leave out --oracle")
    if settings.oracle.startswith(_FUNCTION):
        again = f"go on with it from Python, by hnas.search_store and {settings.oracle.removeprefix(_FUNCTION)}"
    else:
        options = "".join(f" --oracle-option {shlex.quote(f'{k}={v}')}" for k, v in settings.own.options.items())
        epochs = "" if settings.own.epochs is None else f" --epochs {settings.own.epochs}"
        again = f"where you trust it, give it again: --oracle {shlex.quote(settings.oracle)}{options}{epochs}"
    return UsageError(f"what evaluated this search does not run because a store says so; {printable(again)}")


def function_oracle(function: Callable[..., Any], epochs: int | None) -> tuple[str, OwnOracle]:
    """How the settings of a search name a function that a program gave. Raises `UsageError` for `epochs` below 1."""
    if epochs is not None and not (isinstance(epochs, int) and epochs >= 1):
        raise UsageError(f"epochs is {epochs!r:.100}; give a whole number from 1")
    return f"{_FUNCTION}{name_of(function)}", OwnOracle(epochs=epochs)


def open_function(function: Callable[..., Any], settings: SearchSettings) -> PythonOracle:
    """`function` as the oracle of a search. Raises `UsageError` where its settings name another one."""
    text, _ = function_oracle(function, None)
    if settings.own is None or settings.oracle != text:
        raise UsageError(f"the search was evaluated by {settings.oracle!r:.300}, this is {text!r}; start a new search")
    return PythonOracle(function, epochs=settings.own.epochs, seed=settings.seed, dataset=settings.dataset)
