"""PySpark: `mapInPandas`, whose function gets an iterator of batches, so that a model loads once.

Settings: `local[processes]`, no UI, Arrow batches of as many rows as a mini-batch has, a given
schema (which spares a reading of the files), and for files two partitions for each core. Each
writes a file of its own: `coalesce(1)` would do all the work in one task.
"""

import os
import sys

import pandas as pd
from common import arguments, entry_of, join_parts, mark, paths_below, text_of
from pyspark.sql import SparkSession

PARTITIONS = 2  # for each process
TYPES = {"int64": "bigint", "float64": "double", "str": "string"}


def main():
    job, data, out = arguments()
    records = job.lines if job.kind == "tables" else job.size
    os.environ["PYSPARK_PYTHON"] = sys.executable
    spark = (
        SparkSession.builder.master(f"local[{job.processes}]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "4g")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.log.level", "ERROR")
        .config("spark.sql.execution.arrow.pyspark.enabled", "true")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", str(records))
        .getOrCreate()
    )
    mark(out, "ready")
    (run_tables if job.kind == "tables" else run_files)(job, data, out, spark)
    mark(out, "end")
    spark.stop()


def schema(columns):
    return ", ".join(f"{name} {TYPES[kind]}" for name, kind in columns.items())


def run_tables(job, data, out, spark):
    def work(frames):
        run = entry_of(job)
        for frame in frames:
            yield run(frame)

    frame = spark.read.schema(schema(job.columns)).csv([*paths_below(data)], header=True)
    frame.mapInPandas(work, schema(job.header)).write.csv(str(out / "rows"))
    join_parts(out / "rows", "part-*.csv", out / "result", ",".join(job.header) + "\n")


def run_files(job, data, out, spark):
    def work(frames):
        run = entry_of(job)
        for frame in frames:
            yield pd.DataFrame({"value": [text_of(run(frame["path"].tolist())).rstrip("\n")]})

    paths = pd.DataFrame({"path": [*paths_below(data)]})
    frame = spark.createDataFrame(paths).repartition(PARTITIONS * job.processes)
    frame.mapInPandas(work, "value string").write.text(str(out / "rows"))
    join_parts(out / "rows", "part-*.txt", out / "result")


if __name__ == "__main__":
    main()
