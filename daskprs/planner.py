"""The thread that plans while the run goes on, and leaves out what an earlier start has done."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from daskprs.exceptions import RunFailedError
from daskprs.mini_batches import MiniBatch
from daskprs.store_calls import one_line

__all__ = ["Planner"]

logger = logging.getLogger(__name__)

# Enough to fill the largest groups of many processes; a listing of millions stays on disk.
MOST_WAITING = 20_000
_LONGEST_PAUSE = 1.0


class _StoppedPlanningError(Exception):
    pass


class Planner:
    """Mini-batches of a plan, as a queue that another thread fills.

    Parameters
    ----------
    mini_batches : iterator of MiniBatch
        The plan; consumed in the thread.
    left_of : callable
        Gives what is to run of a mini-batch; None where it is done already.
    wake : threading.Event
        Set when there is something new.
    pause_at : int
        Come to a pause after so many, until `go_on`, or a moment; 0 is for none.

    Attributes
    ----------
    planned : int
        Mini-batches planned so far.
    kept : int
        How many of them were done already.
    is_complete : bool
        The plan has come to its end.
    error : BaseException or None
        Why it ended early.
    """

    def __init__(
        self,
        mini_batches: Iterator[MiniBatch],
        left_of: Callable[[MiniBatch], MiniBatch | None],
        wake: threading.Event,
        pause_at: int = 0,
    ) -> None:
        self.planned = self.kept = 0
        self.is_complete = False
        self._items: int | None = 0
        self._is_whole = False
        self.error: BaseException | None = None
        self.last_sign = time.monotonic()
        self._mini_batches, self._left_of, self._wake = mini_batches, left_of, wake
        # One thread appends and one takes: that is safe without a lock.
        self._waiting: deque[MiniBatch] = deque()
        self._stopped = threading.Event()
        self._pause_at = pause_at
        self._has_paused, self._may_go_on = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="daskprs-planner", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            for mini_batch in self._mini_batches:
                self.last_sign = time.monotonic()
                left = self._left_of(mini_batch)
                if left is not None:
                    self._put(left)
                else:
                    self.kept += 1
                self.planned += 1
                if self._items is not None:
                    self._items = (
                        None if mini_batch.items is None else self._items + mini_batch.items
                    )
                if self.planned == self._pause_at:
                    self._has_paused.set()
                    self._may_go_on.wait(_LONGEST_PAUSE)
            self._is_whole = True
        except _StoppedPlanningError:
            pass
        except OSError as error:
            logger.debug("the plan ended early", exc_info=True)
            self.error = RunFailedError(
                f"the inputs cannot be planned to their end ({one_line(error)}): once they can, "
                "the same run goes on with what is missing."
            )
        except BaseException as error:
            self.error = error
        self.is_complete = True
        self._has_paused.set()
        self._wake.set()

    def _put(self, mini_batch: MiniBatch) -> None:
        while len(self._waiting) >= MOST_WAITING:
            self.last_sign = time.monotonic()
            if self._stopped.wait(0.05):
                break
        if self._stopped.is_set():
            raise _StoppedPlanningError
        self._waiting.append(mini_batch)
        if not self._wake.is_set():
            self._wake.set()

    def take(self) -> MiniBatch | None:
        """Return the next mini-batch that is there already."""
        return self._waiting.popleft() if self._waiting else None

    def left(self, taken: int) -> int | None:
        """Add what will still come out to what was taken; None while the plan goes on."""
        return taken + len(self._waiting) if self.is_complete else None

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing more will come out."""
        return self.is_complete and not self._waiting

    def wait_for_pause(self, seconds: float) -> None:
        """Wait until the plan has come to its pause, or to its end, or for so long."""
        self._has_paused.wait(seconds)

    def go_on(self) -> None:
        """End the pause, also one that is still to come."""
        self._may_go_on.set()

    def wait(self, seconds: float) -> None:
        """Wait until the plan has come to its end, or for so long."""
        self._thread.join(seconds)

    @property
    def totals(self) -> tuple[int | None, int | None]:
        """Mini-batches and items of the whole plan; None while, or where, it does not know them."""
        return (self.planned, self._items) if self._is_whole else (None, None)

    def stop(self, timeout: float = 5.0) -> None:
        self._stopped.set()
        self.go_on()
        self._thread.join(timeout)
