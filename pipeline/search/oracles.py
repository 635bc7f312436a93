"""User-defined oracles for command lines and programs: commands, installed packages, Python functions.

Nothing in a store ever runs. A saved search records what evaluated it, and resumes only if the user gives the same.
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

# Prefix of a Python function's name in the settings of a search.
_FUNCTION = "function: "


def own_oracle(
    oracle: str, options: Sequence[str] = (), *, timeout: float | None = None, epochs: int | None = None
) -> OwnOracle | None:
    """Return the settings of the oracle given on a command line; None for `table` and `train`.

    `options` are texts such as `samples=3`. Raises `UsageError` for an unknown oracle, an invalid command, and options
    that the oracle does not take.
    """
    command = oracle.startswith(PREFIX)
    if options and (command or oracle in BUILT_IN):
        raise UsageError(f"--oracle-option {options[0]!r:.100} requires an installed oracle, not {oracle:.100}")
    if timeout is not None and not command:
        raise UsageError(f"--oracle-timeout requires a command, not --oracle {oracle!r:.100}")
    if timeout is not None and not 0 < timeout < math.inf:
        raise UsageError(f"--oracle-timeout must be a positive number of seconds, got {timeout:g}")
    if oracle in BUILT_IN:
        return None
    if command:
        takes = "epochs" in placeholders(parse_command(oracle))
        if takes and epochs is None:
            raise UsageError("the command contains {epochs}; give their number with --epochs")
        if epochs is not None and not takes:
            raise UsageError("the command does not contain {epochs}, so --epochs would have no effect")
    else:
        oracles[oracle]
    if epochs is not None and epochs < 1:
        raise UsageError(f"--epochs must be at least 1, got {epochs}")
    return OwnOracle(options=assignments(options, "--oracle-option", "samples=3"), timeout=timeout, epochs=epochs)


def open_oracle(settings: SearchSettings) -> Oracle:
    """Return the user-defined oracle in `settings`, which must come from a command line and never from a store."""
    own = settings.own
    assert own is not None
    context: dict[str, Any] = {"epochs": own.epochs, "seed": settings.seed, "dataset": settings.dataset}
    if not settings.oracle.startswith(PREFIX):
        return installed_oracle(settings.oracle, own.options, **context)
    values = {name: str(value) for name, value in context.items() if value is not None}
    return CommandOracle(parse_command(settings.oracle), values, own.timeout)


def confirmed_oracle(settings: SearchSettings, oracle: str, own: OwnOracle | None) -> Oracle | None:
    """Return the oracle of a search if the command line confirms it by `oracle` and `own`; None for a built-in one.

    Raises `UsageError` if the settings, which may come from a store, name another one.
    """
    if settings.own is None and own is None:
        if oracle not in ("table", settings.oracle):  # `table` is the default
            raise refused(settings)
        return None
    saved = settings.own
    if saved is None or own is None or settings.oracle != oracle or replace(saved, timeout=own.timeout) != own:
        raise refused(settings)
    return open_oracle(replace(settings, own=replace(own, timeout=own.timeout or saved.timeout)))


def refused(settings: SearchSettings) -> UsageError:
    """Return the error for a search that was evaluated by another oracle."""
    if settings.own is None:
        return UsageError(f"this search resumes with --oracle {settings.oracle}, as it was begun; leave out --oracle")
    if settings.oracle.startswith(_FUNCTION):
        again = f"resume it from Python, by hnas.search_store and {settings.oracle.removeprefix(_FUNCTION)}"
    else:
        options = "".join(f" --oracle-option {shlex.quote(f'{k}={v}')}" for k, v in settings.own.options.items())
        epochs = "" if settings.own.epochs is None else f" --epochs {settings.own.epochs}"
        again = f"if you trust it, give it again: --oracle {shlex.quote(settings.oracle)}{options}{epochs}"
    return UsageError(f"the oracle of this search does not run because a store says so; {printable(again)}")


def function_oracle(function: Callable[..., Any], epochs: int | None) -> tuple[str, OwnOracle]:
    """Return the oracle text and settings for a Python function. Raises `UsageError` for `epochs` below 1."""
    if epochs is not None and not (isinstance(epochs, int) and epochs >= 1):
        raise UsageError(f"epochs must be an integer of at least 1, got {epochs!r:.100}")
    return f"{_FUNCTION}{name_of(function)}", OwnOracle(epochs=epochs)


def open_function(function: Callable[..., Any], settings: SearchSettings) -> PythonOracle:
    """Return `function` as the oracle of a search. Raises `UsageError` if the settings name another one."""
    text, _ = function_oracle(function, None)
    if settings.own is None or settings.oracle != text:
        raise UsageError(f"the search was evaluated by {settings.oracle!r:.300}, not {text!r}; start a new search")
    return PythonOracle(function, epochs=settings.own.epochs, seed=settings.seed, dataset=settings.dataset)
