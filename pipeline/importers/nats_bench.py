"""NATS-Bench's topology space: the folder NATS-tss-v1_0-3ffb9-simple, or the one file NATS-tss-v1_0-3ffb9.pickle.pbz2.

The folder holds `meta.pickle.pbz2` and one file per architecture, `000000.pickle.pbz2` and so on; the single file holds
all of them. The folder that ends in `-full` also has the trained weights, which are skipped. `nasbench201_results`
turns the results into rows.

Source: Dong, Liu, Musial and Gabrys, "NATS-Bench: Benchmarking NAS Algorithms for Architecture Topology and Size",
TPAMI 2021.
"""

from __future__ import annotations

import bz2
import re
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from hnas.errors import UsageError
from hnas.pipeline.importers.nasbench201_results import Trials, check_architecture, check_names
from hnas.pipeline.importers.pickles.stream import Stream, open_file
from hnas.pipeline.importers.pickles.unpickle import unpickle, unpickle_all
from hnas.pipeline.importers.protocol import Advance, Rows

_BENCHMARK = "NATS-Bench"
_ENDING = ".pickle.pbz2"


def read_nats_bench(path: Path, advance: Advance) -> Iterator[Rows]:
    """Yield the rows of the folder or file at `path`. `advance` receives the files or bytes read.

    A folder may hold only some of the architectures. Memory is bounded by one batch of rows, whatever the size of the
    benchmark. Raises `UsageError` if `path` is neither, holds another space, or is damaged.
    """
    return _read_folder(path, advance) if path.is_dir() else _read_file(path, advance)


def _read_folder(folder: Path, advance: Advance) -> Iterator[Rows]:
    meta = folder / f"meta{_ENDING}"
    if not meta.is_file():
        raise UsageError(f"{folder} has no {meta.name}; give the folder NATS-tss-v1_0-3ffb9-simple")
    names = _names(_load(meta), meta)
    files: dict[int, Path] = {}
    for file in sorted(folder.iterdir()):
        if number := re.fullmatch(r"([0-9]{1,9})" + re.escape(_ENDING), file.name):
            index = int(number[1])
            if index in files:
                raise UsageError(f"{folder} has architecture {index} twice: {files[index].name} and {file.name}")
            files[index] = file
    if not files:
        raise UsageError(f"{folder} has no architecture files such as 000000{_ENDING}; copy them next to its meta file")
    trials = Trials(folder)
    for done, (index, file) in enumerate(sorted(files.items()), start=1):
        trials.add(index, _load(file), file)
        check_names({index: trials.archs[index]}, names, meta)
        yield from trials.rows(last=done == len(files))
        advance(done, len(files))


def _read_file(path: Path, advance: Advance) -> Iterator[Rows]:
    trials = Trials(path)
    names = _names((yield from trials.read(unpickle(partial(_open, path, advance), _BENCHMARK, "arch2infos"))), path)
    if not trials.archs:
        raise UsageError(
            f"{path} holds no architectures; give NATS-tss-v1_0-3ffb9{_ENDING}, or the folder with its meta file"
        )
    check_names(trials.archs, names, path)
    yield from trials.rows(last=True)


def _names(meta: object, path: Path) -> list[object]:
    names = meta.get("meta_archs") if isinstance(meta, dict) else None
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise UsageError(f"{path} has no list of architectures, meta_archs: give a file of NATS-Bench's topology space")
    check_architecture(names[0], f"{path}: its first architecture")
    return names


def _load(path: Path) -> object:
    with closing(_open(path, lambda done, total: None)) as stream:
        content = unpickle_all(stream, _BENCHMARK)
        stream.finish()
    return content


def _open(path: Path, advance: Advance) -> Stream:
    file, size, head = open_file(path, 3, "give a folder or file of NATS-Bench's topology space")
    if head != b"BZh":
        file.close()
        raise UsageError(f"{path} is not compressed with bz2, as {_ENDING} files are: give a file of NATS-Bench")
    return Stream(path, bz2.BZ2File(file).read, lambda: advance(file.tell(), size), file.close)
