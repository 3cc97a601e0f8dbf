"""Waiting in the main thread, such that Ctrl-C always ends it soon."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["wait_for", "wait_until"]

# A signal that comes just before a wait begins does not end it, and is handled only after it.
_SLICE = 0.25


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
