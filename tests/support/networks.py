"""Small networks of every kind that the metric engine supports, each with the shape of an image."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 5

Built = tuple[nn.Module, tuple[int, ...]]


class Forward(nn.Module):
    """A module with a given forward function: `Forward(lambda s, x: s.head(x), head=...)`."""

    def __init__(self, forward: Callable[[Forward, Tensor], Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def head(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


class Residual(nn.Module):
    """Depthwise, dilated, strided and 1 × 1 convolutions around two shortcuts, with or without batch norm."""

    def __init__(self, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.stem_norm = norm(6)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
        self.pointwise = nn.Conv2d(6, 6, 1)
        self.block_norm = norm(6)
        self.dilated = nn.Conv2d(6, 6, 3, padding=2, dilation=2)
        self.strided = nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False)
        self.strided_norm = norm(8)
        self.shortcut = nn.Conv2d(6, 8, 1, stride=2, bias=False)
        self.classifier = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.tanh(self.stem_norm(self.stem(images)))
        x = x + self.block_norm(self.pointwise(self.depthwise(x)))
        x = self.dilated(torch.relu(x))
        x = torch.relu(self.strided_norm(self.strided(x)) + self.shortcut(x))
        out: Tensor = self.classifier(x.mean((2, 3)))
        return out


class InPlaceResidual(nn.Module):
    """The usual residual block: every ReLU in place, the shortcut added in place to a batch norm's output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.conv = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.bare = nn.Sequential(nn.Conv2d(6, 6, 3), nn.ReLU(inplace=True))
        self.head = head(6)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        y = self.norm(self.conv(x))
        y += x
        out: Tensor = self.head(self.bare(F.relu(y, inplace=True)))
        return out


def _mlp() -> Built:
    return nn.Sequential(nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 9, bias=False), nn.ReLU(), nn.Linear(9, 5)), (12,)


def _residual() -> Built:
    return Residual(), (3, 9, 9)


def _residual_without_norm() -> Built:
    return Residual(lambda channels: nn.Identity()), (3, 9, 9)


def _residual_in_place() -> Built:
    return InPlaceResidual(), (3, 8, 8)


def _group_norm() -> Built:
    return Residual(lambda channels: nn.GroupNorm(2, channels)), (3, 8, 8)


def _instance_norm() -> Built:
    return Residual(lambda channels: nn.InstanceNorm2d(channels, affine=True)), (3, 8, 8)


def _plain_batch_norm() -> Built:
    return Residual(lambda channels: nn.BatchNorm2d(channels, affine=False, track_running_stats=False)), (3, 8, 8)


def _mlp_batch_norm() -> Built:
    return (
        nn.Sequential(nn.Linear(12, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 5)),
        (12,),
    )


def _conv1d() -> Built:
    layers = nn.Sequential(nn.Conv1d(3, 6, 4, stride=2, padding=1), nn.Tanh(), nn.Conv1d(6, 4, 3, groups=2))
    return nn.Sequential(layers, nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.Linear(8, CLASSES)), (3, 17)


def _conv1d_batch_norm() -> Built:
    layers = nn.Sequential(nn.Conv1d(3, 6, 3, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 4, 3, dilation=2))
    return nn.Sequential(layers, nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.Linear(8, CLASSES)), (3, 17)


def _conv3d() -> Built:
    layers = nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv3d(4, 4, (1, 2, 3), stride=(1, 2, 1)))
    return nn.Sequential(layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, CLASSES)), (2, 3, 5, 6)


def _conv3d_batch_norm() -> Built:
    layers = nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.Conv3d(4, 4, 2, groups=4))
    return nn.Sequential(layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, CLASSES)), (2, 3, 5, 6)


def _groups() -> Built:
    layers = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.Tanh(), nn.Conv2d(6, 12, 3, groups=6, padding=1))
    return nn.Sequential(layers, head(12)), (4, 7, 7)


