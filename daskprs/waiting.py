"""Waiting in the main thread, such that Ctrl-C always ends it soon."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping

__all__ = ["end_if_interrupted", "wait_for", "wait_or_cancel", "wait_until"]

# A signal that comes just before a wait begins does not end it, and is handled only after it.
_SLICE = 0.25
_CANCEL_SECONDS = 60.0

_interrupted = threading.Event()


def wait_for(event: threading.Event, timeout: float | None = None) -> bool:
    """Wait for an event, as its own `wait` does."""
    return wait_until(event.wait, timeout)


def wait_until(wait: Callable[[float], bool], timeout: float | None = None) -> bool:
    """Call something that waits for at most so many seconds until it gives True.

    Parameters
    ----------
    timeout : float, optional
        Seconds in all.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        left = _SLICE if deadline is None else min(_SLICE, deadline - time.monotonic())
        if wait(max(0.0, left)):
            return True
        if deadline is not None and time.monotonic() >= deadline:
            return False


def wait_or_cancel(work: Mapping[threading.Event, Callable[[], object]]) -> None:
    """Wait for ends when the program has ended; Ctrl-C calls what cancels each piece of work."""
    try:
        for ended in () if _interrupted.is_set() else work:
            wait_for(ended)
    except KeyboardInterrupt:
        _interrupted.set()
    if _interrupted.is_set():
        deadline = time.monotonic() + _CANCEL_SECONDS
        with contextlib.suppress(KeyboardInterrupt):  # a second one does not wait
            for cancel in work.values():
                cancel()
            for ended in work:
                wait_for(ended, max(0.0, deadline - time.monotonic()))


def end_if_interrupted() -> None:
    """After Ctrl-C end as Python does: it ignores what is raised now, and would tell success."""
    if not _interrupted.is_set():
        return
    with contextlib.suppress(KeyboardInterrupt):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
