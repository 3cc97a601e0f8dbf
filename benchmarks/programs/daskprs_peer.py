"""daskprs, on the local cluster that it makes.

Settings: as many processes as the others have; the types of the columns are given and
`quoted_newlines=False`, which spares a reading of the files. With DASKPRS_PLAIN=1 without these.
"""

import json
import os
import threading
import time

import psutil
from common import arguments, mark

from daskprs import FileDataset, ParallelRunConfig, ParallelRunStep, TabularDataset
from daskprs.events import ClusterReady


def main():
    job, data, out = arguments()
    config = ParallelRunConfig(
        entry_script=job.script,
        mini_batch_size=str(job.size),
        process_count_per_node=job.processes,
        output_format="csv" if job.kind == "tables" else "text",
        append_row_file_name="result",
        **job.settings,
    )
    if job.kind == "tables":
        known = {"dtype": job.columns, "quoted_newlines": False}
        source = TabularDataset(str(data), **({} if os.environ.get("DASKPRS_PLAIN") else known))
    else:
        source = FileDataset(str(data))
    step = ParallelRunStep(
        "benchmark", config, [source], output=str(out / "rows"), arguments=list(job.arguments)
    )
    idle = psutil.Process().memory_info().rss
    run = step.submit()
    run.subscribe(lambda event: mark(out, "ready") if isinstance(event, ClusterReady) else None)
    ended = threading.Event()
    watch = threading.Thread(target=watch_memory, args=(run, idle, ended, out))
    watch.start()
    status = run.wait_for_completion(raise_on_error=False)
    mark(out, "end")
    ended.set()
    watch.join()
    print(run.report)
    if status == "Completed":
        os.link(run.output_file, out / "result")


def watch_memory(run, idle, ended, out):
    """Note the memory of this process, which is the driver, over the mini-batches done."""
    process, began = psutil.Process(), time.monotonic()
    with (out / "memory.jsonl").open("w", encoding="utf-8") as stream:
        while not ended.wait(0.5):
            done, used = run.progress.done, process.memory_info().rss
            facts = {"seconds": time.monotonic() - began, "done": done, "bytes": used - idle}
            stream.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
