"""run() that fails: how often it is tried, in which process, and what is told."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
import pytest
from entry_hosts import Hosted, hosted

from daskprs.pieces import FilePaths, FrameRows

# Mini-batches are named for what run() does with them; "raise:2" does it in the first two tries.
SCRIPT = """
import ctypes, os, re, signal, sys, time
from calls import count

def init():
    count("init")

class Evil(Exception):
    def __str__(self):
        raise RuntimeError("no text for you")

class Late:
    def __init__(self, what):
        self.what = what
    def __str__(self):
        act(self.what)
        return self.what

class Unpicklable(Exception):
    def __init__(self, a, b):
        super().__init__("cannot travel")
        self.lock = __import__("threading").Lock()

def deep(n):
    return other(n) if n else 1 / 0

def other(n):
    return deep(n - 1)

def half():
    yield "a"
    raise ValueError("half-way")

def act(what):
    if what == "raise": raise ValueError("this is wrong")
    if what == "keyboard": raise KeyboardInterrupt
    if what == "memory": raise MemoryError("too much")
    if what == "exit": sys.exit(1)
    if what == "exit-text": sys.exit("the model is missing")
    if what == "evil": raise Evil
    if what == "unpicklable": raise Unpicklable(1, 2)
    if what == "huge": raise ValueError("x" * 50_000_000)
    if what == "deep": deep(400)
    if what == "surrogate": raise ValueError("caf\\udce9")
    if what == "group": raise ExceptionGroup("several", [ValueError("one"), TypeError("two")])
    if what == "chained":
        try:
            1 / 0
        except ZeroDivisionError as error:
            raise ValueError("because") from error
    if what == "half": return half()
    if what == "sleep": time.sleep(1000)
    if what == "loop":
        while True: pass
    if what == "regex": re.match("(a*)*b", "a" * 40)
    if what == "c-sleep": ctypes.PyDLL(None).sleep(1000)
    if what == "segfault": ctypes.string_at(0)
    if what == "os-exit": os._exit(3)
    if what == "kill": os.kill(os.getpid(), signal.SIGKILL)
    if what == "term": os.kill(os.getpid(), signal.SIGTERM)
    if what == "alarm": signal.setitimer(signal.ITIMER_REAL, 0.1); time.sleep(1000)
    if what == "abort": os.abort()
    if what == "none": return None
    if what == "str": return "text"
    if what == "bytes": return b"bytes"
    if what == "int": return 7
    if what.startswith("late-"): return [Late(what[5:]), Late("half")]

def run(mini_batch):
    what, _, times = mini_batch[0].partition(":")
    calls = count(mini_batch[0])
    if not times or calls <= int(times):
        result = act(what)
        return result
    return mini_batch
