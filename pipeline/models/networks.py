"""The networks that weights may belong to: those that a search space builds of one architecture."""

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
    """Each kind of network of `arch`, by the name that is stored: `network`, then those of a final training, if any."""
    yield "network", partial(space.network, arch, classes=classes, channels=channels, cells=cells, seed=0)
    evaluation = getattr(space, "evaluation_network", None)
    if evaluation is not None:
        for name, auxiliary in (("evaluation_network", False), ("evaluation_network+auxiliary", True)):
            size = {"classes": classes, "channels": channels, "layers": cells}
            yield name, partial(evaluation, arch, **size, auxiliary=auxiliary)


def shapes(state: Mapping[str, Tensor]) -> Shapes:
    """The shape of each tensor of a state by its name."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def same_function(build: Callable[[], nn.Module], network: nn.Module, image_size: int) -> bool:
    """Whether the network that `build` makes computes what `network` does, float32 on the CPU, with its weights.

    Names and shapes do not tell: two kinds of one architecture may have the same, in another order of layers.
    """
    import torch

    state = network.state_dict()
    if shapes_of(build) != shapes(state):
        return False
    rebuilt = build()
    rebuilt.load_state_dict(state)
    images = torch.rand(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, expected = (module.eval()(images) for module in (rebuilt, network))
    return torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def shapes_of(build: Callable[[], nn.Module]) -> Shapes:
    """The same of the network that `build` makes, without memory for its weights where it can do without.

    Raises what `build` raises as `HnasError`.
    """
    import torch

    try:
        with torch.device("meta"):
            return shapes(build().state_dict())
    except HnasError:
        raise
    except Exception:  # a space of somebody else's, whose network looks at its weights
        return shapes(build().state_dict())
