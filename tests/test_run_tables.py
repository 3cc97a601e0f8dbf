"""Runs over tables: every row of every kind of input reaches run() once, as pandas reads it."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import psutil
import pytest
from clusters import threads

from daskprs import ParallelRun, ParallelRunConfig, ParallelRunStep, TabularDataset

TEXTS = [
    "plain",
    'a "quoted" word',
    "two\nlines",
    "with, commas; and",
    "\r\n",
    "ünï 日本",
    " ",
    "007",
]


def some_rows(count: int, seed: int) -> pd.DataFrame:
    """Make rows with all that makes CSV hard, numbered from 0."""
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "n": range(count),
            "seed": seed,
            "text": random.choice(TEXTS, count),
            "value": random.normal(size=count).round(4),
        }
    )


# Rows as text that does not depend on the types that pandas has chosen.
ROWS = """
def as_rows(frame):
    return [repr([(str(k), str(v)) for k, v in row.items()]) for row in frame.to_dict("records")]
"""

exec(ROWS)  # the same function here and in the script


def plain_loop(frames: Iterable[pd.DataFrame]) -> Counter[str]:
    """Do what a person without this library does."""
    return Counter(row for frame in frames for row in as_rows(frame))  # noqa: F821


def run_over(
    workplace: Any, script: str, inputs: list[Any], **config: Any
) -> tuple[ParallelRun, list[str]]:
    step = ParallelRunStep(
        "tables",
        ParallelRunConfig(
            entry_script=workplace.script(ROWS + script), **{"process_count_per_node": 2, **config}
        ),
        inputs=inputs,
        output=workplace.output,
    )
    run = step.submit()
    assert run.wait_for_completion() == "Completed"
    return run, workplace.rows() if config.get("output_format", "text") == "text" else []


ECHO = """
import json

def run(mini_batch, context):
    mark(f"batch-{context.minibatch_index}")
    sizes = [len(mini_batch)]
    with open(os.path.join(CALLS, "batches.jsonl"), "a") as stream:
        facts = [context.minibatch_index, context.dataset, context.partition_key_value,
                 context.global_row_index_lower_bound, [int(n) for n in mini_batch["n"]],
                 sorted(set(mini_batch["seed"].astype(int).tolist()))]
        stream.write(json.dumps(facts) + "\\n")
    return as_rows(mini_batch)
"""


def batches_of(workplace: Any) -> list[list[Any]]:
    lines = (workplace.calls / "batches.jsonl").read_text().splitlines()
    return sorted(json.loads(line) for line in lines)


def test_csv_files_of_every_kind(workplace: Any) -> None:
    """Quoted newlines, empty files, only a header, gzip, odd names: like a plain loop of pandas."""
    data = workplace.folder / "data"
    data.mkdir()
    frames = {}
    counts = {
        "large.csv": 400,
        "zip.csv.gz": 200,
        "größe 日本.csv": 150,
        "dos.csv": 120,
        "one.csv": 1,
    }
    for seed, (name, count) in enumerate(counts.items()):
        frames[name] = some_rows(count, seed)
        ending = "\r\n" if name.startswith("dos") else "\n"
        text = frames[name].to_csv(index=False, lineterminator=ending).encode()
        (data / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    (data / "empty.csv").write_bytes(b"")
    (data / "header.csv").write_bytes(b"n,seed,text,value\n")
    run, rows = run_over(workplace, ECHO, [TabularDataset(data)], mini_batch_size="2KB")
    read = [pd.read_csv(path) for path in sorted(data.iterdir()) if path.stat().st_size]
    assert Counter(rows) == plain_loop(read)
    assert len(rows) == sum(map(len, frames.values())) == run.report.items.succeeded
    assert run.report.items.failed == 0
    batches = batches_of(workplace)
    assert all(len(seeds) == 1 for *_, seeds in batches), "none crosses a file"
    # A file that is cut, and a compressed one, which cannot be.
    assert sum(seeds == [0] for *_, seeds in batches) >= 5
    assert sum(seeds == [1] for *_, seeds in batches) == 1
    for *_, numbers, _ in batches:
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_inputs_of_different_kinds_and_columns_in_one_run(workplace: Any) -> None:
    """CSV, JSON lines, parquet of one row group, DataFrames of pandas and of Dask."""
    data = workplace.folder
    frames = [some_rows(count, seed) for seed, count in enumerate([60, 50, 3000, 40, 45, 30, 36])]
    frames[0].assign(only_csv="x").to_csv(data / "a.csv", index=False)
    lines = frames[1].rename(columns={"text": "words"}).to_json(orient="records", lines=True)
    (data / "b.jsonl").write_text(lines)
    frames[2].to_parquet(data / "c.parquet", row_group_size=10**6)
    csvs = []
    for number in range(3):
        part = frames[6].iloc[number * 12 : number * 12 + 12]
        csvs.append(data / f"d{number}.txt")
        part.to_csv(csvs[-1], index=False)
    inputs = [
        TabularDataset(data / "a.csv", name="csv"),
        TabularDataset([data / "b.jsonl"]),
        TabularDataset(str(data / "*.parquet")),
        frames[3].set_index("text", drop=False),
        frames[4],
        dd.from_pandas(frames[5], npartitions=3),
        dd.from_map(pd.read_csv, csvs, meta=frames[6].iloc[:0]),
    ]
    run, rows = run_over(workplace, ECHO, inputs, mini_batch_size="1KB")
    read = [pd.read_csv(data / "a.csv"), pd.read_json(data / "b.jsonl", lines=True)]
    read += [pd.read_parquet(data / "c.parquet"), *frames[3:6], *map(pd.read_csv, csvs)]
    assert Counter(rows) == plain_loop(read)
    assert run.report.items.succeeded == sum(map(len, frames)) == len(rows)
    batches = batches_of(workplace)
    assert [batch[0] for batch in batches] == list(range(run.report.mini_batches.total))
    names: dict[int, str] = {}
    counts: Counter[int] = Counter()
    for _, name, keys, lower, numbers, seeds in batches:
        (seed,) = seeds
        assert names.setdefault(seed, name) == name
        assert keys is None
        counts[seed] += 1
        if seed < 5:  # the rows of a Dask dataframe are counted by nobody before
            assert lower == numbers[0]
    assert names[0] == "csv"
    assert len(set(names.values())) == len(inputs)
    assert counts[2] > 5, "one large row group is many mini-batches"
    assert min(counts[3], counts[4]) > 1
    assert (counts[5], counts[6]) == (3, 3)


def test_partition_keys_collect_the_rows_of_all_parts(workplace: Any) -> None:
    """All rows with the same values are one mini-batch, across files, parts and missing values."""
    data = workplace.folder / "data"
    data.mkdir()
    frames = []
    for seed in range(3):
        frame = some_rows(200, seed)
        frame["brand"] = np.where(frame["n"] % 7 == 0, None, frame["text"].str.strip().str[:1])
        frame["store"] = frame["n"] % 3
        frames.append(frame)
        frame.to_csv(data / f"{seed}.csv", index=False)
    lazy = dd.from_pandas(frames[0], npartitions=4)
    inputs = [TabularDataset(data), lazy]
    run, rows = run_over(workplace, ECHO, inputs, partition_keys=["store", "brand"])
    read = [pd.concat([pd.read_csv(data / f"{seed}.csv") for seed in range(3)]), lazy.compute()]
    assert Counter(rows) == plain_loop(read)
    expected = [
        sorted(zip(group["seed"], group["n"], strict=True))
        for frame in read
        for _, group in frame.groupby(["store", "brand"], dropna=False)
    ]
    assert run.report.mini_batches.total == len(expected)
    batches = batches_of(workplace)
    assert sorted(len(numbers) for *_, numbers, _ in batches) == sorted(map(len, expected))
    keys = [keys for _, _, keys, *_ in batches]
    assert all(set(value) == {"store", "brand"} for value in keys)
    assert {value["store"] for value in keys} == {0, 1, 2}
    for _, _, value, _, numbers, _ in batches:
        assert {number % 3 for number in numbers} == {value["store"]}


def test_no_file_of_the_input_stays_open(workplace: Any) -> None:
    """The rows of parquet are read in the threads of the workers before they are shuffled."""
    data = workplace.folder / "data"
    data.mkdir()
    some_rows(200, 1).to_parquet(data / "a.parquet", row_group_size=50)
    with threads(1) as cluster:
        _, rows = run_over(
            workplace,
            ECHO,
            [TabularDataset(data)],
            partition_keys=["seed"],
            compute_target=cluster,
        )
        opened = [file.path for file in psutil.Process().open_files()]
    assert len(rows) == 200
    assert not [path for path in opened if path.startswith(str(workplace.folder))]


FRAMES = """
import pandas as pd

