"""Logs of a run whose output is in a store: they grow on this machine, and are sent there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from daskprs.exceptions import OutputError, WriteFailedError
from daskprs.output_folder import OutputFolder
from daskprs.store_calls import one_line

__all__ = ["StoredLogs"]

_MOST_AT_ONCE = 16 << 20


class StoredLogs:
    """Copies files of a local folder into an output folder, where no file can grow.

    Attributes
    ----------
    path : Path
        The local folder; files have the same names below it as in the output folder.
    """

    def __init__(self, folder: OutputFolder) -> None:
        self._folder = folder
        self.path = Path(tempfile.mkdtemp(prefix="daskprs-logs-"))
        self._sent: dict[str, tuple[int, int]] = {}

    def fetch(self, name: str) -> None:
        """Get what an earlier start of the run has left, to go on with it.

        Raises
        ------
        OutputError
        """
        try:
            data = self._folder.read(name)
        except OSError as error:
            raise OutputError(
                f"{self._folder.url_of(name)} cannot be read ({one_line(error)}): give a folder "
                "that you may read and write."
            ) from error
        if data is not None:
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            self._sent[name] = _state(path)

    def send(self, *names: str) -> None:
        """Send those of these files that are new, or changed since; remove those that are gone.

        Raises
        ------
        WriteFailedError
        """
        with self._writing():
            for name in names:
                self._send(name)

    def send_all(self) -> None:
        """Do so with all files; what cannot be sent is left out."""
        there = {
            Path(folder, name).relative_to(self.path).as_posix()
            for folder, _, names in os.walk(self.path)
            for name in names
        }

        def send(name: str) -> None:
            with contextlib.suppress(OSError):
                self._send(name)

        self._folder.each(send, there | self._sent.keys())

    def _send(self, name: str) -> None:
        path = self.path / name
        state = _state(path) if path.exists() else None
        if state is None and name in self._sent:
            self._folder.remove(name)
            del self._sent[name]
        elif state is not None and self._sent.get(name) != state:
            self._write(name, path, state[0])
            self._sent[name] = state

    def _write(self, name: str, path: Path, nbytes: int) -> None:
        if nbytes <= _MOST_AT_ONCE:
            self._folder.write(name, path.read_bytes())
            return
        with path.open("rb") as stream, self._folder.new(name) as new:
            while data := stream.read(1 << 20):
                new.write(data)
            new.finish()
            new.commit()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise WriteFailedError(
                f"the logs could not be written to {self._folder.url} ({one_line(error)}). What "
                "was written before is kept: when the store takes it again, the same run goes on."
            ) from error

    def close(self) -> None:
        """Remove the local folder."""
        shutil.rmtree(self.path, ignore_errors=True)


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
