"""How the command's process ends, by a signal or on its own: with its exit status and at most one sentence.

`cli` imports this module first, so that an interrupt is reported during the other imports, which take seconds. The
import affects only the command's own process, not a program that imports `cli`, nor a worker.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import NoReturn

# Sent by a terminal on Ctrl-C, by batch systems, and by a terminal that closes.
_SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
_IMPORT = "<frozen importlib._bootstrap>"
# Seconds until an interrupt that Python ignored is sent again.
_AGAIN = 0.02

_status = 1


def raise_interrupts() -> None:
    """Make the signals that end a command raise KeyboardInterrupt from now on; ignored signals stay ignored.

    Python drops an exception raised in a destructor or in a callback of the garbage collector, and with one of these
    (Dask has one) every signal that arrives during a collection is handled there. So a dropped interrupt is sent again.
    """
    sys.unraisablehook = _resend
    _handle(_interrupt)


def ignore_interrupts() -> None:
    """Ignore these signals from now on if this is the command's own process, which is about to end."""
    if _COMMAND:
        _handle(signal.SIG_IGN)


def leave(status: int) -> NoReturn:
    """Exit with `status`."""
    global _status
    _status = status
    sys.exit(status)


def say(sentence: str) -> None:
    """Write a line to standard error, which may be a closed terminal."""
    from hnas.pipeline.io.printable import printable

    with suppress(OSError, ValueError):
        print(f"hnas: {printable(sentence)}", file=sys.stderr, flush=True)


class _Interrupt(KeyboardInterrupt):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _handle(handler: signal.Handlers | object) -> None:
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)  # type: ignore[arg-type]


def _interrupt(number: int, frame: FrameType | None) -> None:
    # Other packages may catch an exception raised during their import and go on, or replace it.
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT:
            _end_now(number, frame)
        frame = frame.f_back
    raise _Interrupt(number)


def _resend(dropped: sys.UnraisableHookArgs) -> None:
    if isinstance(dropped.exc_value, _Interrupt):
        again = threading.Timer(_AGAIN, signal.pthread_kill, (threading.main_thread().ident, dropped.exc_value.number))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(dropped)


def _end_now(number: int, frame: FrameType | None) -> NoReturn:
    os.write(2, b"hnas: interrupted\n")
    os._exit(1)


def _skip_destructors() -> None:
    """End the process here, after everything that Python runs at exit.

    The destructors of global C++ objects would follow. Arrow's thread pools still have threads at that point
    (`std::thread`: two in a debugger at the end of a precomputation). If one outlives its object, the process aborts
    with "terminate called without an active exception" after all its work is done, and Arrow has no call to stop them.
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
    # Registered before all others, so it runs after them.
    atexit.register(_skip_destructors)
    _handle(_end_now)
