"""Runs a command in a process of its own, and stops it when whoever wants it is gone.

``python keeper.py LOCK COMMAND``: the command ends when the standard input of this process does.
LOCK is a file that only one keeper at a time holds. It imports nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
import time

__all__ = ["main"]

_GRACE = 5.0  # seconds between SIGTERM and SIGKILL
_WAIT = 10.0  # for a keeper that is just ending


def main(lock: str, command: str) -> int:
    """Run a command to its end, or to that of standard input; return its exit code."""
    wanted = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + _WAIT
    while True:
        try:
            fcntl.flock(wanted, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            if time.monotonic() > deadline:
                sys.stderr.write("The command of an earlier start is still running.\n")
                return 1
            time.sleep(0.05)
    shell = shutil.which("bash") or "/bin/sh"
    process = subprocess.Popen(
        [shell, "-c", command], stdin=subprocess.DEVNULL, start_new_session=True
    )
    # Who starts us holds the other end of our input; its end is the sign to stop.
    while process.poll() is None:
        readable, _, _ = select.select([0], [], [], 0.05)
        if readable and not os.read(0, 1):
            _stop(process)
            break
    return process.wait()


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    code = main(sys.argv[1], sys.argv[2])
    # As a shell says it: a signal becomes 128 and its number.
    sys.exit(code if code >= 0 else 128 - code)
