"""A cluster that is not ours is left as it was found, however a run ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from clusters import (
    assert_each_began_once,
    assert_left_as_found,
    nannies,
    rows_of,
    state_of,
    step,
    wait_until,
)
from distributed import Client, LocalCluster, default_client

from daskprs import InitFailedError, ThresholdExceededError

pytestmark = pytest.mark.usefixtures("no_daskprs_threads")


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with nannies() as cluster:
        yield cluster


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    """The user's own client, which is also the default one."""
    with Client(cluster) as client:
        yield client
        assert default_client() is client
        assert client.submit(sum, [1, 2]).result(timeout=10) == 3, "it is still usable"


def test_after_a_run_has_completed_nothing_is_left(workplace: Any, client: Client) -> None:
    """No plugin, task, future, client, process or file; and init() was called once a process."""
    before = state_of(client)
    assert step(workplace, client, 20).submit().wait_for_completion() == "Completed"
    assert_left_as_found(client, before)
    assert workplace.row_counts() == rows_of(20)
    assert_each_began_once(workplace)


def test_after_a_threshold_was_exceeded_nothing_is_left(workplace: Any, client: Client) -> None:
    script = workplace.script(
        """
        import time
        def run(mini_batch):
            if mini_batch[0].endswith("3.bin"):
                raise ValueError("bad")
            time.sleep(0.1)
            return mini_batch
        """
    )
    before = state_of(client)
    run = step(workplace, client, 40, script=script, error_threshold=0, run_max_try=1).submit()
    with pytest.raises(ThresholdExceededError):
        run.wait_for_completion()
    assert_left_as_found(client, before)


def test_after_a_run_was_canceled_nothing_is_left(workplace: Any, client: Client) -> None:
    """Also not the processes in the middle of a mini-batch."""
    before = state_of(client)
    run = step(workplace, client, 10, delay=1000).submit()
    wait_until(lambda: list(workplace.calls.glob("served-*")))
    run.cancel()
    assert run.wait_for_completion(raise_on_error=False, timeout=20) == "Canceled"
    assert_left_as_found(client, before)


def test_after_init_has_failed_nothing_is_left(workplace: Any, client: Client) -> None:
    script = workplace.script("def init(): raise OSError('no model')\ndef run(m): return m")
    before = state_of(client)
    with pytest.raises(InitFailedError, match="no model"):
        step(workplace, client, 10, script=script).submit().wait_for_completion()
    assert_left_as_found(client, before)


def test_a_run_on_a_cluster_by_its_address_leaves_no_client(workplace: Any, client: Client) -> None:
    before = state_of(client)
    address = client.scheduler.address
    assert step(workplace, address, 5).submit().wait_for_completion() == "Completed"
    assert_left_as_found(client, before)


DRIVER = """
import sys
from daskprs import FileDataset, ParallelRunConfig, ParallelRunStep, targets

targets.LEASE_SECONDS = 2.0
script, inputs, output, address = sys.argv[1:]
config = ParallelRunConfig(entry_script=script, mini_batch_size=1, compute_target=address,
                           run_invocation_timeout=1000)
ParallelRunStep("cluster-run", config, inputs=[FileDataset(inputs)], output=output).submit()
"""


def test_after_the_driver_was_killed_the_workers_clean_up(workplace: Any, client: Client) -> None:
    """Within the lease: processes gone, folder gone, plugin taken back; and the run goes on."""
    script = workplace.script(
        """
        import time
        def run(mini_batch):
            mark(f"pid-{os.getpid()}")
            if marks("patience") == 0:
                time.sleep(1000)
            return [os.path.basename(mini_batch[0])]
        """
    )
    before = state_of(client)
    inputs = workplace.files(4)
    arguments = [str(script), str(inputs), str(workplace.output), client.scheduler.address]
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, *arguments])
    wait_until(lambda: len(list(workplace.calls.glob("pid-*"))) == 2, what="both at work")
    pids = [int(path.name.split("-")[1]) for path in workplace.calls.glob("pid-*")]
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    wait_until(lambda: not any(map(psutil.pid_exists, pids)), 10, "the processes' end")
    assert_left_as_found(client, before)
    (workplace.calls / "patience").write_bytes(b".")
    assert step(workplace, client, 4, script=script).submit().wait_for_completion() == "Completed"
    assert workplace.row_counts() == rows_of(4)


def test_a_driver_that_lives_renews_the_lease(
    workplace: Any, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call of run() may take longer than the lease: its process is not ended for that."""
    monkeypatch.setattr("daskprs.targets.LEASE_SECONDS", 1.2)
    run = step(workplace, client, 2, delay=3).submit()
    assert run.wait_for_completion() == "Completed"
    assert workplace.row_counts() == rows_of(2)
    assert [workplace.count(name) for name in rows_of(2)] == [1, 1]


def test_the_script_lives_below_the_local_directory_of_each_worker(
    workplace: Any, client: Client, tmp_path: Path
) -> None:
    """The workers get the script by the plugin alone: its folder may be gone meanwhile."""
    script = workplace.script(
        """
        import sys, time
        from pathlib import Path
        import helper

        def run(mini_batch):
            time.sleep(0.2)
            beside = Path(__file__).with_name("words.txt").read_text()
            return [f"{__file__}|{beside}|{helper.NAME}|{sys.argv[1]}"]
        """
    )
    (script.parent / "words.txt").write_text("hello")
    (script.parent / "helper.py").write_text("NAME = 'helper'")
    (script.parent / "model").mkdir()
    (script.parent / "model" / "weights.bin").write_bytes(b"123")
    folders = client.run(lambda dask_worker: dask_worker.local_directory).values()
    run = step(workplace, client, 10, script=script, arguments=["model/weights.bin"]).submit()
    wait_until(lambda: run.progress.done)
    script.parent.rename(tmp_path / "gone")
    assert run.wait_for_completion() == "Completed"
    rows = {tuple(row.split("|")) for row in workplace.rows()}
    assert {row[1:3] for row in rows} == {("hello", "helper")}
    for file, _, _, weights in rows:
        assert any(Path(file).is_relative_to(folder) for folder in folders)
        assert Path(weights) == Path(file).with_name("model") / "weights.bin"
