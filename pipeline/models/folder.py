"""A model folder: `weights.safetensors`, which holds only tensors and no code, and `model.json` with everything else.

`model.json` has a checksum of itself and the SHA-256 of the weights, so damage is detected before anything is loaded.
Its members are those of `ModelInfo`, plus `format`, `version`, and `weights`: the size and digest of the other file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hnas import __version__
from hnas.errors import HnasError, UsageError
from hnas.pipeline.io.aside import write_folder
from hnas.pipeline.io.checksums import DamagedError, opened_json, sealed_json
from hnas.pipeline.io.input_files import regular_file
from hnas.pipeline.io.printable import printable
from hnas.pipeline.models.networks import networks, same_function
from hnas.spaces import definition_of, key_of, search_spaces

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS, RECORD = "weights.safetensors", "model.json"
FORMAT, VERSION = "hnas model", 1
_MOST_BYTES = 2**28  # of model.json
_LARGEST_SIDE = 1024  # as for data sets


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """Everything about a trained network except its weights.

    `definition` is an encoding of `arch` that needs no table, `network` the kind of network (see
    `hnas.pipeline.models.networks`). `mean` and `std` are per channel in units of pixel / 255, `image_size` is the side
    of the images in pixels. `recipe`, `accuracies` (percent) and `provenance` are dictionaries; `curve` has one record
    per epoch.
    """

    space: str
    arch: str
    definition: str
    network: str
    channels: int
    cells: int
    classes: tuple[str, ...]
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    recipe: Mapping[str, Any]
    accuracies: Mapping[str, float | None]
    curve: tuple[Mapping[str, Any], ...]
    provenance: Mapping[str, Any]


def check_model_folder(folder: str | os.PathLike[str]) -> None:
    """Raise `UsageError` unless `folder` can hold a model: its parent exists, and it is new, empty or only a model."""
    place = _place(folder)
    if not place.parent.is_dir():
        raise UsageError(f"the model {printable(place)} is in a folder that does not exist; create its parent first")
    files = {file.name for file in place.iterdir()} if place.is_dir() else set()
    if place.exists() and not (place.is_dir() and (not files or (place / RECORD).is_file())):
        raise UsageError(f"{printable(place)} exists and is not an hnas model; name a new folder, or remove it")
    if not files:
        return
    # The folder is replaced as a whole, which must not delete any other file.
    if others := sorted(files - {RECORD, WEIGHTS}):
        raise UsageError(
            f"{printable(place / others[0])} is not part of a model; move it elsewhere before its folder is replaced"
        )
    try:
        read_info(place)
    except UsageError:
        raise
    except HnasError:  # a damaged model is replaced as well
        pass


def save_model(
    folder: str | os.PathLike[str],
    network: nn.Module,
    *,
    space: str,
    arch: str,
    channels: int,
    cells: int,
    classes: Sequence[str],
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    recipe: Mapping[str, Any],
    accuracies: Mapping[str, float | None],
    curve: Sequence[Mapping[str, Any]],
    provenance: Mapping[str, Any],
) -> ModelInfo:
    """Write the model folder `folder` atomically and return the content of `model.json`.

    An existing model is replaced. The versions of hnas and torch and the date are added to `provenance`; non-finite
    numbers become null. `network`, in any mode and on any device, must be one that the installed space `space` builds
    for `arch` at this size. Before anything is written, it is rebuilt as float32 and compared.

    Raises `UsageError` in the cases of `check_model_folder`, and for an unknown space, a malformed `arch`, another
    network, or invalid settings; `HnasError` if the folder cannot be written.
    """
    import torch
    from safetensors.torch import save

    check_model_folder(folder)
    chosen = search_spaces[space]
    definition = definition_of(chosen, arch)
    network = deepcopy(network).cpu().float()
    kinds = networks(chosen, definition, classes=len(classes), channels=channels, cells=cells)
    kind = next((name for name, build in kinds if same_function(build, network, image_size)), None)
    if kind is None:
        raise UsageError(
            f"the network to save is not {arch} of {space} with {channels} channels, {cells} cells and "
            f"{len(classes)} classes; give the size that the network was built with"
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    weights = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    record: dict[str, Any] = {
        "format": FORMAT, "version": VERSION, "space": space, "arch": key_of(chosen, arch), "definition": definition,
        "network": kind, "channels": channels, "cells": cells, "classes": list(classes), "image_size": image_size,
        "mean": list(mean), "std": list(std), "recipe": recipe, "accuracies": accuracies, "curve": list(curve),
        "provenance": {"hnas": __version__, "torch": str(torch.__version__), "date": now, **provenance},
        "weights": {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()},
    }  # fmt: skip
    record = _json(record)
    try:
        info = _parsed(record)[0]
    except DamagedError as error:
        raise UsageError(f"the model cannot be saved: {error}") from error
    text = json.dumps(sealed_json(record), indent=2) + "\n"
    place = _place(folder)
    try:
        write_folder(place, {WEIGHTS: weights, RECORD: text.encode()})
    except OSError as error:
        advice = "free some space, or name another folder" if error.errno == errno.ENOSPC else "name another folder"
        raise HnasError(f"the model {printable(place)} cannot be written ({error.strerror}): {advice}") from error
    return info


def read_model(folder: str | os.PathLike[str]) -> tuple[ModelInfo, dict[str, Tensor]]:
    """Return the content of `model.json` and the weights, both checked against their digests. Runs nothing.

    Raises `UsageError` if the folder is missing or is not a model's, and `HnasError` if a file is missing, damaged, or
    of a newer version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    place = _place(folder)
    info, size, digest = _read_record(_existing(folder) / RECORD)
    path = place / WEIGHTS
    regular_file(path, "a file of weights")
    content = path.read_bytes() if path.is_file() and path.stat().st_size == size else b""
    if len(content) != size or hashlib.sha256(content).hexdigest() != digest:
        raise _damaged(path, "it is missing" if not path.exists() else "its content does not match its digest")
    try:
        return info, load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise _damaged(path, f"it holds no tensors: {error}") from error


