"""What somebody sees who waits in a terminal, or reads a log file."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from typing import Any

import pytest
from commands import DASKPRS

SCRIPT = """
import time

def run(mini_batch):
    time.sleep(0.4)
    name = os.path.basename(mini_batch[0])
    if name == "f00001.bin":
        raise ValueError("bad")
    return [name] * (2 if name == "f00002.bin" else 1)
"""


def command(workplace: Any) -> list[str]:
    given = ["run", str(workplace.script(SCRIPT)), "--files", str(workplace.files(4))]
    given += ["--output", str(workplace.output), "--mini-batch-size", "1"]
    given += ["--process-count-per-node", "2", "--error-threshold", "5", "--name", "see-it"]
    return [DASKPRS, *given]


def seen_in_terminal(arguments: list[str], columns: int) -> str:
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 0, columns, 0, 0))
        process = subprocess.Popen(arguments, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        found = b""
        while True:
            try:
                block = os.read(ours, 1 << 16)
            except OSError:  # nobody has the other end any more
                break
            if not block:
                break
            found += block
        assert process.wait(30) == 0, found
    finally:
        os.close(ours)
    return found.decode()


@pytest.mark.parametrize("columns", [0, 120], ids=["of no size", "wide"])
def test_a_terminal_has_a_bar_that_moves_and_tells_what_failed(
    workplace: Any, columns: int
) -> None:
    """Also one that does not tell its size, as those of some build servers."""
    lines = seen_in_terminal(command(workplace), columns).replace("\r", "\n").splitlines()
    bars = [line for line in lines if line.startswith("see-it: ")]
    done = [bar.split("/4")[0].rsplit(" ", 1)[-1] for bar in bars if "/4" in bar]
    assert len(set(done)) >= 2, bars
    assert done[-1] == "4"
    assert bars[-1].startswith("see-it: 100%")
    assert "1 failed" in bars[-1]
    assert all(len(bar) <= (columns or 80) for bar in bars)
    assert sum(line.startswith("Note: run() returned 2 results") for line in lines) == 1


def test_a_log_file_has_lines_and_no_bar(workplace: Any) -> None:
    done = subprocess.run(command(workplace), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "\r" not in done.stderr
    lines = done.stderr.splitlines()
    assert sum(line.startswith("Note: run() returned 2 results") for line in lines) == 1
    assert lines[-1].startswith("see-it: ")
    assert "4/4" in lines[-1] or "4 of 4" in lines[-1]
