"""Ray Data: `map_batches` of its streaming executor.

Settings: as many CPUs as processes, without the dashboard, usage statistics and progress bars. For
files, a class with the model in its constructor runs in a pool of actors of fixed size, as the
documentation says for batch inference; they are given as tables of paths, several blocks for each
process. For tables there is no model: tasks are enough, and Ray fuses them with the reading. Every
block is written by `write_csv`: one file out of Ray itself would be a single block.
"""

import os

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"

import pyarrow
import ray
from common import arguments, batches, entry_of, join_csv, mark, paths_below, text_of

BLOCKS = 16  # for each process


def table_rows(frame, job):
    return entry_of(job)(frame)


class Entry:
    def __init__(self, job):
        self.run = entry_of(job)

    def __call__(self, batch):
        return {"text": [text_of(self.run([str(path) for path in batch["path"]]))]}


def main():
    job, data, out = arguments()
    ray.init(
        num_cpus=job.processes, include_dashboard=False, log_to_driver=False,
        logging_level="ERROR", configure_logging=False,
    )  # fmt: skip
    ray.data.DataContext.get_current().enable_progress_bars = False
    mark(out, "ready")
    if job.kind == "tables":
        frame = ray.data.read_csv([*paths_below(data)])
        rows = frame.map_batches(
            table_rows, fn_args=(job,), batch_format="pandas", batch_size=job.lines
        )
        rows.write_csv(str(out / "rows"))
        join_csv(out)
    else:
        paths = list(paths_below(data))
        size = max(job.size, -(-len(paths) // (BLOCKS * job.processes)) // job.size * job.size)
        blocks = [pyarrow.table({"path": block}) for block in batches(paths, size)]
        rows = ray.data.from_arrow(blocks).map_batches(
            Entry,
            fn_constructor_args=(job,),
            compute=ray.data.ActorPoolStrategy(size=job.processes),
            num_cpus=1,
            batch_format="numpy",
            batch_size=job.size,
        )
        with (out / "result").open("w", encoding="utf-8") as result:
            for batch in rows.iter_batches(batch_format="numpy", batch_size=None):
                result.write("".join(batch["text"]))
    mark(out, "end")
    ray.shutdown()


if __name__ == "__main__":
    main()
