"""`hnas fetch`: downloads data sets and benchmark files from their authors' sites and verifies their checksums.

For a source without a stable direct link, it explains where to get the file and what to check.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pooch

from hnas.errors import HnasError, UsageError, did_you_mean
from hnas.pipeline.io.download import DownloadError, Progress, download
from hnas.pipeline.io.printable import printable
from hnas.pipeline.io.unpacking import unpack


@dataclass(frozen=True)
class Download:
    """A file with a stable address. `checksum` is `algorithm:digest`; an archive is unpacked in its own folder."""

    url: str
    checksum: str
    archive: bool = False

    @property
    def file(self) -> str:
        """The file's name."""
        return urlsplit(self.url).path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class ByHand:
    """Files without a stable address: where to get them, and their MD5 by name if their authors publish it."""

    where: str
    checksums: dict[str, str]


_IMAGENET16 = (
    "27846dcaa50de8e21a7d1a35f30f0e91", "c7254a054e0e795c69120a5727050e3f", "4333d3df2e5ffb114b05d2ffc19b1e87",
    "1620cdf193304f4a92677b695d70d10f", "348b3c2fdbb3940c4e9e834affd3b18d", "6e765307c242a1b3d7d5ef9139b48945",
    "564926d8cbf8fc4818ba23d2faac7564", "f4755871f718ccb653440b9dd0ebac66", "bb6dd660c38c58552125b1a92f86b5d4",
    "8f03f34ac4b42271a294f91bf480f29b",
)  # fmt: skip

SOURCES: dict[str, Download | ByHand] = {
    "cifar10": Download(
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "md5:c58f30108f718f92721af3b95e74349a", archive=True
    ),
    "cifar100": Download(
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "md5:eb9058c3a382ffc7106e4002c42a8d85", archive=True
    ),
    "nasbench101": Download(
        "https://storage.googleapis.com/nasbench/nasbench_only108.tfrecord",
        "sha256:4c39c3936e36a85269881d659e44e61a245babcb72cb374eacacf75d0e5f4fd1",
    ),
    "nasbench101-full": Download(
        "https://storage.googleapis.com/nasbench/nasbench_full.tfrecord",
        "sha256:3d64db8180fb1b0207212f9032205064312b6907a3bbc81eabea10db2f5c7e9c",
    ),
    "imagenet16-120": ByHand(
        "image-net.org/download-images (Downsampled ImageNet, 16 x 16, behind a login) or the Google Drive folder that "
        "github.com/D-X-Y/NAS-Bench-201 links",
        {f"train_data_batch_{k}": md5 for k, md5 in enumerate(_IMAGENET16, start=1)}
        | {"val_data": "3410e3017fdaefba8d5073aaa65e4bd6"},
    ),
    "nasbench201": ByHand(
        "the Google Drive links of github.com/D-X-Y/NAS-Bench-201; the file is NAS-Bench-201-v1_1-096897.pth, and the "
        "last six characters of its name begin its MD5",
        {},
    ),
    "nats-bench": ByHand(
        "the Google Drive links of github.com/D-X-Y/NATS-Bench; the folder is NATS-tss-v1_0-3ffb9-simple",
        {},
    ),
    "suite-zero": ByHand("the Google Drive links of github.com/automl/naslib (branch zerocost)", {}),
}


def fetch(name: str, folder: Path, *, url: str | None = None, progress: Progress = lambda done, total: None) -> Path:
    """Download the source `name` to `folder`/`name` and return the path of the file, or the folder of an archive.

    `url` names a mirror, verified with the same checksum. Existing files are verified but not downloaded again, and an
    interrupted download resumes where it stopped (see `hnas.pipeline.io.download`); `progress` receives bytes. Raises
    `UsageError` for an unknown name, or a `url` for a source without a stable address, and `HnasError` if the network
    or disk fails, the checksum is wrong, or the source has no stable address and its files are missing.
    """
    if name not in SOURCES:
        choices = f"choose from {', '.join(SOURCES)}{did_you_mean(name, SOURCES)}"
        raise UsageError(f"unknown source {name!r}; {choices}")
    source, place = SOURCES[name], folder / name
    if isinstance(source, ByHand):
        if url is not None:
            raise UsageError(f"{name} is not downloaded, so --from has no effect: get it from {source.where}")
        return _check(name, source, place)
    address = source.url if url is None else url
    part = place / f"{source.file}.part"

    def resume(_: str, output_file: str, __: object) -> None:
        download(address, part, progress)
        part.replace(output_file)

    pooch.get_logger().setLevel("WARNING")
    try:
        place.mkdir(parents=True, exist_ok=True)
        pooch.retrieve(
            address,
            known_hash=source.checksum,
            fname=source.file,
            path=place,
            downloader=resume,
            processor=unpack if source.archive else None,
        )
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise HnasError(
            f"the archive {source.file} cannot be unpacked in {printable(place)}: {printable(str(error))}; "
            "try another --from"
        ) from error
    except DownloadError as error:
        raise HnasError(
            f"{printable(address)} cannot be downloaded: {error}; run the same command again to resume, or use --from "
            "to download it from elsewhere"
        ) from error
    except ValueError as error:
        raise HnasError(
            f"the file from {printable(address)} does not have the checksum {source.checksum} and was deleted; try "
            "again, or another --from"
        ) from error
    except OSError as error:
        raise HnasError(f"{printable(place)} cannot be written: {error.strerror or error}; use another --to") from error
    return place if source.archive else place / source.file


def _check(name: str, source: ByHand, place: Path) -> Path:
    """Return `place` if it holds all files of a source without an address, with the right checksums."""
    what = f"{name} has no stable direct link: get it from {source.where}"
    if not source.checksums:
        raise HnasError(f"{what}; `hnas import {name} PATH` reads it")
    missing = [file for file in source.checksums if not (place / file).is_file()]
    if missing:
        listed = ", ".join(f"{file} {md5}" for file, md5 in source.checksums.items())
        raise HnasError(
            f"{what}, put the files into {place}, and run this again to check their MD5 ({listed}); missing there: "
            f"{', '.join(missing)}"
        )
    wrong = [file for file, md5 in source.checksums.items() if _md5(place / file) != md5]
    if wrong:
        raise HnasError(f"in {place}, the MD5 of {', '.join(wrong)} is not the published one; get the files again")
    return place


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
