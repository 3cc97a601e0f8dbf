"""What scripts do to the process they are in: streams, children, threads, signals, forks."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Iterator

import psutil
import pytest
from entry_hosts import Hosted, hosted, processes_in

# run() of one script: each mini-batch names the function that does it.
SCRIPT = """
import logging, multiprocessing, os, signal, subprocess, sys, threading, time
from calls import count
from azureml_user.parallel_run import EntryScript

def init():
    count("init")

def run(mini_batch):
    return globals()[mini_batch[0]](*mini_batch[1:])

def same(*items):
    return ["same"]

def read_stdin():
    return [repr(sys.stdin.read()), repr(os.read(0, 10))]

def print_a_lot():
    line = "x" * 99
    for _ in range(100_000):
        print(line)
        print(line, file=sys.stderr)
    return ["printed"]

def write_to_descriptors():
    os.write(1, b"to one\\n")
    os.write(2, b"to two\\n")
    return ["written"]

def say_everywhere(word):
    print(f"print {word} caf\\u00e9 \\udce9")
    print(f"stderr {word}", file=sys.stderr)
    logging.getLogger("of.the.script").info("logging %s", word)
    logging.getLogger("of.the.script").debug("debug %s", word)
    EntryScript().logger.info("entry %s", word)
    EntryScript().logger.debug("hidden %s", word)
    subprocess.run(["echo", f"child {word}"])
    return [word]

def say_and_die(word):
    say_everywhere(word)
    os._exit(1)

def say_and_hang(word):
    say_everywhere(word)
    while True: pass

def close_stdout():
    sys.stdout.close()
    sys.stderr.close()
    return ["closed"]

def fail_without_stderr():
    sys.stderr.close()
    raise ValueError("nobody hears")

def replace_stdout():
    sys.stdout = sys.stderr = None
    return ["replaced"]

def close_descriptors():
    os.closerange(1, 64)
    return ["gone"]

def multiply(x):
    return x * 2

def pool_of(method):
    with multiprocessing.get_context(method).Pool(2) as pool:
        return pool.map(multiply, [1, 2, 3])

def fork_that_exits():
    pid = os.fork()
    if pid == 0:
        sys.exit(7)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]

def fork_that_returns():
    pid = os.fork()
    if pid == 0:
        return ["from the child"]
    os.waitpid(pid, 0)
    return ["from the parent"]

def fork_that_raises():
    pid = os.fork()
    if pid == 0:
        raise ValueError("in the child")
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]

def start_child(*flags):
    command = [sys.executable, "-c", "import time; time.sleep(1000)"]
    child = subprocess.Popen(command, start_new_session="session" in flags)
    return [child.pid]

def fork_child_and_die():
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(5)

def start_child_in_session_and_die():
    start_child("session")
    os._exit(5)

def start_child_and_hang():
    start_child()
    start_child("session")
    time.sleep(1000)

def start_threads():
    threading.Thread(target=time.sleep, args=(1000,)).start()
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    return ["started"]

def hang_in_a_thread():
    thread = threading.Thread(target=sleep_there)
    thread.start()
    thread.join()

def sleep_there():
    time.sleep(1000)

def ignore_signals():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGIO):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGUSR1})
    time.sleep(1000)

def alarm_in_time():
    def late(number, frame):
        raise TimeoutError("my own alarm")
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    time.sleep(1000)

def change_folder():
    os.mkdir("mine")
    os.chdir("/")
    return [os.getcwd()]
