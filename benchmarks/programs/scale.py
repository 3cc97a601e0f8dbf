"""daskprs on one scheduler with ever more processes, simulated as threads that sleep.

For each number of processes: mini-batches done in a second, how much of their time the processes
slept (the rest they waited for work), and how busy the scheduler and the driver were.
"""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
from common import arguments, mark, paths_below
from distributed import Client

from daskprs import FileDataset, ParallelRunConfig, ParallelRunStep
from daskprs.events import ClusterReady, MiniBatchDone

THREADS = 100  # of one Dask worker
SIMULATED = Path(__file__).with_name("simulated.py")


def main():
    job, data, out = arguments()
    steps, seconds, waves = (job.settings[name] for name in ("steps", "seconds", "waves"))
    address = out / "scheduler.json"
    scheduler = dask("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
                     "--scheduler-file", str(address))  # fmt: skip
    while not address.exists():
        time.sleep(0.1)
    mark(out, "ready")
    curve = []
    with Client(scheduler_file=str(address)) as client:
        for count in steps:
            with workers(count, address, seconds):
                await_threads(client, count)
                files = list(itertools.islice(paths_below(data), count * waves))
                place = str(out / "rows" / f"{count}")
                facts = run(job, client, scheduler, files, place, count, seconds)
            await_threads(client, 0)
            curve.append(facts)
            print(facts, flush=True)
    mark(out, "end")
    (out / "facts.json").write_text(json.dumps({"curve": curve}))
    end([scheduler])


def end(processes):
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:  # what was to be measured is measured
            process.kill()
            process.wait()


def dask(*words, **variables):
    command = [sys.executable, "-m", "dask", *words]
    quiet = {"DASK_LOGGING__DISTRIBUTED": "error", **variables}
    return subprocess.Popen(command, env={**os.environ, **quiet}, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def workers(count, address, seconds):
    parts = -(-count // THREADS)
    threads = [count * (at + 1) // parts - count * at // parts for at in range(parts)]
    started = [
        dask("worker", "--scheduler-file", str(address), "--nthreads", str(number), "--no-nanny",
             "--no-dashboard", "--memory-limit", "0", "--preload", str(SIMULATED),
             SIMULATED_SECONDS=str(seconds))
        for number in threads
    ]  # fmt: skip
    try:
        yield
    finally:
        end(started)


def await_threads(client, count):
    deadline = time.monotonic() + 120
    while sum(client.nthreads().values()) != count:
        if time.monotonic() > deadline:
            raise SystemExit(f"{client.nthreads()} instead of {count} threads")
        time.sleep(0.1)


def run(job, client, scheduler, files, place, count, seconds):
    config = ParallelRunConfig(entry_script=job.script, mini_batch_size=1, compute_target=client)
    step = ParallelRunStep("scale", config, [FileDataset(files)], output=place)
    used, times = [psutil.Process(), psutil.Process(scheduler.pid)], []
    cpu = [busy(process) for process in used]
    began, submitted = [], step.submit()

    def listen(event):
        if isinstance(event, ClusterReady):
            began.append(time.perf_counter())
        elif isinstance(event, MiniBatchDone):
            times.append(time.perf_counter())

    submitted.subscribe(listen)
    submitted.wait_for_completion()
    elapsed = times[-1] - began[0]
    driver, one = [(busy(process) - before) / elapsed for process, before in zip(used, cpu)]  # noqa: B905
    return {
        "processes": count,
        "mini_batches": len(times),
        "seconds": elapsed,
        "per_second": len(times) / elapsed,
        "efficiency": len(times) * seconds / count / elapsed,
        "scheduler_cpu": one,
        "driver_cpu": driver,
    }


def busy(process):
    times = process.cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    main()
