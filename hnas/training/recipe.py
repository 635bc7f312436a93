"""Recipes: how a network is trained, and the recipes of the benchmarks by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from hnas.errors import UsageError, unknown


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; the defaults are NAS-Bench-201's. Raises `UsageError` for impossible values.

    Turn `flip` off if a mirror image has another meaning: digits, letters, road signs.

    lr, lr_min, warmup: see `learning_rate`.
    optimizer: `sgd`, with `nesterov` if the momentum is above 0, or `rmsprop` (decay 0.9, ε = 1).
    clip: maximum norm of all gradients together; 0 does not clip.
    label_smoothing: share of a label that is spread over all classes.
    cutout: side in pixels of a square that is blanked at a random place of each image; 0 for none.
    drop_path: final probability of drop path, which rises linearly from 0; the network has it as an attribute.
    auxiliary: weight of the loss of a second classifier, whose logits the network returns besides its own.
    mixed: bfloat16 where torch's autocast supports it, on GPUs only.
    valid: share of the training images held out for validation by the caller; `train` itself does not split.

    >>> from hnas import Recipe
    >>> Recipe(epochs=12, flip=False).lr
    0.1
    """

    epochs: int = 200
    batch_size: int = 256
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    flip: bool = True
    crop: bool = True
    lr_min: float = 0.0
    warmup: int = 0
    optimizer: str = "sgd"
    nesterov: bool = True
    clip: float = 0.0
    label_smoothing: float = 0.0
    cutout: int = 0
    drop_path: float = 0.0
    auxiliary: float = 0.0
    mixed: bool = False
    valid: float = 0.2

    def __post_init__(self) -> None:
        whole = ("epochs", "batch_size", "warmup", "cutout")
        rules = (
            *((name, hasattr(getattr(self, name), "__index__"), "a whole number") for name in whole),
            ("epochs", self.epochs >= 1, "at least 1"),
            ("batch_size", self.batch_size >= 2, "at least 2, which batch norm needs where the spatial size is 1"),
            ("epochs", self.epochs < 2**31, "below 2**31"),
            ("batch_size", self.batch_size < 2**31, "below 2**31"),
            ("lr", 0 < self.lr < math.inf, "above 0 and finite"),
            ("momentum", 0 <= self.momentum < 1, "at least 0 and below 1"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "at least 0 and finite"),
            ("lr_min", 0 <= self.lr_min <= self.lr, "at least 0 and at most lr"),
            ("warmup", 0 <= self.warmup < 2**31, "at least 0 and below 2**31"),
            ("optimizer", self.optimizer in ("sgd", "rmsprop"), "sgd or rmsprop"),
            ("clip", 0 <= self.clip < math.inf, "at least 0 and finite"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "at least 0 and below 1"),
            ("cutout", 0 <= self.cutout < 2**31, "at least 0 and below 2**31"),
            ("drop_path", 0 <= self.drop_path < 1, "at least 0 and below 1"),
            ("valid", 0 <= self.valid < 1, "at least 0 and below 1"),
            ("auxiliary", 0 <= self.auxiliary < math.inf, "at least 0 and finite"),
        )
        for name, holds, right in rules:
            if not holds:
                raise UsageError(f"{name} of the training recipe must be {right}, got {getattr(self, name)}")


_DARTS = Recipe(
    epochs=600, batch_size=96, lr=0.025, weight_decay=3e-4, nesterov=False, clip=5.0, cutout=16, drop_path=0.2,
    auxiliary=0.4, valid=0.0,
)  # fmt: skip

#: The recipes by name: those behind the tables of NAS-Bench-201 and NAS-Bench-101 (its RMSProp, with a learning rate
#: that falls per epoch here, per step there), the final training of DARTS on CIFAR-10 (Liu, Simonyan, Yang, ICLR 2019),
#: and the short training with which the published program of HNAS searches the DARTS space.
RECIPES: Mapping[str, Recipe] = {
    "nasbench201": Recipe(),
    "nasbench101": Recipe(epochs=108, lr=0.2, weight_decay=1e-4, optimizer="rmsprop", nesterov=False),
    "darts": _DARTS,
    "hnas-darts": replace(_DARTS, epochs=10, batch_size=576, lr=0.1, lr_min=0.005, cutout=0, auxiliary=0.0, valid=0.5),
}


def recipe_named(name: str, options: Mapping[str, object]) -> Recipe:
    """Return the recipe `name` with the fields in `options` changed; values have the field's type, or are its text.

    Raises `UsageError` for an unknown name or field, or an invalid value.
    """
    if name not in RECIPES:
        raise unknown("the recipe", name, RECIPES)
    types = {field.name: type(field.default) for field in fields(Recipe)}
    changed = {}
    for field, value in options.items():
        if field not in types:
            raise unknown("the field of a recipe", field, types)
        changed[field] = _converted(field, value, types[field])
    return replace(RECIPES[name], **changed)  # type: ignore[arg-type]


def _converted(field: str, value: object, kind: type) -> object:
    text = str(value).lower()
    try:
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}[text]
        return text if kind is str else int(text) if kind is int else float(text)
    except (KeyError, ValueError):
        right = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}[kind]
        raise UsageError(f"{field} of the training recipe must be {right}, got {value!r:.100}") from None


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """Return the learning rate of epoch e = 0, …, E - 1, constant within the epoch.

    lr(e) = lr_min + (lr₀ - lr_min) (1 + cos(π (e - w) / (E - w))) / 2, from lr₀ down to almost lr_min, which would be
    reached at e = E. In the first w = `warmup` epochs it is lr₀ (e + 1) / (w + 1).

    It changes per epoch, not per iteration, as in NAS-Bench-201 (whose per-iteration updates act only during a warm-up,
    which it does not have) and in DARTS.
    """
    if epoch < recipe.warmup:
        return recipe.lr * (epoch + 1) / (recipe.warmup + 1)
    phase = math.pi * (epoch - recipe.warmup) / max(1, recipe.epochs - recipe.warmup)
    return recipe.lr_min + (recipe.lr - recipe.lr_min) * (1 + math.cos(phase)) / 2
