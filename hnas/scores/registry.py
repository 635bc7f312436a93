"""The registry of scores, and the names of scores in a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from hnas.errors import HnasError, UsageError, did_you_mean
from hnas.metrics.columns import COLUMNS

if TYPE_CHECKING:
    from hnas.scores.protocol import Score

ENTRY_POINT_GROUP = "hnas.scores"

# The built-in scores work from a checkout as well, where no entry point is installed.
_BUILT_IN = {
    "epe_nas": "hnas.scores.epe_nas:EPENAS",
    "fisher": "hnas.scores.fisher:Fisher",
    "gradsign": "hnas.scores.gradsign:GradSign",
    "jacov": "hnas.scores.jacov:Jacov",
    "knas": "hnas.scores.knas:KNAS",
    "knas_program": "hnas.scores.knas_program:KNASProgram",
    "l2_norm": "hnas.scores.l2_norm:L2Norm",
    "linear_regions": "hnas.scores.linear_regions:LinearRegions",
    "meco": "hnas.scores.meco:MeCo",
    "nasi": "hnas.scores.nasi:NASI",
    "naswot": "hnas.scores.naswot:NASWOT",
    "plain": "hnas.scores.plain:Plain",
    "swap": "hnas.scores.swap:SWAP",
    "synflow": "hnas.scores.synflow:SynFlow",
    "te_nas": "hnas.scores.te_nas:TENAS",
    "zen": "hnas.scores.zen:Zen",
    "zico": "hnas.scores.zico:ZiCo",
}

_OWN = {name: EntryPoint(name, value, ENTRY_POINT_GROUP) for name, value in _BUILT_IN.items()}

# Scores of the field that every run has anyway, as metrics or as columns that its space tells of an architecture.
_ALWAYS = (*COLUMNS, "flops", "params")


class Scores(Mapping[str, "Score"]):
    """The scores by name: the built-in ones and those of the entry-point group `hnas.scores`.

    A score is imported and made when it is asked for. `scores[name]` raises `UsageError` for an unknown name.
    """

    def _targets(self) -> dict[str, EntryPoint]:
        installed = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
        return installed | _OWN

    def __getitem__(self, name: str) -> Score:
        # Looking through what is installed takes milliseconds, as much as a score of a network.
        targets = _OWN if name in _OWN else self._targets()
        if name not in targets:
            raise UsageError(
                f"there is no score {name!r}; installed are: {', '.join(sorted(targets))}{did_you_mean(name, targets)}"
            )
        try:
            made: Score = targets[name].load()()
        except Exception as error:
            raise HnasError(f"score {name!r} ({targets[name].value}) cannot be loaded: {error}") from error
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._targets()))

    def __len__(self) -> int:
        return len(self._targets())

    def __contains__(self, name: object) -> bool:
        return name in _OWN or name in self._targets()


scores = Scores()


def scores_named(text: str) -> list[str]:
    """The names in `text`, separated by commas, sorted and each once; those of all scores for `all`.

    Names of what every run has anyway, such as `grad_norm` or `flops`, are taken and left out. Raises `UsageError` for
    an unknown or empty name.
    """
    names = {name.strip() for name in text.split(",")}
    if "all" in names:
        names = names - {"all"} | set(scores)
    for name in sorted(names.difference(_ALWAYS)):
        if not name:
            raise UsageError(f"the scores {text!r} have an empty name; write for example naswot,zico, or all")
        if name not in scores:
            known = [*scores, "all"]
            raise UsageError(
                f"there is no score {name!r}; choose from {', '.join(known)}{did_you_mean(name, [*known, *_ALWAYS])}"
            )
    return sorted(names.difference(_ALWAYS))
