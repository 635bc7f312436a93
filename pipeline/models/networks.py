"""The networks that weights may belong to: those that a search space builds for one architecture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from hnas.errors import HnasError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hnas.spaces import SearchSpace

Shapes = dict[str, tuple[int, ...]]


def networks(
    space: SearchSpace, arch: str, *, classes: int, channels: int, cells: int
) -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    """Yield each kind of network of `arch` with its stored name: `network`, then those of a final training, if any."""
    yield "network", partial(space.network, arch, classes=classes, channels=channels, cells=cells, seed=0)
    evaluation = getattr(space, "evaluation_network", None)
    if evaluation is not None:
        for name, auxiliary in (("evaluation_network", False), ("evaluation_network+auxiliary", True)):
            size = {"classes": classes, "channels": channels, "layers": cells}
            yield name, partial(evaluation, arch, **size, auxiliary=auxiliary)


def shapes(state: Mapping[str, Tensor]) -> Shapes:
    """Return the shape of each tensor in a state dict by name."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def same_function(build: Callable[[], nn.Module], network: nn.Module, image_size: int) -> bool:
    """Return whether the network from `build`, with the weights of `network`, computes the same (float32, CPU).

    Names and shapes are not enough: two kinds of network may share them with their layers in another order.
    """
    import torch

    state = network.state_dict()
    if shapes_of(build) != shapes(state):
        return False
    rebuilt = build()
    rebuilt.load_state_dict(state)
    images = torch.rand(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        actual, expected = (module.eval()(images) for module in (rebuilt, network))
    return torch.allclose(actual, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def shapes_of(build: Callable[[], nn.Module]) -> Shapes:
    """Return the `shapes` of the network from `build`, if possible without allocating its weights.

    Raises the `HnasError`s of `build`.
    """
    import torch

    try:
        with torch.device("meta"):
            return shapes(build().state_dict())
    except HnasError:
        raise
    except Exception:  # a third-party space whose network looks at its weights
        return shapes(build().state_dict())
