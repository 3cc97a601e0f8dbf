"""The logs folder, in the layout that users of Azure ML know."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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
from daskprs.exceptions import WriteFailedError
from daskprs.json_text import json_text
from daskprs.outcomes import Attempt, Outcome
from daskprs.report import MOST_FAILURES, Failure
from daskprs.script_host import LogChunk
from daskprs.wording import counted
from daskprs.worker_results import InitRecord, Sample

__all__ = ["FAILED_ITEMS", "LogFolder", "overview_line"]

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
_LOG_NAMES = {
    "stdout": "stdout.txt",
    "stderr": "stderr.txt",
    "entry_script_log": "log.txt",
    "metrics": "metrics.jsonl",
}
FAILED_ITEMS = "failed_items.jsonl"
_MOST_BUFFERED = 1 << 16


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


class _LogFile:
    """A file that grows by whole lines: a kill leaves no half of one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin()
        self._is_new = not path.exists() or path.stat().st_size == 0

    def _begin(self) -> None:
        self._lines = io.StringIO(newline="")
        self._rows = csv.writer(self._lines, lineterminator="\n")

    def row(self, columns: tuple[str, ...], values: tuple[Any, ...]) -> None:
        if self._is_new:
            self._rows.writerow(columns)
        self._rows.writerow(values)
        self._added()

    def line(self, text: str) -> None:
        self._lines.write(f"{text}\n")
        self._added()

    def _added(self) -> None:
        self._is_new = False
        if self._lines.tell() > _MOST_BUFFERED:
            self.flush()

    def flush(self) -> None:
        text = self._lines.getvalue()
        if text:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as stream:
                stream.write(_encoded(text))
            self._begin()


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
        self._files: dict[str, _LogFile] = {}
        self._kept_lines = 0
        self._summaries: dict[tuple[str, str], list[int]] = {}
        self._overview_due = time.monotonic() + 10
        self._flush_due = time.monotonic() + 1

    def keep_failed_items(self, failed_of: Callable[[int], int]) -> list[Failure]:
        """Forget the failed items of mini-batches that are to be tried again.

        Parameters
        ----------
        failed_of : callable
            How many items of a mini-batch have failed for good in an earlier start of the run.

        Returns
        -------
        list of Failure
            What is kept, as the report has it.
        """
        failures: dict[int, Failure] = {}
        kept = []
        for line in self._failed_lines():
            facts = _facts_of(line)
            number, count = facts["mini_batch"], failed_of(facts["mini_batch"])
            if count:
                kept.append(line)
            if count and len(failures) < MOST_FAILURES:
                what, error = str(facts.get("input", "")), str(facts["error"])
                failure = Failure(number, count, error, int(facts["tries"]), what)
                failures.setdefault(number, failure)
        self._kept_lines = len(kept)
        self._keep_lines(kept)
        return list(failures.values())

    def forget_failed_items(self, is_wanted: Callable[[int], bool]) -> None:
        """Forget kept items of mini-batches that the plan does not have any more."""
        lines = self._failed_lines()
        kept, new = lines[: self._kept_lines], lines[self._kept_lines :]
        self._keep_lines([n for n in kept if is_wanted(_facts_of(n)["mini_batch"])] + new)

    def _failed_lines(self) -> list[bytes]:
        path = self.folder / FAILED_ITEMS
        return path.read_bytes().splitlines(keepends=True) if path.is_file() else []

    def _keep_lines(self, lines: list[bytes]) -> None:
        path = self.folder / FAILED_ITEMS
        if not lines:
            path.unlink(missing_ok=True)
            return
        new = path.with_suffix(".new")
        new.write_bytes(b"".join(lines))
        new.replace(path)

    def __call__(self, event: Event) -> None:
        """Write what this event is about.

        Raises
        ------
        WriteFailedError
        """
        with self._writing():
            self._take(event)

    def _take(self, event: Event) -> None:
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
            for name in ("job_result.txt", "job_error.txt"):  # of an earlier start
                (self.folder / name).unlink(missing_ok=True)
            before = ("mini batch was done before.", "mini batches were done before.")
            kept = f" {counted(event.kept, *before)}" if event.kept else ""
            self._say(f"The run has started.{kept}")
        elif isinstance(event, RunEnded):
            self._end(event)

    def tick(self) -> None:
        """Called often: writes the overview now and then, and what is still buffered."""
        now = time.monotonic()
        with self._writing():
            if now >= self._overview_due:
                self._overview_due = now + 10
                self._say(self._progress())
            if now >= self._flush_due:
                self._flush_due = now + 1
                self._flush()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise WriteFailedError(
                f"the logs could not be written to {self.folder} ({error}). What was written "
                "before is kept: when there is room and permission, the same run goes on."
            ) from error

    def _file(self, name: str) -> _LogFile:
        file = self._files.get(name)
        if file is None:
            file = self._files[name] = _LogFile(self.folder / name)
        return file

    def _say(self, text: str) -> None:
        self._file("job_progress_overview.txt").line(f"{_iso(time.time())} {text}")

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
        self._file("sys/job_report/processed_mini-batches.csv").row(_BATCH_COLUMNS, row)
        if attempt.error:
            self._error(attempt.node, attempt.process, attempt.error, attempt.traceback)

    def _init(self, record: InitRecord) -> None:
        reply = record.reply
        row = (
            *("", "", record.ip, record.process, _iso(record.started), "", "", ""),
            *(f"{reply.run_seconds:.4f}", f"{reply.run_seconds:.4f}", "", reply.status),
            *("" if reply.ok else _category(reply.status), reply.error, "init"),
        )
        self._file("sys/job_report/processed_mini-batches.csv").row(_BATCH_COLUMNS, row)
        if not reply.ok:
            self._error(record.node, record.process, reply.error, reply.traceback)

    def _error(self, node: str, process: str, error: str, traceback: str) -> None:
        file = self._file(f"user/error/{node}/{process}.txt")
        file.line(f"{_iso(time.time())} {error}\n{traceback.rstrip()}\n")

    def _summarise(self, outcome: Outcome, attempt: Attempt) -> None:
        counts = self._summaries.setdefault((attempt.ip, attempt.process), [0] * 6)
        succeeded, total = outcome.succeeded_items, outcome.total
        ok = not outcome.failed
        for i, more in enumerate((1, int(ok), int(not ok), total, succeeded, total - succeeded)):
            counts[i] += more

    def _failed(self, outcome: Outcome) -> None:
        file = self._file(FAILED_ITEMS)
        for item in outcome.items or [{}]:
            about = {"mini_batch": outcome.index, "input": outcome.label, "tries": outcome.tries,
                     "error": outcome.error, "certain": True}  # fmt: skip
            facts = {**about, **item}
            file.line(json_text(facts))
        # Before the journal says that the mini-batch is done: then nobody tells it again.
        file.flush()

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
        self._file(f"{folder}/node_resource_usage.csv").row(_NODE_COLUMNS, node)
        process = (when, sample.process, sample.pid, f"{sample.process_cpu_seconds:.2f}",
                   sample.process_memory)  # fmt: skip
        self._file(f"{folder}/processes_resource_usage.csv").row(_PROCESS_COLUMNS, process)

    def _end(self, event: RunEnded) -> None:
        self._say(self._progress())
        self._say(f"The run is {event.status}. {event.message.splitlines()[0]}")
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "job_result.txt").write_text(event.status + "\n")
        if event.status != "Completed":
            (self.folder / "job_error.txt").write_bytes(_encoded(event.message + "\n"))
        self._summary_tables()
        self._flush()

    def _summary_tables(self) -> None:
        nodes: dict[str, list[int]] = {}
        for (ip, process), counts in sorted(self._summaries.items()):
            values = (ip, process, *counts)
            self._file("sys/job_report/process_summary.csv").row(_PER_PROCESS, values)
            total = nodes.setdefault(ip, [0] * 6)
            nodes[ip] = [a + b for a, b in zip(total, counts, strict=True)]
        for ip, counts in sorted(nodes.items()):
            self._file("sys/job_report/node_summary.csv").row(_PER_NODE, (ip, *counts))

    def _flush(self) -> None:
        for file in self._files.values():
            file.flush()


def _encoded(text: str) -> bytes:
    """Encode names as the file system has them; an error of a script may hold anything."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


def _facts_of(line: bytes) -> dict[str, Any]:
    """Read a line on a failed item; a torn one is on no mini-batch at all."""
    try:
        facts = json.loads(line)
        return {"error": "", "tries": 0, **facts, "mini_batch": int(facts["mini_batch"])}
    except (ValueError, KeyError, TypeError):
        return {"mini_batch": -1}


def _category(status: str) -> str:
    if "TIMEOUT" in status:
        return "Timeout"
    if status == "OUT_OF_MEMORY":
        return "OutOfMemory"
    if "DIED" in status:
        return "ProcessDied"
    return "InputError" if status.startswith("LOAD") else "UserError"
