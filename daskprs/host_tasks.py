"""What a host is asked for, in a Dask worker or in a thread of this process; Dask is not needed."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil

from daskprs.attempts import Limits, try_mini_batches
from daskprs.mini_batches import MiniBatch, TableSlice
from daskprs.outcomes import Outcome
from daskprs.script_host import InitGaveUpError, ScriptHost, Slot, StoppedError
from daskprs.worker_results import GroupResult, HostEnd, InitRecord, Sample, SurveyFailure

if TYPE_CHECKING:
    from daskprs.tables import Survey

__all__ = ["end_host", "run_on_host", "survey_piece"]

SLOT_WAIT = 24 * 3600.0


def run_on_host(
    host: ScriptHost,
    worker: str,
    mini_batches: Sequence[MiniBatch],
    limits: Limits,
    stop_at_failure: bool,
    budget: float,
) -> GroupResult:
    """Run consecutive mini-batches in one entry process.

    Parameters
    ----------
    host : ScriptHost
    worker : str
        What the result calls it.
    stop_at_failure : bool
        Come back at once when a mini-batch has failed, so that thresholds are looked at.
    budget : float
        Seconds after which no more of the mini-batches are begun: others may have idle
        processes for them.
    """
    began = time.perf_counter()
    indexes = [mini_batch.index for mini_batch in mini_batches]
    outcomes: list[Outcome] = []
    init_failure = None
    try:
        with host.slot(SLOT_WAIT) as slot:
            try:
                slot.process()
                tried = try_mini_batches(host, slot, mini_batches, limits, stop_at_failure, budget)
                for outcome in tried:  # one by one: those before an error count
                    outcomes.append(outcome)
            except InitGaveUpError as error:
                init_failure = error.reply
            logs, sample = slot.take_logs(), _sample(host, slot)
            inits = [InitRecord(host.node, host.ip, process, started, reply)
                     for process, reply, started in slot.take_inits()]  # fmt: skip
    except StoppedError:
        return GroupResult(outcomes, tuple(indexes[len(outcomes) :]))
    return GroupResult(
        outcomes,
        tuple(indexes[len(outcomes) :]),
        worker=worker,
        init_failure=init_failure,
        inits=inits,
        logs=logs,
        sample=sample,
        seconds=time.perf_counter() - began,
    )


def _sample(host: ScriptHost, slot: Slot) -> Sample | None:
    if slot.pid is None:
        return None
    try:
        process = psutil.Process(slot.pid)
        times, memory = process.cpu_times(), process.memory_info()
    except psutil.Error:
        return None
    node = psutil.virtual_memory()
    return Sample(
        time=time.time(),
        node=host.node,
        node_cpu_percent=psutil.cpu_percent(),
        node_memory_used=node.used,
        node_memory_total=node.total,
        process=slot.process_name,
        pid=slot.pid,
        process_cpu_seconds=times.user + times.system,
        process_memory=memory.rss,
    )


def survey_piece(piece: TableSlice) -> Survey | SurveyFailure:
    """Look through one large table file; the error is a value."""
    try:
        return piece.survey()
    except Exception as error:
        items = tuple(replace(piece, part=part).count_items() for part in range(piece.parts))
        told = f"{type(error).__name__}: {error}"
        return SurveyFailure(told, "".join(traceback.format_exception(error)), items)


def end_host(host: ScriptHost) -> HostEnd:
    """Call shutdown() in every process; give the rest of the logs, and what failed."""
    chunks, failures = host.finish()
    told = [(name, failed.error, failed.traceback) for name, failed in failures]
    return HostEnd(chunks, told)
