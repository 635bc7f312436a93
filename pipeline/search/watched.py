"""Runs a command and kills it when the requesting process is gone: `python watched.py COMMAND…`.

The requesting process keeps this one's standard input open while it lives, and makes it the leader of a process group,
which is killed as a whole. This process ends as the command does, with the same status or signal.
"""

from __future__ import annotations

import os
import signal
import sys
import threading


def main(words: list[str]) -> None:
    """Run `words` without input until they end."""
    # Ignore SIGTERM here, so that the command's own reaction to it counts.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    nothing = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    try:
        command = os.posix_spawnp(words[0], words, os.environ, file_actions=nothing, setsigdef=[signal.SIGTERM])
    except OSError as error:
        print(f"{words[0]} cannot be started: {error.strerror}", file=sys.stderr)
        sys.exit(127)
    threading.Thread(target=_watch, daemon=True).start()
    status = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def _watch() -> None:
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
