"""The registry of scores, and parsing of lists of names."""

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

# Scores that every run has anyway, as metrics or as columns that its space provides.
_ALWAYS = (*COLUMNS, "flops", "params")


#: The scores by name; each access creates a new object. For errors see `hnas.registry.Registry`.
scores: Registry[Score] = Registry(ENTRY_POINT_GROUP, "score", _BUILT_IN, made=True)


def scores_named(text: str) -> list[str]:
    """Return the names in the comma-separated `text`, sorted and without duplicates; `all` stands for all scores.

    Names that every run has anyway, such as `grad_norm` or `flops`, are accepted and dropped. Raises `UsageError` for
    an unknown or empty name.
    """
    names = {name.strip() for name in text.split(",")}
    if "all" in names:
        names = names - {"all"} | set(scores)
    for name in sorted(names.difference(_ALWAYS)):
        if not name:
            raise UsageError(f"the list of scores {text!r} has an empty name; write naswot,zico for example, or all")
        if name not in scores:
            known = [*scores, "all"]
            raise UsageError(
                f"the score {name!r} is unknown; choose from {', '.join(known)}{did_you_mean(name, [*known, *_ALWAYS])}"
            )
    return sorted(names.difference(_ALWAYS))
