"""The thread that plans: its queue, its pause, its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from daskprs import RunFailedError
from daskprs import planner as module
from daskprs.mini_batches import FilePaths, MiniBatch
from daskprs.planner import Planner


def planner_of(count: int, pause_at: int) -> Planner:
    def mini_batches() -> Iterator[MiniBatch]:
        for index in range(count):
            yield MiniBatch(index, "key", FilePaths(("path",)), 1, None)

    return Planner(mini_batches(), lambda mini_batch: mini_batch, threading.Event(), pause_at)


def taken(planner: Planner) -> list[int]:
    found = []
    while (mini_batch := planner.take()) is not None:
        found.append(mini_batch.index)
    return found


def test_a_plan_comes_to_its_pause_and_goes_on_when_it_may() -> None:
    planner = planner_of(100, pause_at=3)
    planner.wait_for_pause(10)
    time.sleep(0.05)
    assert (planner.planned, planner.is_complete, taken(planner)) == (3, False, [0, 1, 2])
    planner.go_on()
    planner.wait(10)
    assert (planner.planned, planner.is_complete, taken(planner)) == (100, True, [*range(3, 100)])


@pytest.mark.parametrize(("count", "pause_at"), [(5, 0), (2, 3)])
def test_a_plan_without_a_pause_or_shorter_than_that_is_not_held_up(
    count: int, pause_at: int
) -> None:
    planner = planner_of(count, pause_at)
    planner.wait_for_pause(10)
    planner.wait(10)
    assert taken(planner) == [*range(count)]


def test_a_plan_that_may_go_on_before_its_pause_has_none() -> None:
    planner = planner_of(1000, pause_at=900)
    planner.go_on()
    planner.wait(0.9)
    assert planner.is_complete


def test_a_pause_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONGEST_PAUSE", 0.1)
    planner = planner_of(5, pause_at=3)
    planner.wait(10)
    assert taken(planner) == [*range(5)]


def test_a_plan_is_stopped_in_its_pause_at_once() -> None:
    planner = planner_of(100, pause_at=3)
    planner.wait_for_pause(10)
    began = time.monotonic()
    planner.stop()
    assert time.monotonic() - began < 0.5
    assert planner.is_complete
    assert planner.planned <= 4


def test_a_folder_that_cannot_be_listed_ends_the_plan_with_a_line() -> None:
    """Which says what to do; what was planned before stays."""

    def mini_batches() -> Iterator[MiniBatch]:
        yield MiniBatch(0, "key", FilePaths(("path",)), 1, None)
        raise PermissionError(13, "Permission denied", "closed/sub")

    planner = Planner(mini_batches(), lambda mini_batch: mini_batch, threading.Event(), 0)
    planner.wait(10)
    assert taken(planner) == [0]
    assert isinstance(planner.error, RunFailedError)
    assert str(planner.error) == (
        "the inputs cannot be planned to their end (PermissionError: [Errno 13] Permission denied: "
        "'closed/sub'): once they can, the same run goes on with what is missing."
    )
