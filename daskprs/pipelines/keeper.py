"""Runs a command in a process of its own, and stops it when whoever wants it is gone.

``python keeper.py LOCK COMMAND [FOLDER]``: the command ends when the standard input of this process
does. LOCK is a file that only one keeper at a time holds. FOLDER is the private folder of the
command, which all that it starts has in its environment. Until a command is to be stopped, nothing
is imported but the standard library.
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
_MARK = "DASKPRS_ENTRY_PROCESS"  # as in entry_script_api


def main(lock: str, command: str, folder: str = "") -> int:
    """Run a command to its end, or to that of standard input; return its exit code."""
    parent = os.getppid()
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
            if folder:
                _kill_marked(folder)
            if folder and os.getppid() != parent:  # nobody else is left to do so
                shutil.rmtree(folder, ignore_errors=True)
            break
    return process.wait()


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _kill_marked(folder: str) -> None:
    """Kill what the command has started in groups of its own."""
    try:
        import psutil
    except ImportError:  # of those that only this user has
        return
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(_MARK) == folder:
                process.kill()


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    # As a shell says it: a signal becomes 128 and its number.
    sys.exit(code if code >= 0 else 128 - code)
