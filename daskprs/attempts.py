"""One mini-batch on one worker: try, time out, try again; the outcome is a value."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from daskprs.entry_process.conversation import Following
from daskprs.entry_process.host import Reply
from daskprs.entry_process.results import joined
from daskprs.entry_process.wire import MiniBatchContext
from daskprs.mini_batches import MiniBatch
from daskprs.outcomes import Attempt, Outcome, Stretch, located
from daskprs.script_host import ScriptHost, Slot
from daskprs.splitting import Part, failed_items, part_of, split
from daskprs.wording import counted

if TYPE_CHECKING:
    from daskprs.config import ParallelRunConfig

__all__ = ["Limits", "try_mini_batch", "try_mini_batches"]

_COUNT_WAIT = 30.0


@dataclass(frozen=True)
class Limits:
    """How often and how long; seconds. `split`: look for the items that make it fail."""

    run_max_try: int
    run_invocation_timeout: float
    load_timeout: float
    split: bool = False

    @classmethod
    def of(cls, config: ParallelRunConfig) -> Limits:
        return cls(
            run_max_try=config.run_max_try,
            run_invocation_timeout=config.run_invocation_timeout,
            load_timeout=config.progress_update_timeout,
            split=config.split_failed_mini_batches,
        )


def try_mini_batches(
    host: ScriptHost,
    slot: Slot,
    mini_batches: Sequence[MiniBatch],
    limits: Limits,
    stop_at_failure: bool,
    budget: float,
) -> Iterator[Outcome]:
    """Run mini-batches one after another, until one fails or so many seconds are over.

    Raises
    ------
    InitGaveUpError, StoppedError
    """
    began = time.monotonic()
    try:
        for position, mini_batch in enumerate(mini_batches):
            is_over = time.monotonic() - began > budget
            if is_over and not slot.is_ahead:
                return
            following = None if is_over else partial(_following, mini_batches, position + 1)
            outcome = try_mini_batch(
                host, slot, mini_batch, limits, whole_only=stop_at_failure, following=following
            )
            yield outcome
            if outcome.failed_items and stop_at_failure:
                return
    finally:
        if slot.is_ahead:  # nobody will ask for it
            slot.discard()


def _following(
    mini_batches: Sequence[MiniBatch], start: int, skip: int
) -> Iterator[tuple[Any, MiniBatchContext]]:
    for position in range(start + skip, len(mini_batches)):
        mini_batch = mini_batches[position]
        if mini_batch.only is not None:
            return
        yield mini_batch.piece, _context(mini_batch)


def _context(mini_batch: MiniBatch, start: int = 0) -> MiniBatchContext:
    row_start = mini_batch.row_start
    return MiniBatchContext(
        minibatch_index=mini_batch.index,
        partition_key_value=mini_batch.partition_key_value,
        dataset=mini_batch.dataset,
        global_row_index_lower_bound=None if row_start is None else row_start + start,
    )


def try_mini_batch(
    host: ScriptHost,
    slot: Slot,
    mini_batch: MiniBatch,
    limits: Limits,
    *,
    whole_only: bool = False,
    following: Following | None = None,
) -> Outcome:
    """Run one mini-batch until a try does not fail, or all tries are used up.

    `whole_only` and `following` are those of `EntryProcess.run`.

    Raises
    ------
    InitGaveUpError
        No process with the script could be had.
    StoppedError
        The run is being stopped: the mini-batch has no outcome.
    """
    tries = _Tries(host, slot, mini_batch, limits, whole_only)
    if mini_batch.only is not None:
        ranges = [tries.items(start, stop) for start, stop in mini_batch.only]
        return _outcome_of_parts(mini_batch, ranges, tries, host.package.output_format)
    reply = tries.as_often_as_allowed(lambda: tries.one(mini_batch.piece, following=following))
    total = tries.total
    parts = [] if total is None else tries.halved(0, total, reply)
    if len(parts) > 1:
        return _outcome_of_parts(mini_batch, [parts], tries, host.package.output_format)
    return _outcome(mini_batch, reply, total, tuple(tries.attempts))


class _Tries:
    """The tries of one mini-batch, whole or in parts."""

    def __init__(
        self,
        host: ScriptHost,
        slot: Slot,
        mini_batch: MiniBatch,
        limits: Limits,
        whole_only: bool,
    ) -> None:
        self._host, self._slot, self._mini_batch, self._limits = host, slot, mini_batch, limits
        self._whole_only = whole_only
        self.attempts: list[Attempt] = []
        self.total = mini_batch.items

    def as_often_as_allowed(self, try_once: Callable[[], Reply]) -> Reply:
        reply = try_once()
        for _ in range(1, self._limits.run_max_try):
            if reply.ok:
                break
            reply = try_once()
        return reply

    def items(self, start: int, stop: int) -> list[Part]:
        """Run some of its items, which have failed in a run before."""
        reply = self.as_often_as_allowed(lambda: self.part(start, stop))
        return self.halved(start, stop, reply)

    def halved(self, start: int, stop: int, reply: Reply) -> list[Part]:
        """Look for the items because of which these have failed together, if they have."""
        together = [Part(start, stop, reply)]
        if reply.ok or not self._limits.split or stop - start < 2:
            return together
        parts = split(stop - start, self.part, first=start)
        return parts if any(part.reply.ok for part in parts) else together

    def part(self, start: int, stop: int) -> Reply:
        """Try some of its items, once."""
        return self.one(part_of(self._mini_batch.piece, start, stop), start)

    def one(
        self, piece: Any, start: int | None = None, following: Following | None = None
    ) -> Reply:
        """Try once; `start` is the first item where it is not the whole mini-batch."""
        context = _context(self._mini_batch, start or 0)
        reply = Reply("NOT_BEGUN")
        while reply.status == "NOT_BEGUN":  # once: to a fresh process nothing was sent ahead
            process = self._slot.process()
            started, began = time.time(), time.perf_counter()
            reply = process.run(
                piece,
                context,
                load_timeout=self._limits.load_timeout,
                timeout=self._limits.run_invocation_timeout,
                whole_only=self._whole_only,
                following=following,
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


def _outcome_of_parts(
    mini_batch: MiniBatch, ranges: list[list[Part]], tries: _Tries, output_format: str | None
) -> Outcome:
    """Count what succeeded, and name each item that did not."""
    parts = [part for together in ranges for part in together]
    place = f"mini-batch {mini_batch.index} ({mini_batch.piece})"
    items: list[dict[str, Any]] = []
    error, traceback = "", ""
    for part in parts:
        reply = part.reply
        if part.succeeded == part.total:
            continue
        why = reply.error or _too_few(reply.returned, part.total)
        error, traceback = error or why, traceback or reply.traceback
        piece = part_of(mini_batch.piece, part.start, part.stop)
        named = failed_items(piece, part.total, part.total - part.succeeded)
        items += [{**item, "error": why} for item in named]
    total = sum(part.total for part in parts)
    succeeded = sum(part.succeeded for part in parts)
    failed = total - succeeded
    if failed:
        alone = f"{failed:,} of {counted(total, 'item')}"
        error = located(error, f"{place}, alone with it: {alone}")
    return Outcome(
        index=mini_batch.index,
        key=mini_batch.key,
        label=str(mini_batch.piece),
        total=total,
        returned=succeeded,
        failed=not any(part.reply.ok for part in parts),
        rows=None,
        attempts=tuple(tries.attempts),
        items=items,
        error=error,
        traceback=traceback,
        stretches=tuple(s for together in ranges for s in _stretches(together, output_format)),
        again=mini_batch.again,
    )


def _stretches(parts: list[Part], output_format: str | None) -> Iterator[Stretch]:
    """Put together neighbours that have succeeded: only what is bad has to stand alone."""
    for is_good, neighbours in itertools.groupby(parts, lambda p: p.succeeded == p.total):
        some = list(neighbours)
        for group in [some] if is_good else [[part] for part in some]:
            rows = [p.reply.rows for p in group if p.reply.rows is not None]
            failed = sum(p.total - p.succeeded for p in group)
            together = joined(rows, output_format)
            yield Stretch(group[0].start, group[-1].stop, failed, together)


def _outcome(
    mini_batch: MiniBatch, reply: Reply, total: int | None, attempts: tuple[Attempt, ...]
) -> Outcome:
    if total is None:
        total = _count_items(mini_batch)
    place = f"mini-batch {mini_batch.index} ({mini_batch.piece})"
    error = ""
    failed = max(0, total - reply.returned) if reply.ok else total
    if reply.ok and failed:
        error = located(_too_few(reply.returned, total), place)
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
        items=failed_items(mini_batch.piece, total, failed) if failed else [],
        error=error,
        traceback=reply.traceback,
        again=mini_batch.again,
    )


def _too_few(returned: int, total: int) -> str:
    return f"run() returned {returned:,} of {counted(total, 'result')}."


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
