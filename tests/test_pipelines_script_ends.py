"""How scripts of steps end: failures, timeouts, and the end of who has submitted them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import psutil
import pytest
from pipeline_parts import Yard, completed, log_of, made, rows, script

from daskprs import EntryScriptError, RunFailedError
from daskprs.pipelines import (
    Data,
    Pipeline,
    StepOutput,
)

pytestmark = pytest.mark.usefixtures("no_daskprs_threads")


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


def test_a_failure_shows_the_traceback_of_the_script_first(yard: Yard) -> None:
    """With what it was caused by, and without what was printed before."""
    text = """
print("much before")
try:
    1 / 0
except ZeroDivisionError as error:
    raise ValueError("no such month") from error
"""
    output = StepOutput("files")
    steps = [made(yard, text, outputs=[output]), yard.step("after", [output])]
    run = Pipeline(yard.workspace, steps).submit("test")
    with pytest.raises(EntryScriptError) as caught:
        run.wait_for_completion()
    lines = str(caught.value).splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "ZeroDivisionError: division by zero" in lines
    assert "ValueError: no such month" in lines
    assert "the step 'make' has failed: its script ended with exit code 1" in lines[-1]
    assert "much before" not in str(caught.value)
    assert [step.status for step in run.steps()] == ["Failed", "Canceled"]
    assert "much before" in log_of(run, "make", yard.folder)


@pytest.mark.parametrize(
    "text", ["import sys; print('last words'); sys.exit(3)", "import os; os._exit(3)"]
)
def test_a_script_that_ends_without_a_traceback_shows_its_last_lines(text: str, yard: Yard) -> None:
    with pytest.raises(EntryScriptError, match="its script ended with exit code 3") as caught:
        completed(yard, made(yard, text))
    assert caught.value.script_traceback == ("last words" if "print" in text else "")


def test_a_failed_script_is_run_again_from_the_beginning(yard: Yard) -> None:
    gate = yard.folder / "gate"
    text = f"""
import os, sys
open(sys.argv[1] + "/half", "a").write("x")
sys.exit(not os.path.exists({str(gate)!r}))
"""
    output = StepOutput("files")
    step = made(yard, text, output, outputs=[output])
    with pytest.raises(EntryScriptError):
        completed(yard, step)
    gate.touch()
    run = completed(yard, step)
    assert rows(run, "make", yard.folder / "got") == ["x"]


def test_a_script_that_takes_too_long_is_stopped(yard: Yard) -> None:
    step = made(yard, "import time; time.sleep(100)", timeout=0.5)
    with pytest.raises(RunFailedError, match=r"its script took longer than timeout=0\.5 s"):
        completed(yard, step)


SLOW = """
import os, subprocess, sys, time
other = subprocess.Popen(["sleep", "100"], start_new_session=True)
open({mark!r}, "w").write(f"{{os.getpid()}} {{other.pid}}\\n")
time.sleep(100)
"""


def pids(mark: Path) -> list[int]:
    deadline = time.monotonic() + 60
    while not (mark.exists() and mark.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return [int(word) for word in mark.read_text().split()]


def gone(pid: int) -> bool:
    def is_gone() -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    return soon(is_gone)


def soon(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_canceled_run_ends_its_script_and_all_that_it_has_started(yard: Yard) -> None:
    mark = yard.folder / "mark"
    step = made(yard, SLOW.format(mark=str(mark)))
    run = Pipeline(yard.workspace, [step]).submit("test")
    started = pids(mark)
    run.cancel()
    assert run.wait_for_completion(raise_on_error=False, timeout=60) == "Canceled"
    assert all(map(gone, started))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_script_ends_with_the_process_that_has_submitted_it(number: int, yard: Yard) -> None:
    """With all that it has started, and the files that were for it alone."""
    mark, temporary = yard.folder / "mark", yard.folder / "temporary"
    temporary.mkdir()
    path = script(yard, SLOW.format(mark=str(mark)))
    program = f"""
from daskprs.pipelines import Pipeline, ScriptStep, Workspace
step = ScriptStep("slow", {str(path)!r})
Pipeline(Workspace({str(yard.folder / "ws")!r}), [step]).submit("test").wait_for_completion()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    started = pids(mark)
    os.kill(process.pid, number)
    process.wait(60)
    assert all(map(gone, started))
    assert soon(lambda: not list(temporary.iterdir()))


def test_secrets_are_hidden_in_the_log_and_in_the_error(yard: Yard) -> None:
    """Those of datastores and of variables, as in the logs of parallel steps."""
    keys = ["c2VjcmV0IGtleSBvZiBhIHN0b3Jl", "another-secret-of-ours"]
    store = yard.workspace.datastores.register("far", "memory://far", {"account_key": keys[0]})
    fsspec.filesystem("memory").pipe("/far/a", b"a")
    step = made(yard, f"print('first {keys[0]}')\nraise ValueError({keys[1]!r})",
                inputs=[Data.files((store, "a"))],
                environment_variables={"MY_TOKEN": keys[1]})  # fmt: skip
    run = Pipeline(yard.workspace, [step]).submit("test")
    with pytest.raises(EntryScriptError) as caught:
        run.wait_for_completion()
    told = str(caught.value) + log_of(run, "make", yard.folder)
    assert "ValueError: ***" in told
    assert "first ***" in told
    assert not any(key in told for key in keys)
    fsspec.filesystem("memory").rm("/far", recursive=True)
