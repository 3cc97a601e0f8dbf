"""Runs over and into real object stores: Azure Blob Storage (Azurite) and S3 (moto)."""

from __future__ import annotations

import io
import json
import shutil
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from commands import command, daskprs
from object_stores import Bucket

from daskprs import (
    FileDataset,
    ParallelRunConfig,
    ParallelRunStep,
    TabularDataset,
    ThresholdExceededError,
)
from daskprs.journal import read_piece
from daskprs.output_folder import OutputFolder
from daskprs.report import read_report

OUTPUT = "out put/ü"
NAMES = (
    *("plain.txt", "two words.txt", "ünï.txt", "日本.txt", "a,b.txt", "'q'.txt", "100%41.txt"),
    *("a+b&c=d.txt", "a#1.txt", "x?y.txt", "[1].txt", "sub/deep er/c.txt", "empty.txt"),
)
READING = """
def run(mini_batch):
    for path in mini_batch:
        mark(os.path.basename(path))
    return [{"name": os.path.basename(path), "text": open(path).read()} for path in mini_batch]
"""
DOUBLING = """
def run(mini_batch):
    mini_batch["x"] *= 2
    return mini_batch
"""


def step_of(script: Path, bucket: Bucket, *inputs: Any, **settings: Any) -> ParallelRunStep:
    more = {name: settings.pop(name) for name in ("arguments",) if name in settings}
    options = {**bucket.options, **settings.pop("storage_options", {})}
    settings = {"process_count_per_node": 1, **settings}
    config = ParallelRunConfig(entry_script=script, **settings)
    return ParallelRunStep(
        "objects", config, list(inputs), bucket.url(OUTPUT), storage_options=options, **more
    )


def test_files_of_any_name_are_read_once_and_a_finished_run_is_reused(
    workplace: Any, bucket: Bucket
) -> None:
    script = workplace.script(READING)
    texts = {name: "" if name == "empty.txt" else f"text of {name}" for name in NAMES}
    bucket.put({f"in put/{name}": text.encode() for name, text in texts.items()})
    files = FileDataset(bucket.url("in put"), storage_options=bucket.options)
    step = step_of(script, bucket, files, mini_batch_size=3, output_format="jsonl")
    run = step.submit()
    run.wait_for_completion()
    rows = (bucket.read(f"{OUTPUT}/parallel_run_step.jsonl") or b"").splitlines()
    expected = {Path(name).name: text for name, text in texts.items()}
    assert Counter(row["name"] for row in map(json.loads, rows)) == Counter(expected.keys())
    assert {row["name"]: row["text"] for row in map(json.loads, rows)} == expected
    assert {name: workplace.count(name) for name in expected} == dict.fromkeys(expected, 1)

    again = step.submit()
    again.wait_for_completion()
    assert again.report.reused
    assert {name: workplace.count(name) for name in expected} == dict.fromkeys(expected, 1)


def test_all_of_many_objects_are_listed(workplace: Any, bucket: Bucket) -> None:
    bucket.put({f"in/{number % 3}/f{number:05d}": b"" for number in range(200)})
    files = FileDataset(bucket.url("in/*/f*"), storage_options=bucket.options)
    plan = step_of(workplace.script(READING), bucket, files, mini_batch_size=50).plan()
    assert "200 items" in plan.summary


# What is read and written, in which order: each once, half of it in each kind of store.
TABLES = {
    "abfs": [("csv", "text", True), ("parquet", "parquet", False)],
    "s3": [("csv", "csv", False), ("parquet", "jsonl", True)],
}


