"""`hnas evaluate`: one full training of one architecture."""

from __future__ import annotations

from collections.abc import Callable

from hnas.errors import check_seed
from hnas.pipeline.search.estimate import TrainingSize
from hnas.pipeline.search.saving import Keeper
from hnas.pipeline.search.settings import TrainingSettings
from hnas.pipeline.search.training import Trainer
from hnas.pipeline.store.store import Store
from hnas.spaces import search_spaces, space_of
from hnas.spaces.protocols import key_of
from hnas.training import Progress, TrainingResult

#: The recipes of final trainings by space; other spaces use NAS-Bench-201's.
OWN_RECIPES = {"nasbench101": "nasbench101", "darts": "darts"}
# Channels and cells of networks in final trainings, if different from those for the metrics.
_EVALUATION_SIZE = {"darts": (36, 20), "nasbench101": (128, 3)}


def evaluate(
    arch: str,
    training: TrainingSettings,
    *,
    space: str | None = None,
    init: str = "torch",
    seed: int = 0,
    device: str = "auto",
    store: Store | None = None,
    on_start: Callable[[TrainingSize], None] = lambda size: None,
    progress: Callable[[int], Progress | None] = lambda epochs: None,
    save: str | None = None,
) -> TrainingResult:
    """Train `arch` once, or find its training in `store`, and return its accuracies on held-out and test images.

    By default the network has the size that the benchmark reports: 36 channels and 20 cells for DARTS, 128 and 3 for
    NAS-Bench-101. The default `space` is the first that accepts the architecture; `init` is the distribution of the
    initial weights. `on_start` is called with the size of the training before it begins; `save` is a folder for the
    model. Raises `UsageError`, and `DivergedError` if the training diverges.
    """
    check_seed(seed, "--seed")
    chosen = search_spaces[space] if space is not None else space_of(arch)
    channels, cells = _EVALUATION_SIZE.get(chosen.name, (chosen.channels, chosen.cells))
    trainer = Trainer(
        chosen,
        training,
        channels=channels,
        cells=cells,
        init=init,
        seed=seed,
        device=device,
        store=store,
        with_test=True,
        progress=progress,
    )
    arch = key_of(chosen, arch)
    keeper = None if save is None else Keeper(save, trainer, {"seed": seed, "dataset": training.images})
    on_start(trainer.size([arch]))
    result = trainer.train(arch)
    if keeper is not None:
        keeper.finish(arch)
    return result
