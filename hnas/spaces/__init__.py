"""Search spaces: architectures as strings, their canonical forms, and the networks they stand for.

A new space is a folder here with a class that follows `protocols.SearchSpace`, named in `registry`; a space of another
package is an entry point of the group `hnas.spaces` instead. Keys and canonical forms are stored, so they never change.
Torch is imported when a network is built, not before: a search against a table needs none.
"""

from hnas.spaces.cell_graph import CellGraph
from hnas.spaces.protocols import (
    Cache,
    Cached,
    Categorical,
    Drawn,
    Encoded,
    Mutable,
    Named,
    Printed,
    SearchSpace,
    Spelled,
    Tabulated,
    definition_of,
    key_of,
)
from hnas.spaces.registry import ENTRY_POINT_GROUP, SearchSpaces, search_spaces, space_of, space_of_form

__all__ = [
    "ENTRY_POINT_GROUP",
    "Cache",
    "Cached",
    "Categorical",
    "CellGraph",
    "Drawn",
    "Encoded",
    "Mutable",
    "Named",
    "Printed",
    "SearchSpace",
    "SearchSpaces",
    "Spelled",
    "Tabulated",
    "definition_of",
    "key_of",
    "search_spaces",
    "space_of",
    "space_of_form",
]
