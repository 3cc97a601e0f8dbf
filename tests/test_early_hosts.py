"""Processes on this machine start as early as they can; what was started is used, or ends."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
from entry_hosts import hosted

from daskprs import FileDataset, ParallelRunConfig, ParallelRunStep, driver
from daskprs.cluster_rows import ClusterRows
from daskprs.early_hosts import early_hosts, take_early_host
from daskprs.exceptions import InitFailedError, TargetError
from daskprs.mini_batches import MiniBatch
from daskprs.scratch import scratch_folder
from daskprs.script_host import InitGaveUpError, ScriptHost, ScriptPackage
from daskprs.targets import open_target

SCRIPT = """
import time

def init():
    mark("init")
    {init}

def run(mini_batch):
    mark("run")
    time.sleep({seconds})
    return mini_batch
"""


def submitted(workplace: Any, count: int, init: str = "pass", seconds: float = 0.0) -> Any:
    config = ParallelRunConfig(
        entry_script=workplace.script(SCRIPT.format(init=init, seconds=seconds)),
        mini_batch_size=1,
        process_count_per_node=2,
    )
    inputs = [FileDataset(workplace.files(count))]
    return ParallelRunStep("early", config, inputs, workplace.output).submit()


@pytest.mark.parametrize(("count", "inits"), [(1, 1), (2, 2), (9, 2)])
def test_not_more_processes_start_than_there_are_mini_batches(
    workplace: Any, count: int, inits: int
) -> None:
    """Each of them calls init() once, and the tasks use these processes and no others."""
    run = submitted(workplace, count)
    assert run.wait_for_completion() == "Completed"
    assert (workplace.calls / "init").stat().st_size == inits
    assert (workplace.calls / "run").stat().st_size == count


def test_processes_do_not_wait_for_the_end_of_the_plan(
    workplace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few mini-batches are enough; the listing of the rest goes on beside init()."""
    real, seen = ClusterRows.plan, []

    def slow(rows: ClusterRows) -> Iterator[MiniBatch]:
        yield from real(rows)
        deadline = time.monotonic() + 30
        while not (workplace.calls / "init").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        seen.append((workplace.calls / "init").exists())

    monkeypatch.setattr(ClusterRows, "plan", slow)
    monkeypatch.setattr(driver, "PLAN_SECONDS", 60.0)
    assert submitted(workplace, 2).wait_for_completion() == "Completed"
    assert seen == [True]


def test_an_init_that_fails_early_is_tried_three_times_in_each_place(workplace: Any) -> None:
    run = submitted(workplace, 1, init="raise ValueError('no model')")
    with pytest.raises(InitFailedError, match="no model"):
        run.wait_for_completion()
    assert (workplace.calls / "init").stat().st_size == 3


def package(source: Path, token: str) -> ScriptPackage:
    return ScriptPackage(token, "score.py", str(source), None, process_count=2)


def test_a_host_is_given_to_one_worker_and_closed_in_the_end(tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text("def run(mini_batch): return mini_batch")
    given = package(tmp_path, "token-a")
    with early_hosts(given, node_count=2, threads=2, most=3):
        assert take_early_host(package(tmp_path, "token-b"), "node0") is None
        first, second = (take_early_host(given, f"node{number}") for number in (0, 1))
        assert first is not None
        assert second is not None
        assert take_early_host(given, "node0") is None
        pids = []
        for host, count in ((first, 2), (second, 1)):
            slots = []
            for _ in range(count):
                slots.append(host.slot(30))
                pids.append(slots[-1].__enter__().pid)
            for slot in slots:
                slot.__exit__(None, None, None)
        assert None not in pids
    assert not first.folder.exists()
    assert not second.folder.exists()


def test_a_host_that_no_worker_takes_ends_with_the_cluster_also_during_init(
    tmp_path: Path,
) -> None:
    """As when the cluster cannot be started, or the run is canceled meanwhile."""
    (tmp_path / "score.py").write_text("import time\ndef init(): time.sleep(1000)\n")
    before = threading.active_count()
    with early_hosts(package(tmp_path, "token-c"), node_count=1, threads=2, most=2):
        pass
    assert take_early_host(package(tmp_path, "token-c"), "node0") is None
    for thread in threading.enumerate():
        if thread.name == "daskprs-early":
            thread.join(10)
    assert threading.active_count() <= before


@pytest.mark.parametrize("by", ["run", "cluster"])
def test_what_a_killed_run_leaves_is_removed_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """And by the next cluster of Dask; what a run that is alive has there stays."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    code = """
        import os, signal
        from daskprs.scratch import scratch_folder
        with scratch_folder() as folder:
            open(os.path.join(folder, "fetched"), "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    space = tmp_path / "dask-scratch-space"
    (tmp_path / "score.py").touch()
    config = ParallelRunConfig(entry_script=tmp_path / "score.py", process_count_per_node=1)
    with scratch_folder() as mine:
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)])
        assert done.returncode == -signal.SIGKILL
        assert len(list(space.glob("daskprs-*"))) == 4
        with scratch_folder() if by == "run" else open_target(None, config):
            found = sorted(path.name for path in space.glob("daskprs-*"))
            assert len(found) == (4 if by == "run" else 2)
            assert set(found) >= {Path(mine).name, f"{Path(mine).name}.dirlock"}
    assert list(space.glob("daskprs-*")) == []


