"""One file over HTTP, resumed from what is on disk, within bounds of time and size.

Every byte that arrives is written at once, so a download that breaks goes on there, however little came. A connection
is given up after 30 s of silence, after a minute with less than 1 kB a second, and after 6 hours in all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import requests
from urllib3.exceptions import HTTPError, ProtocolError

_BLOCK = 2**20
_CONNECT_SECONDS = 10
_SILENT_SECONDS = 30
_SLOW_SECONDS = 60.0
_SLOW_BYTES = 60_000
_MOST_SECONDS = 6 * 3600.0
# The largest file, all of NAS-Bench-101, has 2 GB.
_MOST_BYTES = 2**33

Progress = Callable[[int, int], None]


class DownloadError(Exception):
    """Why a download stopped, as the end of a sentence."""


def download(url: str, part: Path, progress: Progress) -> None:
    """Bring `part` to the whole file at `url`, from the byte at which it ends.

    A server that takes no ranges sends everything again: its bytes take the places of those that are there, none of
    which are lost when it breaks off once more. Whether the content is right is for a checksum to tell. `progress` is
    told bytes, there and in all. Raises `DownloadError`; `OSError` where `part` cannot be written.
    """
    there = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}
    if there:
        headers["Range"] = f"bytes={there}-"
    try:
        with requests.get(url, headers=headers, stream=True, timeout=(_CONNECT_SECONDS, _SILENT_SECONDS)) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                return  # all of it is there
            answer.raise_for_status()
            _receive(answer, part, _start(answer, there), progress)
    except (requests.RequestException, HTTPError) as error:
        raise DownloadError(_reason(error)) from error


def _start(answer: requests.Response, there: int) -> int:
    """The place of the answer's first byte in the file."""
    if answer.status_code != requests.codes.partial_content:
        return 0
    told = answer.headers.get("Content-Range", f"bytes {there}-")
    if not told.startswith(f"bytes {there}-"):
        raise DownloadError("the server sent another part of it than was asked for")
    return there


def _receive(answer: requests.Response, part: Path, start: int, progress: Progress) -> None:
    length = answer.headers.get("Content-Length", "")
    total = start + int(length) if length.isdecimal() else 0
    if total > _MOST_BYTES:
        raise DownloadError(f"it would have {total:,} bytes, and no file that is fetched has so many")
    done = marked = start
    began = since = time.monotonic()
    part.touch()
    with part.open("r+b", buffering=0) as file:
        file.seek(start)
        while block := _some(answer):
            file.write(block)
            done += len(block)
            progress(done, max(total, done))
            now = time.monotonic()
            if done > _MOST_BYTES:
                raise DownloadError(f"it has more than {_MOST_BYTES:,} bytes, and no file that is fetched has so many")
            if now - began > _MOST_SECONDS:
                raise DownloadError(f"it took more than {_MOST_SECONDS / 3600:g} hours")
            if now - since > _SLOW_SECONDS:
                if done - marked < _SLOW_BYTES:
                    raise DownloadError(f"only {done - marked:,} bytes came in {_SLOW_SECONDS:g} seconds")
                since, marked = now, done
        if done < total:
            raise DownloadError(f"the connection broke after {done:,} of {total:,} bytes")
        file.truncate(done)


def _some(answer: requests.Response) -> bytes:
    """What has arrived, at least a byte; nothing at the end, or where the connection breaks: the length tells which."""
    try:
        return answer.raw.read1(_BLOCK, decode_content=False)
    except ProtocolError:
        if "Content-Length" in answer.headers:
            return b""
        raise


def _reason(error: Exception) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout) or "timed out" in str(error).lower():
        return f"no answer within {_SILENT_SECONDS} seconds"
    if isinstance(error, requests.TooManyRedirects):
        return "the server sends from one address to the next without end"
    if isinstance(error, requests.exceptions.InvalidSchema | requests.exceptions.MissingSchema):
        return "its address is neither http nor https"
    return "the server cannot be reached, or the connection broke"
