"""A run keeps its output folder as long as it works, whatever it is doing, and no longer."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import wait_until
from stores import SlowFileSystem, fault, new_store

from daskprs import (
    FileDataset,
    OutputError,
    ParallelRunConfig,
    ParallelRunStep,
    WriteFailedError,
    output_lock,
)
from daskprs.output_folder import Lock, OutputFolder
from daskprs.run import ParallelRun

STALE = 1.0
NAMES = """
def run(mini_batch):
    mark("run")
    while marks("wait") and not marks("go on"):
        pass
    return [os.path.basename(path) for path in mini_batch]
"""


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_lock, "STALE_AFTER", STALE)
    monkeypatch.setattr(output_lock, "REFRESH_SECONDS", 0.1)


@pytest.fixture
def slow_url() -> Iterator[str]:
    SlowFileSystem.is_writing.clear()
    SlowFileSystem.go_on.clear()
    with new_store("slow") as url:
        yield url
        SlowFileSystem.go_on.set()


def step_of(workplace: Any, url: str) -> ParallelRunStep:
    config = ParallelRunConfig(
        entry_script=workplace.script(NAMES), mini_batch_size=1, process_count_per_node=1
    )
    return ParallelRunStep("slow-output", config, [FileDataset(workplace.files(2))], url)


def submit_elsewhere(step: ParallelRunStep) -> ParallelRun:
    """Start a run that others take for one of another machine: only signs of life count."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output_lock, "_machine", lambda: "another machine")
        return step.submit()


@pytest.mark.usefixtures("no_daskprs_threads")
def test_a_run_that_publishes_for_longer_than_the_limit_keeps_its_folder(
    workplace: Any, slow_url: str
) -> None:
    step = step_of(workplace, slow_url)
    first = submit_elsewhere(step)
    assert SlowFileSystem.is_writing.wait(30)
    time.sleep(2.5 * STALE)
    with pytest.raises(OutputError, match=r"is in use.*sign of life is \d s old"):
        step.submit()
    SlowFileSystem.go_on.set()
    assert first.wait_for_completion(timeout=30) == "Completed"
    again = step.submit()
    again.wait_for_completion(timeout=30)
    assert again.report.reused


@pytest.mark.usefixtures("no_daskprs_threads")
def test_a_run_that_was_silent_does_not_publish_into_the_folder_of_another_one(
    workplace: Any, slow_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_lock, "REFRESH_SECONDS", 1000.0)
    folder = OutputFolder(slow_url)
    first = submit_elsewhere(step_of(workplace, slow_url))
    assert SlowFileSystem.is_writing.wait(30)
    time.sleep(1.2 * STALE)
    other = Lock(folder)
    other.acquire()
    before = {name: folder.read(f".daskprs/{name}") for name in folder.sizes(".daskprs")}
    SlowFileSystem.go_on.set()
    with pytest.raises(WriteFailedError, match="was taken over by another run"):
        first.wait_for_completion(timeout=30)
    assert first.status == "Failed"
    assert other.is_held
    assert {name: folder.read(f".daskprs/{name}") for name in folder.sizes(".daskprs")} == before
    assert folder.size("parallel_run_step.txt") is None
    assert folder.size("logs/job_result.txt") is None
    other.release()


@pytest.mark.usefixtures("no_daskprs_threads")
def test_a_run_whose_folder_was_taken_stops_while_it_waits_for_results(workplace: Any) -> None:
    workplace.script(NAMES)
    (workplace.calls / "wait").write_bytes(b".")
    run = step_of(workplace, workplace.output).submit()
    wait_until(lambda: workplace.count("run"))
    lock = workplace.output / ".daskprs/lock-000002"
    lock.write_bytes((workplace.output / ".daskprs/lock-000001").read_bytes())
    with pytest.raises(WriteFailedError, match="was taken over by another run"):
        run.wait_for_completion(timeout=20)
    assert not (workplace.output / "logs/job_result.txt").exists()
    assert run.report.output_file is None


HOLDER = """
    import sys, time
    from daskprs import output_lock
    from daskprs.output_folder import Lock, OutputFolder

    output_lock.REFRESH_SECONDS = 0.1
    output_lock._machine = lambda: "another machine"
    lock = Lock(OutputFolder(sys.argv[1]))
    lock.acquire()
    with lock.kept():
        print("locked", flush=True)
        while True:  # as busy as a thread can be
            sum(range(1000))
"""


def test_the_folder_of_a_busy_run_is_free_only_after_it_was_killed(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    folder.make()
    command = [sys.executable, "-c", textwrap.dedent(HOLDER), folder.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        time.sleep(2 * STALE)
        with pytest.raises(OutputError, match=f"process {process.pid}"):
            Lock(folder).acquire()
        process.kill()
    with pytest.raises(OutputError, match=r"after 1 s without one it counts as gone"):
        Lock(folder).acquire()
    time.sleep(1.2 * STALE)
    Lock(folder).acquire()


def test_an_error_of_the_store_does_not_end_the_signs_of_life() -> None:
    with new_store("memory") as url:
        folder = OutputFolder(url)
        folder.make()
        lock = Lock(folder)
        lock.acquire()
        with fault("memory", 1, after=False, killed=False) as calls, lock.kept():
            wait_until(lambda: calls() > 3)
            lock.check()
        lock.release()


def test_a_store_that_does_not_answer_ends_the_run_and_not_the_waiting_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stalled = threading.Event()
    with new_store("memory") as url:
        folder = OutputFolder(url, seconds=0.3)
        folder.make()
        lock = Lock(folder)
        lock.acquire()
        fs = folder._files._fs
        monkeypatch.setattr(fs, "ls", lambda *args, **options: stalled.wait(20))
        with lock.kept():
            wait_until(lambda: lock._trouble is not None)
            with pytest.raises(WriteFailedError, match="does not answer"):
                lock.check()
            began = time.monotonic()
        assert time.monotonic() - began < 5
        monkeypatch.undo()
        stalled.set()
        assert not lock.is_lost
        lock.release()
    assert not [t for t in threading.enumerate() if t.name == "daskprs-lock"]
