"""The installed command `daskprs`, as a person in a shell uses it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest

from daskprs.cli import main

DASKPRS = str(Path(sys.executable).with_name("daskprs"))


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    # Without bytecode files every process would compile dask again.
    kept = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, **(more or {})}


def daskprs(
    *words: object, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [DASKPRS, *map(str, words)],
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=timeout,
        check=False,
    )


def in_process(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command to its end in this process, which has imported all that it needs."""
    argv = ["daskprs", *map(str, words)]
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    with (
        contextlib.chdir(cwd), _signals_restored(), mock.patch.object(sys, "argv", argv),
        contextlib.redirect_stdout(out), contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):  # fmt: skip
        main()
    texts = []
    for stream in (out, err):
        stream.seek(0)
        texts.append(stream.read())
    assert isinstance(ended.value.code, int)
    return subprocess.CompletedProcess(argv, ended.value.code, *texts)


@contextlib.contextmanager
def _signals_restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Command:
    """A command that runs in the background, in a process group of its own as in a shell."""

    def __init__(self, *words: object, cwd: Path) -> None:
        self.process = subprocess.Popen(
            [DASKPRS, *map(str, words)],
            cwd=cwd,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._children: list[psutil.Process] = []

    def wait_until(self, holds: Callable[[], Any], seconds: float = 30) -> None:
        """Wait while the command works until something has come true."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, f"not true after {seconds} s"
            time.sleep(0.01)
        with contextlib.suppress(psutil.NoSuchProcess):
            self._children = psutil.Process(self.process.pid).children(recursive=True)

    def interrupt(self) -> None:
        """Do what Ctrl-C does: signal all processes in the foreground."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self, timeout: float = 30) -> tuple[int, str, str]:
        """Wait for the end; return exit code, stdout and stderr."""
        out, err = self.process.communicate(timeout=timeout)
        _, alive = psutil.wait_procs(self._children, timeout=5)
        assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]
        return self.process.returncode, out, err

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@contextlib.contextmanager
def command(*words: object, cwd: Path) -> Iterator[Command]:
    """Start a command that is gone at the end in any case."""
    started = Command(*words, cwd=cwd)
    try:
        yield started
    finally:
        started.kill()


def report_of(output: Path) -> dict[str, Any]:
    """Read the report as a program does."""
    told = in_process("report", output, "--json", cwd=output)
    assert told.returncode == 0, told.stderr
    report: dict[str, Any] = json.loads(told.stdout)
    return report


def journaled(output: Path) -> list[int]:
    """Return the mini-batches that the journal says are done."""
    path = output / ".daskprs" / "journal.jsonl"
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    records = [json.loads(line) for line in lines if line.startswith("[") and line.endswith("\n")]
    return [index for index, _, length, *_ in records if length >= 0]


def content_of(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder, but the locks."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(("lock-", "clock-", "probe-"))
    }
