"""Compute targets: what is accepted, what is refused at once, and the cluster of this machine."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from clusters import (
    Commands,
    assert_left_as_found,
    commands,
    rows_of,
    state_of,
    step,
    threads,
    wait_until,
)
from distributed import Client, LocalCluster

from daskprs import ConfigError, ParallelRunConfig, TargetError
from daskprs.targets import open_target

pytestmark = pytest.mark.usefixtures("no_daskprs_threads")


# The cluster of this machine


MEET = """
import time

def run(mini_batch):
    open(os.path.join(CALLS, f"here-{os.getpid()}"), "w").close()
    deadline = time.monotonic() + 20
    while len([n for n in os.listdir(CALLS) if n.startswith("here-")]) < EXPECTED:
        if time.monotonic() > deadline:
            raise TimeoutError("the others did not come")
        time.sleep(0.01)
    return [os.path.basename(mini_batch[0])]
"""


def test_nodes_times_processes_run_at_once(workplace: Any) -> None:
    """Each call of run() waits for five others: they only end when six are there together."""
    script = workplace.script(f"EXPECTED = 6\n{MEET}")
    run = step(workplace, None, 12, script=script, node_count=2, process_count_per_node=3)
    assert run.submit().wait_for_completion() == "Completed"
    assert workplace.row_counts() == rows_of(12)
    assert len(list(workplace.calls.glob("here-*"))) == 6, "and there are no more"
    nodes = {path.name for path in (workplace.output / "logs/sys/perf").iterdir()}
    assert nodes == {"node0", "node1"}


def listening() -> set[tuple[str, int]]:
    """Return the addresses on which this process, or one that it has started, listens."""
    me = psutil.Process()
    found = set()
    for process in (me, *me.children(recursive=True)):
        # Its name before psutil 6.
        connections = getattr(process, "net_connections", None) or process.connections
        for connection in connections(kind="inet"):
            if connection.status == psutil.CONN_LISTEN:
                found.add((connection.laddr.ip, connection.laddr.port))
    return found


def test_the_cluster_of_this_machine_listens_on_loopback_only(
    workplace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daskprs.local_start.ALONE_SECONDS", 0.1)
    before = listening()
    run = step(workplace, None, 60, delay=0.1, node_count=2, process_count_per_node=1).submit()
    wait_until(lambda: run.dashboard_link)
    opened = listening() - before
    assert opened, "the dashboard does listen"
    assert {ip for ip, _ in opened} <= {"127.0.0.1", "::1"}
    assert run.wait_for_completion() == "Completed"
    assert listening() <= before, "and nothing listens afterwards"


def test_dask_stays_quiet_until_the_last_local_cluster_ends() -> None:
    config = ParallelRunConfig(entry_script=__file__, process_count_per_node=1)
    handler = logging.StreamHandler()
    logging.getLogger("distributed").addHandler(handler)
    try:
        with open_target(None, config):
            with open_target(None, config):
                pass
            assert handler.level == logging.ERROR
        assert handler.level == logging.NOTSET
    finally:
        logging.getLogger("distributed").removeHandler(handler)


def test_the_default_client_of_the_user_stays_the_default(workplace: Any) -> None:
    from distributed import default_client

    with (
        threads(1) as cluster,
        Client(cluster) as client,
    ):
        assert step(workplace, None, 3).submit().wait_for_completion() == "Completed"
        assert default_client() is client


# What is refused


@pytest.mark.parametrize(
    "value", [3, "here", "localhost", "http://127.0.0.1:1", object(), ["tcp://127.0.0.1:1"]]
)
def test_what_is_no_target_is_refused(workplace: Any, value: object) -> None:
    with pytest.raises(ConfigError, match=r"compute_target=.*'tcp://127.0.0.1:8786'"):
        step(workplace, value, 1).submit().wait_for_completion()


def test_a_scheduler_that_is_not_there(workplace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, soon, and nothing has been written."""
    monkeypatch.setattr("daskprs.targets.CONNECT_SECONDS", 1.0)
    began = time.monotonic()
    with pytest.raises(TargetError, match=r"'tcp://127\.0\.0\.1:9' cannot be reached"):
        step(workplace, "tcp://127.0.0.1:9", 1).submit().wait_for_completion()
    assert time.monotonic() - began < 10
    assert not (workplace.output / "parallel_run_step.txt.partial").exists()


def test_a_client_that_is_closed(workplace: Any) -> None:
    with threads(1) as cluster:
        client = Client(cluster, set_as_default=False)
        client.close()
        with pytest.raises(TargetError, match="is a Client that is closed: make a new Client"):
            step(workplace, client, 1).submit().wait_for_completion()


def test_an_asynchronous_client(workplace: Any) -> None:
    async def submit() -> None:
        options = {"processes": False, "dashboard_address": ":0", "asynchronous": True}
        async with (
            LocalCluster(n_workers=1, **options) as cluster,
            Client(cluster, asynchronous=True, set_as_default=False) as client,
        ):
            step(workplace, client, 1).submit().wait_for_completion()

    with pytest.raises(TargetError, match="without asynchronous=True"):
        asyncio.run(submit())


# Software of the cluster

WITHOUT = """
import sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "daskprs":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Without())
"""
OLDER = """
import sys, types

version = types.ModuleType("daskprs._version")
version.__version__ = "0.0.1"
sys.modules["daskprs._version"] = version
"""


def python_path(folder: Path, text: str) -> dict[str, str]:
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(text)
    return {"PYTHONPATH": str(folder)}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """A scheduler, and one worker that has everything."""
    with commands(tmp_path_factory.mktemp("cluster"), n_workers=1) as cluster:
        yield cluster


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (WITHOUT, "cannot be loaded by tcp://.*No module named 'daskprs'.*install daskprs 0"),
        (OLDER, r"and 0\.0\.1 at tcp://.*install the same version"),
    ],
)
def test_a_worker_without_daskprs_or_with_an_older_one(
    workplace: Any, tmp_path: Path, cluster: Commands, text: str, message: str
) -> None:
    """The run is refused before anything is sent: cluster and output stay as they were."""
    worker = cluster.worker(tmp_path.name, env=python_path(tmp_path / "path", text))
    try:
        with Client(cluster.address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=20)
            before = state_of(client)
            with pytest.raises(TargetError, match=message):
                step(workplace, client, 3).submit().wait_for_completion()
            assert_left_as_found(client, before)
        assert not (workplace.output / "parallel_run_step.txt.partial").exists()
    finally:
        worker.terminate()
        worker.wait(10)


def test_a_scheduler_without_daskprs(workplace: Any, tmp_path: Path) -> None:
    """It takes the tasks apart, and needs daskprs for that."""
    cluster = Commands(tmp_path / "cluster")
    try:
        cluster.scheduler(python_path(tmp_path / "path", WITHOUT))
        with pytest.raises(TargetError, match=r"cannot be loaded by the scheduler .*install"):
            step(workplace, cluster.address, 3).submit().wait_for_completion()
    finally:
        cluster.close()
