"""NAS-Bench-201's own files, NAS-Bench-201-v1_0-e61699.pth and NAS-Bench-201-v1_1-096897.pth.

torch wrote these files, but they hold no tensors: only a dictionary of results, pickled into a zip archive (torch 1.6
and later) or after three small pickles that describe the format (earlier). Reading them needs neither torch nor the
benchmark's package. `nasbench201_results` turns the results into rows.

Source: Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR 2020.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hnas.errors import UsageError
from hnas.pipeline.importers.nasbench201_results import Trials, check_names
from hnas.pipeline.importers.pickles.stream import Stream, open_file
from hnas.pipeline.importers.pickles.unpickle import unpickle, unpickle_all
from hnas.pipeline.importers.protocol import Advance, Rows

_BENCHMARK = "NAS-Bench-201"
_FILES = "give NAS-Bench-201-v1_1-096897.pth or NAS-Bench-201-v1_0-e61699.pth"
#: The header of torch's files before they were zip archives: a pickled magic number and the protocol version.
_MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
_VERSION = 1001


def read_nasbench201(path: Path, advance: Advance) -> Iterator[Rows]:
    """Yield the rows of the file at `path`. `advance` receives the number of bytes read.

    Memory is bounded by one batch of rows, whatever the size of the file. Raises `UsageError` if the file is not one of
    the two, or is damaged.
    """

    def check(index: object, results: object) -> None:
        if isinstance(results, dict) and not results.keys() <= {"less", "full"}:
            raise UsageError(f"{path}, architecture {index}, has results other than 'less' and 'full'; {_FILES}")

    trials = Trials(path)
    content = yield from trials.read(unpickle(partial(_open, path, advance), _BENCHMARK, "arch2infos", _finish), check)
    if not isinstance(content, dict) or not trials.archs:
        raise UsageError(f"{path} holds no architectures; {_FILES}")
    check_names(trials.archs, content.get("meta_archs"), path)
    yield from trials.rows(last=True)


def _open(path: Path, advance: Advance) -> Stream:
    """Return a stream positioned at the pickle of the results."""
    file, size, head = open_file(path, 4, _FILES)
    if head == b"PK\x03\x04":
        return _open_archive(path, advance)
    if head[:1] != b"\x80":
        file.close()
        kind = ": it is compressed with bz2, as NATS-Bench's files are (import them as nats-bench)" * (
            head[:3] == b"BZh"
        )
        raise UsageError(f"{path} was not written by torch{kind}; {_FILES}")
    stream = Stream(path, file.read, lambda: advance(file.tell(), size), file.close)
    try:
        if stream.read(len(_MAGIC)) != _MAGIC or unpickle_all(stream, _BENCHMARK) != _VERSION:
            raise UsageError(f"{path} is a pickle that torch did not write; {_FILES}")
        unpickle_all(stream, _BENCHMARK)  # byte order and type sizes of the writing machine, needed for tensors only
    except UsageError:
        file.close()
        raise
    return stream


def _open_archive(path: Path, advance: Advance) -> Stream:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith("/data.pkl")]
            if len(members) != 1:
                raise UsageError(f"{path} is a zip archive without torch's data.pkl; {_FILES}")
            file = archive.open(members[0])  # stays open when the archive closes
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError) as error:
        raise UsageError(f"{path} is a damaged zip archive: {error}; get the file again") from error
    size = members[0].file_size
    return Stream(path, file.read, lambda: advance(file.tell(), size), file.close)


def _finish(stream: Stream) -> None:
    """Raise `UsageError` unless the file ends here or with an empty list of tensors, as torch writes it."""
    stream.fill(1)
    if stream.position < len(stream.buffer) and unpickle_all(stream, _BENCHMARK) != []:
        raise stream.refuse("holds tensors, which no NAS-Bench-201 file contains")
    stream.finish()
