"""The one exception that hnas raises for anything a user can put right."""

from __future__ import annotations

from collections.abc import Iterable


class HnasError(Exception):
    """Bad input or a failed job, told in one sentence: what was wrong, where, and what would be right.

    The command line prints the sentence without a traceback and exits with `exit_code`:
    1 where the job failed, 2 where the request itself was wrong (`UsageError`).
    """

    exit_code = 1


class UsageError(HnasError):
    """A request that can never work as it stands: a malformed architecture, an impossible size, an unknown name."""

    exit_code = 2


def check_seed(seed: int, name: str = "seed") -> None:
    """Raise `UsageError`, which calls the number by `name`, unless 0 ≤ seed < 2⁶³."""
    if not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise UsageError(f"{name} {seed!r:.100} cannot be; give a whole number from 0 to 2**63 - 1")


def lacks_memory(error: BaseException) -> bool:
    """Whether `error` says that memory was refused: Python's, or torch's of the CPU's allocator or of a GPU's."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


def closest(name: str, known: Iterable[str]) -> list[str]:
    """The names among `known` that somebody who typed `name` probably meant, best first, at most three.

    Upper and lower case are the same. An abbreviation of three letters or more counts as a misspelling.
    """
    from difflib import get_close_matches

    names = list(dict.fromkeys(known))
    by_lower: dict[str, list[str]] = {}
    for other in names:
        by_lower.setdefault(other.lower(), []).append(other)
    typed = name.lower()
    found = get_close_matches(typed, by_lower, n=3, cutoff=0.65)
    if len(typed) >= 3:
        found += [other for other in by_lower if other.startswith(typed) and other not in found]
    return [other for lower in found for other in by_lower[lower] if other != name][:3]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'trace'?`, to end a sentence about an unknown `name`; empty where nothing known is close."""
    found = closest(name, known)
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else ""


def unknown(what: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a `name` that is none of those `known`: `the metric 'trac' is unknown; choose from …`."""
    names = list(known)
    return UsageError(f"{what} {name!r} is unknown; choose from {', '.join(names)}{did_you_mean(name, names)}")
