"""Data that cannot be read fails with its reason, counts, and lets the rest of the run go on."""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from daskprs import (
    FileDataset,
    OutputError,
    ParallelRun,
    ParallelRunConfig,
    ParallelRunStep,
    TabularDataset,
    ThresholdExceededError,
)

GOOD = b"n,text\n" + b"".join(b"%d,x\n" % n for n in range(40))
DASKPRS = Path(sys.executable).parent / "daskprs"

# The first mini-batch, of a.csv, does something to the file that comes last, z.csv.
SCRIPT = """
import shutil

def run(mini_batch, context):
    mark("calls")
    if context.minibatch_index == 0:
        target = os.path.join(FOLDER, "z.csv")
        DO
    return [f"{n}" for n in mini_batch["n"]]
"""


def parquet(cut: int) -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame({"n": range(40), "text": "x"}).to_parquet(buffer, row_group_size=10)
    data = bytearray(buffer.getvalue())
    data[4:cut] = b"\xff" * (cut - 4)
    return bytes(data)


@dataclass(frozen=True)
class Bad:
    """A file that is bad from the beginning, or that something is done to after it was listed."""

    name: str
    content: bytes
    reason: str
    done: str = "pass"
    size: str = "1MB"


BAD = {
    "deleted": Bad("z.csv", GOOD, "the input file", "os.remove(target)"),
    "made longer": Bad("z.csv", GOOD, "the input file", "open(target, 'ab').write(b'1,y\\n')"),
    "a folder now": Bad("z.csv", GOOD, "Error", "os.remove(target); os.mkdir(target)"),
    "truncated gzip": Bad("z.csv.gz", gzip.compress(GOOD * 99)[:-30], "EOFError"),
    "no gzip at all": Bad("z.csv.gz", GOOD, "gzip"),
    "no parquet at all": Bad("z.parquet", GOOD, "arquet"),
    "corrupt parquet": Bad("z.parquet", parquet(60), "Error"),
    "truncated parquet": Bad("z.parquet", parquet(4)[:-20], "arquet"),
    "ragged row": Bad("z.csv", GOOD + b"1,2,3\n" + GOOD[7:], "Expected 2 fields", size="200"),
    "not UTF-8": Bad("z.csv", GOOD[:-4] + b"\xff\xfe\n", "UnicodeDecodeError"),
    "no JSON": Bad("z.jsonl", b'{"n": 1}\n{"n": \n', "Expected object or value"),
}


def some_run(workplace: Any, bad: Bad, **config: Any) -> ParallelRun:
    data = workplace.folder / "data"
    data.mkdir(exist_ok=True)
    suffix = bad.name.partition(".")[2]
    for name in "abc":
        write_good(data / f"{name}.{suffix}")
    (data / bad.name).write_bytes(bad.content)
    text = SCRIPT.replace("FOLDER", repr(str(data))).replace("DO", bad.done)
    settings = ParallelRunConfig(
        entry_script=workplace.script(text),
        process_count_per_node=1,
        mini_batch_size=bad.size,
        run_max_try=2,
        **config,
    )
    step = ParallelRunStep("bad", settings, inputs=[TabularDataset(data)], output=workplace.output)
    return step.submit()


def write_good(path: Path) -> None:
    frame = pd.read_csv(io.BytesIO(GOOD))
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False)


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_file_fails_with_its_reason_and_the_others_have_their_rows(
    workplace: Any, bad: Bad
) -> None:
    run = some_run(workplace, bad)
    assert run.wait_for_completion() == "Completed"
    counts = workplace.row_counts()
    others = Counter({str(n): 3 for n in range(40)})
    assert others - counts == Counter(), "the rows of the three good files are there"
    of_bad = counts - others
    failed = [json.loads(line) for line in (workplace.output / "logs/failed_items.jsonl").open()]
    assert failed
    assert all(bad.name in json.dumps(line) for line in failed)
    assert all(bad.reason in line["error"] for line in failed), failed
    assert run.report.mini_batches.failed >= 1
    if bad.size == "1MB":
        assert not of_bad, "nothing of a mini-batch that has failed"
        assert run.report.mini_batches.failed == 1
    else:
        assert len(of_bad) > 20, "the parts of the file that can be read"


