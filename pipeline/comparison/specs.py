"""Methods as given on the command line: a comma-separated list of `name[:argument][@BUDGET]`.

hnas:trace@20               20 queries
rea@12000s                  12,000 seconds of evaluation cost
top:"greatest(params, 1e6)" an argument may be an SQL expression; commas in brackets or quotes belong to it
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from hnas.errors import UsageError
from hnas.pipeline.catalog.expressions import outside_brackets, split_expressions

_BUDGET = re.compile(r"(\d+(?:\.\d+)?(?:e\d+)?)(s?)", re.IGNORECASE)
_EXAMPLE = "give name[:argument][@BUDGET], such as hnas:trace@20 or rea@12000s"


@dataclass(frozen=True)
class MethodSpec:
    """A method with its argument, and possibly its own budget: `queries`, or `seconds` of evaluation cost."""

    name: str
    argument: str | None = None
    queries: int | None = None
    seconds: float | None = None

    @property
    def method(self) -> str:
        """The method as `name:argument`, as for `hnas search --method`."""
        return self.name if self.argument is None else f"{self.name}:{self.argument}"

    def __str__(self) -> str:
        """Return the spelling that `parse_spec` reads: the method, with its own budget if it has one."""
        if self.queries is not None:
            return f"{self.method}@{self.queries}"
        return self.method if self.seconds is None else f"{self.method}@{self.seconds:g}s"


def parse_specs(text: str) -> list[MethodSpec]:
    """Return the methods of a list. Raises `UsageError` for an invalid spelling or a repeated method."""
    specs = [parse_spec(part) for part in split_expressions([text])]
    for k, spec in enumerate(specs):
        if spec in specs[:k]:
            raise UsageError(f"--methods has {spec} twice; name each method with its budget once")
    return specs


def parse_spec(text: str) -> MethodSpec:
    """Return one method. Raises `UsageError` for an invalid spelling, and for a budget of zero."""
    text = text.strip()
    place = _budget_place(text)
    method, budget = (text, None) if place is None else (text[:place], text[place + 1 :])
    name, colon, argument = method.partition(":")
    name, argument = name.strip(), argument.strip()
    if not name or (colon and not argument):
        raise UsageError(f"{text!r} is not a method; {_EXAMPLE}")
    queries, seconds = (None, None) if budget is None else parse_budget(budget, text)
    return MethodSpec(name, argument or None, queries, seconds)


def parse_budget(budget: str, where: str) -> tuple[int | None, float | None]:
    """Return a budget as (queries, None) or (None, seconds). Raises `UsageError`, which quotes its context `where`."""
    match = _BUDGET.fullmatch(budget.strip())
    if match is None:
        raise UsageError(
            f"{budget!r} in {where!r} is not a budget; give a number of queries such as @20, or seconds such as @12000s"
        )
    number, seconds = float(match[1]), bool(match[2])
    if not 0 < number < math.inf:
        raise UsageError(f"a budget of {budget} in {where!r} evaluates nothing; give a number above 0")
    if seconds:
        return None, number
    if number != int(number):
        raise UsageError(
            f"{budget} in {where!r} is not a number of queries; give an integer, or seconds such as @12000s"
        )
    return int(number), None


def _budget_place(text: str) -> int | None:
    """Return the position of the @ before the budget. After an operator, or nothing, an @ is SQL's absolute value."""
    for place, character in outside_brackets(text):
        if character == "@" and re.search(r"[\w)\]\"']\s*$", text[:place]):
            return place
    return None
