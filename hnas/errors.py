"""The one exception that hnas raises for anything a user can put right."""

from __future__ import annotations


class HnasError(Exception):
    """Bad input or a failed job, told in one sentence: what was wrong, where, and what would be right.

    The command line prints the sentence without a traceback and exits with `exit_code`:
    1 where the job failed, 2 where the request itself was wrong (`UsageError`).
    """

    exit_code = 1


class UsageError(HnasError):
    """A request that can never work as it stands: a malformed architecture, an impossible size, an unknown name."""

    exit_code = 2


def check_seed(seed: int, option: str = "--seed") -> None:
    """Raise `UsageError`, which names the `option`, unless 0 ≤ seed < 2⁶³."""
    if not 0 <= seed < 2**63:
        raise UsageError(f"{option} {seed} cannot be; give a number from 0 to 2**63 - 1")


def lacks_memory(error: BaseException) -> bool:
    """Whether `error` says that memory was refused: Python's, or torch's of the CPU's allocator or of a GPU's."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )
