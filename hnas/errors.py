"""The exceptions that hnas raises for anything a user can fix, and helpers for their messages."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import SupportsIndex


class HnasError(Exception):
    """Bad input or a failed job. The message is one sentence: what was wrong, where, and what would be right.

    The command line prints the message without a traceback and exits with `exit_code`: 1 where the job failed, 2 where
    the request itself was wrong (`UsageError`).
    """

    exit_code = 1


class UsageError(HnasError):
    """A request that can never succeed: a malformed architecture, an impossible size, an unknown name."""

    exit_code = 2


def check_seed(seed: SupportsIndex, name: str = "seed") -> int:
    """Return `seed` as an int.

    Raises `UsageError`, which names the parameter `name`, unless `seed` is an integer of Python or NumPy with 0 ≤ seed
    < 2⁶³.
    """
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if not 0 <= number < 2**63:
        raise UsageError(f"{name} must be a whole number between 0 and 2**63 - 1, got {seed!r:.100}")
    return number


def lacks_memory(error: BaseException) -> bool:
    """Whether `error` reports failed memory allocation: by Python, or by torch on the CPU or a GPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


def closest(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three of the `known` names that somebody who typed `name` probably meant, best first.

    Case does not matter. An abbreviation of three letters or more counts as a misspelling.
    """
    from difflib import get_close_matches

    names = list(dict.fromkeys(known))
    by_lower: dict[str, list[str]] = {}
    for other in names:
        by_lower.setdefault(other.lower(), []).append(other)
    typed = name.lower()
    matches = get_close_matches(typed, by_lower, n=3, cutoff=0.65)
    if len(typed) >= 3:
        matches += [other for other in by_lower if other.startswith(typed) and other not in matches]
    return [other for lower in matches for other in by_lower[lower] if other != name][:3]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'trace'?`, to end a message about an unknown `name`; empty where no name is close."""
    matches = closest(name, known)
    return f"; did you mean {' or '.join(map(repr, matches))}?" if matches else ""


def unknown(what: str, name: str, known: Iterable[str]) -> UsageError:
    """Return the error for a `name` that is not in `known`: `the metric 'trac' is unknown; choose from …`."""
    names = list(known)
    return UsageError(f"{what} {name!r} is unknown; choose from {', '.join(names)}{did_you_mean(name, names)}")
