"""The size limits of networks of the built-in spaces."""

from __future__ import annotations

from collections.abc import Mapping

from hnas.errors import UsageError

MOST = 4096


def check_sizes(network: str, sizes: Mapping[str, int], *, channels: int = 1) -> None:
    """Raise `UsageError` unless each of the `sizes` is from 1 to 4096, and the channels at least `channels`."""
    for what, value in sizes.items():
        least = channels if what == "channels" else 1
        if not least <= value <= MOST:
            raise UsageError(f"{what} of a {network} network must be between {least} and {MOST}, got {value}")
