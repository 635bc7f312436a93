"""The sizes of networks that the built-in spaces build."""

from __future__ import annotations

from collections.abc import Mapping

from hnas.errors import UsageError

MOST = 4096


def check_sizes(network: str, sizes: Mapping[str, int], *, channels: int = 1) -> None:
    """Raise `UsageError` unless each of the `sizes` is from 1 to 4096, that of the channels at least `channels`."""
    for what, value in sizes.items():
        least = channels if what == "channels" else 1
        if not least <= value <= MOST:
            raise UsageError(f"a {network} network with {value} {what} cannot be built; {least} to {MOST} can")