@pytest.mark.parametrize("half", [0, 1])
def test_tables_become_output_in_each_format(workplace: Any, bucket: Bucket, half: int) -> None:
    kind, output_format, ordered = TABLES[bucket.kind][half]
    tables = [pd.DataFrame({"x": range(n * 50, n * 50 + 50), "b": "y"}) for n in range(4)]
    files = {}
    for number, table in enumerate(tables):
        data = table.to_csv(index=False).encode() if kind == "csv" else table.to_parquet()
        files[f"in/täble {number}.{kind}"] = data
    bucket.put(files)
    dataset = TabularDataset(bucket.url(f"in/*.{kind}"), storage_options=bucket.options)
    settings = {"mini_batch_size": 200, "output_format": output_format, "ordered": ordered}
    step_of(workplace.script(DOUBLING), bucket, dataset, **settings).submit().wait_for_completion()

    ending = {"text": "txt"}.get(output_format, output_format)
    data = bucket.read(f"{OUTPUT}/parallel_run_step.{ending}") or b""
    found = _table(data, output_format)
    expected = [(2 * x, "y") for x in range(200)]
    assert (found if ordered else sorted(found)) == expected
    assert not [name for name in bucket.names() if "segments" in name or "partial" in name]


def _table(data: bytes, output_format: str) -> list[tuple[int, str]]:
    if output_format == "text":
        rows = [line.split(" ", 1) for line in data.decode().splitlines()]
        return [(int(x), b) for x, b in rows]
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet}.get(output_format)
    table = read(io.BytesIO(data)) if read else pd.read_json(io.BytesIO(data), lines=True)
    return list(table[["x", "b"]].itertuples(index=False, name=None))


class Watch(threading.Thread):
    """Looks again and again how large an object is under a name."""

    def __init__(self, bucket: Bucket, name: str) -> None:
        super().__init__(daemon=True)
        self.bucket, self.name_ = bucket, name
        self.sizes: list[int | None] = []
        self.is_done = threading.Event()

    def run(self) -> None:
        fs = self.bucket.server.fs
        while not self.is_done.wait(0.02):
            found = fs.find(self.bucket.name, detail=True)
            info = found.get(f"{self.bucket.name}/{self.name_}")
            self.sizes.append(None if info is None else info["size"])


def test_the_final_name_appears_with_all_rows(workplace: Any, bucket: Bucket) -> None:
    """Also where the upload has several parts."""
    script = workplace.script(
        """
        def run(mini_batch):
            return [os.path.basename(mini_batch[0]) + "x" * (4 << 20)]
        """
    )
    part = {"s3": {"default_block_size": 5 << 20}, "abfs": {"blocksize": 5 << 20}}[bucket.kind]
    step = step_of(
        script,
        bucket,
        FileDataset(workplace.files(5)),
        mini_batch_size=1,
        storage_options=part,
        process_count_per_node=2,
    )
    watch = Watch(bucket, f"{OUTPUT}/parallel_run_step.txt")
    watch.start()
    try:
        step.submit().wait_for_completion()
    finally:
        watch.is_done.set()
        watch.join()
    data = bucket.read(f"{OUTPUT}/parallel_run_step.txt") or b""
    assert Counter(line[:10] for line in data.decode().splitlines()) == Counter(
        f"f{number:05d}.bin" for number in range(5)
    )
    assert set(watch.sizes) <= {None, len(data)}
    assert watch.sizes.count(None) > 5


FAILING = """
import sys
def run(mini_batch):
    name = os.path.basename(mini_batch[0])
    mark(name)
    if sys.argv[1] in name:
        raise ValueError("not this one")
    return [name]
"""


def test_another_run_does_not_inherit_the_logs_of_a_failed_one(
    workplace: Any, bucket: Bucket
) -> None:
    script, files = workplace.script(FAILING), FileDataset(workplace.files(4))
    settings: dict[str, Any] = {"mini_batch_size": 1, "run_max_try": 1}
    failing = step_of(script, bucket, files, arguments=["3"], error_threshold=0, **settings)
    with pytest.raises(ThresholdExceededError):
        failing.submit().wait_for_completion()
    logs = {f"{OUTPUT}/logs/failed_items.jsonl", f"{OUTPUT}/logs/job_error.txt"}
    assert logs <= set(bucket.names())

    step_of(script, bucket, files, arguments=["nothing"], **settings).submit().wait_for_completion()
    names = set(bucket.names())
    assert not logs & names
    assert {name.replace("/logs/", "/logs.previous/") for name in logs} <= names


