"""The settings of a search, as `searches/<search>/search.json` keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from hnas.errors import UsageError
from hnas.pipeline.catalog.signals import Signal

T = TypeVar("T")

#: The oracles that are none of one's own.
BUILT_IN = ("table", "train", "table,train")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How architectures are trained: the numbers of the recipe, and `images`, the name or path of a data set.

    `recipe` is one of `hnas.training.RECIPES`, `options` are changes of its other fields. `image_size` resizes the
    images to that many pixels a side, `threads` are those of the CPU, `channels` and `cells` the networks' size; where
    they are None the images stay as they are, the threads are those of `hnas.threads.training_threads`, and the size is
    the run's or, where there is none, the space's own.
    """

    epochs: int
    batch_size: int
    lr: float
    threads: int | None = None  # searches saved before there was `--threads` have none
    images: str
    image_size: int | None = None
    # Left out of what is saved where they are not asked for: as before there were such settings.
    recipe: str = "nasbench201"
    options: dict[str, float | str] = field(default_factory=dict)
    channels: int | None = None
    cells: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The settings by name."""
        saved = asdict(self)
        for name, default in (("recipe", "nasbench201"), ("options", {}), ("channels", None), ("cells", None)):
            if saved[name] == default:
                del saved[name]
        return saved

    def check_guides(self) -> None:
        """Raise `UsageError` where no image is held out, so that a search has nothing to go by."""
        from hnas.training import recipe_named

        if not recipe_named(self.recipe, self.options).valid:
            raise UsageError(
                f"the recipe {self.recipe} holds out no images, so a search has nothing to go by; "
                "--recipe-option valid=0.2 holds out a fifth"
            )


@dataclass(frozen=True, kw_only=True)
class OwnOracle:
    """An oracle of one's own: the `options` of an installed one, the `timeout` of a command in seconds, the `epochs`.

    What it is stands in `SearchSettings.oracle`: a command, or the name of what is installed. A store says so for
    readers only; what runs is what the command line, or the program, gives.
    """

    options: dict[str, float | str] = field(default_factory=dict)
    timeout: float | None = None
    epochs: int | None = None


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """The known performances that a search was told at its beginning: from where, of how many, and their digest."""

    sources: list[str]
    architectures: int
    digest: str


def method_of(method: str, *, metric: str | None = None, by: str | None = None) -> tuple[str, str | None]:
    """The name and the argument of a method written as `name` or `name:argument`, or with `metric` or `by` apart.

    Raises `UsageError` where there are several arguments.
    """
    name, colon, behind = method.partition(":")
    if name and colon and not behind:
        raise UsageError(f"--method {method!r:.100} has nothing behind the colon; write {name}, or {name}:COLUMN")
    arguments = {"--method": behind or None, "--metric": metric, "--by": by}
    given = {option: argument for option, argument in arguments.items() if argument is not None}
    if empty := [option for option, argument in given.items() if not argument.strip()]:
        raise UsageError(f"{empty[0]} is empty; give a column, such as {empty[0]} flops")
    if len(set(given.values())) > 1:
        told = " and ".join(f"{option} {argument}" for option, argument in given.items())
        raise UsageError(f"{told} are two columns for one method; give one of them")
    return name, next(iter(given.values()), None)


# What a search is made with besides the options of its method: see `hnas.optim.algorithm.search`.
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
    """The options of a method from texts such as `draws=100`. Raises `UsageError` where one has no name or value."""
    options = assignments(given, "--option", "draws=100")
    for name in options:
        if name in _OF_EVERY_SEARCH:
            raise UsageError(f"--option {name} is no setting of a method; every search has its own {name}")
    return options


def assignments(given: Sequence[str], option: str, example: str) -> dict[str, float | str]:
    assigned: dict[str, float | str] = {}
    for text in given:
        name, _, value = text.partition("=")
        if not name.isidentifier() or not value or name in assigned:
            raise UsageError(f"{option} {text!r:.100} is no new NAME=VALUE, such as {example}")
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
    """Settings of trainings by the `recipe`, with its fields changed by each `recipe_option` such as `cutout=16`.

    Numbers that are None are the recipe's; where no recipe is asked for either, it is NAS-Bench-201's with
    `usual_epochs`. `others` are fields of `TrainingSettings`. Raises `UsageError` for what does not exist or fit.
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
    """The settings of the trainings of a search, or of that of a winner to `save`; None where nothing is trained.

    `given` are options of `training_settings`. Raises `UsageError` where there are any without a training; `epochs` are
    then those of a table. `resumed` says that the search is a saved one, which has settings of its own.
    """
    if oracle in ("train", "table,train") or save:
        given["threads"] = given["threads"] or usual_threads
        return training_settings(dataset or "digits", epochs=epochs, usual_epochs=12, **given)
    if named := [f"--{name.replace('_', '-')}" for name, value in given.items() if value not in (None, ())]:
        why = "--resume goes on as the search was begun" if resumed else f"--oracle {oracle:.100} trains nothing here"
        raise UsageError(f"{why}: leave out {', '.join(named)}{'' if resumed else ', or give --oracle train'}")
    return None


