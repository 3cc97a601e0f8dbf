"""Workers that die, come, go or rest in the middle of a run change nothing in its output."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from clusters import (
    assert_each_began_once,
    assert_left_as_found,
    commands,
    nannies,
    rows_of,
    serving,
    state_of,
    step,
    threads,
    wait_until,
)
from distributed import Client, Future, Status, Worker

from daskprs import ClusterLostError, ParallelRun

pytestmark = pytest.mark.usefixtures("no_daskprs_threads")

COUNT = 30


def pids_of(client: Client) -> dict[str, int]:
    pids: dict[str, int] = client.run(os.getpid)
    return pids


GATED = """
import time

def init():
    mark(f"init-{os.getpid()}")

def run(mini_batch):
    mark(f"served-{os.getpid()}")
    name = os.path.basename(mini_batch[0])
    while name > "f00010" and marks("gate") == 0:
        time.sleep(0.02)
    time.sleep(0.05)
    return [name]
"""


def gated(workplace: Any, client: Client) -> ParallelRun:
    """Start a run that stands still after some mini-batches, until the gate is opened."""
    run: ParallelRun = step(workplace, client, COUNT, script=workplace.script(GATED)).submit()
    wait_until(lambda: run.progress.done > 5 and len(serving(workplace)) == 2)
    return run


def open_gate(workplace: Any) -> None:
    (workplace.calls / "gate").write_bytes(b".")


def test_a_worker_under_a_nanny_is_killed(workplace: Any) -> None:
    """Its processes end with it, the new worker starts new ones, each row is there once."""
    with nannies() as cluster, Client(cluster, set_as_default=False) as client:
        run = gated(workplace, client)
        victim = sorted(pids_of(client).values())[0]
        theirs = [child.pid for child in psutil.Process(victim).children()]
        assert theirs
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(serving(workplace)) == 3, 60, "a new process at work")
        open_gate(workplace)
        assert run.wait_for_completion(timeout=60) == "Completed"
        # Who inherits them may take a moment to know that they have ended.
        wait_until(lambda: not any(map(psutil.pid_exists, theirs)), 10, "the processes' end")
        assert workplace.row_counts() == rows_of(COUNT)
        assert_each_began_once(workplace)


def test_a_bare_worker_is_killed_and_another_one_comes(workplace: Any, tmp_path: Path) -> None:
    with commands(tmp_path / "cluster") as cluster, Client(cluster.address) as client:
        client.wait_for_workers(2, timeout=20)
        before = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.worker_plugins))
        run = gated(workplace, client)
        cluster.processes[1].kill()
        cluster.worker("late")
        wait_until(lambda: len(serving(workplace)) == 3, 60, "the late worker at work")
        open_gate(workplace)
        assert run.wait_for_completion(timeout=60) == "Completed"
        assert workplace.row_counts() == rows_of(COUNT)
        assert_each_began_once(workplace)
        after = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.worker_plugins))
        assert after == before


def test_a_worker_is_retired(workplace: Any) -> None:
    with threads() as cluster, Client(cluster, set_as_default=False) as client:
        run = gated(workplace, client)
        client.retire_workers([sorted(pids_of(client))[0]])
        open_gate(workplace)
        assert run.wait_for_completion(timeout=60) == "Completed"
        assert workplace.row_counts() == rows_of(COUNT)
        assert_each_began_once(workplace)


def set_status(status: str, dask_worker: Worker) -> None:
    dask_worker.status = Status[status]


def test_a_worker_is_paused_for_good(workplace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has not begun is done by another one; what it has begun is not done twice."""
    monkeypatch.setattr("daskprs.pulse.PAUSE_SECONDS", 1.0)
    monkeypatch.setattr("daskprs.pulse.LOOK_SECONDS", 0.2)
    with threads() as cluster, Client(cluster, set_as_default=False) as client:
        before = state_of(client)
        run = step(workplace, client, COUNT, delay=0.2).submit()
        wait_until(lambda: run.progress.done > 5 and len(serving(workplace)) == 2)
        client.run(set_status, "paused", workers=[sorted(pids_of(client))[0]])
        assert run.wait_for_completion(timeout=60) == "Completed"
        assert workplace.row_counts() == rows_of(COUNT)
        assert [workplace.count(name) for name in rows_of(COUNT)] == [1] * COUNT
        assert_each_began_once(workplace)
        assert_left_as_found(client, before)


@pytest.mark.chaos
def test_all_workers_are_restarted(workplace: Any) -> None:
    """Somebody calls client.restart(): all tasks are canceled, and run again."""
    with nannies() as cluster, Client(cluster, set_as_default=False) as client:
        run = gated(workplace, client)
        client.restart()
        open_gate(workplace)
        assert run.wait_for_completion(timeout=60) == "Completed"
        assert workplace.row_counts() == rows_of(COUNT)
        assert_each_began_once(workplace)


def test_tasks_that_somebody_cancels_are_run_again(workplace: Any) -> None:
    with threads() as cluster, Client(cluster, set_as_default=False) as client:
        run = step(workplace, client, COUNT, delay=0.1).submit()
        for _ in range(3):
            done = run.progress.done
            wait_until(lambda done=done: run.progress.done > done + 2)
            client.cancel([Future(key, client) for key in list(client.futures)])
        assert run.wait_for_completion(timeout=60) == "Completed"
        assert workplace.row_counts() == rows_of(COUNT)


KILLER = """
import signal, time

def run(mini_batch):
    name = os.path.basename(mini_batch[0])
    mark(name)
    if name == "f00003.bin":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(1000)
    return [name]
"""


def test_a_mini_batch_that_kills_its_worker_fails_alone(workplace: Any) -> None:
    """It is killed again and again: it fails, and all that was near it succeeds."""
    with nannies() as cluster, Client(cluster, set_as_default=False) as client:
        script = workplace.script(KILLER)
        run = step(workplace, client, 12, script=script, run_max_try=3).submit()
        assert run.wait_for_completion(timeout=100) == "Completed"
        expected = rows_of(12)
        del expected["f00003.bin"]
        assert workplace.row_counts() == expected
        (failure,) = run.report.failures
        assert failure.error.startswith("its Dask workers died")
        assert "KilledWorker" in failure.error
        assert failure.tries == 4, "Dask itself tries four times"
        assert run.report.items.failed == 1


def test_a_worker_without_room_is_left_out(workplace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its local directory is gone: the others go on, and a notice says why."""
    monkeypatch.setattr("daskprs.pulse.REFUSAL_SECONDS", 0.5)
    with threads() as cluster, Client(cluster, set_as_default=False) as client:
        address = sorted(pids_of(client))[0]
        client.run(spoil_local_directory, workers=[address])
        run = step(workplace, client, COUNT, delay=0.05).submit()
        assert run.wait_for_completion(timeout=60) == "Completed"
        assert workplace.row_counts() == rows_of(COUNT)
        assert len(serving(workplace)) == 1
        assert any(address in notice and "Error" in notice for notice in run.notices)


def test_no_worker_has_room(workplace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daskprs.pulse.REFUSAL_SECONDS", 0.3)
    with threads() as cluster, Client(cluster, set_as_default=False) as client:
        client.run(spoil_local_directory)
        run = step(workplace, client, 4).submit()
        with pytest.raises(ClusterLostError, match=r"no worker can run the script: .*Error.* room"):
            run.wait_for_completion(timeout=60)


def spoil_local_directory(dask_worker: Worker) -> None:
    dask_worker.local_directory = os.path.join(dask_worker.local_directory, "not", "there")
