"""Export of classifiers for other runtimes: torch's exported program, and ONNX.

Both take RGB pixels `images`, uint8 (n, 3, S, S) for any n ≥ 1, and return `logits`, float32 (n, classes). The
normalisation is part of the program.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import torch
from torch import Tensor

from hnas.errors import HnasError
from hnas.models.classifier import Classifier


def torch_program(classifier: Classifier, size: int, metadata: str) -> bytes:
    """Return a `torch.export` file for images of `size` pixels, with `metadata` as its extra file `model.json`.

    `torch.export.load(path).module()` runs it where only torch is installed.
    """
    images, options = _example(classifier, size)
    file = BytesIO()
    with _quiet():
        program = torch.export.export(classifier.eval(), (images,), **options)
        torch.export.save(program, file, extra_files={"model.json": metadata})
    return file.getvalue()


def onnx_program(classifier: Classifier, size: int, metadata: Mapping[str, str]) -> bytes:
    """Return an ONNX model for images of `size` pixels, with `metadata` as its metadata properties.

    Raises `HnasError` where the packages that torch needs to write ONNX are missing.
    """
    images, options = _example(classifier, size)
    try:
        import onnxscript  # noqa: F401 - torch's own message would not name our extra

        with _quiet():
            program: Any = torch.onnx.export(
                classifier.eval(),
                (images,),
                dynamo=True,
                input_names=["images"],
                output_names=["logits"],
                verbose=False,
                **options,
            )
    except ImportError as error:
        raise HnasError(f"ONNX needs {error.name}, which is not installed; pip install 'hnas[onnx]'") from error
    program.model.metadata_props.update(metadata)
    content: bytes = program.model_proto.SerializeToString()
    return content


def _example(classifier: Classifier, size: int) -> tuple[Tensor, dict[str, Any]]:
    # Two images, because the exporter treats a dimension of size one as a constant.
    images = torch.zeros(2, 3, size, size, dtype=torch.uint8, device=classifier.channel_mean.device)
    return images, {"dynamic_shapes": {"images": {0: torch.export.Dim("n", min=1)}}}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's warnings about optional packages and about its own deprecations."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
