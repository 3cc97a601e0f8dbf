"""A plain loop in one process: its rows are what all others are compared with."""

import pandas as pd
from common import arguments, batches, entry_of, paths_below, text_of


def main():
    job, data, out = arguments()
    run = entry_of(job)
    with (out / "result").open("w", encoding="utf-8", newline="") as result:
        if job.kind == "tables":
            for number, path in enumerate(paths_below(data)):
                run(pd.read_csv(path)).to_csv(result, index=False, header=number == 0)
        else:
            for batch in batches(paths_below(data), job.size):
                result.write(text_of(run(batch)))


if __name__ == "__main__":
    main()