def run(mini_batch):
    if "extra" in mini_batch:
        return mini_batch[["n", "extra"]]
    done = mini_batch[["n", "text"]].copy()
    done["score"] = done["n"] / 2
    return done
"""


def read_back(path: Path, output_format: str) -> list[tuple[str, ...]]:
    """Read an output file; of each row its values as text."""
    if output_format == "parquet":
        frame = pd.read_parquet(path)
        assert list(frame.columns) == ["n", "text", "score", "extra"]
        assert (str(frame["n"].dtype), str(frame["score"].dtype)) == ("int64", "float64")
        rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
        return [tuple(str(v) for v in row.values() if v is not None) for row in rows]
    text = path.read_bytes().decode("utf-8")
    if output_format == "jsonl":
        objects = [json.loads(line) for line in text.splitlines()]
        assert {tuple(row) for row in objects} == {("n", "text", "score"), ("n", "extra")}
        return [tuple(map(str, row.values())) for row in objects]
    delimiter = " " if output_format == "text" else ","
    rows = [tuple(row) for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)]
    if output_format == "csv":
        assert rows.pop(0) == ("n", "text", "score")
    return rows


@pytest.mark.parametrize("output_format", ["text", "csv", "jsonl", "parquet"])
def test_a_dataframe_becomes_rows_of_the_output_format(workplace: Any, output_format: str) -> None:
    """What stands in the file is what run() returned, also where columns differ; or it failed."""
    data = workplace.folder / "data"
    data.mkdir()
    frames = [some_rows(40, seed) for seed in range(3)]
    for seed, frame in enumerate(frames):
        frame.to_csv(data / f"{seed}.csv", index=False)
    frames[0].assign(extra="e").to_csv(data / "9.csv", index=False)
    config = {"mini_batch_size": "1KB", "output_format": output_format}
    # One process takes them in order: the columns of the first are those of the file.
    run, _ = run_over(workplace, FRAMES, [TabularDataset(data)], **config, process_count_per_node=1)
    expected = Counter(
        (str(n), text, str(n / 2)) for frame in frames for n, text in frame[["n", "text"]].values
    )
    if output_format != "csv":
        expected += Counter((str(n), "e") for n in range(40))
    assert run.output_file is not None
    assert Counter(read_back(Path(run.output_file), output_format)) == expected
    report = run.report
    assert report.items.failed == (40 if output_format == "csv" else 0)
    for failure in report.failures:
        assert "9.csv" in failure.input
        assert "extra" in failure.error
