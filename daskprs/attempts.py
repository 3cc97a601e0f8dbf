"""One mini-batch on one worker: try, time out, try again; the outcome is a value."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from dataclasses import dataclass
from typing import Any

from daskprs.entry_process.host import Reply
from daskprs.entry_process.results import joined
from daskprs.entry_process.wire import MiniBatchContext
from daskprs.mini_batches import MiniBatch
from daskprs.outcomes import Attempt, Outcome, located
from daskprs.script_host import ScriptHost, Slot
from daskprs.splitting import Part, part_of, split

__all__ = ["Limits", "try_mini_batch"]

_COUNT_WAIT = 30.0


@dataclass(frozen=True)
class Limits:
    """How often and how long; seconds. `split`: look for the items that make it fail."""

    run_max_try: int
    run_invocation_timeout: float
    load_timeout: float
    split: bool = False


def try_mini_batch(host: ScriptHost, slot: Slot, mini_batch: MiniBatch, limits: Limits) -> Outcome:
    """Run one mini-batch until a try does not fail, or all tries are used up.

    Raises
    ------
    InitGaveUpError
        No process with the script could be had.
    StoppedError
        The run is being stopped: the mini-batch has no outcome.
    """
    tries = _Tries(host, slot, mini_batch, limits)
    reply = tries.one(mini_batch.piece)
    while not reply.ok and len(tries.attempts) < limits.run_max_try:
        reply = tries.one(mini_batch.piece)
    total = tries.total
    if limits.split and not reply.ok and total is not None and total > 1:
        parts = split(total, tries.part)
        if any(part.reply.ok for part in parts):
            return _outcome_of_parts(mini_batch, parts, tries, host.package.output_format)
    return _outcome(mini_batch, reply, total, tuple(tries.attempts))


class _Tries:
    """The tries of one mini-batch, whole or in parts."""

    def __init__(self, host: ScriptHost, slot: Slot, mini_batch: MiniBatch, limits: Limits) -> None:
        self._host, self._slot, self._mini_batch, self._limits = host, slot, mini_batch, limits
        self.attempts: list[Attempt] = []
        self.total = mini_batch.items

    def part(self, start: int, stop: int) -> Reply:
        """Try some of its items, once."""
        return self.one(part_of(self._mini_batch.piece, start, stop), start)

    def one(self, piece: Any, start: int | None = None) -> Reply:
        """Try once; `start` is the first item where it is not the whole mini-batch."""
        process = self._slot.process()
        started, began = time.time(), time.perf_counter()
        reply = process.run(
            piece,
            self._context(start or 0),
            load_timeout=self._limits.load_timeout,
            timeout=self._limits.run_invocation_timeout,
        )
        self._host.check_not_stopped()
        if start is None and reply.total is not None:
            self.total = reply.total
        self.attempts.append(
            Attempt(
                number=len(self.attempts) + 1,
                status=reply.status,
                node=self._host.node,
                ip=self._host.ip,
                process=process.name,
                started=started,
                elapsed=time.perf_counter() - began,
                load_seconds=reply.load_seconds,
                run_seconds=reply.run_seconds,
                error=reply.error,
                traceback=reply.traceback,
                total=reply.total,
                returned=reply.returned if reply.ok else 0,
            )
        )
        return reply

    def _context(self, start: int) -> MiniBatchContext:
        mini_batch = self._mini_batch
        row_start = mini_batch.row_start
        return MiniBatchContext(
            minibatch_index=mini_batch.index,
            partition_key_value=mini_batch.partition_key_value,
            dataset=mini_batch.dataset,
            global_row_index_lower_bound=None if row_start is None else row_start + start,
        )


def _outcome_of_parts(
    mini_batch: MiniBatch, parts: list[Part], tries: _Tries, output_format: str | None
) -> Outcome:
    """Count what succeeded, and name each item that did not."""
    place = f"mini-batch {mini_batch.index} ({mini_batch.piece})"
    items: list[dict[str, Any]] = []
    succeeded, error, traceback = 0, "", ""
    for part in parts:
        reply = part.reply
        good = min(reply.returned, part.total) if reply.ok else 0
        succeeded += good
        if good == part.total:
            continue
        why = reply.error or f"run() returned {reply.returned} of {part.total} results."
        error, traceback = error or why, traceback or reply.traceback
        piece = part_of(mini_batch.piece, part.start, part.stop)
        items += [{**item, "error": why} for item in piece.items(part.total)]
    total = sum(part.total for part in parts)
    failed = total - succeeded
    return Outcome(
        index=mini_batch.index,
        key=mini_batch.key,
        label=str(mini_batch.piece),
        total=total,
        returned=succeeded,
        failed=False,
        rows=joined([p.reply.rows for p in parts if p.reply.rows is not None], output_format),
        attempts=tuple(tries.attempts),
        items=items,
        error=located(error, f"{place}, {failed} of {total} items stand alone with it"),
        traceback=traceback,
    )


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
