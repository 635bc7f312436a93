"""Resumable download of one file over HTTP, with limits on time and size.

Every byte is written as it arrives, so a broken download resumes there, however little came. A connection is given up
after 30 s of silence, after a minute below 1 kB/s, and after 6 h in total.
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
    """Complete the file `part` from `url`, starting at its current end.

    A server without range support sends the whole file again. Its bytes overwrite the existing ones, so nothing is lost
    if it breaks off again. This function does not verify the content; a checksum must. `progress` receives the number
    of bytes present and in total. Raises `DownloadError`, or `OSError` if `part` cannot be written.
    """
    there = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}
    if there:
        headers["Range"] = f"bytes={there}-"
    try:
        with requests.get(url, headers=headers, stream=True, timeout=(_CONNECT_SECONDS, _SILENT_SECONDS)) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                return  # the file is complete
            answer.raise_for_status()
            _receive(answer, part, _start(answer, there), progress)
    except (requests.RequestException, HTTPError) as error:
        raise DownloadError(_reason(error)) from error


def _start(answer: requests.Response, there: int) -> int:
    """Return the position in the file of the response's first byte."""
    if answer.status_code != requests.codes.partial_content:
        return 0
    sent = answer.headers.get("Content-Range", f"bytes {there}-")
    if not sent.startswith(f"bytes {there}-"):
        raise DownloadError("the server sent another part of the file than the one requested")
    return there


def _receive(answer: requests.Response, part: Path, start: int, progress: Progress) -> None:
    length = answer.headers.get("Content-Length", "")
    total = start + int(length) if length.isdecimal() else 0
    if total > _MOST_BYTES:
        raise DownloadError(f"it would have {total:,} bytes, more than the limit of {_MOST_BYTES:,}")
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
                raise DownloadError(f"it has more than {_MOST_BYTES:,} bytes, the limit of a download")
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
    """Return what has arrived, at least one byte; empty at the end, or if a response of known length breaks off."""
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
        return "the server redirects without end"
    if isinstance(error, requests.exceptions.InvalidSchema | requests.exceptions.MissingSchema):
        return "its address is neither http nor https"
    return "the server cannot be reached, or the connection broke"
