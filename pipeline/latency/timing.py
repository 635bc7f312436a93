"""The latency of one network: the median over repeated forward passes in evaluation mode without gradients."""

from __future__ import annotations

import json
import platform
import re
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from hnas.devices import choose_device, use_float32
from hnas.errors import UsageError
from hnas.pipeline.importers.column_names import OF_ROWS
from hnas.pipeline.io.dataset_names import SIDES
from hnas.pipeline.store.manifests import COLUMN_NAME
from hnas.pipeline.store.store import digest
from hnas.threads import torch_threads, training_threads

#: Uncounted passes at the start, which fill caches and select and compile kernels.
WARM_UP = 3


@dataclass(frozen=True)
class LatencySettings:
    """Everything that determines a latency besides the network; equal settings form one source of the store.

    If `channels` or `cells` is None, the space's default applies; if `image_size` is None, the side of the data set in
    `SIDES` (see `for_images`). `processor` is the model of the CPU or GPU, `torch` its version.
    """

    column: str
    device: str
    processor: str
    torch: str
    threads: int
    batch_size: int
    repeats: int
    channels: int | None
    cells: int | None
    image_size: int | None

    @property
    def source(self) -> str:
        """The name of the source, `latency-` and a digest."""
        return f"latency-{self.content[:8]}"

    @property
    def content(self) -> str:
        """A digest of all settings."""
        return digest(json.dumps(asdict(self), sort_keys=True), size=16)

    def for_images(self, dataset: str, size: int) -> LatencySettings:
        """Return the settings of a measurement of `dataset` with images of `size` pixels a side.

        Runs of one data set may differ in the size, and so do their latencies. A size other than the data set's own is
        therefore part of the source and of the default column, as if `--image-size` had been given.
        """
        if self.image_size is not None or SIDES.get(dataset) == size:
            return self
        sized = replace(self, image_size=size)
        return replace(sized, column=sized.default_column) if self.column == self.default_column else sized

    @property
    def default_column(self) -> str:
        """The name of the column unless another is given, such as `latency_ms_cpu1_b1_s32`."""
        place = f"cpu{self.threads}" if self.device == "cpu" else self.device
        given = (("c", self.channels), ("n", self.cells), ("s", self.image_size))
        sizes = "".join(f"_{letter}{value}" for letter, value in given if value is not None)
        return f"latency_ms_{place}_b{self.batch_size}{sizes}"

    def __str__(self) -> str:
        threads = f", {self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.processor}{threads}, batch size {self.batch_size}, {self.repeats} repeats, torch {self.torch}"


def latency_settings(
    *,
    name: str | None = None,
    device: str = "auto",
    threads: int = 1,
    batch_size: int = 1,
    repeats: int = 20,
    channels: int | None = None,
    cells: int | None = None,
    image_size: int | None = None,
) -> LatencySettings:
    """Return the settings on this machine. The column is `name`, by default `default_column`.

    Raises `UsageError` for invalid numbers and names, and `HnasError` if there is no such device.
    """
    for option, value, most in (
        ("batch-size", batch_size, 4096), ("repeats", repeats, 100_000), ("image-size", image_size, 4096),
    ):  # fmt: skip
        if value is not None and not 1 <= value <= most:
            raise UsageError(f"--{option} must be between 1 and {most:,}, got {value}")
    device, threads = choose_device(device), training_threads(threads)
    processor = _processor() if device == "cpu" else torch.cuda.get_device_name()
    settings = LatencySettings(
        "", device, processor, torch.__version__, threads, batch_size, repeats, channels, cells, image_size
    )
    settings = replace(settings, column=settings.default_column if name is None else name)
    if not COLUMN_NAME.fullmatch(settings.column):
        raise UsageError(
            f"--name {settings.column!r:.120} must be a letter a to z, then letters, digits and underscores, at most "
            "60 in all"
        )
    if settings.column in OF_ROWS:
        raise UsageError(f"--name {settings.column} is a column of every table of architectures; give another name")
    return settings


def _processor() -> str:
    """Return the model of the CPU, as reported by the system."""
    with suppress(OSError):
        if match := re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.M):
            return match[1].strip()
    return platform.processor() or platform.machine()


@contextmanager
def undisturbed(settings: LatencySettings) -> Iterator[None]:
    """Compute inside with the settings' number of threads, in full float32."""
    use_float32(settings.device)
    with torch_threads(settings.threads):
        yield


def milliseconds(network: nn.Module, images: Tensor, repeats: int) -> float:
    """Return the median time in ms of `repeats` forward passes of `network` over `images`, after `WARM_UP` others.

    On a GPU, a pass ends when its kernels have finished. The network is left in evaluation mode on the device of
    `images`.
    """
    network.eval().to(images.device)
    seconds = []
    with torch.inference_mode():
        for _ in range(WARM_UP + repeats):
            begun = time.perf_counter()
            network(images)
            if images.is_cuda:
                torch.cuda.synchronize(images.device)
            seconds.append(time.perf_counter() - begun)
    return 1000 * statistics.median(seconds[WARM_UP:])
