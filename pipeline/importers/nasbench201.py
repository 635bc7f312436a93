"""NAS-Bench-201's own files, NAS-Bench-201-v1_0-e61699.pth and NAS-Bench-201-v1_1-096897.pth.

They were written by torch, but hold no tensor: a dictionary of results, pickled into a zip archive (torch 1.6 and
later) or after three small pickles that say how torch wrote it (before). Neither torch nor the benchmark's package is
needed to read them. `trials` says what becomes of the results.

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
#: What torch's files began with before they were zip archives: a pickled number, and the version of their protocol.
_MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
_VERSION = 1001


def read_nasbench201(path: Path, advance: Advance) -> Iterator[Rows]:
    """The rows of the file at `path`. `advance` is told of its bytes.

    Needs memory for a batch of rows, whatever the size of the file.

    Raises:
        UsageError: it is no such file, or is damaged.
    """

    def check(index: object, results: object) -> None:
        if isinstance(results, dict) and not results.keys() <= {"less", "full"}:
            raise UsageError(f"{path}, architecture {index}, has results other than 'less' and 'full'; {_FILES}")

    trials = Trials(path)
    content = yield from trials.read(unpickle(partial(_open, path, advance), _BENCHMARK, "arch2infos", _finish), check)
    if not isinstance(content, dict) or not trials.archs:
        raise UsageError(f"{path} holds no architecture; {_FILES}")
    check_names(trials.archs, content.get("meta_archs"), path)
    yield from trials.rows(last=True)


def _open(path: Path, advance: Advance) -> Stream:
    """A stream that stands at the pickle of the results."""
    file, size, head = open_file(path, 4, _FILES)
    if head == b"PK\x03\x04":
        return _open_archive(path, advance)
    if head[:1] != b"\x80":
        file.close()
        kind = ": it is compressed with bz2, as NATS-Bench's files are (import them as nats-bench)" * (
            head[:3] == b"BZh"
        )
        raise UsageError(f"{path} is no file of torch's{kind}; {_FILES}")
    stream = Stream(path, file.read, lambda: advance(file.tell(), size), file.close)
    try:
        if stream.read(len(_MAGIC)) != _MAGIC or unpickle_all(stream, _BENCHMARK) != _VERSION:
            raise UsageError(f"{path} is a pickle, but none that torch wrote; {_FILES}")
        unpickle_all(stream, _BENCHMARK)  # byte order and sizes of the machine that wrote it, which matter for tensors
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
            file = archive.open(members[0])  # stays open when the archive is closed
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError) as error:
        raise UsageError(f"{path} is a damaged zip archive: {error}; get the file again") from error
    size = members[0].file_size
    return Stream(path, file.read, lambda: advance(file.tell(), size), file.close)


def _finish(stream: Stream) -> None:
    """Raise `UsageError` unless the file ends as torch would have ended it: here, or with an empty list of tensors."""
    stream.fill(1)
    if stream.position < len(stream.buffer) and unpickle_all(stream, _BENCHMARK) != []:
        raise stream.refuse("holds tensors, which no NAS-Bench-201 file contains")
    stream.finish()
