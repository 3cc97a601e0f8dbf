"""A run on this machine works without Dask first; one that takes longer goes on in a cluster."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
import time
import types
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import pandas as pd
import psutil
import pytest
from clusters import assert_each_began_once, rows_of, serving, step, wait_until
from entry_hosts import hosted

from daskprs import (
    ClusterLostError,
    ParallelRunConfig,
    ParallelRunStep,
    RunCanceledError,
    TabularDataset,
    TargetError,
    ThresholdExceededError,
    early_hosts,
    local_start,
)
from daskprs.events import ClusterReady
from daskprs.local_session import LocalSession, LocalWindow
from daskprs.script_host import ScriptHost
from daskprs.stay import check_progress
from daskprs.targets import check_target, open_target

pytestmark = pytest.mark.usefixtures("no_daskprs_threads")

COUNTED = """
import time

def init():
    mark("init")

def run(mini_batch):
    mark(os.path.basename(mini_batch[0]))
    time.sleep(0.05)
    return [os.path.basename(mini_batch[0])]

def shutdown():
    mark("shutdown")
"""


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster comes after a moment."""
    monkeypatch.setattr(local_start, "ALONE_SECONDS", 0.3)


def places_of(run: Any) -> list[str | None]:
    """Subscribe to where a run works; a list that grows."""
    found: list[str | None] = []

    def note(event: Any) -> None:
        if isinstance(event, ClusterReady):
            found.append(event.dashboard_link)

    run.subscribe(note)
    return found


# Without Dask

ALONE = """
import sys
from daskprs import FileDataset, ParallelRunConfig, ParallelRunStep, TabularDataset

if __name__ == "__main__":
    kind, script, source, output = sys.argv[1:]
    is_file, known = kind == "files", {}
    if kind == "known table":
        known = {"dtype": {"number": int, "text": str}, "quoted_newlines": False}
    dataset = FileDataset(source) if is_file else TabularDataset(source, **known)
    config = ParallelRunConfig(
        entry_script=script, mini_batch_size=1 if is_file else 50, process_count_per_node=2
    )
    run = ParallelRunStep("alone", config, [dataset], output).submit()
    needless = {"distributed", "asyncio", "tornado"} | ({"pandas"} if is_file or known else set())
    print(run.wait_for_completion(), run.dashboard_link)
    print(*needless & set(sys.modules))
"""