"""


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """The host lives longer than a test; `hosted` itself looks for what is left behind."""


@pytest.fixture(scope="module")
def host() -> Iterator[Hosted]:
    with hosted(SCRIPT) as made:
        yield made


@dataclass
class Fault:
    """What run() does, and what must come of it in three tries."""

    what: str
    runs: int  # calls of run() in all
    new_processes: int  # beyond the one that was there
    statuses: tuple[str, ...]
    error: str = ""  # of the first try
    traceback: str = ""
    timeout: float = 30


EXCEPTION = ("RUN_EXCEPTION",) * 3
DIED = ("PROCESS_DIED", "RUN_DONE")
FAULTS = [
    Fault("raise:1", 2, 0, ("RUN_EXCEPTION", "RUN_DONE")),
    Fault("raise:2", 3, 0, ("RUN_EXCEPTION", "RUN_EXCEPTION", "RUN_DONE")),
    Fault("raise:3", 3, 0, EXCEPTION, "ValueError: this is wrong", 'raise ValueError("this is'),
    Fault("keyboard", 3, 0, EXCEPTION, "KeyboardInterrupt", "in act"),
    Fault("memory", 3, 0, EXCEPTION, "MemoryError: too much", "in act"),
    Fault("exit", 3, 0, EXCEPTION, "SystemExit: 1", "sys.exit(1)"),
    Fault("exit-text", 3, 0, EXCEPTION, "SystemExit: the model is missing", "in act"),
    Fault("evil", 3, 0, EXCEPTION, "score.Evil: <exception str() failed>", "raise Evil"),
    Fault("unpicklable", 3, 0, EXCEPTION, "score.Unpicklable: cannot travel", "in act"),
    Fault("surrogate", 3, 0, EXCEPTION, "ValueError: caf\\udce9", "in act"),
    Fault("group", 3, 0, EXCEPTION, "several (2 sub-exceptions)", "TypeError: two"),
    Fault("chained", 3, 0, EXCEPTION, "ValueError: because", "ZeroDivisionError: division by"),
    Fault("deep", 3, 0, EXCEPTION, "ZeroDivisionError", "characters left out"),
    Fault("half", 3, 0, EXCEPTION, "ValueError: half-way", "in half"),
    Fault("none", 3, 0, EXCEPTION, "run() returned None; it must return a list, tuple, DataFr"),
    Fault("str", 3, 0, EXCEPTION, "run() returned a value of type str; it must return"),
    Fault("bytes", 3, 0, EXCEPTION, "run() returned a value of type bytes; it must return"),
    Fault("int", 3, 0, EXCEPTION, "run() returned a value of type int; it must return"),
    Fault("segfault:1", 2, 1, DIED, "was killed by SIGSEGV in run()", "ctypes.string_at(0)"),
    Fault("abort:1", 2, 1, DIED, "was killed by SIGABRT in run()", "os.abort()"),
    Fault("os-exit:1", 2, 1, DIED, "the process ended with exit code 3 in run()"),
    Fault("term:1", 2, 1, DIED, "was killed by SIGTERM in run()"),
    Fault("alarm:1", 2, 1, DIED, "was killed by SIGALRM in run()"),
    Fault("kill:2", 3, 2, ("PROCESS_DIED", *DIED), "SIGKILL (often: the machine was out of mem"),
    Fault("kill", 3, 3, ("PROCESS_DIED",) * 3, "was killed by SIGKILL", ""),
    Fault("late-os-exit:1", 2, 1, DIED, "with exit code 3 while the result of run()"),
    Fault("late-os-exit", 3, 3, ("PROCESS_DIED",) * 3, "with exit code 3 while the res"),
    Fault("late-raise", 3, 0, EXCEPTION, "ValueError: this is wrong"),
    Fault("sleep:1", 2, 1, ("RUN_TIMEOUT", "RUN_DONE"), "did not return", "in act", 0.3),
    Fault("sleep", 3, 3, ("RUN_TIMEOUT",) * 3, "timeout=0.3 s", "time.sleep(1000)", 0.3),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_fault_is_tried_as_often_as_run_max_try_says_and_told(host: Hosted, fault: Fault) -> None:
    """run_max_try counts tries; only an end of the process costs another init()."""
    host.run("nothing")  # a process is there
    inits = host.calls("init")
    outcome = host.run(fault.what, "b", tries=3, timeout=fault.timeout)
    assert tuple(a.status for a in outcome.attempts) == fault.statuses
    assert [a.number for a in outcome.attempts] == list(range(1, len(fault.statuses) + 1))
    failed = outcome.attempts[-1].status != "RUN_DONE"
    assert outcome.failed is failed
    assert (outcome.returned, outcome.failed_items) == ((0, 2) if failed else (2, 0))
    assert (outcome.rows is None) is failed
    assert bool(outcome.items) is failed
    first = outcome.attempts[0]
    assert fault.error in first.error
    assert fault.traceback in first.traceback
    assert "entry_process" not in first.traceback
    host.run("nothing")
    assert host.calls("init") - inits == fault.new_processes
    assert host.calls(fault.what) == fault.runs


@pytest.mark.parametrize("what", ["loop", "regex", "c-sleep"])
def test_a_timeout_stops_what_holds_the_interpreter_and_tells_the_line(
    host: Hosted, what: str
) -> None:
    """The process is really gone, also when C code holds the GIL, and the error says where."""
    began = time.monotonic()
    outcome = host.run(what, "b", timeout=0.5)
    assert time.monotonic() - began < 30
    assert outcome.attempts[0].status == "RUN_TIMEOUT"
    assert 0.5 <= outcome.attempts[0].run_seconds < 20
    line = {"loop": "while True: pass", "regex": 're.match("(a*)*b"', "c-sleep": ").sleep(1000)"}
    assert line[what] in outcome.traceback
    assert "score.py" in outcome.traceback
    assert "in act" in outcome.traceback
    assert outcome.traceback.index("in run") < outcome.traceback.index("in act")
    assert "entry_process" not in outcome.traceback
    assert "<string>" not in outcome.traceback
    number, source = re.findall(r"line (\d+), in act\n +(.*)", outcome.traceback)[-1]
    assert line[what] in source
    assert outcome.error == (
        "run() did not return within run_invocation_timeout=0.5 s; its process was stopped. "
        f"It hung at score.py:{number}, in act.\n"
        f"[mini-batch {outcome.index} ({what} and 1 more), try 1 of 1]"
    )


def test_a_huge_error_is_cut_before_it_travels(host: Hosted) -> None:
    outcome = host.run("huge")
    assert len(outcome.attempts[0].error) < 2_100
    assert len(outcome.attempts[0].traceback) < 20_100
    assert "in act" in outcome.traceback
    assert "characters left out" in outcome.error


def test_loading_does_not_count_against_the_timeout_of_run() -> None:
    class Slow(FilePaths):
        def load(self, scratch: str) -> list[str]:
            time.sleep(1.2)
            return super().load(scratch)

    with hosted("def run(mini_batch): return mini_batch") as host:
        outcome = host.run("a", piece=Slow(("a",)), timeout=1)
    assert [a.status for a in outcome.attempts] == ["RUN_DONE"]
    assert outcome.attempts[0].load_seconds >= 1.2
    assert outcome.attempts[0].run_seconds < 1


def test_making_rows_of_the_result_does_not_count_against_the_timeout_of_run() -> None:
    script = """
        import time
        class Slow:
            seconds = 1.2
            def __str__(self):
                time.sleep(Slow.seconds)
                Slow.seconds = 1000
                return "slow"
        def run(mini_batch):
            return [Slow()]
    """
    with hosted(script) as host:
        outcome = host.run("a", timeout=1)
        assert outcome.rows is not None
        assert (outcome.attempts[0].status, outcome.rows.payload) == ("RUN_DONE", b"slow\n")
        hung = host.run("a", timeout=1, load_timeout=0.3)
    assert hung.attempts[0].status == "RUN_TIMEOUT"
    assert "the result of run() could not be made into rows within 1 s (the larger" in hung.error
    assert "time.sleep(Slow.seconds)" in hung.traceback
    assert (hung.returned, hung.failed_items) == (0, 1)


def test_a_mini_batch_that_cannot_be_loaded_has_failed_with_all_its_items() -> None:
    class Broken(FilePaths):
        def load(self, scratch: str) -> list[str]:
            raise OSError("the store is gone")

    class Hangs(FilePaths):
        def load(self, scratch: str) -> list[str]:
            time.sleep(1000)
            return []

    with hosted("from calls import count\ndef run(m): count('run')") as host:
        broken = host.run(piece=Broken(("a", "b")), tries=2)
        hangs = host.run(piece=Hangs(("a", "b", "c")), load_timeout=0.5)
        assert host.calls("run") == 0
    assert [a.status for a in broken.attempts] == ["LOAD_EXCEPTION"] * 2
    assert "the store is gone" in broken.error
    assert (broken.total, broken.failed_items) == (2, 2)
    assert [a.status for a in hangs.attempts] == ["LOAD_TIMEOUT"]
    assert "could not be loaded within 0.5 s" in hangs.error
    assert "time.sleep(1000)" in hangs.traceback
    assert hangs.failed_items == 3


def test_counting_what_hangs_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hangs(FilePaths):
        def load(self, scratch: str) -> list[str]:
            raise OSError("gone")

        def count_items(self) -> int:
            time.sleep(5)
            return 7

    monkeypatch.setattr("daskprs.attempts._COUNT_WAIT", 0.2)
    with hosted("def run(m): return m") as host:
        outcome = host.run(piece=Hangs(("a",)))
    assert (outcome.total, outcome.failed_items) == (1, 1)


def test_a_short_result_is_not_tried_again_and_names_the_mini_batch() -> None:
    """Missing items count as failed; the mini-batch has not."""
    script = """
        from calls import count
        def run(mini_batch):
            count("run")
            return mini_batch[: int(mini_batch[0])]
    """
    with hosted(script) as host:
        short = host.run("1", "b", "c", tries=3)
        empty = host.run("0", "b", "c", tries=3)
        full = host.run("3", "b", "c", tries=3)
        assert host.calls("run") == 3
    assert [(o.failed, o.returned, o.failed_items) for o in (short, empty, full)] == [
        (False, 1, 2),
        (False, 0, 3),
        (False, 3, 0),
    ]
    assert short.error == "run() returned 1 of 3 results.\n[mini-batch 0 (1 and 2 more)]"
    doubt = {"certain": False, "failed": 2, "of": 3}
    assert short.items == [{"path": path, **doubt} for path in "1bc"]
    assert empty.items == [{"path": path} for path in "0bc"]
    assert (full.error, full.items) == ("", [])


def test_more_results_than_items_are_legal() -> None:
    with hosted("def run(mini_batch): return mini_batch * 3") as host:
        outcome = host.run("a", "b")
    assert (outcome.failed, outcome.returned, outcome.succeeded_items) == (False, 6, 2)
    assert outcome.rows is not None
    assert (outcome.rows.payload, outcome.rows.count) == (b"a\nb\n" * 3, 6)


def test_a_mini_batch_without_items_is_done_without_a_call() -> None:
    with hosted("from calls import count\ndef run(m): count('run')") as host:
        outcome = host.run(piece=FrameRows(pd.DataFrame({"a": []})), tries=3)
        assert host.calls("run") == 0
    assert (outcome.failed, outcome.total, outcome.failed_items) == (False, 0, 0)


def test_the_rows_of_a_try_that_failed_are_not_kept() -> None:
    """Only the try that succeeded gives rows, each of them once."""
    script = """
        from calls import count
        def run(mini_batch):
            yield mini_batch[0]
            if count("run") < 3:
                raise ValueError
    """
    with hosted(script) as host:
        outcome = host.run("a", tries=3)
    assert outcome.rows is not None
    assert outcome.rows.payload == b"a\n"
    assert outcome.tries == 3
    assert len({a.process for a in outcome.attempts}) == 1


def test_summary_only_makes_no_rows_and_counts() -> None:
    with hosted("def run(m): return [object()] * 2", output_format=None) as host:
        outcome = host.run("a", "b", "c")
    assert (outcome.rows, outcome.returned, outcome.failed_items) == (None, 2, 1)


def test_what_cannot_be_sent_is_a_failure_of_the_mini_batch() -> None:
    with hosted("def run(m): return m") as host:
        outcome = host.run(piece=FilePaths(("a",), {"lock": threading.Lock()}))
        after = host.run("a")
    assert outcome.attempts[0].status == "LOAD_EXCEPTION"
    assert "the mini-batch cannot be sent: TypeError: cannot pickle" in outcome.error
    assert not after.failed


def test_what_cannot_be_unpickled_there_is_a_failure_of_the_mini_batch() -> None:
    with hosted("def run(m): return m") as host:
        outcome = host.run(piece=FilePaths(("a",), {"bomb": Bomb()}))
        after = host.run("a")
    assert outcome.attempts[0].status == "LOAD_EXCEPTION"
    assert "ConnectionError: no such store" in outcome.error
    assert not after.failed


class Bomb:
    """Connects when it is unpickled, and fails."""

    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("raise ConnectionError('no such store')",)
