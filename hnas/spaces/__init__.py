"""Search spaces: architectures as strings, their canonical forms, and their networks.

A new space is a folder here with a class that follows `protocols.SearchSpace` and an entry in `registry`, or, in
another package, an entry point of the group `hnas.spaces`. Keys and canonical forms are stored, so they must never
change. Torch is imported only when a network is built: searching a table does not need it.
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
