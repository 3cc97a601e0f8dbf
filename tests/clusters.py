"""Clusters for tests, as a user would have them, and a look at what a run leaves there."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import psutil
from distributed import Client, LocalCluster, Worker

from daskprs import FileDataset, ParallelRunConfig, ParallelRunStep

# It belongs to this process, whichever test is the first to need it.
resource_tracker.ensure_running()

# Workers do not have this module: its functions travel whole.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

# Marks each process that starts the script and each that serves, and sleeps if it is told to.
SCRIPT = """
import sys, time

def init():
    mark(f"init-{os.getpid()}")

def run(mini_batch):
    mark(f"served-{os.getpid()}")
    names = [os.path.basename(path) for path in mini_batch]
    for name in names:
        mark(name)
    time.sleep(DELAY)
    return names
"""


def wait_until(holds: Callable[[], Any], seconds: float = 20.0, what: str = "") -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what or holds} did not come true in {seconds} s"
        time.sleep(0.02)


def step(
    workplace: Any, target: object, count: int | FileDataset, *, delay: float = 0.0, **config: Any
) -> Any:
    """Make a step of `count` mini-batches of one file each; its rows are the names."""
    script = config.pop("script", None) or workplace.script(f"DELAY = {delay}\n{SCRIPT}")
    extra = {key: config.pop(key) for key in ("side_inputs", "arguments") if key in config}
    settings = ParallelRunConfig(
        entry_script=script,
        compute_target=target,
        **{"mini_batch_size": 1, "run_invocation_timeout": 30, **config},
    )
    inputs = [count if isinstance(count, FileDataset) else FileDataset(_files(workplace, count))]
    return ParallelRunStep("cluster-run", settings, inputs=inputs, output=workplace.output, **extra)


def _files(workplace: Any, count: int) -> Path:
    """Write the input once: the same run with other files would not go on where it was."""
    place: Path = workplace.folder / "input"
    if not place.is_dir():
        workplace.files(count)
    return place


def rows_of(count: int) -> Counter[str]:
    return Counter(f"f{number:05d}.bin" for number in range(count))


def serving(workplace: Any) -> dict[str, int]:
    """Return pid -> calls of init(), for each process that ever ran a mini-batch."""
    pids = [path.name.split("-")[1] for path in workplace.calls.glob("served-*")]
    return {pid: workplace.count(f"init-{pid}") for pid in pids}


def assert_each_began_once(workplace: Any) -> None:
    counts = serving(workplace)
    assert counts, "no process served"
    assert set(counts.values()) == {1}, f"calls of init() by process: {counts}"


# Clusters


@contextlib.contextmanager
def nannies(n_workers: int = 2, **more: Any) -> Iterator[LocalCluster]:
    """Two worker processes of one thread each, with a nanny each."""
    options = {"threads_per_worker": 1, "dashboard_address": ":0", "memory_limit": 0, **more}
    # After 15 s, which a busy machine needs, Dask would close a nanny whose worker is away.
    patience = dask.config.set({"distributed.deploy.lost-worker-timeout": "5 minutes"})
    with patience, LocalCluster(n_workers=n_workers, **options) as cluster:
        yield cluster


@contextlib.contextmanager
def threads(n_workers: int = 2, **more: Any) -> Iterator[LocalCluster]:
    """Two workers in threads of this process; to everybody else, they are workers as others."""
    options = {"threads_per_worker": 1, "dashboard_address": ":0", "protocol": "tcp", **more}
    with LocalCluster(n_workers=n_workers, processes=False, **options) as cluster:
        yield cluster


class Commands:
    """A cluster of `dask scheduler` and `dask worker` processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.address = ""

    def _start(self, name: str, *arguments: str, env: dict[str, str] | None = None) -> Any:
        home = self.folder / name
        home.mkdir(parents=True)
        with (home / "log.txt").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments],
                cwd=home, stdout=log, stderr=log, env={**os.environ, **(env or {})},
            )  # fmt: skip
        self.processes.append(process)
        return process

    def scheduler(self, env: dict[str, str] | None = None, name: str = "scheduler") -> Any:
        file = self.folder / f"{name}.json"
        options = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        process = self._start(name, "scheduler", *options, "--scheduler-file", str(file), env=env)
        wait_until(file.exists, what="the scheduler's file")

        def address() -> str:
            with contextlib.suppress(ValueError, KeyError):
                return str(json.loads(file.read_text())["address"])
            return ""

        wait_until(address, what="the scheduler's address")
        self.address = address()
        return process

    def worker(self, name: str, *options: str, env: dict[str, str] | None = None) -> Any:
        local = self.folder / name / "local"
        common = ("--nthreads", "1", "--no-dashboard", "--local-directory", str(local))
        more = (*common, "--name", name, *(options or ("--no-nanny",)))
        return self._start(name, "worker", self.address, *more, env=env)

    def close(self) -> None:
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def commands(folder: Path, n_workers: int = 2) -> Iterator[Commands]:
    cluster = Commands(folder)
    try:
        cluster.scheduler()
        for number in range(n_workers):
            cluster.worker(f"w{number}")
        yield cluster
    finally:
        cluster.close()


# What is there


def _scheduler_state(dask_scheduler: Any) -> dict[str, Any]:
    return {
        "plugins": sorted(dask_scheduler.worker_plugins),
        "tasks": sorted(map(str, dask_scheduler.tasks)),
        "clients": sorted(dask_scheduler.clients),
    }


def _worker_state(dask_worker: Worker) -> dict[str, Any]:
    local = dask_worker.local_directory
    files = [os.path.join(folder, name) for folder, _, names in os.walk(local) for name in names]
    children = psutil.Process().children(recursive=True)
    return {
        "plugins": sorted(dask_worker.plugins),
        "tasks": sorted(map(str, dask_worker.state.tasks)),
        "files": sorted(files),
        "folders": sorted(os.listdir(local)),
        "processes": sorted(child.pid for child in children if child.status() != "zombie"),
    }


def state_of(client: Client) -> dict[str, Any]:
    """Everything that a run could leave behind on a cluster."""
    state: dict[str, Any] = client.run(_worker_state)
    state["scheduler"] = client.run_on_scheduler(_scheduler_state)
    state["futures"] = sorted(client.futures)
    return state


def assert_left_as_found(client: Client, before: dict[str, Any], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while (now := state_of(client)) != before:
        if time.monotonic() > deadline:
            assert now == before
        time.sleep(0.05)
