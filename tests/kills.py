"""Trials that kill something in the middle of a run, and count what was lost or doubled.

    python tests/kills.py --trials 200
    python tests/kills.py --trials 20 --store s3

A trial is made of its number alone: format, order, what is killed, and when. The run is started
with one command; after the kills the same command is given until it says that it has completed.
Then every row has to be in the output once.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from object_stores import KINDS, Bucket, new_bucket, serve

FILES, ITEMS = 90, 2
FORMATS = {"text": "txt", "csv": "csv", "jsonl": "jsonl", "parquet": "parquet"}
VICTIMS = ("driver", "entry process", "worker", "nanny", "scheduler")
_BIN = Path(sys.executable).parent
_SCRIPT = """
import os, time, random
def init():
    pass
def run(mini_batch):
    time.sleep(random.uniform(0.01, 0.08))
    return [{"name": os.path.basename(path), "size": os.path.getsize(path)} for path in mini_batch]
"""


@dataclass
class Trial:
    """One trial, made of its number."""

    number: int
    output_format: str = ""
    ordered: bool = False
    victims: list[str] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        chance = random.Random(self.number)
        self.output_format = list(FORMATS)[self.number % 4]
        self.ordered = chance.random() < 0.3
        first = VICTIMS[self.number // 4 % len(VICTIMS)]
        self.victims = [first, *chance.choices(VICTIMS, k=chance.randrange(3))]
        self.moments = [chance.uniform(0.0, 1.8) for _ in self.victims]

    @property
    def on_cluster(self) -> bool:
        return bool({"worker", "nanny", "scheduler"} & set(self.victims))


class Cluster:
    """A scheduler and two workers with nannies, as processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.address = ""
        self._number = 0

    def start(self) -> None:
        """Start what is not there."""
        scheduler = self.processes.get("scheduler")
        if scheduler is None or scheduler.poll() is not None:
            self.stop()
            contact = self.folder / "scheduler.json"
            contact.unlink(missing_ok=True)
            self._run("scheduler", "dask", "scheduler", "--host", "127.0.0.1", "--port", "0",
                      "--dashboard-address", "127.0.0.1:0",
                      "--scheduler-file", str(contact))  # fmt: skip
            deadline = time.monotonic() + 60
            while not self.address or not contact.exists():
                assert time.monotonic() < deadline, "no scheduler"
                time.sleep(0.1)
                if contact.exists() and contact.stat().st_size:
                    self.address = json.loads(contact.read_text())["address"]
        self.replace_nannies()

    def replace_nannies(self) -> None:
        """Start workers in place of those whose nanny is gone, as whoever runs a cluster does."""
        for name in ("nanny-0", "nanny-1"):
            process = self.processes.get(name)
            if process is None or process.poll() is not None:
                self._number += 1  # the one before may not have said good-bye yet
                known_as = f"{name}-{self._number}"
                self._run(name, "dask", "worker", self.address, "--nthreads", "1",
                          "--name", known_as, "--dashboard-address", "127.0.0.1:0",
                          "--local-directory", str(self.folder / known_as))  # fmt: skip

    def _run(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [str(_BIN / command[0]), *command[1:]],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def pids(self, victim: str) -> list[int]:
        """Return the processes of a kind."""
        if victim == "scheduler":
            return [self.processes["scheduler"].pid]
        nannies = [p.pid for name, p in self.processes.items() if name.startswith("nanny")]
        if victim == "nanny":
            return nannies
        return [pid for nanny in nannies for pid in _descendants(nanny, "spawn_main")]

    def stop(self) -> None:
        for process in self.processes.values():
            for pid in [*_descendants(process.pid, ""), process.pid]:
                _kill(pid)
            process.wait(20)
        self.processes.clear()
        self.address = ""


def _descendants(pid: int, word: str) -> list[int]:
    found = []
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            if word in " ".join(child.cmdline()):
                found.append(child.pid)
    return found


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def make_input(folder: Path) -> None:
    """Write the script and the files that all trials share."""
    (folder / "input").mkdir()
    for number in range(FILES):
        (folder / "input" / f"f{number:04d}.bin").write_bytes(b"x" * (number % 17))
    (folder / "script").mkdir()
    (folder / "script" / "score.py").write_text(_SCRIPT)


class Place:
    """The output folder of a trial, on disk or in a store."""

    def __init__(self, folder: Path, bucket: Bucket | None) -> None:
        self._folder, self._bucket = folder, bucket

    @property
    def words(self) -> list[str]:
        """Options of the command."""
        if self._bucket is None:
            return ["--output", str(self._folder)]
        options = [f"--storage-option={n}={text}" for n, text in self._bucket.options.items()]
        return ["--output", self._bucket.url(self._folder.name), *options]

    def read(self, name: str) -> bytes:
        if self._bucket is None:
            return (self._folder / name).read_bytes()
        return self._bucket.read(f"{self._folder.name}/{name}") or b""

    def remove(self) -> None:
        if self._bucket is None:
            shutil.rmtree(self._folder)


def run_trial(
    trial: Trial, folder: Path, cluster: Cluster, bucket: Bucket | None = None
) -> dict[str, Any]:
    """Run one trial.

    Returns
    -------
    dict
        ``lost`` and ``doubled`` rows, ``starts`` of the command, ``kills`` that hit.
    """
    output = Place(folder / f"out-{trial.number}", bucket)
    starts = kills = 0
    left = list(range(len(trial.victims)))
    deadline = time.monotonic() + 180
    while True:
        if trial.on_cluster:
            cluster.start()
        command = [
            *(str(_BIN / "daskprs"), "run", str(folder / "script/score.py"), "--quiet"),
            *("--files", str(folder / "input"), *output.words),
            *("--mini-batch-size", str(ITEMS), "--output-format", trial.output_format),
            *("--process-count-per-node", "2"),
            *(["--ordered"] if trial.ordered else []),
            *(["--scheduler", cluster.address] if trial.on_cluster else []),
        ]
        log = (folder / f"driver-{trial.number}.log").open("ab")
        driver = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        log.close()
        starts += 1
        while left and driver.poll() is None:
            hit = _strike(trial, left[0], driver, cluster)
            if hit is None:
                break
            kills += hit
            left.pop(0)
        if trial.on_cluster and cluster.processes["scheduler"].poll() is None:
            cluster.replace_nannies()
        try:
            code = driver.wait(max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _kill(driver.pid)
            driver.wait(10)
            raise AssertionError(f"trial {trial.number} hangs: {trial}") from None
        if code == 0:
            break
    rows = Counter(read_rows(output, trial.output_format))
    names = [f"f{number:04d}.bin" for number in range(FILES)]
    if trial.ordered and len(rows) == FILES:
        assert read_rows(output, trial.output_format) == names, f"order of {trial}"
    output.remove()
    return {
        "lost": sum(1 for name in names if not rows[name]),
        "doubled": sum(rows.values()) - len(rows),
        "starts": starts,
        "kills": kills,
    }


def _strike(
    trial: Trial, turn: int, driver: subprocess.Popen[bytes], cluster: Cluster
) -> int | None:
    """Kill what it is the turn of: 1, or 0 where it was not there; None: the run ended before."""
    moment = time.monotonic() + 0.3 + trial.moments[turn]
    while time.monotonic() < moment:
        if driver.poll() is not None:
            return None
        time.sleep(0.01)
    victim = trial.victims[turn]
    if victim == "driver":
        found = [driver.pid]
    elif victim == "entry process":
        roots = [driver.pid, *(p.pid for p in cluster.processes.values())]
        found = [pid for root in roots for pid in _descendants(root, "entry_process")]
    else:
        found = cluster.pids(victim)
    if found:
        _kill(random.Random(trial.number * 10 + turn).choice(found))
    return min(1, len(found))


def read_rows(output: Place, output_format: str) -> list[str]:
    """Return the names in the output, in their order."""
    data = output.read(f"parallel_run_step.{FORMATS[output_format]}")
    if output_format == "parquet":
        import pyarrow.parquet as pq

        return list(pq.read_table(io.BytesIO(data))["name"].to_pylist())
    lines = data.decode().splitlines()
    if output_format == "csv":
        assert lines[0] == "name,size"
        return [line.split(",")[0] for line in lines[1:]]
    if output_format == "jsonl":
        return [json.loads(line)["name"] for line in lines]
    return [line.split("'")[3] for line in lines]


@contextlib.contextmanager
def store_of(kind: str | None, folder: Path) -> Iterator[Bucket | None]:
    """Give an empty bucket of a server of its own; None for the disk."""
    if kind is None:
        yield None
        return
    (folder / "server").mkdir()
    with serve(kind, folder / "server") as server, new_bucket(server) as bucket:
        yield bucket


def run_trials(numbers: range, store: str | None = None) -> dict[str, Counter[str]]:
    """Run some trials; counts by what was killed first."""
    table: dict[str, Counter[str]] = {}
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    cluster = Cluster(folder)
    try:
        with store_of(store, folder) as bucket:
            make_input(folder)
            _run_trials(numbers, folder, cluster, bucket, table)
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return table


def _run_trials(
    numbers: range,
    folder: Path,
    cluster: Cluster,
    bucket: Bucket | None,
    table: dict[str, Counter[str]],
) -> None:
    for number in numbers:
        trial = Trial(number)
        found = run_trial(trial, folder, cluster, bucket)
        counts = table.setdefault(trial.victims[0], Counter())
        counts.update({**found, "trials": 1})
        victims = "+".join(trial.victims)
        sys.stderr.write(f"{number:>5} {trial.output_format:<8} {victims}: {found}\n")


def main() -> int:
    """Run many trials and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--store", choices=KINDS, help="where the output is, instead of the disk")
    args = parser.parse_args()
    table = run_trials(range(args.first, args.first + args.trials), args.store)
    columns = ("trials", "kills", "starts", "lost", "doubled")
    print(f"{'killed first':<16}" + "".join(f"{name:>9}" for name in columns))
    total: Counter[str] = Counter()
    for victim, counts in table.items():
        total.update(counts)
        print(f"{victim:<16}" + "".join(f"{counts[name]:>9}" for name in columns))
    print(f"{'all':<16}" + "".join(f"{total[name]:>9}" for name in columns))
    return 1 if total["lost"] or total["doubled"] else 0


if __name__ == "__main__":
    sys.exit(main())