@pytest.mark.parametrize("kind", ["files", "table", "known table"])
def test_a_short_run_does_not_import_dask_s_cluster(workplace: Any, kind: str) -> None:
    """Also not for the look into a table, and not pandas where the look has nothing to find out."""
    source = workplace.files(5)
    if kind != "files":
        source = workplace.folder / "a.csv"
        source.write_text("number,text\n" + "".join(f"{n},row {n}\n" for n in range(40)))
    script = workplace.script("def run(mini_batch): return list(mini_batch)[:1] * len(mini_batch)")
    given = [kind, str(script), str(source), str(workplace.output)]
    done = subprocess.run([sys.executable, "-c", ALONE, *given], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["Completed None", ""]
    assert len(workplace.rows()) == (5 if kind == "files" else 40)


def test_no_process_is_given_more_than_its_share_of_what_is_left(
    workplace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of its share: else the others would wait for it in the end."""
    real, sizes = LocalSession.run_group, []

    def noted(session: LocalSession, group: Any, *how: Any) -> None:
        sizes.append(len(group.mini_batches))
        real(session, group, *how)

    monkeypatch.setattr(LocalSession, "run_group", noted)
    run = step(workplace, None, 400, process_count_per_node=2).submit()
    assert run.wait_for_completion() == "Completed"
    left = [400 - sum(sizes[:number]) for number in range(len(sizes))]
    assert sum(sizes) == 400
    assert max(sizes) > 8, "quick ones travel together"
    assert all(size <= max(1, rest // 4) for size, rest in zip(sizes, left, strict=True))


# With a cluster later


def test_a_longer_run_goes_on_in_a_cluster_with_the_same_processes(
    workplace: Any, soon: None
) -> None:
    """Each mini-batch runs once; init() and shutdown() once in each of the two processes."""
    run = step(
        workplace, None, 60, script=workplace.script(COUNTED), process_count_per_node=2
    ).submit()
    places = places_of(run)
    wait_until(lambda: run.dashboard_link is not None, what="the dashboard")
    assert run.progress.done < 60, "it came while there was work"
    assert run.wait_for_completion() == "Completed"
    assert len(places) == 2
    assert places[0] is None
    assert re.match(r"http://127\.0\.0\.1:\d+/status", str(places[1]))
    assert workplace.row_counts() == rows_of(60)
    assert [workplace.count(name) for name in rows_of(60)] == [1] * 60
    assert (workplace.count("init"), workplace.count("shutdown")) == (2, 2)


def test_tries_are_counted_once_while_a_cluster_comes(workplace: Any, soon: None) -> None:
    """Each third file fails twice before it succeeds: three calls of run(), not one more."""
    script = """
        import time

        def run(mini_batch):
            name = os.path.basename(mini_batch[0])
            mark(name)
            time.sleep(0.02)
            if int(name[1:6]) % 3 == 0 and marks(name) < 3:
                raise ValueError(name)
            return [name]
        """
    run = step(
        workplace, None, 60, script=workplace.script(script), process_count_per_node=2,
        run_max_try=3,
    ).submit()  # fmt: skip
    places = places_of(run)
    assert run.wait_for_completion() == "Completed"
    assert len(places) == 2
    assert workplace.row_counts() == rows_of(60)
    counts = Counter(workplace.count(name) for name in rows_of(60))
    assert counts == {1: 40, 3: 20}


def test_a_slow_mini_batch_goes_on_while_a_cluster_comes(workplace: Any, soon: None) -> None:
    script = """
        import time

        def run(mini_batch):
            name = os.path.basename(mini_batch[0])
            mark(name)
            time.sleep(2.5 if name == "f00000.bin" else 0.05)
            return [name]
        """
    run = step(
        workplace, None, 30, script=workplace.script(script), process_count_per_node=2
    ).submit()
    assert run.wait_for_completion() == "Completed"
    assert run.dashboard_link is not None
    assert [workplace.count(name) for name in rows_of(30)] == [1] * 30
    assert workplace.row_counts() == rows_of(30)


def test_quick_mini_batches_stay_without_a_cluster(
    workplace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The threads of a cluster in the same process would slow them down."""
    monkeypatch.setattr("daskprs.work.QUICK_SECONDS", 0.1)  # the machine may be busy
    script = workplace.script("def run(mini_batch): return [os.path.basename(mini_batch[0])]")
    run = step(workplace, None, 5000, script=script, process_count_per_node=2).submit()
    places = places_of(run)
    wait_until(lambda: run.progress.done > 1000)
    monkeypatch.setattr(local_start, "ALONE_SECONDS", 0.0)
    assert run.progress.done < 5000
    assert run.wait_for_completion() == "Completed"
    assert places == [None]
    assert workplace.row_counts() == rows_of(5000)


def test_a_run_that_ends_while_its_cluster_starts_leaves_none(
    workplace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_start, "ALONE_SECONDS", 0.0)
    run = step(workplace, None, 2, process_count_per_node=2)
    assert run.submit().wait_for_completion() == "Completed"
    assert workplace.row_counts() == rows_of(2)
    assert_each_began_once(workplace)


@pytest.mark.parametrize("moment", ["before", "while", "after"])
def test_a_run_is_canceled_at_any_moment_of_its_change_to_a_cluster(
    workplace: Any, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The same run then goes on with what is missing, and each row is there once."""
    monkeypatch.setattr(local_start, "ALONE_SECONDS", 30.0 if moment == "before" else 0.2)
    real, starts = local_start.open_target, threading.Event()

    def opened(*given: Any) -> Any:
        starts.set()
        return real(*given)

    monkeypatch.setattr(local_start, "open_target", opened)
    slow = step(workplace, None, 40, delay=0.05, process_count_per_node=2)
    run = slow.submit()
    if moment == "before":
        wait_until(lambda: run.progress.done > 0)
    elif moment == "while":
        assert starts.wait(20)
    else:
        wait_until(lambda: run.dashboard_link is not None)
    run.cancel()
    with pytest.raises(RunCanceledError):
        run.wait_for_completion(timeout=20)
    assert slow.submit().wait_for_completion() == "Completed"
    assert workplace.row_counts() == rows_of(40)


def test_a_canceled_run_kills_its_processes_before_it_waits_for_a_cluster_that_starts(
    workplace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_start, "ALONE_SECONDS", 0.0)
    real, starts, may_start = local_start.open_target, threading.Event(), threading.Event()

    def opened(*given: Any) -> Any:
        starts.set()
        may_start.wait(20)
        return real(*given)

    monkeypatch.setattr(local_start, "open_target", opened)
    run = step(workplace, None, 2, delay=30, process_count_per_node=2).submit()
    wait_until(lambda: len(entry_processes()) == 2)
    assert starts.wait(20)
    run.cancel()
    wait_until(lambda: not entry_processes())
    assert run.status == "Running"
    may_start.set()
    with pytest.raises(RunCanceledError):
        run.wait_for_completion(timeout=20)


def entry_processes() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "daskprs.entry_process.child" in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_a_run_does_not_wait_for_long_until_its_processes_are_started(
    workplace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptHost, "are_started", property(lambda host: False))
    assert step(workplace, None, 12).submit().wait_for_completion(timeout=20) == "Completed"
    assert workplace.row_counts() == rows_of(12)


def test_logs_of_the_end_that_cannot_be_written_are_told_and_the_threads_end() -> None:
    def refuse(event: Any) -> None:
        raise OSError("no space left")

    script = """
        def run(mini_batch): return mini_batch
        def shutdown(): print("bye")
    """
    with hosted(script) as host:
        host.run("a")
        made: Future[ScriptHost] = Future()
        made.set_result(host.host)
        job: Any = None
        session = LocalSession(job, {"node0": made}, ["node0"], threading.Event(), refuse)
        try:
            with pytest.raises(OSError, match="no space left"):
                session.finish()
        finally:
            session.end()


def test_a_limit_that_is_exceeded_in_the_cluster_ends_the_run(workplace: Any, soon: None) -> None:
    script = """
        import time

        def run(mini_batch):
            name = os.path.basename(mini_batch[0])
            time.sleep(0.05)
            if name == "f00039.bin":
                mark("failed")
                raise ValueError("the last straw")
            if marks("failed"):
                time.sleep(1000)
            return [name]
        """
    run = step(
        workplace, None, 60, script=workplace.script(script), process_count_per_node=2,
        error_threshold=0, run_max_try=1,
    ).submit()  # fmt: skip
    with pytest.raises(ThresholdExceededError, match="the last straw"):
        run.wait_for_completion(timeout=60)
    assert run.dashboard_link is not None


def test_partitions_of_a_dask_dataframe_begin_in_a_cluster(workplace: Any) -> None:
    frame = dd.from_pandas(pd.DataFrame({"number": range(20)}), npartitions=4)
    config = ParallelRunConfig(
        entry_script=workplace.script("def run(mini_batch): return mini_batch"),
        output_format="csv", process_count_per_node=2,
    )  # fmt: skip
    run = ParallelRunStep("lazy", config, [frame], workplace.output).submit()
    places = places_of(run)
    assert run.wait_for_completion() == "Completed"
    assert None not in places
    assert len(workplace.rows("parallel_run_step.csv")) == 21


def test_tables_and_a_dask_dataframe_run_together(workplace: Any) -> None:
    """Both inputs end up in the output, wherever each runs."""
    frame = dd.from_pandas(pd.DataFrame({"number": range(20)}), npartitions=4)
    table = workplace.folder / "a.csv"
    table.write_text("number\n" + "".join(f"{number}\n" for number in range(100, 140)))
    config = ParallelRunConfig(
        entry_script=workplace.script("def run(mini_batch): return mini_batch.number"),
        mini_batch_size=20, process_count_per_node=2,
    )  # fmt: skip
    inputs = [TabularDataset(str(table)), frame]
    run = ParallelRunStep("both", config, inputs, workplace.output).submit()
    assert run.wait_for_completion() == "Completed"
    assert sorted(map(int, workplace.rows())) == [*range(20), *range(100, 140)]


# Where a place is missing


def test_without_a_cluster_a_run_goes_on_and_says_so_once(
    workplace: Any, monkeypatch: pytest.MonkeyPatch, soon: None
) -> None:
    def refused(*given: Any) -> Any:
        raise TargetError("no cluster can be started on this machine (no ports)")

    monkeypatch.setattr(local_start, "open_target", refused)
    run = step(workplace, None, 40, delay=0.05, process_count_per_node=2).submit()
    assert run.wait_for_completion() == "Completed"
    assert workplace.row_counts() == rows_of(40)
    told = [notice for notice in run.notices if "dashboard" in notice]
    assert told == [
        "the run goes on without Dask's dashboard: no cluster can be started on this machine "
        "(no ports)"
    ]


def test_where_processes_have_no_place_the_cluster_is_asked(
    workplace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its workers have a folder of their own, and try again."""
    calls: list[str] = []

    def failing(*given: Any, **named: Any) -> ScriptHost:
        calls.append(named["node"])
        raise OSError("no room")

    monkeypatch.setattr(early_hosts, "ScriptHost", failing)
    run = step(workplace, None, 12, process_count_per_node=2).submit()
    assert run.wait_for_completion() == "Completed"
    assert calls == ["node0"]
    assert workplace.row_counts() == rows_of(12)
    assert_each_began_once(workplace)
    assert len(serving(workplace)) <= 2


def test_no_place_at_all_is_told(workplace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*given: Any) -> Any:
        raise TargetError("no cluster can be started on this machine (no room)")

    def no_room() -> Iterator[str]:
        raise OSError("no room")

    monkeypatch.setattr(local_start, "open_target", refused)
    monkeypatch.setattr(early_hosts, "scratch_folder", no_room)
    run = step(workplace, None, 3).submit()
    with pytest.raises(TargetError, match="no room"):
        run.wait_for_completion(timeout=20)


# Imports from several threads

LATE = """
import sys, threading, time
from pathlib import Path
import daskprs.local_start
from daskprs import FileDataset, ParallelRunConfig, ParallelRunStep

daskprs.local_start.ALONE_SECONDS = 0.2
script, source, output, processes = sys.argv[1:]
config = ParallelRunConfig(
    entry_script=script, mini_batch_size=1, process_count_per_node=int(processes) or None
)

def work():
    time.sleep(0.5)
    assert not threading.main_thread().is_alive()
    run = ParallelRunStep("late-run", config, [FileDataset(source)], output).submit()
    print(run.wait_for_completion(), *run.notices, flush=True)

threading.Thread(target=work).start()
"""


@pytest.mark.skipif(
    sys.version_info[:3] in ((3, 12, 0), (3, 12, 1)),
    reason="Python 3.12.0 and 3.12.1 start no threads after the main thread has ended",
)
@pytest.mark.parametrize("processes", [2, 0], ids=["two processes", "as many as there are cores"])
def test_a_thread_may_run_what_it_likes_after_the_main_thread_has_ended(
    workplace: Any, processes: int
) -> None:
    """Dask cannot start any more then: Python has closed its thread pools."""
    script = workplace.script("import time\ndef run(m):\n    time.sleep(0.1)\n    return m")
    given = [str(script), str(workplace.files(20)), str(workplace.output), str(processes)]
    done = subprocess.run(
        [sys.executable, "-c", LATE, *given], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("Completed the run goes on without Dask's dashboard"), done.stderr
    assert "after the main thread has ended: let it wait for the run" in done.stdout
    assert done.stderr == ""
    assert len(workplace.rows()) == 20


IMPORTS = """
import sys

class Finder:
    left = int(sys.argv[1])

    def find_spec(self, name, *given):
        if name == "daskprs.session" and self.left:
            Finder.left -= 1
            raise ImportError("cannot import name 'x' from partially initialized module 'y'")

sys.meta_path.insert(0, Finder())
from daskprs import dask_imports
dask_imports._PAUSE = 0.01
try:
    print(dask_imports.import_session().__name__)
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(("failures", "said"), [(0, "Session"), (2, "Session"), (3, "cannot")])
def test_dask_is_imported_again_where_another_import_came_in_between(
    failures: int, said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, str(failures)], capture_output=True, text=True
    )
    assert done.stdout.startswith(said), done.stderr


def test_a_step_is_made_while_another_thread_imports_dask(
    workplace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that is just being imported lacks most of its names."""
    made = step(workplace, None, 3, process_count_per_node=2)
    monkeypatch.setitem(sys.modules, "distributed", types.ModuleType("distributed"))
    run = made.submit()
    check_target("tcp://127.0.0.1:8786")
    assert run.wait_for_completion() == "Completed"


def test_clusters_that_start_at_the_same_time_put_dask_s_settings_back(workplace: Any) -> None:
    config = ParallelRunConfig(entry_script=__file__, process_count_per_node=1)
    name = "distributed.admin.low-level-log-length"
    before, together = dask.config.get(name), threading.Barrier(4)

    def start() -> None:
        together.wait(20)
        with open_target(None, config):
            pass

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert dask.config.get(name) == before


# The window, and the limit of its waiting


def host() -> Future[ScriptHost]:
    """A host that nobody asks."""
    return Future()


def test_a_task_that_raises_comes_back_as_lost_with_its_work() -> None:
    wake = threading.Event()
    window = LocalWindow([("node0", host())], wake)
    try:
        window.put("bad", lambda node, made: {}["nothing"])
        window.put("good", lambda node, made: node)
        wait_until(lambda: not len(window))
        assert wake.is_set()
        bad, good = window.take()
        assert (bad.work, bad.value, bad.lost) == ("bad", None, "KeyError: 'nothing'")
        assert (good.work, good.value, good.lost) == ("good", "node0", "")
        assert window.take() == []
    finally:
        window.close()


def test_what_has_not_begun_when_the_window_closes_never_runs() -> None:
    begun: list[int] = []
    go_on = threading.Event()
    window = LocalWindow([("node0", host())] * 2, threading.Event())

    def task(number: int) -> Any:
        def run(node: str, made: Future[ScriptHost]) -> int:
            begun.append(number)
            go_on.wait(20)
            return number

        return run

    for number in range(6):
        window.put(number, task(number))
    wait_until(lambda: len(begun) == 2)
    assert sorted(window.works()) == list(range(6))
    threading.Timer(0.1, go_on.set).start()
    window.close()
    assert sorted(begun) == [0, 1]
    assert sorted(finished.value for finished in window.take()) == [0, 1]


def test_places_are_used_in_their_order_each_by_one_task_at_a_time() -> None:
    used: list[str] = []
    window = LocalWindow([(node, host()) for node in ("a", "b", "c")], threading.Event())
    try:
        for _ in range(3):
            window.put("", lambda node, made: used.append(node))
            wait_until(lambda: not len(window))
        assert used == ["a", "b", "c"]
    finally:
        window.close()


@pytest.mark.parametrize(("silent", "is_raised"), [(119, False), (122, True)])
def test_waiting_ends_when_nothing_came_for_longer_than_anything_may_take(
    tmp_path: Path, silent: float, is_raised: bool
) -> None:
    """Of what may take long: listing and loading, each try of run(), and init()."""
    (tmp_path / "score.py").touch()
    config = ParallelRunConfig(
        entry_script=tmp_path / "score.py", progress_update_timeout=30,
        run_max_try=2, run_invocation_timeout=20, init_timeout=50,
    )  # fmt: skip
    last = time.monotonic() - silent
    if not is_raised:
        check_progress(config, last, "1 node", lambda: "2 tasks")
        return
    with pytest.raises(ClusterLostError, match=r"from 1 node for 122 s .*waiting for 2 tasks"):
        check_progress(config, last, "1 node", lambda: "2 tasks")
