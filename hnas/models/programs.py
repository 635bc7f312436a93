"""A classifier as a program that other runtimes run: torch's own exported program, and ONNX.

Both take RGB pixels `images`, uint8 (n, 3, S, S) for any n ≥ 1, and give `logits`, float32 (n, classes). The
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
    """The file of `torch.export` for images of `size` pixels, with `metadata` as its extra file `model.json`.

    `torch.export.load(path).module()` runs it where only torch is installed.
    """
    images, options = _example(classifier, size)
    file = BytesIO()
    with _quiet():
        program = torch.export.export(classifier.eval(), (images,), **options)
        torch.export.save(program, file, extra_files={"model.json": metadata})
    return file.getvalue()


def onnx_program(classifier: Classifier, size: int, metadata: Mapping[str, str]) -> bytes:
    """The ONNX model for images of `size` pixels, with `metadata` as its metadata properties.

    Raises `HnasError` where the packages that torch writes ONNX with are not installed.
    """
    images, options = _example(classifier, size)
    try:
        import onnxscript  # noqa: F401 - torch says it in words of its own

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
        raise HnasError(f"{error.name}, which ONNX needs, is not installed: pip install 'hnas[onnx]'") from error
    program.model.metadata_props.update(metadata)
    content: bytes = program.model_proto.SerializeToString()
    return content


def _example(classifier: Classifier, size: int) -> tuple[Tensor, dict[str, Any]]:
    # Two images: a dimension of one would be taken for a constant.
    images = torch.zeros(2, 3, size, size, dtype=torch.uint8, device=classifier.channel_mean.device)
    return images, {"dynamic_shapes": {"images": {0: torch.export.Dim("n", min=1)}}}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says of packages that it does not need here, and of its own functions that will change."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
