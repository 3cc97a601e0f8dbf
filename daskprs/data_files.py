"""Data files that a script may read: when one has changed, the earlier run was another run."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from daskprs.exceptions import DaskprsError
from daskprs.output_files import WORK
from daskprs.output_folder import OutputFolder

__all__ = ["WrittenFiles", "changed_files", "files_named", "without_own_streams"]

_MOST_FILES = 2000
_SECONDS = 0.25
_CHEAP = 0.01
_NAME = f"{WORK}/written_files.json"


class WrittenFiles:
    """Data files that changed while a run was going on: its script does not read but write them.

    Kept in the output folder: a run that was killed goes on although it has written them, but not
    if another one has changed since.
    """

    def __init__(self, folder: OutputFolder) -> None:
        self._folder = folder
        self._names: set[str] = set()
        self._due = self._cost = 0.0

    def load(self) -> set[str]:
        """Read what the earlier start of the run knew."""
        with contextlib.suppress(ValueError, TypeError):
            self._names = set(json.loads(self._folder.read(_NAME) or b"[]"))
        return self._names

    def forget(self) -> None:
        self._names = set()
        self._folder.remove(_NAME)

    def look(self, find: Callable[[], set[str]], *, now: bool = False, last: bool = False) -> None:
        """Look for changed files now and then, or now; less often where there are many.

        Parameters
        ----------
        last : bool
            At the end of the run: what is not found now makes the same run another one.
        """
        began = time.monotonic()
        if began < self._due and not last and not (now and self._cost < _CHEAP):
            return
        changed = find()
        self._cost = time.monotonic() - began
        self._due = began + max(_SECONDS, 50 * self._cost)
        if changed <= self._names:
            return
        with contextlib.suppress(OSError, DaskprsError):
            names = self._names | changed
            self._folder.write(_NAME, json.dumps(sorted(names)).encode("ascii"))
            self._names = names


def files_named(arguments: Iterable[object], output: Path | None) -> dict[str, list[int]]:
    """Size and time (ns) of the files in a script's arguments; of a folder, of those below it.

    Parameters
    ----------
    output : Path or None
        A folder to leave out.
    """
    found: dict[str, list[int]] = {}
    for argument in arguments:
        text = argument if isinstance(argument, str) else ""
        if text.startswith("--"):
            text = text.partition("=")[2]
        if os.path.isabs(text) and (output is None or not output.is_relative_to(text)):
            for path in _files_below(text):
                if len(found) < _MOST_FILES and (state := _state(path)) is not None:
                    found[path] = state
    return found


def _files_below(path: str) -> Iterator[str]:
    if not os.path.isdir(path):
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(folder, name) for name in sorted(names))


def without_own_streams(states: dict[str, list[int]], base: Path) -> dict[str, list[int]]:
    """Leave out what the output of this very process is redirected to."""
    own = set()
    for stream in (1, 2):
        try:
            status = os.fstat(stream)
        except OSError:  # closed
            continue
        if stat.S_ISREG(status.st_mode):
            own.add((status.st_dev, status.st_ino))
    return {name: state for name, state in states.items() if not _is_one_of(base / name, own)}


def _is_one_of(path: Path, own: set[tuple[int, int]]) -> bool:
    if not own:
        return False
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) in own


def changed_files(before: Mapping[str, Sequence[int]], base: Path) -> set[str]:
    """Tell which files are not as they were; relative names are those of files below `base`."""
    changed = set()
    for name, known in before.items():
        found = _state(base / name)
        # A file that was empty and is empty is a log that has just been opened again.
        if found is None or (found != list(known) and (found[0] or known[0])):
            changed.add(name)
    return changed


def _state(path: str | Path) -> list[int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns] if stat.S_ISREG(status.st_mode) else None
