"""Plain Dask: a local cluster of one-thread processes, as its documentation says for Python code.

Settings: tables with `read_csv(blocksize=)` and `map_partitions` with a given `meta`, which spares
a call with invented rows; every partition writes a file of its own, since `single_file=True` makes
one partition wait for the other. Files with `client.map` of lists of paths; where there are
more than a thousand lists, several of them ride in one task (as its best practices say: tasks
should take longer than their overhead), and results are taken with `as_completed`, in batches.
The dashboard is off.
"""

import dask
import pandas as pd
from common import arguments, batches, entry_of, join_parts, mark, paths_below, text_of
from dask.distributed import Client, LocalCluster, as_completed

TASKS = 1000


def main():
    job, data, out = arguments()
    dask.config.set({"distributed.admin.tick.limit": "1h", "logging.distributed": "error"})
    with (
        LocalCluster(
            n_workers=job.processes, threads_per_worker=1, dashboard_address=None, memory_limit=0
        ) as cluster,
        Client(cluster) as client,
    ):
        mark(out, "ready")
        (run_tables if job.kind == "tables" else run_files)(job, data, out, client)
        mark(out, "end")


def run_tables(job, data, out, client):
    import dask.dataframe as dd

    frame = dd.read_csv([*paths_below(data)], blocksize=job.size)
    meta = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in job.header.items()})
    rows = frame.map_partitions(entry_rows, job, meta=meta)
    rows.to_csv(str(out / "rows" / "part-*.csv"), index=False, header=False)
    join_parts(out / "rows", "part-*.csv", out / "result", ",".join(job.header) + "\n")


def entry_rows(frame, job):
    return entry_of(job)(frame)


def run_files(job, data, out, client):
    lists = list(batches(paths_below(data), job.size))
    together = 1 if "sleeps" in job.script else max(1, -(-len(lists) // TASKS))
    groups = [lists[at : at + together] for at in range(0, len(lists), together)]
    futures = client.map(run_group, groups, job=job, pure=False)
    with (out / "result").open("w", encoding="utf-8") as result:
        for done in as_completed(futures, with_results=True).batches():
            for future, text in done:
                result.write(text)
                future.release()
            result.flush()


def run_group(group, job):
    run = entry_of(job)
    return "".join([text_of(run(batch)) for batch in group])


if __name__ == "__main__":
    main()
