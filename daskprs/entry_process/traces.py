"""What an entry process leaves behind of itself: its stacks, and what it wrote to stderr."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from daskprs.entry_process.stacks import format_stacks

__all__ = ["Traces"]

# A healthy process tells its stack in milliseconds; this is for a machine that is overloaded.
_STACK_WAIT = 1.0
_STDERR_TAIL = 4000


class Traces:
    """The files to which one entry process writes them.

    Attributes
    ----------
    stderr_start : int
        Where the part of the log of stderr begins that is of interest.
    """

    def __init__(self, stderr: Path, stacks: Path) -> None:
        self._stderr, self.stacks = stderr, stacks
        self.stderr_start = 0

    def mark(self) -> None:
        """From now on, only what is written after this is of interest."""
        self.stderr_start = _size(self._stderr)

    def last_words(self) -> str:
        """Return what a process has told when it died."""
        parts = (self._stacks_since(0).rstrip(), self._stderr_tail().rstrip())
        return "\n\n".join(part for part in parts if part)

    def lines_but(self, told: str) -> list[str]:
        """Return the lines on stderr that are not in a text which was written there too."""
        printed = self._stderr_tail(len(told)).replace(told, "")
        return [line for line in printed.splitlines() if line.strip()]

    def _stderr_tail(self, more: int = 0) -> str:
        with contextlib.suppress(OSError), self._stderr.open("rb") as stream:
            end = stream.seek(0, os.SEEK_END)
            stream.seek(max(self.stderr_start, end - _STDERR_TAIL - more))
            return stream.read().decode("utf-8", "replace")
        return ""

    def stack(self, process: subprocess.Popen[bytes]) -> str:
        """Have the process write where it is, also while C code holds the GIL."""
        start = _size(self.stacks)
        with contextlib.suppress(OSError):
            process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + _STACK_WAIT
        size = before = start
        while time.monotonic() < deadline and (size == start or size != before):
            time.sleep(0.05)
            before, size = size, _size(self.stacks)
        return self._stacks_since(start) or "(the process did not tell its stack)"

    def _stacks_since(self, start: int) -> str:
        try:
            with self.stacks.open("rb") as stream:
                main_thread = int(stream.readline(), 16)
                stream.seek(start)
                return format_stacks(stream.read().decode("utf-8", "replace"), main_thread)
        except (OSError, ValueError):  # it has not come so far as to make the file
            return ""


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
