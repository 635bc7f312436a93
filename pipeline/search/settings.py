"""The settings of a search, as `searches/<search>/search.json` keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from hnas.errors import UsageError
from hnas.pipeline.catalog.signals import Signal

T = TypeVar("T")

#: The built-in oracles.
BUILT_IN = ("table", "train", "table,train")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How architectures are trained: the numbers of the recipe, and `images`, the name or path of a data set.

    `recipe` is one of `hnas.training.RECIPES`; `options` changes its other fields. `image_size` resizes the images to
    that many pixels a side, `threads` are CPU threads, `channels` and `cells` the network size. If they are None, the
    images keep their size, `hnas.threads.training_threads` determines the threads, and the network has the size of the
    run's networks, or without a run the space's default.
    """

    epochs: int
    batch_size: int
    lr: float
    threads: int | None = None  # None in searches saved before `--threads` existed
    images: str
    image_size: int | None = None
    # Omitted from saved settings if they have their default, as before these settings existed.
    recipe: str = "nasbench201"
    options: dict[str, float | str] = field(default_factory=dict)
    channels: int | None = None
    cells: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the settings by name."""
        saved = asdict(self)
        for name, default in (("recipe", "nasbench201"), ("options", {}), ("channels", None), ("cells", None)):
            if saved[name] == default:
                del saved[name]
        return saved

    def check_guides(self) -> None:
        """Raise `UsageError` if no image is held out, so that a search has no signal."""
        from hnas.training import recipe_named

        if not recipe_named(self.recipe, self.options).valid:
            raise UsageError(
                f"the recipe {self.recipe} holds out no images, so a search has no validation accuracy; "
                "--recipe-option valid=0.2 holds out a fifth"
            )


@dataclass(frozen=True, kw_only=True)
class OwnOracle:
    """A user-defined oracle: the `options` of an installed one, the `timeout` of a command in seconds, the `epochs`.

    `SearchSettings.oracle` says what it is: a command, or the name of an installed oracle. A store only records it;
    what runs is what the command line, or the program, gives.
    """

    options: dict[str, float | str] = field(default_factory=dict)
    timeout: float | None = None
    epochs: int | None = None


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """The known performances at the beginning of a search: their sources, their number, and their digest."""

    sources: list[str]
    architectures: int
    digest: str


def method_of(method: str, *, metric: str | None = None, by: str | None = None) -> tuple[str, str | None]:
    """Return the name and argument of a method given as `name` or `name:argument`, or with a separate `metric` or `by`.

    Raises `UsageError` for several arguments.
    """
    name, colon, behind = method.partition(":")
    if name and colon and not behind:
        raise UsageError(f"--method {method!r:.100} has nothing after the colon; write {name}, or {name}:COLUMN")
    arguments = {"--method": behind or None, "--metric": metric, "--by": by}
    given = {option: argument for option, argument in arguments.items() if argument is not None}
    if empty := [option for option, argument in given.items() if not argument.strip()]:
        raise UsageError(f"{empty[0]} is empty; give a column, such as {empty[0]} flops")
    if len(set(given.values())) > 1:
        both = " and ".join(f"{option} {argument}" for option, argument in given.items())
        raise UsageError(f"{both} give two columns for one method; give one of them")
    return name, next(iter(given.values()), None)


# Parameters of every search besides the options of its method: see `hnas.optim.algorithm.search`.
_OF_EVERY_SEARCH = (
    "self",
    "pool",
    "oracle",
    "method",
    "argument",
    "queries",
    "budget",
    "seed",
    "epochs",
    "history",
    "on_query",
    "parallel",
    "executor",
    "known",
    "images",
    "device",
    "checkpoint",
    "progress",
)


def options_of(given: Sequence[str]) -> dict[str, float | str]:
    """Return a method's options from texts such as `draws=100`. Raises `UsageError` for a missing name or value."""
    options = assignments(given, "--option", "draws=100")
    for name in options:
        if name in _OF_EVERY_SEARCH:
            raise UsageError(f"--option {name} is not an option of a method; every search has its own {name}")
    return options


def assignments(given: Sequence[str], option: str, example: str) -> dict[str, float | str]:
    assigned: dict[str, float | str] = {}
    for text in given:
        name, _, value = text.partition("=")
        if not name.isidentifier() or not value or name in assigned:
            raise UsageError(f"{option} {text!r:.100} must be a new NAME=VALUE, such as {example}")
        try:
            number = float(value)
            assigned[name] = int(number) if number.is_integer() else number
        except ValueError:
            assigned[name] = value
    return assigned


def training_settings(
    images: str,
    *,
    recipe: str | None = None,
    recipe_option: Sequence[str] = (),
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    usual_epochs: int | None = None,
    **others: int | None,
) -> TrainingSettings:
    """Return settings of trainings by the `recipe`, with fields changed by each `recipe_option` such as `cutout=16`.

    Numbers that are None are the recipe's. Without a recipe, it is NAS-Bench-201's with `usual_epochs`. `others` are
    fields of `TrainingSettings`. Raises `UsageError` for unknown or inconsistent arguments.
    """
    from hnas.training import recipe_named

    changed = assignments(recipe_option, "--recipe-option", "cutout=16")
    given = {"epochs": epochs, "batch_size": batch_size, "lr": lr}
    for name, value in given.items():
        if value is not None and name in changed and changed[name] != value:
            raise UsageError(f"{name} is {value} by its option and {changed[name]} by --recipe-option; give it once")
    if recipe is None and usual_epochs is not None:
        changed.setdefault("epochs", usual_epochs)
    whole = recipe_named(recipe or "nasbench201", changed | {name: n for name, n in given.items() if n is not None})
    rest = {name: value for name, value in changed.items() if name not in given}
    return TrainingSettings(
        epochs=whole.epochs, batch_size=whole.batch_size, lr=whole.lr, images=images, recipe=recipe or "nasbench201",
        options=rest, **others,
    )  # fmt: skip


