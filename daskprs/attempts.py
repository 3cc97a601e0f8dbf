"""One mini-batch on one worker: try, time out, try again; the outcome is a value."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from dataclasses import dataclass

from daskprs.entry_process.host import Reply
from daskprs.entry_process.wire import MiniBatchContext
from daskprs.mini_batches import MiniBatch
from daskprs.outcomes import Attempt, Outcome, located
from daskprs.script_host import ScriptHost, Slot

__all__ = ["Limits", "try_mini_batch"]

_COUNT_WAIT = 30.0


@dataclass(frozen=True)
class Limits:
    """How often and how long; seconds."""

    run_max_try: int
    run_invocation_timeout: float
    load_timeout: float


def try_mini_batch(host: ScriptHost, slot: Slot, mini_batch: MiniBatch, limits: Limits) -> Outcome:
    """Run one mini-batch until a try does not fail, or all tries are used up.

    Raises
    ------
    InitGaveUpError
        No process with the script could be had.
    StoppedError
        The run is being stopped: the mini-batch has no outcome.
    """
    context = MiniBatchContext(
        minibatch_index=mini_batch.index,
        partition_key_value=mini_batch.partition_key_value,
        dataset=mini_batch.dataset,
        global_row_index_lower_bound=mini_batch.row_start,
    )
    attempts: list[Attempt] = []
    total = mini_batch.items
    while True:
        process = slot.process()
        started, began = time.time(), time.perf_counter()
        reply = process.run(
            mini_batch.piece,
            context,
            load_timeout=limits.load_timeout,
            timeout=limits.run_invocation_timeout,
        )
        host.check_not_stopped()
        total = reply.total if reply.total is not None else total
        number = len(attempts) + 1
        attempts.append(
            Attempt(
                number=number,
                status=reply.status,
                node=host.node,
                ip=host.ip,
                process=process.name,
                started=started,
                elapsed=time.perf_counter() - began,
                load_seconds=reply.load_seconds,
                run_seconds=reply.run_seconds,
                error=reply.error,
                traceback=reply.traceback,
            )
        )
        if reply.ok or number == limits.run_max_try:
            return _outcome(mini_batch, reply, total, tuple(attempts))


def _outcome(
    mini_batch: MiniBatch, reply: Reply, total: int | None, attempts: tuple[Attempt, ...]
) -> Outcome:
    if total is None:
        total = _count_items(mini_batch)
    place = f"mini-batch {mini_batch.index} ({mini_batch.piece})"
    error = ""
    short = reply.ok and reply.returned < total
    if short:
        error = located(f"run() returned {reply.returned} of {total} results.", place)
    elif not reply.ok:
        error = located(reply.error, f"{place}, try {len(attempts)} of {len(attempts)}")
    return Outcome(
        index=mini_batch.index,
        key=mini_batch.key,
        label=str(mini_batch.piece),
        total=total,
        returned=reply.returned,
        failed=not reply.ok,
        rows=reply.rows,
        attempts=attempts,
        items=mini_batch.piece.items(total) if short or not reply.ok else [],
        error=error,
        traceback=reply.traceback,
    )


def _count_items(mini_batch: MiniBatch) -> int:
    """Count the items of what could not be loaded; it may hang as the loading did."""
    counted: queue.SimpleQueue[int] = queue.SimpleQueue()

    def count() -> None:
        with contextlib.suppress(Exception):
            counted.put(mini_batch.piece.count_items())
        counted.put(1)

    threading.Thread(target=count, name="count", daemon=True).start()
    try:
        return counted.get(timeout=_COUNT_WAIT)
    except queue.Empty:
        return 1