"""


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """The host lives longer than a test; `hosted` itself looks for what is left behind."""


@pytest.fixture(scope="module")
def host() -> Iterator[Hosted]:
    with hosted(SCRIPT) as made:
        yield made


def rows(host: Hosted, *words: str, **limits: float) -> list[str]:
    outcome = host.run(*words, **limits)
    assert outcome.rows is not None, outcome.traceback
    return outcome.rows.payload.decode().splitlines()


def test_stdin_is_at_its_end(host: Hosted) -> None:
    assert rows(host, "read_stdin") == ["''", "b''"]


def test_much_output_does_not_block_run(host: Hosted) -> None:
    """20 MB, and not a byte is lost; an answer holds a limited part of it."""
    host.log("stdout")
    assert rows(host, "print_a_lot") == ["printed"]
    taken = []
    for slot in host.host.slots:
        while chunks := slot.take_logs():
            assert sum(len(chunk.data) for chunk in chunks) <= 2 << 22
            taken += chunks
    assert [sum(len(c.data) for c in taken if c.kind == k) for k in ("stdout", "stderr")] == [
        10_000_000,
        10_000_000,
    ]


@pytest.mark.parametrize("what", ["say_everywhere", "say_and_die", "say_and_hang"])
def test_each_kind_of_output_is_in_its_log_also_when_the_process_dies(
    host: Hosted, what: str
) -> None:
    """print and logging in stdout, EntryScript().logger in entry_script_log."""
    host.log("stdout")
    with host.host.slot(1) as slot:
        name = slot.process().name
    host.run(what, what, timeout=0.5)
    chunks = [chunk for slot in host.host.slots for chunk in slot.take_logs()]
    logs = {c.kind: c.data.decode() for c in chunks}
    assert {(c.node, c.process) for c in chunks} == {("node0", name)}
    assert f"print {what} café \\udce9\n" in logs["stdout"]
    assert f"|INFO|of.the.script|logging {what}\n" in logs["stdout"]
    assert f"child {what}\n" in logs["stdout"]
    assert logs["stderr"] == f"stderr {what}\n"
    assert logs["entry_script_log"].endswith(f"|INFO|entry {what}\n")
    assert "debug" not in logs["stdout"]
    assert "hidden" not in logs["entry_script_log"]
    assert host.log("stdout") == ""


def test_what_is_written_to_the_descriptors_is_logged(host: Hosted) -> None:
    host.log("stdout")
    assert rows(host, "write_to_descriptors") == ["written"]
    logs = {c.kind: c.data for slot in host.host.slots for c in slot.take_logs()}
    assert logs == {"stdout": b"to one\n", "stderr": b"to two\n"}


@pytest.mark.parametrize("what", ["close_stdout", "replace_stdout"])
def test_closed_or_replaced_streams_are_the_script_s_own_affair(what: str) -> None:
    with hosted(SCRIPT) as host:
        assert len(rows(host, what)) == 1
        assert rows(host, "same") == ["same"]
        assert "ValueError: nobody hears" in host.run("fail_without_stderr").error or (
            what == "replace_stdout"
        )
        assert rows(host, "same") == ["same"]
        assert host.calls("init") == 1


def test_a_failure_is_told_when_stderr_is_closed(host: Hosted) -> None:
    outcome = host.run("fail_without_stderr")
    assert outcome.error.startswith("ValueError: nobody hears\n")
    assert "fail_without_stderr" in outcome.traceback


def test_a_script_that_closes_our_connection_has_lost_its_process(host: Hosted) -> None:
    outcome = host.run("close_descriptors", timeout=20)
    assert outcome.attempts[0].status == "PROCESS_DIED"
    assert "run()" in outcome.error
    assert rows(host, "same") == ["same"]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_works_in_the_script(host: Hosted, method: str) -> None:
    assert rows(host, "pool_of", method, timeout=10) == ["2", "4", "6"]


def test_a_fork_of_the_script_ends_as_the_script_says_and_does_not_answer(host: Hosted) -> None:
    inits = host.calls("init")
    with host.host.slot(1) as slot:
        slot.process()
    assert rows(host, "fork_that_exits") == ["7"]
    assert rows(host, "fork_that_raises") == ["1"]
    assert rows(host, "fork_that_returns") == ["from the parent"]
    assert rows(host, "same") == ["same"]
    assert host.calls("init") - inits <= 1


def test_a_death_is_seen_at_once_although_a_fork_lives_on(host: Hosted) -> None:
    began = time.monotonic()
    outcome = host.run("fork_child_and_die", timeout=30)
    assert time.monotonic() - began < 10
    assert "ended with exit code 5" in outcome.error


@pytest.mark.parametrize(
    "what", ["fork_child_and_die", "start_child_in_session_and_die", "start_child_and_hang"]
)
def test_what_the_script_has_started_ends_with_its_process(host: Hosted, what: str) -> None:
    """Also what has left the process group, or has lost its parent."""
    assert host.run(what, timeout=0.5).failed
    assert wait_until(lambda: processes_in(host.folder) == [])


def test_children_and_threads_are_left_alone_until_the_process_ends() -> None:
    with hosted(SCRIPT) as host:
        pids = [int(rows(host, "start_child", flag)[0]) for flag in ("", "session")]
        assert rows(host, "start_threads") == ["started"]
        assert rows(host, "same") == ["same"]
        assert all(psutil.pid_exists(pid) for pid in pids)
        began = time.monotonic()
        host.host.finish()
        assert time.monotonic() - began < 4
        assert wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_the_stacks_of_other_threads_of_the_script_are_told_too(host: Hosted) -> None:
    outcome = host.run("hang_in_a_thread", timeout=0.5)
    first, second = outcome.traceback.split("Stack of another thread (most recent call last):")
    assert "thread.join()" in first
    assert "time.sleep(1000)" in second
    assert "watch" not in outcome.traceback
    assert outcome.error.splitlines()[0].endswith(", in hang_in_a_thread.")


def test_signals_that_are_ignored_or_blocked_do_not_keep_a_process(host: Hosted) -> None:
    outcome = host.run("ignore_signals", timeout=0.5)
    assert outcome.attempts[0].status == "RUN_TIMEOUT"
    assert "time.sleep(1000)" in outcome.traceback
    assert wait_until(lambda: processes_in(host.folder) == [])


def test_a_script_may_use_its_own_alarm(host: Hosted) -> None:
    assert host.run("alarm_in_time").error.startswith("TimeoutError: my own alarm\n")


def test_a_script_may_leave_its_working_directory(host: Hosted) -> None:
    assert rows(host, "change_folder") == ["/"]
    assert rows(host, "same") == ["same"]


def test_a_process_that_dies_between_mini_batches_costs_no_try(host: Hosted) -> None:
    rows(host, "same")
    with host.host.slot(1) as slot:
        assert slot.pid is not None
        psutil.Process(slot.pid).kill()
        psutil.wait_procs([psutil.Process(slot.pid)], 0.2)
    time.sleep(0.1)
    inits = host.calls("init")
    outcome = host.run("same")
    assert [a.status for a in outcome.attempts] == ["RUN_DONE"]
    assert host.calls("init") == inits + 1


def test_a_stopped_process_is_killed_in_time(host: Hosted) -> None:
    """SIGSTOP: it cannot even tell its stack."""
    rows(host, "same")
    with host.host.slot(1) as slot:
        assert slot.pid is not None
        os.kill(slot.pid, 19 if os.uname().sysname == "Linux" else 17)
    outcome = host.run("same", load_timeout=0.3)
    assert outcome.attempts[0].status == "LOAD_TIMEOUT"
    assert outcome.traceback == "(the process did not tell its stack)"


@pytest.mark.parametrize("has_handles", [True, False])
def test_shutdown_and_atexit_handlers_are_called_at_the_end(
    monkeypatch: pytest.MonkeyPatch, has_handles: bool
) -> None:
    """Also where the system has no handles of processes to wait for."""
    if not has_handles:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    script = """
        import atexit, threading, time
        from calls import count
        atexit.register(count, "atexit")
        def run(mini_batch):
            threading.Thread(target=time.sleep, args=(1000,)).start()
            return mini_batch
        def shutdown():
            count("shutdown")
            print("bye", end="")
    """
    with hosted(script) as host:
        host.run("a")
        chunks, failures = host.host.finish()
        assert (host.calls("shutdown"), host.calls("atexit")) == (1, 1)
        assert [c.data for c in chunks] == [b"bye"]
        assert failures == []


SHUTDOWNS = {
    "raise": ("raise ValueError('no')", "ValueError: no", "in shutdown"),
    "hang": ("while True: pass", "It hung at score.py:5, in shutdown.", "while True: pass"),
    "die": ("os._exit(4)", "the process ended with exit code 4 in shutdown()", ""),
}


@pytest.mark.parametrize("what", SHUTDOWNS)
def test_a_shutdown_that_fails_is_told_and_the_process_ends(what: str) -> None:
    body, error, traceback = SHUTDOWNS[what]
    script = textwrap.dedent(f"""
        import os
        def run(m): return m
        def shutdown():
            {body}
    """)
    with hosted(script, shutdown_timeout=0.5) as host:
        host.run("a")
        _, failures = host.host.finish()
    [(process, failed)] = failures
    assert process == "process000"
    assert error in failed.error
    assert traceback in failed.traceback


def wait_until(holds: object, seconds: float = 3) -> bool:
    assert callable(holds)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.02)
    return False
