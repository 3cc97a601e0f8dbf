"""Helpers of the tests of entry processes: a script in a real process, and counts on disk."""

from __future__ import annotations

import contextlib
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from daskprs.attempts import Limits, try_mini_batch
from daskprs.mini_batches import FilePaths, MiniBatch
from daskprs.outcomes import Outcome
from daskprs.script_host import ScriptHost, ScriptPackage

# What scripts of the tests import to count their calls: one byte each, safe from any crash.
CALLS = """
import os
def count(name):
    with open(os.path.join(os.environ["CALLS"], name), "ab", 0) as stream:
        stream.write(b"x")
        return stream.tell()
"""


class Hosted:
    """A host of one slot, and the calls that its script has counted."""

    def __init__(self, host: ScriptHost, folder: Path) -> None:
        self.host, self.folder, self.source = host, folder, folder / "source"
        self._index = 0

    def run(
        self,
        *paths: str,
        piece: Any = None,
        tries: int = 1,
        timeout: float = 30,
        load_timeout: float = 30,
        **facts: Any,
    ) -> Outcome:
        """Try one mini-batch, of these paths unless a piece is given."""
        piece = FilePaths(paths) if piece is None else piece
        mini_batch = MiniBatch(
            self._index, f"{self._index:016x}", piece, len(paths) or None, None, **facts
        )
        self._index += 1
        with self.host.slot(5) as slot:
            return try_mini_batch(self.host, slot, mini_batch, Limits(tries, timeout, load_timeout))

    def calls(self, name: str) -> int:
        path = self.folder / "calls" / name
        return path.stat().st_size if path.exists() else 0

    def log(self, kind: str) -> str:
        """Return what one kind of log has got since the last call of any kind, of all slots."""
        chunks = [chunk for slot in self.host.slots for chunk in slot.take_logs()]
        return b"".join(chunk.data for chunk in chunks if chunk.kind == kind).decode()


@contextlib.contextmanager
def hosted(
    script: str,
    *,
    name: str = "score.py",
    files: dict[str, str | bytes] | None = None,
    threads: int = 1,
    **package: Any,
) -> Iterator[Hosted]:
    """Host a script; at the end neither a process nor a folder is left."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve()
        for made in ("calls", "source", "workers"):
            (folder / made).mkdir()
        write(folder / "source", {name: script, "calls.py": CALLS, **(files or {})})
        environment = {"CALLS": str(folder / "calls"), **package.pop("environment", {})}
        host = ScriptHost(
            ScriptPackage(
                token="t",
                script=name,
                folder=str(folder / "source"),
                archive=None,
                environment=environment,
                **package,
            ),
            node="node0",
            ip="127.0.0.1",
            threads=threads,
            folder=str(folder / "workers"),
        )
        try:
            yield Hosted(host, folder)
        finally:
            host.close()
            assert list((folder / "workers").iterdir()) == []
            assert processes_in(folder) == []


def write(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            content = textwrap.dedent(content).encode()
        path.write_bytes(content)


def processes_in(folder: Path) -> list[psutil.Process]:
    """Find the live processes that belong to a host in this folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            mark = process.environ().get("DASKPRS_ENTRY_PROCESS", "")
            if mark.startswith(f"{folder}/") and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
