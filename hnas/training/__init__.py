"""Train one network and report its accuracy; used by `hnas evaluate` and the `train` oracle.

The default recipe is the one behind NAS-Bench-201's table (Dong and Yang, "NAS-Bench-201: Extending the Scope of
Reproducible Neural Architecture Search", ICLR 2020; code: AutoDL-Projects): SGD with Nesterov momentum 0.9 and weight
decay 5e-4 on every parameter, cross entropy, batches of 256, a random horizontal flip followed by a random crop, and in
epoch e = 0, …, E - 1 the learning rate

    lr(e) = lr₀ (1 + cos(π e / E)) / 2,        lr₀ = 0.1

constant within an epoch. As in the benchmark, flip and crop act on the uint8 image: the padding is black, that is
-mean/std after normalisation, not 0.
"""

from hnas.training.augmentation import augment, crop_padding
from hnas.training.data import stratified_split
from hnas.training.evaluation import accuracy
from hnas.training.loop import Progress, train
from hnas.training.recipe import RECIPES, Recipe, learning_rate, recipe_named
from hnas.training.result import Checkpoint, DivergedError, Epoch, TrainingResult

__all__ = [
    "RECIPES",
    "Checkpoint",
    "DivergedError",
    "Epoch",
    "Progress",
    "Recipe",
    "TrainingResult",
    "accuracy",
    "augment",
    "crop_padding",
    "learning_rate",
    "recipe_named",
    "stratified_split",
    "train",
]
