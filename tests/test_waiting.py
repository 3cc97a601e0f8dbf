"""Waiting such that a signal is handled soon, whenever it comes."""

from __future__ import annotations

import threading
import time

from daskprs.waiting import wait_for, wait_until


def test_an_event_ends_the_wait_and_a_limit_too() -> None:
    event = threading.Event()
    began = time.monotonic()
    assert not wait_for(event, 0.3)
    assert 0.3 <= time.monotonic() - began < 5
    threading.Timer(0.05, event.set).start()
    assert wait_for(event)
    assert wait_for(event, 0)
    assert not wait_for(threading.Event(), 0)


def test_nothing_is_waited_for_longer_than_a_moment_at_a_time() -> None:
    """A signal that came just before it was waited is handled when the moment is over."""
    asked: list[float] = []

    def wait(seconds: float) -> bool:
        asked.append(seconds)
        return len(asked) == 3

    assert wait_until(wait)
    assert len(asked) == 3
    assert max(asked) <= 0.5
