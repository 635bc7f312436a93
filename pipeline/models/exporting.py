"""Exports a saved model for another runtime."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

from hnas.errors import HnasError, UsageError
from hnas.models.programs import onnx_program, torch_program
from hnas.pipeline.io.aside import write_file
from hnas.pipeline.io.printable import printable
from hnas.pipeline.models.folder import RECORD, WEIGHTS
from hnas.pipeline.models.loading import load

Format = Literal["pt2", "onnx"]
FORMATS: tuple[Format, ...] = ("pt2", "onnx")


def export(folder: str | os.PathLike[str], format: Format | None = None, output: Path | None = None) -> Path:  # noqa: A002
    """Write the model in `folder` as `format` to `output`, by default next to the folder, and return its path.

    The format defaults to the suffix of `output`, then to `pt2`. Raises the errors of `load`; `UsageError` for an
    `output` that contradicts the format or cannot be a file; and `HnasError` if it cannot be written, or packages for
    ONNX are missing.
    """
    suffix_format = next((name for name in FORMATS if output is not None and output.suffix.lower() == f".{name}"), None)
    if format is not None and suffix_format not in (None, format):
        raise UsageError(f"--output {output} ends in .{suffix_format}, but --format is {format}; drop one of the two")
    chosen = format or suffix_format or "pt2"
    if output is None:
        place = Path(folder) if Path(folder).name not in ("", "..") else Path(folder).resolve()
        output = place.with_name(f"{place.name}.{chosen}")
    if output.is_dir() or not output.parent.is_dir():
        raise UsageError(f"{printable(output)} cannot be a file: its folder must exist, and it must not be a folder")
    if output.resolve() in [Path(folder).resolve() / name for name in (RECORD, WEIGHTS)]:
        raise UsageError(f"{printable(output)} is part of the model; name another file")
    model = load(folder)
    info = model.info
    metadata = {
        "space": info.space, "arch": info.arch, "classes": json.dumps(info.classes), "image_size": str(info.image_size),
        "input": "images: uint8 (n, 3, S, S), RGB, channels first, 0 to 255; the program normalises them itself",
        "output": "logits: float32 (n, classes), not yet probabilities",
        "provenance": json.dumps(dict(info.provenance)), "accuracies": json.dumps(dict(info.accuracies)),
    }  # fmt: skip
    if chosen == "onnx":
        content = onnx_program(model, info.image_size, metadata)
    else:
        content = torch_program(model, info.image_size, json.dumps(metadata, indent=2))
    try:
        write_file(output, lambda path: path.write_bytes(content))
    except OSError as error:
        raise HnasError(f"{printable(output)} cannot be written: {error.strerror}") from error
    return output
