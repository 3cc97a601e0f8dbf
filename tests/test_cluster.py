"""Runs on clusters of every kind, with and without workers, and with a scheduler that dies."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from clusters import Commands, commands, rows_of, serving, step, threads, wait_until
from distributed import Client, LocalCluster
from distributed.security import Security

from daskprs import ClusterLostError, FileDataset

pytestmark = pytest.mark.usefixtures("no_daskprs_threads")


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with threads() as cluster:
        yield cluster


# What arrives


@pytest.mark.parametrize("kind", ["client", "cluster", "address"])
def test_a_cluster_is_given_in_three_ways(workplace: Any, cluster: LocalCluster, kind: str) -> None:
    with Client(cluster, set_as_default=False) as client:
        targets = {"client": client, "cluster": cluster, "address": cluster.scheduler_address}
        assert step(workplace, targets[kind], 6).submit().wait_for_completion() == "Completed"
        assert workplace.row_counts() == rows_of(6)
        assert client.status == "running"


READ = """
import sys

def run(mini_batch):
    words = open(sys.argv[sys.argv.index("--words") + 1]).read()
    return [f"{os.path.basename(p)} {open(p).read()} {words}" for p in mini_batch]
"""


def test_inputs_of_the_driver_alone_and_side_inputs_arrive(
    workplace: Any, cluster: LocalCluster
) -> None:
    """memory:// inputs are open to one process only: their bytes travel along."""
    memory = fsspec.filesystem("memory")
    for number in range(5):
        memory.pipe(f"/letters/{number}.txt", b"abcde"[number : number + 1])
    memory.pipe("/words.txt", b"side")
    try:
        job = step(
            *(workplace, cluster.scheduler_address, FileDataset("memory://letters/*.txt")),
            script=workplace.script(READ),
            side_inputs={"words": FileDataset("memory://words.txt")},
            mini_batch_size=2,
        )
        assert job.submit().wait_for_completion() == "Completed"
    finally:
        memory.rm("/letters", recursive=True)
        memory.rm("/words.txt")
    assert sorted(workplace.rows()) == [f"{n}.txt {'abcde'[n]} side" for n in range(5)]


def test_a_side_input_of_this_machine_is_sent(workplace: Any, cluster: LocalCluster) -> None:
    """Workers have another file system: they read a copy below their own folder."""
    words = workplace.folder / "words.txt"
    words.write_text("from here")
    script = workplace.script(
        """
        import sys
        def run(mini_batch):
            return [f"{sys.argv[2]} {open(sys.argv[2]).read()}"]
        """
    )
    job = step(workplace, cluster, 2, script=script, side_inputs={"words": words})
    assert job.submit().wait_for_completion() == "Completed"
    for row in workplace.rows():
        path, text = row.split(" ", 1)
        assert text == "from here"
        assert path != str(words)
        assert not Path(path).exists()


def test_two_runs_at_the_same_time(tmp_path: Path, cluster: LocalCluster) -> None:
    """Each has its own script and processes, and its own rows."""
    from conftest import Workplace

    places = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        places.append(Workplace(tmp_path / name))
    text = "import time\ndef run(m): time.sleep(0.1); return [NAME + os.path.basename(m[0])]"
    runs = [
        step(
            place, cluster, 15, script=place.script(f"NAME = {place.folder.name!r}\n{text}")
        ).submit()
        for place in places
    ]
    for place, run in zip(places, runs, strict=True):
        assert run.wait_for_completion() == "Completed"
        assert place.row_counts() == {place.folder.name + name: 1 for name in rows_of(15)}


def test_a_changed_script_is_run_as_it_is_now(workplace: Any, cluster: LocalCluster) -> None:
    """Also the modules beside it: workers keep nothing of the run before."""
    with Client(cluster, set_as_default=False) as client:
        for word in ("first", "second"):
            script = workplace.script("import words\ndef run(m): return [words.WORD]")
            (script.parent / "words.py").write_text(f"WORD = {word!r}")
            job = step(workplace, client, 3, script=script)
            assert job.submit().wait_for_completion() == "Completed"
            assert workplace.row_counts() == {word: 3}