SCRATCH = """
import sys
from daskprs.scratch import scratch_folder
with scratch_folder() as folder:
    print(folder, "dask" in sys.modules)
"""


def test_what_killed_clusters_of_dask_have_left_is_removed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They did it for one another so far; a run that is short has none."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    space = tmp_path / "dask-scratch-space"
    for name in ("scheduler-old", "worker-alive"):
        (space / name).mkdir(parents=True)
        (space / f"{name}.dirlock").touch()
    with (space / "worker-alive.dirlock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with scratch_folder():
            pass
    assert sorted(path.name for path in space.iterdir()) == ["worker-alive", "worker-alive.dirlock"]


def test_a_host_whose_processes_cannot_start_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_threads(host: ScriptHost, count: int) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(ScriptHost, "start_early", no_threads)
    (tmp_path / "score.py").touch()
    given = package(tmp_path, "token-e")
    with early_hosts(given, node_count=1, threads=2, most=2) as made:
        with pytest.raises(RuntimeError, match="new thread"):
            made["node0"].result(10)
        inside = list((tmp_path / "dask-scratch-space").glob("*/*"))
        assert inside == []


@pytest.mark.parametrize(
    "way", ["variable", "file", "file elsewhere", "other settings", "none", "broken", "no text"]
)
def test_files_are_where_dask_s_configuration_says_which_is_read_only_if_there_is_one(
    tmp_path: Path, way: str
) -> None:
    place = tmp_path / "large-disk"
    folders = {"file": "home/.config/dask", "file elsewhere": "elsewhere"}
    setting = f"temporary-directory: {place}\n"
    if way == "other settings":
        setting = "# temporary-directories\ndistributed:\n  version: 2\n"
    config = tmp_path / folders.get(way, "home/.config/dask") / "dask.yaml"
    if way == "broken":
        setting = "temporary-directory: [unclosed\n"
    if way == "no text":
        setting = "temporary-directory: 5\n"
    if way not in ("variable", "none"):
        config.parent.mkdir(parents=True)
        config.write_text(setting)
        for name in ("a folder", ".git", "zz"):
            (config.parent / name).mkdir()
    given = {k: v for k, v in os.environ.items() if not k.startswith("DASK_")}
    given |= {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)}
    if way == "variable":
        given["DASK_TEMPORARY_DIRECTORY"] = str(place)
    if way == "file elsewhere":
        given["DASK_CONFIG"] = str(config.parent)
    done = subprocess.run(
        [sys.executable, "-c", SCRATCH], env=given, capture_output=True, text=True
    )
    folder, is_imported = done.stdout.split()
    is_set = way in ("variable", "file", "file elsewhere")
    assert Path(folder).parent == (place if is_set else tmp_path) / "dask-scratch-space"
    assert is_imported == str(is_set or way == "no text")


def test_a_temporary_folder_that_is_gone_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "score.py").touch()
    config = ParallelRunConfig(entry_script=tmp_path / "score.py", process_count_per_node=1)
    (tmp_path / "file").touch()
    with (
        dask.config.set({"temporary-directory": str(tmp_path / "file" / "below")}),
        pytest.raises(TargetError, match="no cluster can be started"),
        open_target(None, config),
    ):
        pass


def test_a_process_that_cannot_write_is_not_the_script_s_fault() -> None:
    script = """
        import os, shutil
        shutil.rmtree(os.path.dirname(os.path.dirname(os.getcwd())))
        os._exit(1)
        def run(mini_batch): pass
    """
    with hosted(script) as host, pytest.raises(InitGaveUpError, match="cannot be written to"):
        host.run("a")


def test_a_script_that_cannot_be_unpacked_is_told_to_the_worker(tmp_path: Path) -> None:
    given = ScriptPackage("token-d", "score.py", "", b"no archive")
    with (
        early_hosts(given, node_count=1, threads=2, most=1),
        pytest.raises(Exception, match="not a gzip file"),
    ):
        take_early_host(given, "node0")


def test_who_asks_first_is_told_that_an_early_process_gave_up() -> None:
    """And who asks then gets three more tries."""
    script = "from calls import count\ndef init(): count('init'); 1 / 0\ndef run(m): return m"
    with hosted(script) as host:
        host.host.start_early(1)
        with pytest.raises(InitGaveUpError, match="ZeroDivisionError"):
            host.run("a")
        assert host.calls("init") == 3
        with pytest.raises(InitGaveUpError, match="ZeroDivisionError"):
            host.run("a")
        assert host.calls("init") == 6
