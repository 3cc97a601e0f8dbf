"""Mini-batches on their way to an entry process, some ahead of time, and its answers in order.

A process that has to wait for its next mini-batch waits for a thread that has other work to do.
So, while run() is quick, some more are sent with each one. After a failure, and after a mini-batch
that took long, the process throws away what it was sent ahead, until it is told to go on: tries
stay in order, and work that others have time for goes back to the driver.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from daskprs.entry_process.progress import Progress, Step
from daskprs.entry_process.stages import LOAD, RESULT, Stage
from daskprs.entry_process.wire import Channel, Done, Failed, GoOn, MiniBatchContext, Run

__all__ = ["Conversation", "Following"]

# Gives the pieces of the mini-batches that come next, from the n-th on.
Following = Callable[[int], Iterator[tuple[Any, MiniBatchContext]]]

_AHEAD_SECONDS = 0.05  # of work, as far as the last one tells
_MOST_AHEAD = 32
_PAUSE = 0.016
_SHORTEST_PAUSE = 0.001
_UNWATCHED = 0.05  # a call that is too slow may be so much slower before it is stopped
# Never more than the system keeps for a socket: this side must not wait while the other does.
_MOST_BYTES = 1 << 15


class Conversation:
    """What was sent to one entry process, and has no answer yet."""

    def __init__(self, channel: Channel, progress: Progress) -> None:
        self._channel, self._progress = channel, progress
        self._sent: deque[tuple[Run, int]] = deque()  # with the bytes of those sent ahead
        self._number = 0
        self._asked_for = 0  # number
        self._was_ahead = False
        self._asked = 0.0
        self._goes_on = True
        self._seconds = float("inf")  # and bytes, of the last answer
        self._nbytes = 0

    @property
    def is_ahead(self) -> bool:
        """Whether mini-batches were sent that nobody has asked for yet."""
        return bool(self._sent)

    def ask(
        self,
        piece: Any,
        context: MiniBatchContext,
        timeout: float,
        *,
        wants_result: bool = False,
        whole_only: bool = False,
    ) -> None:
        """Send one mini-batch, if it was not sent ahead.

        Parameters
        ----------
        whole_only : bool
            Fewer results than items count as a failure.

        Raises
        ------
        OSError, MessageError
        """
        self._asked = time.monotonic()
        self._was_ahead = bool(self._sent)
        if self._was_ahead:
            if self._sent[0][0].piece is not piece:
                raise RuntimeError(f"{piece} is not what was sent ahead")
            self._asked_for = self._sent[0][0].number
            return
        run = self._next(piece, context, wants_result, whole_only)
        self._asked_for = run.number
        if not self._goes_on:
            self._channel.send(GoOn(), timeout)
            self._goes_on = True
        self._channel.send(run, timeout)
        self._sent.append((run, 0))

    def _next(
        self, piece: Any, context: MiniBatchContext, wants_result: bool, whole_only: bool
    ) -> Run:
        self._number += 1
        return Run(piece, context, self._number, wants_result, whole_only)

    def send_ahead(self, following: Following, timeout: float) -> None:
        """Send what comes next, as far as it is a moment's work.

        Of a process that is gone nothing is said here: what it has answered is still to come.

        Raises
        ------
        TimeoutError
        """
        most = min(_MOST_AHEAD, int(_AHEAD_SECONDS / max(self._seconds, 1e-6)))
        ahead = len(self._sent) - 1
        if ahead > most // 2:  # several in one go
            return
        whole_only = self._sent[0][0].whole_only
        left = _MOST_BYTES - sum(size for _, size in self._sent)
        chunks = []
        for piece, context in following(ahead):
            run = self._next(piece, context, False, whole_only)
            chunk = self._channel.packed(run)
            if len(self._sent) > most or chunk is None or len(chunk) > left:
                self._number -= 1
                break
            left -= len(chunk)
            chunks.append(chunk)
            self._sent.append((run, len(chunk)))
        if chunks:
            with contextlib.suppress(ConnectionError):
                self._channel.send_packed(b"".join(chunks), timeout)

    def answer(self, limits: Mapping[Stage, float]) -> Done | Failed:
        """Wait for the answer to what was asked.

        Raises
        ------
        TimeoutError
            Its stage has lasted for longer than the limit.
        EOFError
            The process is gone.
        """
        shortest = min(limits.values())
        self._let_it_work()
        # How far it is costs more to know than most answers take.
        wait = min(shortest, _UNWATCHED)
        while not self._channel.wait(wait):
            left = self._left(limits)
            if left <= 0:
                raise TimeoutError
            wait = min(left, shortest)
        answer: Done | Failed = self._channel.receive(limits[RESULT])
        self._sent.popleft()
        if isinstance(answer, Done):
            self._seconds = answer.load_seconds + answer.run_seconds
            self._nbytes = len(answer.rows.payload if answer.rows else b"")
        if isinstance(answer, Failed) or answer.throws_away:
            self._sent.clear()
            self._goes_on = False
        return answer

    def _let_it_work(self) -> None:
        """Give the process time for several answers: each that wakes this thread slows both."""
        ahead = len(self._sent) - 1
        if ahead > 1 and not self._channel.has_received:
            # It must not come to the end of what it was sent, nor wait until its answers are taken;
            # and shorter sleeps do harm.
            answers = min(ahead / 2, _MOST_BYTES / max(1, self._nbytes))
            pause = min(_PAUSE, answers * self._seconds)
            if pause >= _SHORTEST_PAUSE:
                time.sleep(pause)

    def _left(self, limits: Mapping[Stage, float]) -> float:
        step = self.step()
        return step.since + limits[step.stage] - time.monotonic()

    def step(self) -> Step:
        """Return how far it is with what was asked."""
        step = self._progress.read()
        if step.number > self._asked_for:  # done: the answer is on its way, if it is not lost
            return Step(self._asked_for, RESULT, self._asked)
        return step if step.number == self._asked_for else Step(0, LOAD, self._asked)

    def was_not_begun(self) -> bool:
        """Say whether the process, which is gone, has never begun what was sent to it ahead."""
        return self._was_ahead and self.step().number == 0

    def close(self) -> None:
        """End the conversation; what was sent has no answer any more."""
        self._sent.clear()
        self._channel.close()
        self._progress.close()
