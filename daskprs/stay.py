"""What a run's stays on a cluster and on this machine alone have in common."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from daskprs.events import Event, LogArrived, Noticed
from daskprs.exceptions import ClusterLostError
from daskprs.script_host import LogChunk

if TYPE_CHECKING:
    from daskprs.config import ParallelRunConfig
    from daskprs.worker_results import HostEnd

__all__ = ["AGAIN", "check_progress", "drained", "tell_end"]

_T = TypeVar("_T")

AGAIN = "the same run goes on with what is missing."


def check_progress(
    config: ParallelRunConfig, last_progress: float, who: str, stuck: Callable[[], str]
) -> None:
    """Raise when nothing has come back for longer than anything may take.

    Parameters
    ----------
    last_progress : float
        When something last came back (monotonic).
    who : str
        Where work is, for the message.
    stuck : callable
        Tells what is waited for, for the message.

    Raises
    ------
    ClusterLostError
    """
    patience = (
        config.progress_update_timeout
        + config.run_max_try * config.run_invocation_timeout
        + config.init_timeout
    )
    silent = time.monotonic() - last_progress
    if silent > patience:
        raise ClusterLostError(
            f"nothing came back from {who} for {silent:.0f} s (progress_update_timeout="
            f"{config.progress_update_timeout:g} beyond the limits of run() and init()); "
            f"waiting for {stuck()}. Look at the logs of the workers; {AGAIN}"
        )


def tell_end(emit: Callable[[Event], None], end: HostEnd) -> None:
    """Tell what the processes of a host have left: the last of their logs, and what failed."""
    for chunk in end.logs:
        emit(LogArrived(chunk))
    for process, error, traceback in end.shutdown_failures:
        emit(Noticed(f"shutdown() failed in {process}: {error}"))
        text = f"{error}\n{traceback}\n".encode("utf-8", "replace")
        emit(LogArrived(LogChunk("stderr", "shutdown", process, text)))


def drained(queue: deque[_T]) -> list[_T]:
    """Take all that is there, while other threads may add to it."""
    taken = []
    with contextlib.suppress(IndexError):
        while True:
            taken.append(queue.popleft())
    return taken
