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


def check_seed(seed: int) -> None:
    """Raise `UsageError` unless 0 ≤ seed < 2⁶³."""
    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed {seed} cannot be; give a number from 0 to 2**63 - 1")