@dataclass(frozen=True)
class SearchSettings:
    """Everything that determines the course of a search.

    `metric` is what stands behind the colon of the method: the M of `hnas`, the column of `top`. `training` is that of
    the `train` oracle, `signal` that of the `table` oracle; `runs` are those whose mean is searched, `run` among them,
    else empty. `t` and `acquisition` are those of HNAS, `options` settings of other methods. `own` is there where
    `oracle` is neither `table` nor `train`, `warm` where the search was told known performances, `images` where the
    method looks at images: their name or path. `parallel` evaluations are made at a time.
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
    # Searches saved by older versions have none of the following.
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
        """Whether a query takes real time: a training, or an oracle of one's own."""
        return self.training is not None or self.own is not None

    @property
    def spec(self) -> str:
        """The method as command lines write it: `hnas:trace`, `random`."""
        return self.method if self.metric is None else f"{self.method}:{self.metric}"

    @property
    def method_options(self) -> dict[str, Any]:
        """The options that the method is made with."""
        own: dict[str, Any] = {"t": self.t, "acquisition": self.acquisition} if self.method == "hnas" else {}
        if self.method == "halving":
            own = {"t": self.t, "seconds": self.budget}
        return {**own, **self.options}

    def as_dict(self) -> dict[str, Any]:
        """The settings by name, as `search.json` has them: without a training it is empty."""
        saved = {**asdict(self), "training": self.training.as_dict() if self.training else {}}
        # Left out as before there were such: comparisons are named after their settings.
        for name, usual in (("own", None), ("warm", None), ("parallel", 1), ("images", None)):
            if saved[name] == usual:
                del saved[name]
        return saved

    @classmethod
    def from_dict(cls, saved: Any) -> SearchSettings:
        """The settings in a `search.json`. Raises `TypeError` where they are others than these, or of other types."""
        settings = _made(cls, saved)
        training = _made(TrainingSettings, saved["training"]) if saved["training"] else None
        signal = _made(Signal, saved["signal"]) if saved.get("signal") else None
        own = _made(OwnOracle, saved["own"]) if saved.get("own") else None
        if (own is None) != (settings.oracle in BUILT_IN):
            raise TypeError(f"oracle is {settings.oracle!r:.100}")
        warm = _made(WarmStart, saved["warm"]) if saved.get("warm") else None
        return replace(settings, training=training, signal=signal, own=own, warm=warm)


def _made(cls: type[T], saved: Any) -> T:
    """The dataclass `cls` of `saved` values. Raises `TypeError` where a field has another type."""
    made = cls(**saved)
    for name, kind in get_type_hints(cls).items():
        if name in saved and not _fits(saved[name], kind):
            raise TypeError(f"{name} is {saved[name]!r:.100}")
    return made


def _fits(value: object, kind: Any) -> bool:
    """Whether JSON's `value` is of the type `kind`; a dataclass is a dict there."""
    if isinstance(kind, UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if kind is float:
        return isinstance(value, int | float)
    if isinstance(value, list | dict) and (of := get_args(kind)):
        values = value if isinstance(value, list) else value.values()
        return isinstance(value, get_origin(kind)) and all(_fits(one, of[-1]) for one in values)
    return isinstance(value, dict if is_dataclass(kind) else kind)
