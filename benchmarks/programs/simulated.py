"""Makes the entry processes of a Dask worker simulated ones: their threads only sleep.

A preload of `dask worker`. The driver, the scheduler, the worker and its plugin are the real ones.
"""

import os
import time

from daskprs import attempts, slots
from daskprs.entry_process.wire import Rows
from daskprs.outcomes import Attempt, Outcome


def sleep(host, slot, mini_batch, limits, **_):
    seconds = float(os.environ["SIMULATED_SECONDS"])
    started = time.time()
    time.sleep(seconds)
    attempt = Attempt(
        number=1, status="RUN_DONE", node=host.node, ip=host.ip, process="process000",
        started=started, elapsed=seconds, load_seconds=0.0, run_seconds=seconds,
        total=1, returned=1,
    )  # fmt: skip
    name = os.path.basename(str(mini_batch.piece))
    return Outcome(
        index=mini_batch.index, key=mini_batch.key, label=name, total=1, returned=1, failed=False,
        rows=Rows(f"{name}\n".encode(), 1), attempts=(attempt,), items=[], error="", traceback="",
    )  # fmt: skip


def dask_setup(dask_worker):
    attempts.try_mini_batch = sleep
    slots.Slot.process = lambda slot: None
