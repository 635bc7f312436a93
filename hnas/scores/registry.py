"""The registry of scores, and the names of scores in a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hnas.errors import UsageError, did_you_mean
from hnas.metrics.columns import COLUMNS
from hnas.registry import Registry

if TYPE_CHECKING:
    from hnas.scores.protocol import Score

ENTRY_POINT_GROUP = "hnas.scores"

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

# Scores of the field that every run has anyway, as metrics or as columns that its space tells of an architecture.
_ALWAYS = (*COLUMNS, "flops", "params")


#: The scores by name, an object made anew each time. See `hnas.registry.Registry` for what is raised.
scores: Registry[Score] = Registry(ENTRY_POINT_GROUP, "score", _BUILT_IN, made=True)


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
