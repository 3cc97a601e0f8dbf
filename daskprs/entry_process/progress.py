"""What an entry process is at, in memory that it shares with its Dask worker.

The worker looks at it only when it has waited for long, or when the process is gone. So the clocks
of loading and of run() cost no message, and what killed a process is known after its death.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path
from typing import NamedTuple

from daskprs.entry_process.stages import LOAD, RESULT, RUN, Stage

__all__ = ["Progress", "Step", "Tracker"]

_STAGES: tuple[Stage, ...] = (LOAD, RUN, RESULT)
_VERSION = struct.Struct("=q")  # odd while the record is being written
_RECORD = struct.Struct("=qqdqddq")
_SIZE = _VERSION.size + _RECORD.size
_TRIES = 50


class Step(NamedTuple):
    """One mini-batch in an entry process, and how far it has come.

    Attributes
    ----------
    number : int
        Which of the mini-batches that this process was sent, from 1; 0: none was begun.
    since : float
        When the stage began, by `time.monotonic`, which all processes of a machine share.
    total : int
        Items; -1 while they are not known.
    load_seconds, run_seconds : float
    stderr_start : int
        Bytes of the log of stderr when it was begun.
    """

    number: int
    stage: Stage
    since: float
    total: int = -1
    load_seconds: float = 0.0
    run_seconds: float = 0.0
    stderr_start: int = 0


class Progress:
    """The place of the record: a small file, mapped by both processes.

    Raises
    ------
    OSError
        The file cannot be made.
    """

    def __init__(self, path: Path, *, make: bool = False) -> None:
        if make:
            # Written, since a hole in a file of a full disk ends the process that touches it.
            path.write_bytes(bytes(_SIZE))
        with path.open("r+b") as stream:
            self._memory = mmap.mmap(stream.fileno(), _SIZE)

    def write(self, step: Step) -> None:
        """Publish a step; for the entry process."""
        stage = _STAGES.index(step.stage)
        (version,) = _VERSION.unpack_from(self._memory)
        _VERSION.pack_into(self._memory, 0, version + 1)
        _RECORD.pack_into(self._memory, _VERSION.size, step.number, stage, *step[2:])
        _VERSION.pack_into(self._memory, 0, version + 2)

    def read(self) -> Step:
        """Return the last step; for the worker, at any time."""
        for _ in range(_TRIES):
            (before,) = _VERSION.unpack_from(self._memory)
            number, stage, *rest = _RECORD.unpack_from(self._memory, _VERSION.size)
            (after,) = _VERSION.unpack_from(self._memory)
            if before == after and before % 2 == 0:
                break
            time.sleep(1e-3)  # or it was killed while it wrote: then this is as good as it gets
        return Step(number, _STAGES[stage], *rest)

    def close(self) -> None:
        """Give back the memory, and the file descriptor that belongs to it."""
        self._memory.close()


class Tracker:
    """Writes down, in the entry process, how far each mini-batch is."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._step = progress, Step(0, LOAD, 0.0)
        self._pid = os.getpid()
        self._stderr = os.dup(2)  # the script may put something else in its place

    def begin(self, number: int) -> None:
        """Loading begins."""
        written = os.fstat(self._stderr).st_size
        self._tell(Step(number, LOAD, time.monotonic(), stderr_start=written))

    def loaded(self, total: int, seconds: float) -> None:
        """run() begins."""
        number, start = self._step.number, self._step.stderr_start
        self._tell(Step(number, RUN, time.monotonic(), total, seconds, stderr_start=start))

    def returned(self, seconds: float) -> None:
        """Its results are made into rows."""
        number, _, _, total, loaded, _, start = self._step
        self._tell(Step(number, RESULT, time.monotonic(), total, loaded, seconds, start))

    def _tell(self, step: Step) -> None:
        self._step = step
        if os.getpid() == self._pid:  # and not a fork of the script's
            self._progress.write(step)
