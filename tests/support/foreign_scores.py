"""A package with scores, which a test installs; hnas finds them by the entry-point group `hnas.scores`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

MODULE = '''
import copy

import torch

class Spread:
    """The spread of the logits on the images beside the batch, also for another draw of the network."""
    columns, version, shared = ("spread", "spread_again"), 1, False

    def __call__(self, subject):
        images, _ = subject.further
        with torch.no_grad():
            networks = copy.deepcopy(subject.network), subject.build(seed=subject.seed + 1)
            return dict(zip(self.columns, (float(network(images).std()) for network in networks)))

class Weight:
    columns, version, shared = ("weight",), 1, False

    def __call__(self, subject):
        convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in subject.network.modules())
        total = sum(float(p.detach().double().sum()) for p in subject.network.parameters())
        return {"weight": total if convolutions % 2 else float("nan")}

class Pair:
    """The largest weight and the smallest."""
    columns, version, shared = ("largest", "smallest"), 1, False

    def __call__(self, subject):
        values = torch.cat([p.detach().flatten() for p in subject.network.parameters()])
        return {"largest": float(values.max()), "smallest": float(values.min())}

class Wrong:
    columns, version, shared = ("wrong",), 1, False

    def __call__(self, subject):
        raise KeyError("a file of its own")

class Quits:
    columns, version, shared = ("quits",), 1, False

    def __call__(self, subject):
        raise SystemExit(3)

class Taken:
    columns, version, shared = ("kappa",), 1, False

class Weightier:
    columns, version, shared = ("weight",), 1, False

class Seconds:
    columns, version, shared = ("spread_seconds",), 1, False

class Empty:
    columns, version, shared = (), 1, False

class Below:
    columns, version, shared = ("below",), -1, False

class Words:
    columns, version, shared = ("words",), "one", False

class Silent:
    columns, shared = ("silent",), False

class Needy:
    columns, version, shared, needs = ("needy",), 1, True, ("nothing",)

class Rude:
    columns, version, shared = ("rude",), 1, False

    def __call__(self, subject):
        subject.images.zero_()
        return {"rude": 0.0}

class Ruder:
    columns, version, shared = ("ruder",), 1, False

    def __call__(self, subject):
        subject.network.eval()
        return {"ruder": 0.0}
'''
ENTRY_POINTS = """[hnas.scores]
spread = foreign_scores:Spread
weight = foreign_scores:Weight
pair = foreign_scores:Pair
wrong = foreign_scores:Wrong
quits = foreign_scores:Quits
taken = foreign_scores:Taken
weightier = foreign_scores:Weightier
seconds = foreign_scores:Seconds
empty = foreign_scores:Empty
below = foreign_scores:Below
words = foreign_scores:Words
silent = foreign_scores:Silent
needy = foreign_scores:Needy
rude = foreign_scores:Rude
ruder = foreign_scores:Ruder
"""


def install(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Install the package in `folder`, for this process and its children."""
    (folder / "foreign_scores-1.0.dist-info").mkdir()
    (folder / "foreign_scores-1.0.dist-info" / "METADATA").write_text("Name: foreign-scores\nVersion: 1.0\n")
    (folder / "foreign_scores-1.0.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "foreign_scores.py").write_text(MODULE)
    patch.syspath_prepend(str(folder))
    patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]))
