"""Output files of figures, and the look that their axes share."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from hnas.errors import HnasError, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SUFFIXES = (".png", ".pdf", ".svg")


def check_figure(path: Path, option: str = "--plot") -> None:
    """Raise `UsageError` unless `path`, given as `option`, has a supported suffix and its folder exists."""
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"{option} {path} must end in {', '.join(_SUFFIXES)}")
    if not path.parent.is_dir():
        raise UsageError(f"{option} {path} is in a folder that does not exist; create {path.parent} first")


def lighten(axes: Axes) -> None:
    """Draw a faint grid, and no frame on top and on the right."""
    axes.grid(color="0.92", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def save_figure(figure: Figure, path: Path) -> None:
    """Save `figure` to `path`. Raises `HnasError` if it cannot be written."""
    logging.getLogger("fontTools").setLevel(logging.ERROR)  # it warns about dates in matplotlib's own fonts
    try:
        figure.savefig(path, dpi=200)
    except OSError as error:
        raise HnasError(f"{path} cannot be written: {error.strerror or error}") from error
