"""The logs folder, in the layout that users of Azure ML know."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from daskprs.events import (
    Event,
    InitTried,
    LogArrived,
    MiniBatchDone,
    Noticed,
    RunEnded,
    RunStarted,
    Sampled,
)
from daskprs.json_text import json_text
from daskprs.outcomes import Attempt, Outcome
from daskprs.script_host import LogChunk
from daskprs.worker import InitRecord, Sample

__all__ = ["LogFolder", "overview_line"]

_BATCH_COLUMNS = (
    *("Mini-batch Id", "Picked Count", "Ip Address", "Process", "Start Time", "Total"),
    *("Succeeded", "Failed", "Elapsed Seconds", "Process Seconds", "Run Method Seconds"),
    *("Status", "Error Category", "Error Message", "Mini-batch Detail"),
)
_SUMMARY_COLUMNS = (
    *("Total Tasks", "Succeeded Tasks", "Failed Tasks"),
    *("Total Items", "Succeeded Items", "Failed Items"),
)
_PER_PROCESS = ("Ip Address", "Process", *_SUMMARY_COLUMNS)
_PER_NODE = ("Ip Address", *_SUMMARY_COLUMNS)
_NODE_COLUMNS = ("Time", "CPU Percent", "Memory Used Bytes", "Memory Total Bytes")
_PROCESS_COLUMNS = ("Time", "Process", "Pid", "CPU Seconds", "Memory Bytes")
_LOG_NAMES = {"stdout": "stdout.txt", "stderr": "stderr.txt", "entry_script_log": "log.txt"}
FAILED_ITEMS = "failed_items.jsonl"


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _duration(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def overview_line(done: int, total: int | None, seconds: float, new: int) -> str:
    """Say how far the run is, in the words that people search for in the logs of Azure ML.

    Parameters
    ----------
    done : int
        Mini-batches processed.
    total : int or None
        Of so many; None while the input is still being listed.
    new : int
        Those of `done` that took the `seconds`.
    """
    line = f"Processed {done} of {total if total is not None else '?'} mini batches in "
    line += f"{_duration(seconds)}."
    if total is not None and new:
        line += f" Estimated remaining time {_duration((total - done) * seconds / new)}."
    return line


class LogFolder:
    """Listens to a run and writes its logs.

    Parameters
    ----------
    folder : Path
        ``OUTPUT/logs``, or a local stand-in for it.
    progress : callable
        Gives the overview line.
    """

    def __init__(self, folder: Path, progress: Callable[[], str]) -> None:
        self.folder = folder
        self._progress = progress
        self._streams: dict[str, TextIO] = {}
        self._summaries: dict[tuple[str, str], list[int]] = {}
        self._overview_due = time.monotonic() + 10
        self._flush_due = time.monotonic() + 1

    def keep_failed_items(self, is_done: Callable[[int], bool]) -> None:
        """Forget the failed items of mini-batches that are to be tried again."""
        path = self.folder / FAILED_ITEMS
        if path.is_file():
            lines = path.read_text("utf-8", "surrogateescape").splitlines(keepends=True)
            kept = [line for line in lines if is_done(_mini_batch_of(line))]
            path.write_text("".join(kept), "utf-8", "surrogateescape")

    def __call__(self, event: Event) -> None:
        """Write what this event is about."""
        if isinstance(event, MiniBatchDone):
            self._mini_batch(event.outcome)
        elif isinstance(event, InitTried):
            self._init(event.record)
        elif isinstance(event, LogArrived):
            self._log(event.chunk)
        elif isinstance(event, Sampled):
            self._sample(event.sample)
        elif isinstance(event, Noticed):
            self._say(event.text)
        elif isinstance(event, RunStarted):
            kept = f" {event.kept} mini batches were done before." if event.kept else ""
            self._say(f"The run has started.{kept}")
        elif isinstance(event, RunEnded):
            self._end(event)

    def tick(self) -> None:
        """Called often: writes the overview now and then, and what is still buffered."""
        now = time.monotonic()
        if now >= self._overview_due:
            self._overview_due = now + 10
            self._say(self._progress())
        if now >= self._flush_due:
            self._flush_due = now + 1
            for stream in self._streams.values():
                stream.flush()

    def _stream(self, name: str) -> TextIO:
        stream = self._streams.get(name)
        if stream is None:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = path.open("a", encoding="utf-8", errors="surrogateescape", newline="")
            self._streams[name] = stream
        return stream

    def _row(self, name: str, columns: tuple[str, ...], values: tuple[Any, ...]) -> None:
        stream = self._stream(name)
        writer = csv.writer(stream, lineterminator="\n")
        if stream.tell() == 0:
            writer.writerow(columns)
        writer.writerow(values)

    def _say(self, text: str) -> None:
        stream = self._stream("job_progress_overview.txt")
        stream.write(f"{_iso(time.time())} {text}\n")

    def _mini_batch(self, outcome: Outcome) -> None:
        for attempt in outcome.attempts:
            self._attempt(outcome, attempt)
        if outcome.attempts:
            self._summarise(outcome, outcome.attempts[-1])
        if outcome.failed_items:
            self._failed(outcome)

    def _attempt(self, outcome: Outcome, attempt: Attempt) -> None:
        category = "" if not attempt.error else _category(attempt.status)
        total = outcome.total if attempt.total is None else attempt.total
        succeeded = min(attempt.returned, total)
        row = (
            *(outcome.index, attempt.number, attempt.ip, attempt.process, _iso(attempt.started)),
            *(total, succeeded, total - succeeded, f"{attempt.elapsed:.4f}"),
            *(f"{attempt.load_seconds + attempt.run_seconds:.4f}", f"{attempt.run_seconds:.4f}"),
            *(attempt.status, category, attempt.error, outcome.label),
        )
        self._row("sys/job_report/processed_mini-batches.csv", _BATCH_COLUMNS, row)
        if attempt.error:
            self._error(attempt.node, attempt.process, attempt.error, attempt.traceback)

    def _init(self, record: InitRecord) -> None:
        reply = record.reply
        row = (
            *("", "", record.ip, record.process, _iso(record.started), "", "", ""),
            *(f"{reply.run_seconds:.4f}", f"{reply.run_seconds:.4f}", "", reply.status),
            *("" if reply.ok else _category(reply.status), reply.error, "init"),
        )
        self._row("sys/job_report/processed_mini-batches.csv", _BATCH_COLUMNS, row)
        if not reply.ok:
            self._error(record.node, record.process, reply.error, reply.traceback)

    def _error(self, node: str, process: str, error: str, traceback: str) -> None:
        stream = self._stream(f"user/error/{node}/{process}.txt")
        stream.write(f"{_iso(time.time())} {error}\n{traceback.rstrip()}\n\n")

    def _summarise(self, outcome: Outcome, attempt: Attempt) -> None:
        counts = self._summaries.setdefault((attempt.ip, attempt.process), [0] * 6)
        succeeded, total = outcome.succeeded_items, outcome.total
        ok = not outcome.failed
        for i, more in enumerate((1, int(ok), int(not ok), total, succeeded, total - succeeded)):
            counts[i] += more

    def _failed(self, outcome: Outcome) -> None:
        stream = self._stream(FAILED_ITEMS)
        for item in outcome.items or [{"input": outcome.label}]:
            about = {"mini_batch": outcome.index, "tries": outcome.tries, "error": outcome.error}
            facts = {**about, **item}
            stream.write(json_text(facts) + "\n")

    def _log(self, chunk: LogChunk) -> None:
        name = f"user/{chunk.kind}/{chunk.node}/{chunk.process}.{_LOG_NAMES[chunk.kind]}"
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as stream:
            stream.write(chunk.data)

    def _sample(self, sample: Sample) -> None:
        when = _iso(sample.time)
        folder = f"sys/perf/{sample.node}"
        node = (when, sample.node_cpu_percent, sample.node_memory_used, sample.node_memory_total)
        self._row(f"{folder}/node_resource_usage.csv", _NODE_COLUMNS, node)
        process = (when, sample.process, sample.pid, f"{sample.process_cpu_seconds:.2f}",
                   sample.process_memory)  # fmt: skip
        self._row(f"{folder}/processes_resource_usage.csv", _PROCESS_COLUMNS, process)

    def _end(self, event: RunEnded) -> None:
        self._say(self._progress())
        self._say(f"The run is {event.status}. {event.message.splitlines()[0]}")
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "job_result.txt").write_text(event.status + "\n")
        if event.status != "Completed":
            (self.folder / "job_error.txt").write_text(
                event.message + "\n", "utf-8", "surrogateescape"
            )
        else:
            (self.folder / "job_error.txt").unlink(missing_ok=True)
        self._summary_tables()
        self.close()

    def _summary_tables(self) -> None:
        nodes: dict[str, list[int]] = {}
        for (ip, process), counts in sorted(self._summaries.items()):
            values = (ip, process, *counts)
            self._row("sys/job_report/process_summary.csv", _PER_PROCESS, values)
            total = nodes.setdefault(ip, [0] * 6)
            nodes[ip] = [a + b for a, b in zip(total, counts, strict=True)]
        for ip, counts in sorted(nodes.items()):
            self._row("sys/job_report/node_summary.csv", _PER_NODE, (ip, *counts))

    def close(self) -> None:
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()


def _mini_batch_of(line: str) -> int:
    try:
        return int(json.loads(line)["mini_batch"])
    except (ValueError, KeyError, TypeError):
        return -1


def _category(status: str) -> str:
    if "TIMEOUT" in status:
        return "Timeout"
    if status == "OUT_OF_MEMORY":
        return "OutOfMemory"
    if "DIED" in status:
        return "ProcessDied"
    return "InputError" if status.startswith("LOAD") else "UserError"