def read_info(folder: str | os.PathLike[str]) -> ModelInfo:
    """Return the content of `model.json` without reading the weights. Raises the errors of `read_model`."""
    return _read_record(_existing(folder) / RECORD)[0]


def _existing(folder: str | os.PathLike[str]) -> Path:
    place = _place(folder)
    if not place.is_dir():
        raise UsageError(f"there is no model folder {printable(place)}; `--save DIR` of search or evaluate writes one")
    return place


def _read_record(path: Path) -> tuple[ModelInfo, int, str]:
    """Return the record, and the size and digest of the weights."""
    where = printable(path.parent)
    if not path.is_file():
        raise UsageError(f"{where} has no {RECORD}, so it is not an hnas model; name a folder that `--save` wrote")
    if path.stat().st_size > _MOST_BYTES:
        raise _damaged(path, f"it has more than {_MOST_BYTES:,} bytes")
    try:
        record = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "it is not JSON") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UsageError(f"{printable(path)} is not a record of hnas; name a folder that `--save` wrote")
    version = record.get("version")
    if isinstance(version, int) and version > VERSION:
        raise HnasError(f"{printable(path)} was written by a newer hnas (format {version}); update hnas")
    try:
        if "checksum" not in record:
            raise DamagedError("it has no checksum")
        return _parsed(opened_json(record))
    except (DamagedError, RecursionError) as error:
        raise _damaged(path, str(error)) from error


def _parsed(record: dict[str, Any]) -> tuple[ModelInfo, int, str]:
    """Parse a record whose checksum is correct. Raises `DamagedError` naming an invalid member."""
    members_read, weights = dict(record), record.get("weights")
    if isinstance(weights, dict):
        members_read |= {f"weights.{name}": value for name, value in weights.items()}
    rules: dict[str, Callable[[Any], bool]] = {
        **dict.fromkeys(("space", "arch", "definition", "network", "weights.sha256"), _is_text),
        **dict.fromkeys(("channels", "cells", "weights.bytes"), _is_count),
        "image_size": lambda value: _is_count(value) and value <= _LARGEST_SIDE,
        "mean": _is_triple,
        "std": lambda value: _is_triple(value) and min(value) > 0,
        **dict.fromkeys(("recipe", "accuracies", "provenance"), _is_dict),
        "classes": lambda value: isinstance(value, list) and bool(value) and all(map(_is_text, value)),
        "curve": lambda value: isinstance(value, list) and all(map(_is_dict, value)),
    }
    for name, holds in rules.items():
        if not holds(members_read.get(name)):
            raise DamagedError(f"its member {name} is missing or invalid")
    members: dict[str, Any] = {entry.name: members_read[entry.name] for entry in fields(ModelInfo)}
    info = ModelInfo(**members | {name: tuple(members[name]) for name in ("classes", "mean", "std", "curve")})
    return info, members_read["weights.bytes"], members_read["weights.sha256"]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_triple(value: Any) -> bool:
    numbers = isinstance(value, list) and len(value) == 3 and all(type(x) in (int, float) for x in value)
    return numbers and all(map(math.isfinite, value))


def _json(value: Any) -> Any:
    """Return `value` as JSON types: dictionaries, lists, and null for non-finite numbers."""
    if isinstance(value, Mapping):
        return {str(name): _json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _place(folder: str | os.PathLike[str]) -> Path:
    return Path(folder).expanduser().resolve()


def _damaged(path: Path, how: str) -> HnasError:
    return HnasError(f"{printable(path)} is damaged or foreign ({how}); restore it, or save the model again")
