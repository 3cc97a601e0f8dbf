"""States of files: whether what a command reads or has written is as it was."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daskprs.entry_script import EntryScriptSource
from daskprs.listing import list_files

__all__ = ["code_state", "folder_state", "input_state"]

_MOST_BYTES = 10 * 1024**2


def code_state(folder: Path, skipped: Path) -> dict[str, str]:
    """Tell the content of all files of a code folder; of large ones, size and time."""
    source = EntryScriptSource(folder / "command", folder, "", (skipped,))
    return {str(path.relative_to(folder)): _content(path) for path in source.files()}


def _content(path: Path) -> str:
    status = path.stat()
    if status.st_size > _MOST_BYTES:
        return f"{status.st_size} {status.st_mtime_ns}"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def folder_state(path: Path) -> dict[str, list[int]]:
    """Tell size and time (ns) of a file, or of all files below a folder."""
    found = {}
    if path.is_file():
        status = path.stat()
        return {"": [status.st_size, status.st_mtime_ns]}
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file = Path(folder, name)
            if file.is_file():
                status = file.stat()
                found[str(file.relative_to(path))] = [status.st_size, status.st_mtime_ns]
    return found


def input_state(url: str, options: Mapping[str, Any] | None = None) -> list[Any]:
    """Tell what is known of the files of an input without reading them.

    Raises
    ------
    InputNotFoundError
    """
    return [[f.path, f.size, f.version] for f in list_files([url], storage_options=options or {})]