def training_of_search(
    oracle: str,
    dataset: str | None,
    *,
    epochs: int | None,
    save: bool = False,
    resumed: bool = False,
    usual_threads: int | None = None,
    **given: Any,
) -> TrainingSettings | None:
    """Return the training settings of a search, or of the winner to `save`; None if nothing is trained.

    `given` are options of `training_settings`. Raises `UsageError` if any are given without a training; `epochs` then
    refers to the table. `resumed` says that the search is a saved one, which has its own settings.
    """
    if oracle in ("train", "table,train") or save:
        given["threads"] = given["threads"] or usual_threads
        return training_settings(dataset or "digits", epochs=epochs, usual_epochs=12, **given)
    if named := [f"--{name.replace('_', '-')}" for name, value in given.items() if value not in (None, ())]:
        why = "--resume continues the search as it was begun" if resumed else f"--oracle {oracle:.100} trains nothing"
        raise UsageError(f"{why}: leave out {', '.join(named)}{'' if resumed else ', or give --oracle train'}")
    return None


#: The methods that read `t` and `acquisition`.
METHODS_WITH = {"t": ("hnas", "halving"), "acquisition": ("hnas",)}


@dataclass(frozen=True)
class SearchSettings:
    """Everything that determines the course of a search.

    `metric` is the argument of the method: the M of `hnas`, the column of `top`. `training` belongs to the `train`
    oracle, `signal` to the `table` oracle. `runs` are the runs whose mean is searched, including `run`, or empty. `t`
    and `acquisition` belong to the methods of `METHODS_WITH`, `options` to all. `own` is set if `oracle` is neither
    `table` nor `train`, `warm` if the search began with known performances, and `images`, a name or path, if the method
    uses images. `parallel` evaluations run at a time.
    """

    space: str
    run: str
    dataset: str
    metric: str | None
    oracle: str
    accuracy: str
    queries: int | None
    t: float
    acquisition: str
    seed: int
    training: TrainingSettings | None
    # Searches saved by older versions lack the following.
    runs: list[str] = field(default_factory=list)
    method: str = "hnas"
    signal: Signal | None = None
    budget: float | None = None
    where: str | None = None
    options: dict[str, float | str] = field(default_factory=dict)
    own: OwnOracle | None = None
    parallel: int = 1
    warm: WarmStart | None = None
    images: str | None = None

    @property
    def evaluates(self) -> bool:
        """Whether a query takes real time: a training, or a user-defined oracle."""
        return self.training is not None or self.own is not None

    @property
    def spec(self) -> str:
        """The method as on command lines: `hnas:trace`, `random`."""
        return self.method if self.metric is None else f"{self.method}:{self.metric}"

    @property
    def method_options(self) -> dict[str, Any]:
        """The options for constructing the method."""
        own: dict[str, Any] = {name: getattr(self, name) for name, of in METHODS_WITH.items() if self.method in of}
        if self.method == "halving":
            own["seconds"] = self.budget
        return {**own, **self.options}

    def as_dict(self) -> dict[str, Any]:
        """Return the settings by name, as in `search.json`; `training` is empty without a training."""
        saved = {**asdict(self), "training": self.training.as_dict() if self.training else {}}
        # Omitted if they have their default, because comparisons are named after their settings.
        for name, usual in (("own", None), ("warm", None), ("parallel", 1), ("images", None)):
            if saved[name] == usual:
                del saved[name]
        return saved

    @classmethod
    def from_dict(cls, saved: Any) -> SearchSettings:
        """Return the settings in a `search.json`. Raises `TypeError` for unknown fields or wrong types."""
        settings = _made(cls, saved)
        training = _made(TrainingSettings, saved["training"]) if saved["training"] else None
        signal = _made(Signal, saved["signal"]) if saved.get("signal") else None
        own = _made(OwnOracle, saved["own"]) if saved.get("own") else None
        if (own is None) != (settings.oracle in BUILT_IN):
            raise TypeError(f"oracle is {settings.oracle!r:.100}")
        warm = _made(WarmStart, saved["warm"]) if saved.get("warm") else None
        return replace(settings, training=training, signal=signal, own=own, warm=warm)


def _made(cls: type[T], saved: Any) -> T:
    """Construct the dataclass `cls` from `saved` values. Raises `TypeError` if a field has the wrong type."""
    made = cls(**saved)
    for name, kind in get_type_hints(cls).items():
        if name in saved and not _fits(saved[name], kind):
            raise TypeError(f"{name} is {saved[name]!r:.100}")
    return made


def _fits(value: object, kind: Any) -> bool:
    """Return whether a JSON `value` has the type `kind`; a dataclass is a dict in JSON."""
    if isinstance(kind, UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if kind is float:
        return isinstance(value, int | float)
    if isinstance(value, list | dict) and (of := get_args(kind)):
        values = value if isinstance(value, list) else value.values()
        return isinstance(value, get_origin(kind)) and all(_fits(one, of[-1]) for one in values)
    return isinstance(value, dict if is_dataclass(kind) else kind)
