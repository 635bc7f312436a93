"""`hnas rm` and `hnas info` for a model: one in the store's `models/`, or any folder that `--save` wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hnas.errors import HnasError, UsageError
from hnas.pipeline.io.aside import in_use, remove_folder
from hnas.pipeline.io.printable import printable
from hnas.pipeline.io.terminal_tables import described
from hnas.pipeline.models.folder import RECORD, WEIGHTS, read_info, read_model
from hnas.pipeline.store.footprint import Place, footprint, place_of
from hnas.pipeline.store.removal import Held, find_held, remove
from hnas.pipeline.store.store import Store

_FOLDER = "model folder"


def find_removable(store: Store, name: str, also: Sequence[Store] = ()) -> Held:
    """Return the thing called `name` in the store, as `find_held` does, or else the model in the folder `name`.

    Raises `UsageError` if there is neither, and for a folder that holds anything but a model.
    """
    try:
        return find_held(store, name, also)
    except UsageError:
        folder = Path(name).expanduser()
        if not name or not (folder / RECORD).is_file():
            raise
    if folder.is_symlink():
        raise UsageError(f"{printable(folder)} is a link; name the folder that it points to")
    if others := sorted({place.name for place in folder.iterdir()} - {RECORD, WEIGHTS}):
        raise UsageError(
            f"{printable(folder / others[0])} is not part of a model; move it elsewhere before its folder is removed"
        )
    try:
        info = read_info(folder)
        about = f"{info.arch} of {info.space}"
    except HnasError:
        about = "damaged or foreign"
    return Held(_FOLDER, str(folder), printable(f"{_FOLDER} {folder}, {about}"), ())


def removed_places(store: Store, held: Held) -> list[Place]:
    """Return the files and folders that are removed with `held`."""
    return [place_of(held.name)] if held.kind == _FOLDER else footprint(store, held.kind, held.name)


def remove_held(store: Store, held: Held) -> None:
    """Remove `held` atomically. Raises `HnasError` if it is in use or cannot be removed."""
    if held.kind != _FOLDER:
        remove(store, held)
        return
    folder = Path(held.name).resolve()
    if in_use(folder):
        raise HnasError(f"{printable(folder)} is being written; wait until the search has ended, then remove it")
    remove_folder(folder)


def model_record(folder: str) -> dict[str, Any]:
    """Return a record of the model in `folder`, whose weights are checked. Raises the errors of `read_model`."""
    info, state = read_model(folder)
    place = place_of(str(Path(folder).expanduser().resolve()))
    return {
        "folder": folder, **asdict(info), "parameters": sum(tensor.numel() for tensor in state.values()),
        "bytes": place.bytes, "busy": "yes" if place.busy else "no",
    }  # fmt: skip


def model_json(folder: str) -> str:
    """Return `model_record` as JSON."""
    return json.dumps(model_record(folder), indent=2)


def model_text(folder: str) -> str:
    """Return `model_record` as text."""
    record = model_record(folder)
    provenance, classes = record["provenance"], record["classes"]
    accuracies = {
        name.removesuffix("_accuracy"): f"{value:.2f} %"
        for name, value in record["accuracies"].items()
        if isinstance(value, int | float)
    }
    recipe = {name: record["recipe"].get(name) for name in ("name", "epochs", "batch_size", "lr")}
    rows = [
        ["model", folder],
        ["architecture", f"{record['arch']} of {record['space']}"],
        ["size", f"channels {record['channels']}, cells {record['cells']}, {record['parameters']:,} numbers"],
        ["classes", f"{len(classes)}: {', '.join(classes)}"],
        ["images", f"{record['image_size']} x {record['image_size']} pixels"],
        ["accuracies", ", ".join(f"{name} {value}" for name, value in accuracies.items()) or "none"],
        ["recipe", ", ".join(f"{name} {value}" for name, value in recipe.items())],
        *([name, str(value)] for name, value in provenance.items()),
        ["bytes", f"{record['bytes']:,}"],
        ["complete", "yes: the weights are those of the record"],
        ["busy", record["busy"]],
    ]
    return described([[name, printable(value)] for name, value in rows])
