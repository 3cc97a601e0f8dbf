"""Daft: a class whose instance keeps the model, in as many processes as the others have.

Settings: `use_process=True`, as Python code in threads of one process would wait for one another;
`batch_size` as many rows as a mini-batch has; a given schema (which spares a reading of the files);
`maintain_order` off, as the order of the rows does not matter. `write_csv` writes several files.
"""

import daft
import pandas as pd
import pyarrow
from common import arguments, entry_of, join_csv, mark, paths_below, text_of
from daft import DataType, col

TYPES = {"int64": DataType.int64(), "float64": DataType.float64(), "str": DataType.string()}


def main():
    job, data, out = arguments()
    daft.set_runner_native()
    daft.set_execution_config(maintain_order=False)
    rows = DataType.struct({name: TYPES[kind] for name, kind in job.header.items()})

    @daft.cls(use_process=True, max_concurrency=job.processes)
    class Entry:
        def __init__(self):
            self.run = entry_of(job)

        @daft.method.batch(return_dtype=rows, unnest=True, batch_size=job.lines)
        def table(self, *columns):
            arrays = [column.to_arrow().to_pandas() for column in columns]
            frame = self.run(pd.DataFrame(dict(zip(job.columns, arrays, strict=True))))
            table = pyarrow.Table.from_pandas(frame, preserve_index=False)
            return pyarrow.StructArray.from_arrays(
                [column.combine_chunks() for column in table.columns], names=table.column_names
            )

        @daft.method.batch(return_dtype=DataType.string(), batch_size=job.size)
        def files(self, path):
            return [text_of([row]) for row in self.run(path.to_pylist())]

    entry = Entry()
    mark(out, "ready")
    if job.kind == "tables":
        schema = {name: TYPES[kind] for name, kind in job.columns.items()}
        frame = daft.read_csv([*paths_below(data)], infer_schema=False, schema=schema)
        frame = frame.select(entry.table(*[col(name) for name in job.columns]))
        frame.write_csv(str(out / "rows"))
        join_csv(out)
    else:
        frame = daft.from_pydict({"path": [*paths_below(data)]})
        frame = frame.select(entry.files(col("path")).alias("text"))
        with (out / "result").open("w", encoding="utf-8") as result:
            for part in frame.iter_partitions():
                result.write("".join(part.to_pydict()["text"]))
    mark(out, "end")


if __name__ == "__main__":
    main()
