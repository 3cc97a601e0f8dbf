"""The host of a worker's entry processes: slots, abort, the end, and the end of the worker."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from entry_hosts import CALLS, hosted, processes_in, write

from daskprs.attempts import Limits, try_mini_batch
from daskprs.entry_script import EntryScriptSource
from daskprs.mini_batches import FilePaths, MiniBatch
from daskprs.script_host import (
    InitGaveUpError,
    ScriptHost,
    ScriptPackage,
    SourcePath,
    StoppedError,
)

ECHO = "def run(m): return m"
HANGS = """
    from calls import count
    def run(mini_batch):
        print("at work")
        count("run")
        while True: pass
"""


def in_thread(function: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Call a function in a thread; its result or error is put into the list."""
    results: list[object] = []

    def call() -> None:
        try:
            results.append(function())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    return thread, results


def wait_for(holds: Callable[[], object], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_each_slot_has_a_process_that_is_kept_for_the_next_mini_batch() -> None:
    with hosted("import os\ndef run(m): return [os.getpid()]", threads=2) as host:
        pids = [host.run("a").rows for _ in range(4)]
        assert pids[:2] == pids[2:]
        assert pids[0] != pids[1]


def test_process_count_limits_the_slots() -> None:
    with hosted(ECHO, threads=4, process_count=2) as host:
        assert len(host.host.slots) == 2
    with hosted(ECHO, threads=1, process_count=2) as host:
        assert len(host.host.slots) == 1


def test_a_slot_is_lent_to_one_thread_at_a_time() -> None:
    with hosted(ECHO) as host:
        with host.host.slot(5):
            assert host.host.busy
            with pytest.raises(StoppedError), host.host.slot(0.01):
                pass
        assert not host.host.busy
        with host.host.slot(0.01):
            pass


def test_abort_lets_a_thread_that_waits_for_run_return_at_once() -> None:
    """No outcome is made up, what was logged is kept, and nothing new starts."""
    with hosted(HANGS) as host:
        thread, results = in_thread(lambda: host.run("a", tries=3))
        wait_for(lambda: host.calls("run"))
        began = time.monotonic()
        host.host.abort()
        thread.join(20)
        assert time.monotonic() - began < 10
        [error] = results
        assert isinstance(error, StoppedError)
        assert host.host.stopped
        with pytest.raises(StoppedError):
            host.run("b")
        assert host.log("stdout") == "at work\n"


def test_abort_during_init_is_no_failure_of_init() -> None:
    with hosted("import time; time.sleep(1000)") as host:
        thread, results = in_thread(lambda: host.run("a"))
        wait_for(lambda: any(slot.pid for slot in host.host.slots))
        host.host.abort()
        thread.join(5)
        assert isinstance(results[0], StoppedError)


def test_abort_lets_a_thread_that_waits_for_a_slot_return() -> None:
    with hosted(ECHO) as host, host.host.slot(1):
        thread, results = in_thread(lambda: host.run("a"))
        time.sleep(0.05)
        host.host.abort()
        thread.join(5)
        assert isinstance(results[0], StoppedError)


def test_finish_kills_what_is_still_at_work_and_gives_its_logs() -> None:
    with hosted(HANGS, threads=2) as host:
        thread, results = in_thread(lambda: host.run("a"))
        wait_for(lambda: host.calls("run"))
        began = time.monotonic()
        chunks, failures = host.host.finish()
        assert time.monotonic() - began < 10
        thread.join(5)
        assert isinstance(results[0], StoppedError)
        assert ([c.data for c in chunks], failures) == ([b"at work\n"], [])


def test_finish_calls_the_shutdowns_at_the_same_time() -> None:
    script = """
        import os, time
        from calls import count
        def run(m): return m
        def shutdown():
            count("shutdown")
            while os.path.getsize(os.path.join(os.environ["CALLS"], "shutdown")) < 3:
                time.sleep(0.01)
    """
    with hosted(script, threads=3) as host:
        for _ in range(3):
            host.run("a")
        assert host.host.finish() == ([], [])
        assert host.calls("shutdown") == 3


def test_finish_after_abort_gives_the_logs_and_calls_no_shutdown() -> None:
    script = """
        from calls import count
        def run(mini_batch):
            print("ran")
            return mini_batch
        def shutdown():
            count("shutdown")
    """
    with hosted(script) as host:
        host.run("a")
        host.host.abort()
        chunks, failures = host.host.finish()
        assert ([c.data for c in chunks], failures) == ([b"ran\n"], [])
        assert host.host.finish() == ([], [])
        assert host.calls("shutdown") == 0


def test_of_very_much_output_at_the_end_the_last_part_is_kept_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("daskprs.entry_process.logs.MOST_LAST_BYTES", 10)
    with hosted("def run(m): print('0123456789' * 10); return m") as host:
        host.run("a")
        chunks, _ = host.host.finish()
    assert b"".join(c.data for c in chunks) == b"\n[91 bytes are left out here]\n123456789\n"


def test_close_while_run_is_at_work_leaves_no_process_and_no_folder() -> None:
    """`hosted` looks for both; closing again, also at the same time, does no harm."""
    with hosted(HANGS, threads=2) as host:
        thread, results = in_thread(lambda: host.run("a"))
        wait_for(lambda: any(slot.pid for slot in host.host.slots))
        closers = [in_thread(host.host.close)[0] for _ in range(3)]
        for closer in closers:
            closer.join(10)
        thread.join(5)
        assert isinstance(results[0], StoppedError)
        host.host.close()


def test_a_thread_that_comes_back_after_close_cleans_up_its_own_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("daskprs.script_host._IDLE_WAIT", 0.1)
    with hosted(ECHO) as host:
        with host.host.slot(1) as slot:
            process = slot.process()
            host.host.close()
            assert slot.pid == process.pid
        assert slot.pid is None
        assert process.pid not in {child.pid for child in psutil.Process().children()}


def open_files() -> set[str]:
    """Give the open file descriptors, without that of the list itself."""
    found = set()
    for number in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):
            os.fstat(int(number))
            found.add(number)
    return found