def test_a_run_that_goes_on_keeps_what_has_failed_before(workplace: Any, bucket: Bucket) -> None:
    """Items of mini-batches that are not run again stay in the list of failed items."""
    script = workplace.script(
        """
        def run(mini_batch):
            names = [os.path.basename(path) for path in mini_batch]
            if "f00003.bin" in names and marks("again") == 0:
                mark("again")
                raise ValueError("not yet")
            return [name for name in names if name != "f00000.bin"]
        """
    )
    settings: dict[str, Any] = {"mini_batch_size": 2, "run_max_try": 1}
    files = FileDataset(workplace.files(4))
    with pytest.raises(ThresholdExceededError):
        step_of(script, bucket, files, error_threshold=2, **settings).submit().wait_for_completion()
    assert f"{OUTPUT}/logs/job_error.txt" in bucket.names()
    run = step_of(script, bucket, files, **settings).submit()
    run.wait_for_completion()
    assert run.report.kept == 1
    assert f"{OUTPUT}/logs/job_error.txt" not in bucket.names()
    assert bucket.read(f"{OUTPUT}/logs/job_result.txt") == b"Completed\n"
    lines = (bucket.read(f"{OUTPUT}/logs/failed_items.jsonl") or b"").splitlines()
    assert {json.loads(line)["mini_batch"] for line in lines} == {0}
    assert [failure.mini_batch for failure in run.report.failures] == [0]


WAITING = """
import time
def run(mini_batch):
    name = os.path.basename(mini_batch[0])
    mark(name)
    if name < "f4":
        return [name + " " + "x" * 9_000_000]
    while not marks("go"):
        time.sleep(0.01)
    return [name + " "]
"""


def test_a_killed_run_goes_on_from_another_machine(workplace: Any, bucket: Bucket) -> None:
    """Nothing but the store is left; what the journal tells of is not run again."""
    names = [f"f{number}" for number in range(10)]
    bucket.put({f"in/{name}": b"" for name in names})
    workplace.script(WAITING, "here/scripts/score.py")
    here, there = workplace.folder / "here", workplace.folder / "there"
    options = [f"--storage-option={name}={text}" for name, text in bucket.options.items()]
    words = ["run", "scripts/score.py", "--files", bucket.url("in/f*"), "--mini-batch-size", 1]
    words += ["--output", bucket.url(OUTPUT), "--process-count-per-node", 1, "--ordered", *options]
    with command(*words, cwd=here) as first:
        first.wait_until(lambda: workplace.count("f4"))
        first.wait_until(lambda: time.sleep(0.2) or _journaled(bucket))
        first.process.send_signal(signal.SIGKILL)
        _, out, err = first.end()
    bucket.assert_nothing_tells_the_secret(out, err)
    shutil.copytree(here / "scripts", there / "scripts")
    shutil.rmtree(here)
    assert f"{OUTPUT}/parallel_run_step.txt" not in bucket.names()
    kept, calls = _journaled(bucket), {name: workplace.count(name) for name in names}
    folder = OutputFolder(bucket.url(OUTPUT), bucket.options)
    assert read_report(folder).status == "Interrupted"

    (workplace.calls / "go").write_bytes(b".")
    done = daskprs(*words, cwd=there, env={"HOME": str(there)})
    assert done.returncode == 0, done.stderr
    rows = (bucket.read(f"{OUTPUT}/parallel_run_step.txt") or b"").decode().splitlines()
    assert [row.split(" ")[0] for row in rows] == names
    assert {name: workplace.count(name) for name in names} == {
        name: calls[name] + (number not in kept) for number, name in enumerate(names)
    }
    assert f"{len(kept)} mini-batches that were done before" in done.stdout
    bucket.assert_nothing_tells_the_secret(done.stdout, done.stderr)


def _journaled(bucket: Bucket) -> set[int]:
    """Tell the mini-batches whose rows are safe."""
    pieces = [
        read_piece(bucket.read(name) or b"")
        for name in bucket.names()
        if "/segments/" in name and name.endswith(".journal")
    ]
    return {record[0] for piece in pieces if piece is not None for record in piece[2]}
