"""Parsing of printed NAS-Bench-101 cells: a matrix and a list of operations, with text around them.

ModelSpec(matrix=[[0, 1], [0, 0]], ops=['input', 'output'])                   or ops=[INPUT, OUTPUT]
{'module_adjacency': array([[0, 1], [0, 0]], dtype=int8), 'module_operations': ['input', 'output'], …}
[[0 1]
 [0 0]] ['input' 'output']                                                    as numpy prints them
"""

from __future__ import annotations

import re

_LONGEST = 2000
_NAMES = {
    "input": "input", "output": "output", "conv3x3": "conv3x3-bn-relu", "conv1x1": "conv1x1-bn-relu",
    "maxpool3x3": "maxpool3x3", "conv3x3-bn-relu": "conv3x3-bn-relu", "conv1x1-bn-relu": "conv1x1-bn-relu",
}  # fmt: skip
_NAME = rf"(?:{'|'.join(sorted(_NAMES, key=len, reverse=True))})(?![\w-])"
_ENTRY = r"(?:[01](?:\.0*)?|True|False)(?![\w.])"
_BETWEEN = r"[\s,]*"
_MATRIX = re.compile(rf"[\[(]\s*(?>[\[(]\s*(?>{_ENTRY}{_BETWEEN})++[\])]{_BETWEEN}){{2,}}+[\])]")
_OPERATIONS = re.compile(rf"""[\[(]\s*(?>['"]?{_NAME}['"]?{_BETWEEN})++[\])]""", re.IGNORECASE)
_NUMPY_TEXT = re.compile(r"""(?:np|numpy)\.str_\((['"][\w-]+['"])\)""")
_AROUND = re.compile(r"""[\w\s.,=:;'"()\[\]{}-]*""")


def read_printed(text: str) -> tuple[list[list[int]], list[str]] | None:
    """Return the adjacency matrix and the operations in `text`.

    None unless it has exactly one of each, and only names besides.
    """
    if len(text) > _LONGEST:
        return None
    text = _NUMPY_TEXT.sub(r"\1", text)
    matrices, operations = _MATRIX.findall(text), _OPERATIONS.findall(text)
    if len(matrices) != 1 or len(operations) != 1 or not _AROUND.fullmatch(text):
        return None
    rows = re.findall(r"[\[(]([^\[\]()]*)[\])]", matrices[0])
    entries = [[int(entry[0] in "1T") for entry in re.findall(_ENTRY, row)] for row in rows]
    names = re.findall(_NAME, operations[0], re.IGNORECASE)
    return entries, [_NAMES[name.lower()] for name in names]