def left_by_processes_that_died() -> list[str]:
    before = open_files()
    with hosted("import os\ndef run(m): os._exit(1)") as host:
        host.run("a", tries=3)
    children = psutil.Process().children()
    zombies = [str(child) for child in children if child.status() == psutil.STATUS_ZOMBIE]
    return zombies + sorted(open_files() - before)


def test_no_file_descriptor_and_no_zombie_is_left() -> None:
    """In a process that nothing else runs in: threads of other tests may open files."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        assert pool.submit(left_by_processes_that_died).result(timeout=60) == []


def test_a_machine_that_cannot_start_a_process_says_so_and_keeps_the_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with hosted("import os\ndef run(m): return [os.environ['CUDA_VISIBLE_DEVICES']]") as host:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", "/no/such/python")
            with pytest.raises(InitGaveUpError, match="could not be started: FileNotFoundError"):
                host.run("a")
        with host.host.slot(1) as slot:
            assert [r.status for _, r, _ in slot.take_inits()] == ["INIT_DIED"] * 3
        outcome = host.run("a")
        assert outcome.rows is not None
        assert outcome.rows.payload == b"0\n"


def test_a_packed_script_runs_from_the_worker_s_own_copy(tmp_path: Path) -> None:
    """Executable files, odd names and paths in the arguments come along."""
    source = tmp_path / "source"
    files: dict[str, str | bytes] = {"sub/score.py": PACKED, "tool.sh": "#!/bin/sh\necho tool"}
    write(source, {**files, "model.bin": "model"})
    os.chmod(source / "tool.sh", 0o755)
    with open(os.fsencode(source) + b"/" + ODD, "w") as stream:
        stream.write("odd")
    packed = EntryScriptSource.of(source / "sub" / "score.py", source)
    package = ScriptPackage(
        token="t",
        script=packed.relative,
        folder=str(source),
        archive=packed.archive(),
        arguments=("--model", SourcePath("model.bin")),
    )
    workers = tmp_path / "workers"
    workers.mkdir()
    host = ScriptHost(package, node="n", ip="", threads=1, folder=str(workers))
    try:
        with host.slot(1) as slot:
            mini_batch = MiniBatch(0, "0", FilePaths(("a",)), 1, None)
            outcome = try_mini_batch(host, slot, mini_batch, Limits(1, 9, 9))
        assert outcome.rows is not None, outcome.traceback
        path, *rest = outcome.rows.payload.decode().splitlines()
        assert Path(path).is_relative_to(workers)
        assert rest == ["model", "tool", "odd"]
    finally:
        host.close()
    assert list(workers.iterdir()) == []


# Only Linux has names that are not UTF-8.
ODD = b"caf\xe9.txt" if sys.platform == "linux" else "café.txt".encode()
PACKED = f"""
    import os, subprocess, sys
    here = os.path.dirname(os.path.dirname(__file__))
    def run(mini_batch):
        tool = subprocess.run([os.path.join(here, "tool.sh")], capture_output=True, text=True)
        odd = open(os.fsencode(here) + b"/" + {ODD!r}).read()
        return [__file__, open(sys.argv[2]).read(), tool.stdout.strip(), odd]
