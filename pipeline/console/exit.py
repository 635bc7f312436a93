"""How the command's process ends: by signals as by itself, with its exit status and at most one sentence.

`cli` imports this module before any other, so that an interrupt is told while the others are imported, which takes
seconds. Only the command's own process is changed by the import: not a program that imports `cli`, and no worker.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NoReturn

# A terminal sends the first, batch systems the second, and a terminal that is closed the third.
_SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
_IMPORT = "<frozen importlib._bootstrap>"

_status = 1


def raise_interrupts() -> None:
    """From now on the signals that end a command raise KeyboardInterrupt; those that are ignored stay so."""
    _handle(_interrupt)


def ignore_interrupts() -> None:
    """From now on they do nothing, where this is the command's own process: it is at its end."""
    if _COMMAND:
        _handle(signal.SIG_IGN)


def leave(status: int) -> NoReturn:
    """Exit with `status`."""
    global _status
    _status = status
    sys.exit(status)


def say(sentence: str) -> None:
    """Write a line to standard error, which may be a terminal that is gone."""
    from hnas.pipeline.io.printable import printable

    with suppress(OSError, ValueError):
        print(f"hnas: {printable(sentence)}", file=sys.stderr, flush=True)


def _handle(handler: signal.Handlers | object) -> None:
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)  # type: ignore[arg-type]


def _interrupt(number: int, frame: FrameType | None) -> None:
    # Modules of other packages catch what is raised while they are imported, and go on or say something else.
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT:
            _end_now(number, frame)
        frame = frame.f_back
    raise KeyboardInterrupt


def _end_now(number: int, frame: FrameType | None) -> NoReturn:
    os.write(2, b"hnas: interrupted\n")
    os._exit(1)


def _skip_destructors() -> None:
    """End the process here, after everything that Python runs at its exit.

    What follows would be the destructors of global objects of C++ libraries. Arrow's pools still have threads then
    (`std::thread`: two in a debugger at the end of a precomputation), and where one outlives its object, the process
    aborts with "terminate called without an active exception" after all is done. Nothing that Arrow offers ends them.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(_status)


def _is_command() -> bool:
    main = getattr(sys.modules.get("__main__"), "__file__", None) or ""
    return os.path.basename(main) in ("hnas", "cli.py")  # noqa: PTH119 - pathlib is one of the imports to come


_COMMAND = _is_command()
if _COMMAND:
    # Registered before all others, it runs after them.
    atexit.register(_skip_destructors)
    _handle(_end_now)