def _depthwise(norm: Callable[[int], nn.Module]) -> nn.Sequential:
    """Depthwise convolutions of every kind that has its own adjoint, and poolings with and without overlap."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 1),
        norm(6),
        nn.Tanh(),
        nn.Conv2d(6, 6, 5, padding=2, groups=6),
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.Conv2d(6, 6, (3, 5), (2, 1), (2, 1), (2, 1), groups=6, bias=False),
        norm(6),
        nn.Tanh(),
        nn.AvgPool2d(3, 2, 1),
        nn.Conv2d(6, 6, 2, stride=2, padding=2, groups=6),
        nn.AvgPool2d(2),
        head(6),
    )


def _depthwise_without_norm() -> Built:
    return _depthwise(lambda channels: nn.Identity()), (3, 11, 9)


def _depthwise_batch_norm() -> Built:
    return _depthwise(nn.BatchNorm2d), (3, 11, 9)


def _padding_same() -> Built:
    layers = nn.Sequential(nn.Conv2d(3, 5, 3, padding="same"), nn.Tanh(), nn.Conv2d(5, 4, (3, 5), padding="same"))
    return nn.Sequential(layers, head(4)), (3, 7, 6)


def _padding_same_even_kernels() -> Built:
    layers = nn.Sequential(
        nn.Conv2d(3, 5, (2, 4), padding="same", dilation=(1, 3)),
        nn.Tanh(),
        nn.Conv2d(5, 4, 2, padding="same", groups=1),
        nn.Flatten(),
    )
    return nn.Sequential(layers, nn.Linear(4 * 7 * 8, CLASSES)), (3, 7, 8)


def _padding_valid() -> Built:
    layers = nn.Sequential(nn.Conv2d(3, 5, 3, padding="valid"), nn.Tanh(), nn.Conv2d(5, 4, 2, padding="valid"))
    return nn.Sequential(layers, head(4)), (3, 7, 6)


def _padding_circular() -> Built:
    layers = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=(1, 2), padding_mode="circular"),
        nn.Tanh(),
        nn.Conv2d(5, 4, 3, padding=1, stride=2, padding_mode="reflect"),
    )
    return nn.Sequential(layers, head(4)), (3, 7, 6)


def _even_kernels_and_strides() -> Built:
    layers = nn.Sequential(
        nn.Conv2d(3, 5, (4, 2), stride=(2, 3), padding=(2, 1)),
        nn.Tanh(),
        nn.Conv2d(5, 4, (1, 3), stride=2, padding=(0, 1)),
        nn.Tanh(),
        nn.Conv2d(4, 4, 1, stride=(1, 2), padding=1),
        nn.Tanh(),
        nn.Conv2d(4, 4, 1, stride=(2, 1)),
    )
    return nn.Sequential(layers, nn.Flatten(), nn.Linear(4 * 3 * 2, CLASSES)), (3, 11, 9)


def _one_channel() -> Built:
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3), nn.ReLU(), head(1)), (1, 6, 6)


def _tokens() -> Built:
    block = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6, bias=False), nn.LayerNorm(6))
    return Forward(lambda s, x: s.out((x + s.block(x)).mean(1)), block=block, out=nn.Linear(6, CLASSES)), (7, 6)  # type: ignore[operator]


def _tokens_four_dimensions() -> Built:
    block = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6))
    return Forward(lambda s, x: s.out(s.block(x).mean((1, 2))), block=block, out=nn.Linear(6, CLASSES)), (2, 3, 6)  # type: ignore[operator]


def _linear_called_twice() -> Built:
    mix = nn.Linear(12, 12)
    return nn.Sequential(mix, nn.Tanh(), mix, nn.Tanh(), nn.Linear(12, CLASSES)), (12,)


def _conv_called_twice() -> Built:
    mix = nn.Conv2d(4, 4, 3, padding=1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), mix, nn.Tanh(), nn.MaxPool2d(2), mix, nn.Tanh(), head(4)), (3, 8, 8)


def _tokens_called_twice() -> Built:
    mix = nn.Linear(6, 6)
    return Forward(lambda s, x: s.out(torch.tanh(s.mix(torch.tanh(s.mix(x)))).mean(1)), mix=mix, out=nn.Linear(6, 5)), (  # type: ignore[operator]
        7,
        6,
    )


def _weight_of_two_modules() -> Built:
    one, two = nn.Linear(12, 12), nn.Linear(12, 12)
    two.weight, two.bias = one.weight, one.bias
    return nn.Sequential(one, nn.Tanh(), two, nn.Tanh(), nn.Linear(12, CLASSES)), (12,)


def _weight_of_two_modules_with_their_own_biases() -> Built:
    one, two, three = (nn.Conv2d(3, 3, 3, padding=1, bias=bias) for bias in (True, True, False))
    two.weight = three.weight = one.weight
    return nn.Sequential(one, nn.Tanh(), two, nn.Tanh(), three, nn.Tanh(), head(3)), (3, 6, 6)


def _weight_of_convolutions_of_several_geometries() -> Built:
    """Convolutions with different strides, dilations and groups that share one weight."""
    first, halved, wide, joint = (
        nn.Conv2d(4, 4, (3, 2), padding=1, groups=2),
        nn.Conv2d(4, 4, (3, 2), padding=1, groups=2, stride=2),
        nn.Conv2d(2, 4, (3, 2), padding=2, dilation=2),
        nn.Conv2d(2, 4, (3, 2), stride=(2, 1)),
    )
    for other in (halved, wide, joint):
        other.weight = first.weight

    def forward(s: Forward, x: Tensor) -> Tensor:
        y = torch.tanh(s.first(torch.tanh(s.halved(x))))  # type: ignore[operator]
        z = torch.tanh(s.wide(x[:, :2])).mean((2, 3), keepdim=True)  # type: ignore[operator]
        return s.out(torch.tanh(s.joint((y + z)[:, 1:3])))  # type: ignore[operator, no-any-return]

    return Forward(forward, first=first, halved=halved, wide=wide, joint=joint, out=head(4)), (4, 8, 8)


def _views() -> Built:
    def forward(s: Forward, x: Tensor) -> Tensor:
        x = torch.relu(s.conv(x))  # type: ignore[operator]
        out: Tensor = s.out(x.view(x.size(0), -1))  # type: ignore[operator]
        return out

    return Forward(forward, conv=nn.Conv2d(3, 4, 3), out=nn.Linear(4 * 16, CLASSES)), (3, 6, 6)


def _views_after_batch_norm() -> Built:
    def forward(s: Forward, x: Tensor) -> Tensor:
        x = torch.relu(s.norm(s.conv(x)))  # type: ignore[operator]
        shuffled = x.view(x.size(0), 2, 2, *x.shape[2:]).transpose(1, 2).contiguous()
        out: Tensor = s.out(x.view(-1, 4 * 16) + torch.tanh(shuffled.view(-1, 4 * 16)))  # type: ignore[operator]
        return out

    return Forward(forward, conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), out=nn.Linear(64, CLASSES)), (3, 6, 6)


#: Networks that process each sample independently, for which `summed` and `exact` agree.
UNCOUPLED: dict[str, Callable[[], Built]] = {
    "mlp": _mlp,
    "residual_without_norm": _residual_without_norm,
    "group_norm": _group_norm,
    "conv1d": _conv1d,
    "conv3d": _conv3d,
    "groups": _groups,
    "depthwise": _depthwise_without_norm,
    "padding_same": _padding_same,
    "padding_same_even_kernels": _padding_same_even_kernels,
    "padding_valid": _padding_valid,
    "padding_circular": _padding_circular,
    "even_kernels_and_strides": _even_kernels_and_strides,
    "one_channel": _one_channel,
    "tokens": _tokens,
    "tokens_four_dimensions": _tokens_four_dimensions,
    "linear_called_twice": _linear_called_twice,
    "conv_called_twice": _conv_called_twice,
    "tokens_called_twice": _tokens_called_twice,
    "weight_of_two_modules": _weight_of_two_modules,
    "weight_of_two_modules_with_their_own_biases": _weight_of_two_modules_with_their_own_biases,
    "weight_of_convolutions_of_several_geometries": _weight_of_convolutions_of_several_geometries,
    "views": _views,
}

#: Networks with batch norm, which couples the samples.
COUPLED: dict[str, Callable[[], Built]] = {
    "residual": _residual,
    "residual_in_place": _residual_in_place,
    "plain_batch_norm": _plain_batch_norm,
    "mlp_batch_norm": _mlp_batch_norm,
    "conv1d_batch_norm": _conv1d_batch_norm,
    "conv3d_batch_norm": _conv3d_batch_norm,
    "depthwise_batch_norm": _depthwise_batch_norm,
    "views_after_batch_norm": _views_after_batch_norm,
}

NETWORKS = {**UNCOUPLED, **COUPLED}


def build(name: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> Built:
    """The network called `name`, in training mode, with batch norm's scales and shifts away from one and zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network, shape = NETWORKS[name]()
        shake(network)
    return network.to(dtype), shape


def shake(network: nn.Module) -> None:
    """Draw the scales and shifts of every norm; their default values would hide mistakes."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm):
            if module.weight is not None:
                nn.init.uniform_(module.weight, 0.5, 1.5)
            if module.bias is not None:
                nn.init.uniform_(module.bias, -0.3, 0.3)


def batch(
    shape: tuple[int, ...], size: int = 6, seed: int = 1, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Images (size, *shape), and labels (size,) that contain every class."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn((size, *shape), generator=generator, dtype=torch.float64).to(dtype)
    labels = torch.arange(size)[torch.randperm(size, generator=generator)] % CLASSES
    return images, labels