"""


def test_a_package_that_cannot_be_unpacked_leaves_no_folder(tmp_path: Path) -> None:
    package = ScriptPackage(token="t", script="s.py", folder="/nowhere", archive=b"no archive")
    with pytest.raises(tarfile.TarError):
        ScriptHost(package, node="n", ip="", threads=1, folder=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


# A worker that is killed

WORKER = """
import sys, threading, time
from daskprs.attempts import Limits, try_mini_batch
from daskprs.mini_batches import FilePaths, MiniBatch
from daskprs.script_host import ScriptHost, ScriptPackage
source, folder = sys.argv[1:]
package = ScriptPackage(token="t", script="score.py", folder=source, archive=None,
                        environment={"CALLS": folder})
host = ScriptHost(package, node="n", ip="", threads=1, folder=folder)
with host.slot(5) as slot:
    try_mini_batch(host, slot, MiniBatch(0, "0", FilePaths(("a",)), 1, None), Limits(1, 999, 999))
"""
AT_WORK = {"busy in Python": "while True: pass", "idle": "return ['a']"}
HOLDS_GIL = {
    "busy in C, with the GIL": "import re; re.match('(a*)*b', 'a' * 40)",
    "asleep in C, with the GIL": "import ctypes; ctypes.PyDLL(None).sleep(1000)",
    "blocks every signal": "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, "
    "range(1, 64)); import re; re.match('(a*)*b', 'a' * 40)",
}
if sys.platform == "linux":  # elsewhere the kernel does not help
    AT_WORK |= HOLDS_GIL


@pytest.mark.parametrize("what", AT_WORK)
def test_when_the_worker_is_killed_its_processes_and_their_children_are_gone(
    what: str, tmp_path: Path
) -> None:
    """Within two seconds, whatever they do; on Linux by the kernel itself."""
    script = f"""
        import os, signal, subprocess, time
        from calls import count
        def run(mini_batch):
            subprocess.Popen(["sh", "-c", "trap '' IO TERM HUP; while :; do sleep 100; done"])
            if os.fork() == 0:
                signal.signal(signal.SIGIO, signal.SIG_IGN)
                time.sleep(1000)
            count("run")
            {AT_WORK[what]}
    """
    write(tmp_path, {"source/score.py": script, "source/calls.py": CALLS})
    folder = tmp_path / "folder"
    folder.mkdir()
    waits = f"{WORKER}\ntime.sleep(1000)" if what == "idle" else WORKER
    command = [sys.executable, "-c", waits, str(tmp_path / "source"), str(folder)]
    with subprocess.Popen(command) as worker:
        try:
            wait_for(lambda: (folder / "run").exists(), 20)
            time.sleep(0.1)
            assert len(processes_in(folder)) >= 3
        finally:
            worker.kill()
    try:
        wait_for(lambda: processes_in(folder) == [], 2)
    finally:
        for process in processes_in(folder):
            process.kill()


def test_a_worker_that_ends_in_an_orderly_way_without_closing_leaves_no_process(
    tmp_path: Path,
) -> None:
    write(tmp_path, {"source/score.py": ECHO})
    folder = tmp_path / "folder"
    folder.mkdir()
    command = [sys.executable, "-c", WORKER, str(tmp_path / "source"), str(folder)]
    subprocess.run(command, check=True, timeout=30)
    wait_for(lambda: processes_in(folder) == [], 2)


def test_an_interrupt_of_the_terminal_does_not_reach_the_script(tmp_path: Path) -> None:
    """Ctrl-C goes to a whole process group: what it means is the driver's business."""
    with hosted("import os\ndef run(m): return [os.getpgrp(), os.getppid()]") as host:
        outcome = host.run("a")
    assert outcome.rows is not None
    group, parent = outcome.rows.payload.split()
    assert int(group) != os.getpgrp()
    assert int(parent) == os.getpid()
    assert signal.getsignal(signal.SIGINT) is not None
