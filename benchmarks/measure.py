"""Runs one program and measures it: times, the first result, the memory of its processes."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.environments import clean_environment

PROGRAMS = Path(__file__).resolve().parent / "programs"
MARK = "DASKPRS_BENCHMARK"
_LOOK_SECONDS = 0.02
# One process is one thread, for all peers: two that make more than there are cores slow each other.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_MEMORY_SECONDS = 0.4


@dataclass
class Measured:
    """One run of a program; times in seconds, memory in bytes.

    Attributes
    ----------
    wall : float
        From the start of the program to its end.
    ready : float or None
        From the start of the program until its processes could take work.
    work : float or None
        From there to the last row.
    first : float or None
        From the start until the first row could be seen in the output.
    memory : int or None
        Most of the proportional set size (PSS) of all its processes together; None where it had
        ended before that could be looked at.
    ended : float
        When it ended, as `time.time()` tells it.
    problem : str
        Why it counts for nothing; or "".
    """

    wall: float = 0.0
    ready: float | None = None
    work: float | None = None
    first: float | None = None
    memory: int | None = None
    ended: float = 0.0
    problem: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    command: Sequence[str],
    out: Path,
    *,
    limit: float,
    environment: dict[str, str] | None = None,
    stop_at_first: bool = False,
    may_fail: bool = False,
) -> Measured:
    """Run a program until it ends, or its first row is there, or `limit` seconds are over.

    Whatever it has started is gone afterwards.
    """
    token = secrets.token_hex(8)
    variables = {**clean_environment(), **_ONE_THREAD, **(environment or {}), MARK: token}
    variables["PYTHONPATH"] = str(PROGRAMS)
    measured = Measured()
    # Below /tmp: names of sockets must not be long.
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary, (out / "log").open("wb") as log:
        variables["TMPDIR"] = temporary
        started, began = time.time(), time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env=variables, cwd=out, start_new_session=True,
        )  # fmt: skip
        watch = _Memory(process.pid)
        try:
            while process.poll() is None:
                seconds = time.perf_counter() - began
                if measured.first is None and _has_rows(out):
                    measured.first = seconds
                    if stop_at_first:
                        break
                if seconds > limit:
                    measured.problem = f"it took over {limit:g} s"
                    break
                time.sleep(_LOOK_SECONDS)
            measured.wall, measured.ended = time.perf_counter() - began, time.time()
        finally:
            measured.memory = watch.stop() or None
            end_all(token, process)
    if measured.first is None and _has_rows(out):
        measured.first = measured.wall
    stopped = measured.problem or (stop_at_first and measured.first is not None)
    if not stopped and process.returncode and not may_fail:
        measured.problem = f"it ended with {process.returncode}: {last_line(out / 'log')}"
    marks = marks_of(out)
    if "ready" in marks:
        measured.ready = marks["ready"] - started
        if "end" in marks:
            measured.work = marks["end"] - marks["ready"]
    return measured


def marks_of(out: Path) -> dict[str, float]:
    """Return when each thing happened for the first time."""
    path = out / "marks"
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    return {name: float(when) for name, when in map(str.split, reversed(lines))}


def last_line(path: Path) -> str:
    lines = [line for line in path.read_text("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _has_rows(out: Path) -> bool:
    """Whether a row can be seen: in the result, in a part of it, or in the file that grows."""
    if _size(out / "result"):
        return True
    with contextlib.suppress(OSError), os.scandir(out / "rows") as entries:
        return any(
            entry.name[0] not in "._" and entry.is_file() and entry.stat().st_size
            for entry in entries
        )
    return False


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


class _Memory:
    """Looks at the memory of a tree of processes: at once, then less and less often."""

    def __init__(self, pid: int) -> None:
        self._pid, self._most = pid, tree_memory(pid)
        self._began = time.perf_counter()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        pause = 0.01
        while not self._stopped.wait(pause):
            began = time.perf_counter()
            self._most = max(self._most, tree_memory(self._pid))
            now = time.perf_counter()
            # What the looking costs is to be little beside what is looked at.
            pause = max(min(_MEMORY_SECONDS, now - self._began), 20 * (now - began))

    def stop(self) -> int:
        self._stopped.set()
        self._thread.join()
        return self._most


def tree_memory(pid: int) -> int:
    """Return the PSS of a process and all below it (USS where the system tells no PSS)."""
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for member in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                memory = member.memory_full_info()
                total += getattr(memory, "pss", memory.uss)
    return total


def end_all(token: str, process: subprocess.Popen[bytes]) -> None:
    """Kill a program and what it has started, also what has left its session."""
    for _ in range(5):
        left = [member for member in psutil.process_iter() if _has_mark(member, token)]
        for member in left:
            with contextlib.suppress(psutil.Error):
                member.kill()
        if not left:
            break
        psutil.wait_procs(left, 5)
    process.wait(10)


def _has_mark(process: psutil.Process, token: str) -> bool:
    try:
        return process.environ().get(MARK) == token
    except (psutil.Error, OSError):
        return False