@pytest.mark.parametrize("limit", [0, -1])
def test_a_bad_file_counts_against_the_threshold(workplace: Any, limit: int) -> None:
    run = some_run(workplace, BAD["truncated gzip"], allowed_failed_count=limit)
    if limit < 0:
        assert run.wait_for_completion() == "Completed"
        return
    with pytest.raises(ThresholdExceededError, match="EOFError"):
        run.wait_for_completion()


def test_a_file_that_is_gone_fails_when_the_script_opens_it(workplace: Any) -> None:
    script = workplace.script("""
        def run(mini_batch):
            names = [os.path.basename(path) for path in mini_batch]
            for name in names:
                mark(name)
            if names == ["f00000.bin"]:
                os.remove(mini_batch[0].replace("f00000", "f00005"))
            return [f"{name} {os.path.getsize(path)}" for name, path in zip(names, mini_batch)]
    """)
    workplace.files(6)
    config = ParallelRunConfig(entry_script=script, process_count_per_node=1, mini_batch_size=1)
    inputs = [FileDataset(workplace.folder / "input")]
    run = ParallelRunStep("gone", config, inputs=inputs, output=workplace.output).submit()
    assert run.wait_for_completion() == "Completed"
    assert sorted(workplace.rows()) == [f"f0000{n}.bin 10" for n in range(5)]
    (failure,) = run.report.failures
    assert "f00005.bin" in failure.error
    assert workplace.count("f00005.bin") == 3


# No room, no permission


def command(workplace: Any, limit: Callable[[], None] | None) -> subprocess.CompletedProcess[str]:
    words = ["run", "score.py", "--files", "input", "--output", "out", "--mini-batch-size", "1"]
    return subprocess.run(
        [str(DASKPRS), *words, "--process-count-per-node", "1", "--quiet"],
        cwd=workplace.folder,
        capture_output=True,
        text=True,
        timeout=100,
        preexec_fn=limit,
    )


def no_large_files() -> None:
    """Let no file grow beyond 100 kB: to a program that looks like a disk without room."""
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))


def test_where_there_is_no_room_the_run_stops_and_goes_on_when_there_is(workplace: Any) -> None:
    workplace.script(
        """
        def run(mini_batch):
            name = os.path.basename(mini_batch[0])
            mark(name)
            return [name + "x" * 10_000]
        """,
        "score.py",
    )
    workplace.files(30)
    full = command(workplace, no_large_files)
    assert full.returncode == 1, full
    assert "Error: the output could not be written" in full.stderr
    assert "goes on from there" in full.stderr
    assert "Traceback" not in full.stderr
    assert not (workplace.output / "parallel_run_step.txt").exists()
    done = command(workplace, None)
    assert done.returncode == 0, done.stderr
    rows = [line.rstrip("x") for line in workplace.rows()]
    assert sorted(rows) == [f"f{number:05d}.bin" for number in range(30)]


def test_a_folder_that_cannot_be_written_to_is_refused_before_any_work(workplace: Any) -> None:
    """A file stands where the folder would be; even for root that is no place to write."""
    script = workplace.script("def run(mini_batch):\n    return mini_batch\n", "score.py")
    workplace.files(2)
    (workplace.folder / "out").write_text("mine")
    told = command(workplace, None)
    assert told.returncode == 2
    assert "--output" in told.stderr
    assert len(told.stderr.splitlines()) <= 2
    assert (workplace.folder / "out").read_text() == "mine"
    assert script.exists()


def test_a_read_only_folder_is_refused_before_any_work(workplace: Any) -> None:
    """For root, who may write to every folder, it is one of a file system that takes no files."""
    workplace.files(2)
    script = workplace.script("def run(mini_batch):\n    mark('calls')\n    return mini_batch\n")
    locked = workplace.folder / "locked"
    locked.mkdir()
    os.chmod(locked, 0o500)
    output = locked / "out" if os.geteuid() else Path("/proc/out")
    config = ParallelRunConfig(entry_script=script)
    inputs = [FileDataset(workplace.folder / "input")]
    with pytest.raises(OutputError, match="give a folder that you may write to"):
        ParallelRunStep("locked", config, inputs=inputs, output=output).submit()
    assert workplace.count("calls") == 0
