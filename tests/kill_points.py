"""Kill a local run at its calls to the system, one by one; a program, since it forks.

``python kill_points.py FOLDER FORMAT ORDER STEP`` prints how many kills were survived. The run is
a fork that kills itself with SIGKILL in front of its n-th call, or behind it, or in the middle of
it where that is a write. A second fork goes on with what it has left, and compares.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from output_runs import ENDED, NAME, PLAN, content, outcome, run, start

from daskprs.output import JOURNAL, open_store
from daskprs.output_folder import OutputFolder

CALLS = ("write", "fsync", "replace", "ftruncate", "unlink", "open", "mkdir")


def die_at(call: int, *, halfway: bool) -> None:
    """Have this process killed at its n-th call that changes something."""
    count = 0

    def killing(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == call:
                if halfway and name == "write":
                    function(args[0], bytes(args[1])[: len(args[1]) // 2])
                elif halfway:
                    function(*args, **kwargs)
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapped

    for name in CALLS:
        setattr(os, name, killing(name, getattr(os, name)))


def in_fork(function: Callable[[], object]) -> int:
    """Return the exit code of a fork that calls a function; negative for a signal."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def check(folder: OutputFolder, output_format: str | None, ordered: bool, expected: Any) -> None:
    """See what a kill has left, go on, and see that all rows are there once."""
    journal = open_store(folder, NAME, output_format).load()
    finished = journal is not None and journal.finished is not None
    if output_format is not None:
        assert (content(folder, output_format) == expected) == finished
        assert (folder.size(NAME) is None) != finished
    run(folder, output_format, ordered=ordered)
    assert content(folder, output_format) == expected
    journal = open_store(folder, NAME, output_format).load()
    assert journal is not None
    assert journal.finished == ENDED
    assert folder.size(f"{NAME}.partial") is None
    assert folder.size(".daskprs/rows") is None


def main(base: Path, output_format: str | None, ordered: bool, step: int) -> None:
    """Kill a new run, and one that goes on where another was killed, at every `step`-th call."""
    (base / "nothing").mkdir()
    make_torn(base / "torn", output_format)
    whole = OutputFolder(shutil.copytree(base / "torn", base / "whole"))
    assert in_fork(lambda: run(whole, output_format, ordered=ordered)) == 0
    kills = 0
    for beginning in ("nothing", "torn"):
        for halfway in (False, True):
            for call in range(1, 1000, step):
                path = base / f"{beginning}-{halfway}-{call}"
                folder = OutputFolder(shutil.copytree(base / beginning, path))
                code = in_fork(Killed(folder, output_format, ordered, call, halfway))
                if code == 0:
                    break
                assert code == -signal.SIGKILL, code
                assert in_fork(Checked(folder, output_format, ordered, whole)) == 0, path
                kills += 1
    print(kills)


def make_torn(path: Path, output_format: str | None) -> None:
    """Leave a folder as a run does that is killed while it writes."""
    folder = OutputFolder(path)
    folder.make()
    store = start(folder, output_format)
    for index in range(4):
        store.add(outcome(index, PLAN[index], output_format))
    store.flush()
    store.close()
    for name in (JOURNAL, ".daskprs/rows", f"{NAME}.partial"):
        if (path / name).exists():
            with open(path / name, "ab") as stream:
                stream.write(b"[4,")


@dataclass
class Killed:
    """A run that is killed."""

    folder: OutputFolder
    output_format: str | None
    ordered: bool
    call: int
    halfway: bool

    def __call__(self) -> None:
        self.folder.make()
        die_at(self.call, halfway=self.halfway)
        run(self.folder, self.output_format, ordered=self.ordered)


@dataclass
class Checked:
    """The run after it."""

    folder: OutputFolder
    output_format: str | None
    ordered: bool
    whole: OutputFolder

    def __call__(self) -> None:
        expected = content(self.whole, self.output_format)
        check(self.folder, self.output_format, self.ordered, expected)


if __name__ == "__main__":
    name = sys.argv[2]
    main(
        Path(sys.argv[1]),
        None if name == "none" else name,
        sys.argv[3] == "ordered",
        int(sys.argv[4]),
    )
