"""Architectures as other programs print and store them, singly and in lists for `--architectures`."""

from __future__ import annotations

import codecs
import json
import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hnas.errors import UsageError
from hnas.pipeline.precompute.architecture_list import read_list
from hnas.spaces import definition_of, key_of, search_spaces
from hnas.spaces.nasbench101.space import module_hash

DARTS, NB101, NB201 = (search_spaces[name] for name in ("darts", "nasbench101", "nasbench201"))

# --- DARTS ----------------------------------------------------------------------------------------------------------

NORMAL = [
    ("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("skip_connect", 0), ("sep_conv_3x3", 1), ("skip_connect", 0),
    ("dil_conv_3x3", 2), ("sep_conv_5x5", 0), ("max_pool_3x3", 3),
]  # fmt: skip
REDUCE = [(name.replace("sep_conv_3x3", "max_pool_3x3"), state) for name, state in NORMAL]
Genotype = namedtuple("Genotype", "normal normal_concat reduce reduce_concat")
PRINTED = repr(Genotype(NORMAL, range(2, 6), REDUCE, range(2, 6)))
WEIGHTED = [[(name, state, 0.13 + 1e-3 * k) for k, (name, state) in enumerate(cell)] for cell in (NORMAL, REDUCE)]
BY_NODE = [[(cell[k], cell[k + 1]) for k in range(0, 8, 2)] for cell in (NORMAL, REDUCE)]
Further = namedtuple("Genotype", "normal normal_concat reduce reduce_concat connectN connects")  # type: ignore[no-redef]
NUMPY = [[(np.str_(name), np.int64(state)) for name, state in cell] for cell in (NORMAL, REDUCE)]

FORMS = {
    "line of a module": f"MINE = {PRINTED}",
    "line of a log": f"01/02 03:04:05 AM genotype = {PRINTED}",
    "line of a log with its level": f"[2019-06-01 10:11:12] INFO:root:genotype = {PRINTED}",
    "with its module": f"genotypes.{PRINTED}",
    "with a comment": f"{PRINTED}  # 2.6 %",
    "with a comma": f"{PRINTED},",
    "comments in several lines": PRINTED.replace("1), ", "1),  # node\n    "),
    "weights": repr(Genotype(WEIGHTED[0], range(2, 6), WEIGHTED[1], range(2, 6))),
    "tiny weights": repr(Genotype(WEIGHTED[0], range(2, 6), WEIGHTED[1], range(2, 6))).replace("0.13,", "1.3e-07,"),
    "weights of numpy": PRINTED.replace("0)", "0, np.float32(0.13))"),
    "pairs by node": repr(Further(BY_NODE[0], [2, 3, 4, 5], BY_NODE[1], [2, 3, 4, 5], None, None)),
    "numpy": repr(Genotype(NUMPY[0], np.arange(2, 6).tolist(), NUMPY[1], [np.int64(k) for k in range(2, 6)])),
    "an array": PRINTED.replace("range(2, 6)", "np.array([2, 3, 4, 5])"),
    "list(range)": PRINTED.replace("range(2, 6)", "list(range(2, 6))"),
    "by position": f"Genotype({NORMAL}, range(2, 6), {REDUCE}, range(2, 6))",
    "all by position": f"Genotype({BY_NODE[0]}, [2, 3, 4, 5], {BY_NODE[1]}, [2, 3, 4, 5], None, None)",
    "a dictionary": str(Genotype(NORMAL, range(2, 6), REDUCE, range(2, 6))._asdict()),
    "a dictionary in a log": f"genotype: {Genotype(NORMAL, [2, 3, 4, 5], REDUCE, [2, 3, 4, 5])._asdict()}",
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
@pytest.mark.filterwarnings("error")
def test_a_genotype_is_read_as_programs_print_it(text: str) -> None:
    assert DARTS.canonical(text) == DARTS.canonical(PRINTED)
    assert key_of(DARTS, text) == definition_of(DARTS, text) == PRINTED


@pytest.mark.parametrize(
    "text",
    [
        f"print({PRINTED})",
        f"{PRINTED} + {PRINTED}",
        f"{PRINTED}\n{PRINTED}",
        f"# {PRINTED}",
        f"x{PRINTED}",
        PRINTED.replace("range(2, 6)", "list(open(2, 6))"),
        PRINTED.replace("range(2, 6)", "range(2, 6).__class__"),
        PRINTED.replace("range(2, 6)", "np.load('x')"),
        PRINTED.replace("0)", "0, 'x')"),
        PRINTED.replace("0)", "-0)"),
        PRINTED.replace("0)", "0 if 1 else 2)"),
        PRINTED.replace("'sep_conv_3x3'", "'sep' 'conv'"),
        f"Genotype({NORMAL}, range(2, 6), reduce={REDUCE}, reduce_concat=range(2, 6))",
        repr(Further(NORMAL, [2, 3, 4, 5], REDUCE, [2, 3, 4, 5], 1, None)),
        "Genotype = namedtuple('Genotype', 'normal normal_concat reduce reduce_concat')",
        "lambda: Genotype()",
        "{'normal': 1}",
        "{**{}}",
    ],
)
@pytest.mark.filterwarnings("error")
def test_other_text_than_a_genotype_is_rejected_and_not_run(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        DARTS.canonical(text)
    assert "\n" not in str(caught.value)


# --- NAS-Bench-201 --------------------------------------------------------------------------------------------------

ARCH = "|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|+|none~0|skip_connect~1|avg_pool_3x3~2|"
NODES = [[("nor_conv_3x3", 0)], [("nor_conv_1x1", 0), ("none", 1)],
         [("none", 0), ("skip_connect", 1), ("avg_pool_3x3", 2)]]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        f'"{ARCH}"',
        f" '{ARCH}'\n",
        ARCH.replace("+", " + "),
        ARCH.replace("+", "+\n"),
        ARCH.replace("|", " | "),
        f"Structure(4 nodes with {ARCH})",
        str(tuple(map(tuple, NODES))),
        str([tuple(node) for node in NODES]),
        str([[list(pair) for pair in node] for node in NODES]).replace("'", '"'),
    ],
)
def test_a_cell_of_nasbench201_is_read_as_programs_print_it(text: str) -> None:
    assert NB201.canonical(text) == NB201.canonical(ARCH)
    assert key_of(NB201, text) == definition_of(NB201, text) == ARCH
    assert NB201.describe(text) == NB201.describe(ARCH)


@pytest.mark.parametrize("text", [str(NODES[:2]), str([*NODES, []]), str([NODES[1], NODES[0], NODES[2]]), f"'{ARCH}"])
def test_other_nestings_are_not_nasbench201_cells(text: str) -> None:
    with pytest.raises(UsageError):
        NB201.canonical(text)


# --- NAS-Bench-101 --------------------------------------------------------------------------------------------------

MATRIX = [[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
OPERATIONS = ["input", "conv3x3-bn-relu", "maxpool3x3", "output"]
HASH = module_hash(MATRIX, OPERATIONS)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.parametrize(
    "matrix",
    [
        pytest.param("matrix", id="np.matrix"),
        np.array(MATRIX, dtype=np.int8),
        np.array(MATRIX, dtype=float),
        np.array(MATRIX, dtype=bool),
        torch.tensor(MATRIX),
        tuple(map(tuple, MATRIX)),
        [np.array(row) for row in MATRIX],
    ],
    ids=lambda matrix: type(matrix).__name__,
)
def test_the_hash_of_a_matrix_does_not_depend_on_its_type(matrix: Any) -> None:
    matrix = np.matrix(MATRIX) if isinstance(matrix, str) else matrix
    assert module_hash(matrix, OPERATIONS) == HASH
    assert module_hash(matrix, np.array(OPERATIONS)) == HASH


@pytest.mark.parametrize(
    ("matrix", "operations"), [(3, OPERATIONS), (MATRIX, None), (None, None), ([1, 2], OPERATIONS), (np.array(1), [])]
)
def test_invalid_matrices_are_rejected(matrix: Any, operations: Any) -> None:
    with pytest.raises(UsageError, match="adjacency matrix"):
        module_hash(matrix, operations)


@pytest.mark.parametrize(
    "text",
    [
        f"ModelSpec(matrix={MATRIX}, ops={OPERATIONS})",
        f"model_spec = api.ModelSpec(\n    matrix={MATRIX},\n    ops=[INPUT, CONV3X3, MAXPOOL3X3, OUTPUT])",
        f"{np.array(MATRIX)} {np.array(OPERATIONS)}",
        f"{MATRIX}, {OPERATIONS}",
        f"({tuple(map(tuple, MATRIX))}, {tuple(OPERATIONS)})",
        str(
            {"module_adjacency": np.array(MATRIX, np.int8), "module_operations": OPERATIONS, "trainable_parameters": 3}
        ),
        str({"matrix": MATRIX, "ops": [np.str_(name) for name in OPERATIONS]}),
        str({"matrix": np.array(MATRIX, float), "ops": OPERATIONS}),
        str((np.array(MATRIX, bool), OPERATIONS)),
        json.dumps({"matrix": MATRIX, "ops": OPERATIONS}),
    ],
)
def test_a_cell_of_nasbench101_is_read_as_programs_print_it(text: str) -> None:
    assert NB101.canonical(text) == HASH


@pytest.mark.parametrize(
    "text",
    [
        f"{MATRIX}",
        f"{OPERATIONS}",
        f"{MATRIX}{MATRIX}{OPERATIONS}",
        f"{MATRIX} {OPERATIONS} {OPERATIONS}",
        f"{[[0, 2], [0, 0]]} {['input', 'output']}",
        f"{[[0, 1], [0, 0]]} {OPERATIONS}",
        f"{MATRIX} {['input', 'conv5x5', 'maxpool3x3', 'output']}",
        "[[" * 900,
        "[[0 1]" * 300,
    ],
)
def test_other_matrices_and_operations_are_not_nasbench101_cells(text: str) -> None:
    with pytest.raises(UsageError):
        NB101.canonical(text)


# --- lists ----------------------------------------------------------------------------------------------------------

OTHER = "|none~0|+|none~0|none~1|+|none~0|none~1|nor_conv_3x3~2|"


def listed(tmp_path: Path, content: bytes | str, name: str = "list.txt") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"), (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("header", [False, True])
def test_a_list_is_read_in_any_encoding_with_a_byte_order_mark(
    tmp_path: Path, mark: bytes, encoding: str, end: str, header: bool
) -> None:
    lines = ["arch", f'"{ARCH}"', OTHER] if header else ["# mine", ARCH, "", OTHER]
    assert read_list(NB201, listed(tmp_path, mark + (end.join(lines) + end).encode(encoding))) == [ARCH, OTHER]


@pytest.mark.parametrize("content", [ARCH.encode("utf-16-le"), b"\xff\xfe\x00", b"\xe9", codecs.BOM_UTF16_BE + b"a"])
def test_a_list_in_an_unknown_encoding_is_rejected(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(
        UsageError, match=r"list\.txt cannot be read: it is not UTF-8 text; give one architecture per line"
    ):
        read_list(NB201, listed(tmp_path, content))


@pytest.mark.parametrize(
    "content",
    [
        f"{ARCH}  # the best\n{OTHER} # the worst\n",
        f"[\n'{ARCH}',\n'{OTHER}',\n]".replace("[\n", "").replace("\n]", ""),
        f"params,arch,note\n3,{ARCH},a\n4,{OTHER},\n",
        f'"arch"\n"{ARCH}"\n"{OTHER}"\n',
    ],
)
def test_comments_quotes_and_extra_columns_are_ignored(tmp_path: Path, content: str) -> None:
    assert read_list(NB201, listed(tmp_path, content)) == [ARCH, OTHER]


MODULE = f"""from collections import namedtuple

Genotype = namedtuple('Genotype', 'normal normal_concat reduce reduce_concat')
PRIMITIVES = ['none', 'max_pool_3x3']

# OLD = Genotype(normal=[], normal_concat=[], reduce=[], reduce_concat=[])
MINE = {PRINTED.replace("1), ", "1),  # node" + chr(10) + "    ")}

DARTS = MINE
"""


def test_a_module_and_a_log_are_searched_for_genotypes(tmp_path: Path) -> None:
    other = DARTS.sample(1, seed=0)[0]
    assert read_list(DARTS, listed(tmp_path, f"{MODULE}\nOTHER = {other}", "genotypes.py")) == [PRINTED, other]
    log = (
        f"01/02 03:04 AM gpu device = 0\n01/02 03:05 AM genotype = {other}\n01/02 genotype = {PRINTED}\nvalid_acc 97\n"
    )
    assert read_list(DARTS, listed(tmp_path, log, "log.log")) == [other, PRINTED]
    with pytest.raises(UsageError, match=r"g\.py, line 2: .*'Genotype\('"):
        read_list(DARTS, listed(tmp_path, f"\nX = {PRINTED[:300]}", "g.py"))
    with pytest.raises(UsageError, match=r"g\.py, line 1: .*must be a list of"):
        read_list(DARTS, listed(tmp_path, PRINTED.replace(str(NORMAL), "gene"), "g.py"))


def test_multi_line_architectures_report_errors_at_their_first_line(tmp_path: Path) -> None:
    several = f"{PRINTED.replace('), ', '),' + chr(10))}\n\n# next\n{PRINTED}\n"
    assert read_list(DARTS, listed(tmp_path, several)) == [PRINTED]
    following = len(several.splitlines()) + 1
    with pytest.raises(UsageError, match=rf"list\.txt, line {following}: .*unknown operation"):
        read_list(DARTS, listed(tmp_path, several + several.replace("sep_conv_3x3", "conv_3x3", 1)))
    assert read_list(NB101, listed(tmp_path, f"{np.array(MATRIX)} {OPERATIONS}\n{HASH}\n'{HASH}',\n")) == [HASH]


def test_an_endless_list_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "a named pipe"), (Path("/dev/zero"), "a device")):
        with pytest.raises(UsageError, match=f"is {kind}, which may never end; give a text file with one"):
            read_list(NB201, path)
    monkeypatch.setattr("hnas.pipeline.precompute.architecture_list._MOST_BYTES", 1000)
    with pytest.raises(UsageError, match="has more than 1,000 bytes"):
        read_list(NB201, listed(tmp_path, f"{ARCH}\n" * 20))


def test_a_list_can_come_from_a_shell_pipe() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as file:
        file.write(f"{ARCH}\n")
    try:
        assert read_list(NB201, Path(f"/dev/fd/{reading}")) == [ARCH]
    finally:
        os.close(reading)


def test_control_characters_in_a_list_do_not_reach_a_terminal(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_list(NB201, listed(tmp_path, "\x1b]0;title\x07\n", "a\x1b[2J.txt"))
    assert str(caught.value).isprintable()


def test_reading_a_list_runs_nothing_and_needs_no_torch(tmp_path: Path) -> None:
    path = listed(tmp_path, MODULE + f"\nimport os; os.mkdir({str(tmp_path / 'ran')!r})\n", "genotypes.py")
    program = (
        "import sys; from pathlib import Path; from hnas.spaces import search_spaces\n"
        "from hnas.pipeline.precompute.architecture_list import read_list\n"
        "print(len(read_list(search_spaces['darts'], Path(sys.argv[1]))), 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert found.stdout == "1 False\n"
    assert not (tmp_path / "ran").exists()
