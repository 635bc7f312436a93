"""The published measure functions, run from a checkout of their repository beside ours.

The checkout is the authors' own repository, github.com/shuyao95/HNAS, whose layout is that of SamsungLabs'
zero-cost-nas with two modules more:

    PATH/foresight/pruners/measures/{grad_norm,snip,grasp,ntk_trace,condnum}.py      PATH/tools/autograd_hacks.py

Nothing of it is changed or kept. Three things that the functions do not use are stood in for, because the published
code does not import without: `foresight.models` (benchmark networks with requirements of their own) is empty, and so
are the two measures that its list names and its folder lacks. `torch.symeig`, which torch has dropped, is
`torch.linalg.eigvalsh` while they run.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hnas import compute_metrics

#: Our column, the module of the measure, its function, whether it takes the mode of its array.
MEASURES = (
    ("grad_norm", "grad_norm", "get_grad_norm_arr", False),
    ("snip", "snip", "compute_snip_per_weight", True),
    ("grasp", "grasp", "compute_grasp_per_weight", True),
    ("trace", "ntk_trace", "compute_ntk_trace", True),
    ("kappa", "condnum", "compute_condnum", True),
)
PACKAGE = "foresight.pruners.measures"

Measure = Callable[[nn.Module, Tensor, Tensor], float]


class NoCheckoutError(Exception):
    """The folder is no checkout of the authors' repository."""


def load(path: str) -> dict[str, Measure]:
    """The measures by the column they belong to; each takes a network in training mode, images and labels.

    A call works on a copy of the network, as the published program does, without its collection of garbage, which is
    in favour of the published figure. Raises `NoCheckoutError`.
    """
    root = Path(path)
    wanted = [Path(*PACKAGE.split("."), f"{module}.py") for _, module, _, _ in MEASURES]
    missing = [file for file in (*wanted, Path("tools", "autograd_hacks.py")) if not (root / file).is_file()]
    if missing:
        raise NoCheckoutError(
            f"--authors {path} has no {missing[0]}; give a checkout of github.com/shuyao95/HNAS, the folder that holds "
            "foresight and tools"
        )
    stand_ins = {"foresight.models": types.ModuleType("foresight.models")}
    for name in ("naswot_sim", "ntk"):
        if not (root / Path(*PACKAGE.split("."), f"{name}.py")).is_file():
            stand_ins[f"{PACKAGE}.{name}"] = types.ModuleType(name)
    sys.path.insert(0, str(root.resolve()))
    try:
        sys.modules.update(stand_ins)
        modules = {module: importlib.import_module(f"{PACKAGE}.{module}") for _, module, _, _ in MEASURES}
        functions = {
            column: (getattr(modules[module], function), moded) for column, module, function, moded in MEASURES
        }
    except (ImportError, AttributeError, SyntaxError) as error:
        raise NoCheckoutError(
            f"--authors {path} does not import ({error}); give an unchanged checkout of github.com/shuyao95/HNAS"
        ) from error
    finally:
        sys.path.remove(str(root.resolve()))
    return {column: _measure(function, moded) for column, (function, moded) in functions.items()}


def _measure(function: Callable[..., object], moded: bool) -> Measure:
    options = {"mode": "param"} if moded else {}

    def call(network: nn.Module, images: Tensor, labels: Tensor) -> float:
        with _as_published():
            found = function(copy.deepcopy(network), images, labels, loss_fn=F.cross_entropy, **options)
        # An array has one tensor for each layer, and the published program sums them all.
        return sum(float(part.sum()) for part in found) if isinstance(found, list) else float(found)  # type: ignore[arg-type]

    return call


@contextlib.contextmanager
def _as_published() -> Iterator[None]:
    """The torch that the code was written for; what it prints is dropped."""
    dropped = torch.symeig
    torch.symeig = lambda matrix: (torch.linalg.eigvalsh(matrix), None)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.symeig = dropped


def all_of(measures: dict[str, Measure], network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Every measure of one network, one after the other as the published program takes them."""
    return {column: measure(network, images, labels) for column, measure in measures.items()}


def differences(measures: dict[str, Measure], network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
    """|theirs − ours| / |ours| of each measure, both in float64: what differs there is not rounding."""
    network, images = copy.deepcopy(network).double(), images.double()
    ours = compute_metrics(network, images, labels).columns()
    theirs = all_of(measures, network, images, labels)
    return {column: abs(value - ours[column]) / abs(ours[column]) for column, value in theirs.items()}


def describe(differences_of_networks: list[dict[str, float]]) -> str:
    """One line: the largest relative difference of each column."""
    columns = differences_of_networks[0]
    worst = {column: max(d[column] for d in differences_of_networks) for column in columns}
    return "largest relative difference of values in float64: " + ", ".join(
        f"{name} {value:.1e}" for name, value in worst.items()
    )