def test_a_slow_mini_batch_holds_up_no_other(workplace: Any, cluster: LocalCluster) -> None:
    """What waits behind it is taken by another worker."""
    script = workplace.script(
        """
        import time
        def run(mini_batch):
            slow = mini_batch[0].endswith("f00000.bin")
            while slow and marks("over") == 0:
                time.sleep(0.05)
            return [os.path.basename(mini_batch[0])]
        """
    )
    run = step(workplace, cluster, 12, script=script).submit()
    wait_until(lambda: run.progress.done == 11, 15, "all others are done")
    (workplace.calls / "over").write_bytes(b".")
    assert run.wait_for_completion() == "Completed"
    assert workplace.row_counts() == rows_of(12)


def test_a_cluster_with_tls_works_through_a_client(workplace: Any) -> None:
    with (
        threads(protocol="tls", security=Security.temporary()) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        assert cluster.scheduler_address.startswith("tls://")
        assert step(workplace, client, 6).submit().wait_for_completion() == "Completed"
    assert workplace.row_counts() == rows_of(6)


# Without workers, or without a scheduler


def test_a_cluster_without_workers(workplace: Any, tmp_path: Path) -> None:
    """The run ends after first_task_creation_timeout, which the message names."""
    with commands(tmp_path / "cluster", n_workers=0) as cluster:
        began = time.monotonic()
        run = step(workplace, cluster.address, 10, first_task_creation_timeout=2).submit()
        with pytest.raises(ClusterLostError, match=r"first_task_creation_timeout=2\).*goes on"):
            run.wait_for_completion(timeout=30)
        assert time.monotonic() - began < 10
        late_workers_get_work(workplace, cluster)


def late_workers_get_work(workplace: Any, cluster: Commands) -> None:
    run = step(workplace, cluster.address, 10, delay=0.1, first_task_creation_timeout=30).submit()
    time.sleep(0.5)
    cluster.worker("late")
    assert run.wait_for_completion(timeout=60) == "Completed"
    assert workplace.row_counts() == rows_of(10)


def test_the_scheduler_is_killed(
    workplace: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends and says what to do; on a new cluster it goes on, and each row is there once."""
    monkeypatch.setattr("daskprs.targets.CONNECT_SECONDS", 3.0)
    with commands(tmp_path / "cluster") as cluster:
        run = step(workplace, cluster.address, 30, delay=0.1).submit()
        wait_until(lambda: run.progress.done > 5 and len(serving(workplace)) == 2)
        began = time.monotonic()
        cluster.processes[0].kill()
        with pytest.raises(ClusterLostError, match="start the scheduler again, or give another"):
            run.wait_for_completion(timeout=60)
        assert time.monotonic() - began < 30
        kept = run.report.mini_batches.succeeded
        assert kept > 5
    with threads() as another:
        again = step(workplace, another.scheduler_address, 30, delay=0.1).submit()
        assert again.wait_for_completion(timeout=60) == "Completed"
        assert workplace.row_counts() == rows_of(30)
        assert again.report.kept == kept


@pytest.mark.chaos
def test_a_worker_that_does_not_answer(workplace: Any, tmp_path: Path) -> None:
    """It is stopped by a signal: when Dask gives it up, another one does what it had."""
    with commands(tmp_path / "cluster", n_workers=0) as cluster:
        cluster.scheduler({"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "5s"}, name="strict")
        workers = [cluster.worker("one"), cluster.worker("two")]
        run = step(workplace, cluster.address, 30, delay=0.1).submit()
        wait_until(lambda: run.progress.done > 5 and len(serving(workplace)) == 2)
        workers[0].send_signal(signal.SIGSTOP)
        assert run.wait_for_completion(timeout=60) == "Completed"
        assert workplace.row_counts() == rows_of(30)
