"""The logs of an entry process on their way to the driver: read in pieces of limited size."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LogChunk", "ProcessLogs"]

MOST_BYTES = 1 << 22  # of one stream in one answer; the rest follows with the next
MOST_LAST_BYTES = 1 << 26  # of one stream at the end of the run, when there is no next answer


@dataclass(frozen=True)
class LogChunk:
    """New bytes of one log of one entry process; `kind` is the folder below logs/user."""

    kind: str
    node: str
    process: str
    data: bytes


class ProcessLogs:
    """What one entry process writes; outlives the process until all of it has been read.

    Parameters
    ----------
    folder : Path
        Only for the logs; made here, and removed by `remove`.
    node, process : str
    """

    def __init__(self, folder: Path, node: str, process: str) -> None:
        folder.mkdir(parents=True)
        self.folder, self.node, self.process = folder, node, process
        self.stdout, self.stderr = folder / "stdout.txt", folder / "stderr.txt"
        self.entry_script_log = folder / "entry_script_log.txt"
        self.metrics = folder / "metrics.jsonl"
        self._files = {
            "stdout": self.stdout,
            "stderr": self.stderr,
            "entry_script_log": self.entry_script_log,
            "metrics": self.metrics,
        }
        self._read = dict.fromkeys(self._files, 0)

    def take(self, most: int = MOST_BYTES) -> list[LogChunk]:
        """Return what is new, at most this many bytes of each stream."""
        chunks = []
        for kind, path in self._files.items():
            with contextlib.suppress(OSError), path.open("rb") as stream:
                stream.seek(self._read[kind])
                data = stream.read(most)
                if data:
                    chunks.append(LogChunk(kind, self.node, self.process, data))
                    self._read[kind] += len(data)
        return chunks

    def take_last(self) -> list[LogChunk]:
        """Return all that is new; of very much only the end, and a line that says so."""
        chunks = []
        for kind, path in self._files.items():
            left_out = _size(path) - self._read[kind] - MOST_LAST_BYTES
            if left_out > 0:
                self._read[kind] += left_out
                note = f"\n[{left_out} bytes are left out here]\n".encode()
                chunks.append(LogChunk(kind, self.node, self.process, note))
        return chunks + self.take(MOST_LAST_BYTES)

    @property
    def all_taken(self) -> bool:
        return all(_size(path) <= self._read[kind] for kind, path in self._files.items())

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
