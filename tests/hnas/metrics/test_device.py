"""Requirements of accelerators, tested without one: no values are read back, and all tensors are on the device.

Tensors on torch's `meta` device have shapes but no values: an operation that reads a value raises, and so does one that
mixes devices. Code that passes here never waits for a GPU.
"""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from benchmarks.host_reads import HostReads
from hnas import compute_metrics, search_spaces
from hnas.errors import UsageError
from hnas.metrics import compute, queue_metrics
from hnas.metrics.ops.pooling import average_pool
from tests.support.networks import CLASSES, NETWORKS, batch, build

#: A few architectures of each space that cover all operations. Written out for NAS-Bench-101, whose sampling is slow.
ARCHITECTURES = {
    "nasbench101": [
        "input,conv3x3-bn-relu,conv1x1-bn-relu,maxpool3x3,output:0111100111000010000100000",
        "input,conv3x3-bn-relu,maxpool3x3,output:0110001000010000",
    ],
    "nasbench201": search_spaces["nasbench201"].sample(4, seed=0),
    "darts": search_spaces["darts"].sample(2, seed=0),
}


@pytest.fixture
def images_and_labels() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn((4, 3, 16, 16), generator=generator), torch.randint(0, 10, (4,), generator=generator)


def small(name: str, index: int) -> nn.Module:
    cells = 3 if name == "darts" else 1
    return search_spaces[name].network(ARCHITECTURES[name][index], classes=10, channels=4, cells=cells, seed=0)


@pytest.mark.parametrize("ntk", ["summed", "exact"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_networks_of_the_spaces_are_queued_without_reading_values(name, ntk, images_and_labels, monkeypatch) -> None:
    images, labels = (t.to("meta") for t in images_and_labels)
    monkeypatch.setattr(compute, "_label_range", lambda _: (0, 9))  # read once for each batch: see below
    for index in range(len(ARCHITECTURES[name])):
        network = small(name, index).to("meta")
        with HostReads() as reads:
            pending = queue_metrics(network, images, labels, ntk)
        assert reads.found == []
        assert pending.packed.shape == (6 + 4 * 4,)
        assert pending.packed.device.type == "meta"


def test_accelerators_pool_maps_in_torchs_own_layout() -> None:
    # Torch's backward pass of an average pooling of padded channels-last maps is wrong on CUDA.
    images = torch.empty((4, 3, 8, 8), device="meta").contiguous(memory_format=torch.channels_last)
    pooled = average_pool(images, 3, 1, 1, count_include_pad=False)
    assert pooled.is_contiguous()
    assert not pooled.is_contiguous(memory_format=torch.channels_last)
    assert average_pool(torch.zeros(images.shape).to(memory_format=torch.channels_last), 3, 1, 1).is_contiguous(
        memory_format=torch.channels_last
    )


@pytest.mark.parametrize("ntk", ["summed", "exact"])
@pytest.mark.parametrize("name", NETWORKS)
def test_any_network_is_queued_without_reading_values(name, ntk, monkeypatch) -> None:
    network, shape = build(name)
    images, labels = (t.to("meta") for t in batch(shape))
    monkeypatch.setattr(compute, "_label_range", lambda _: (0, CLASSES - 1))
    network = network.to("meta")
    with HostReads() as reads:
        queue_metrics(network, images, labels, ntk)
    assert reads.found == []


def test_only_the_first_network_of_a_batch_reads_the_labels(images_and_labels) -> None:
    counts = []
    for index in range(3):
        network = small("nasbench201", index)
        with HostReads() as reads, Calls("aminmax") as ranges:
            queue_metrics(network, *images_and_labels)
        counts.append((len(reads.found), ranges.found))
    assert counts == [(0, 1), (0, 0), (0, 0)]


def test_a_result_is_one_copy_to_the_host(images_and_labels) -> None:
    pending = queue_metrics(small("nasbench201", 0), *images_and_labels)
    with Calls("cpu", "to", "numpy") as copies:
        metrics = pending.result()
    assert copies.found == 1
    expected = compute_metrics(small("nasbench201", 0), *images_and_labels)
    assert metrics.columns() == expected.columns()
    assert torch.equal(metrics.ntk, expected.ntk)


def test_labels_changed_in_place_are_read_again(images_and_labels) -> None:
    images, labels = images_and_labels
    network = small("nasbench201", 0)
    compute_metrics(network, images, labels)
    labels[2] = 10
    with pytest.raises(UsageError, match=r"labels must lie between 0 and 9, got \d to 10"):
        compute_metrics(network, images, labels)
    labels[2] = -1
    with pytest.raises(UsageError, match="labels must lie between 0 and 9, got -1 to"):
        compute_metrics(network, images, labels)
    labels[2] = 3
    compute_metrics(network, images, labels)


def test_a_measured_batch_is_freed(images_and_labels) -> None:
    images, labels = images_and_labels[0], images_and_labels[1].clone()
    compute_metrics(small("nasbench201", 0), images, labels)
    gone = weakref.ref(labels)
    del labels
    gc.collect()
    assert gone() is None


class Calls(TorchFunctionMode):
    """Counts the calls of torch functions and methods by name."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        self.found = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.found += getattr(func, "__name__", "") in self.names
        return func(*args, **(kwargs or {}))


# The counter itself.


@pytest.mark.parametrize(
    "read",
    [
        lambda t: t[0].item(),
        lambda t: bool((t > 0).any()),
        lambda t: int(t.max()),
        lambda t: t.nonzero(),
        lambda t: t[t > 0],
        lambda t: torch.equal(t, t + 1),
        lambda t: t.to("meta"),
    ],
)
def test_the_counter_counts_reads_of_values(read) -> None:
    values = torch.arange(4.0)
    with HostReads() as reads:
        read(values)
    assert len(reads.found) == 1


def test_the_counter_counts_reads_in_a_backward_pass() -> None:
    class Peeks(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float(gradient.sum())

    x = torch.ones(3, requires_grad=True)
    with HostReads() as reads:
        Peeks.apply(x).sum().backward()
    assert reads.found == ["_local_scalar_dense"]
