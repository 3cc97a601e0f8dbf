"""What the programs of all peers share: the job, its files, the entry script, and marks of time.

Every program is called as `python PEER.py JOB DATA OUT`. JOB is a JSON file, see `Job`. DATA is a
folder of input files. The rows go into OUT: while it works into OUT/rows or OUT/result, at the end
they are whole in OUT/result.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import sys
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """What is to be done.

    kind: "files" (a mini-batch is a list of paths, a row is a line of text) or "tables" (a
    DataFrame, a row is a row of CSV). script: the entry script, with init() and run(), and its
    arguments. size: files of a mini-batch, or bytes of a table. lines: about as many rows are in
    so many bytes. header: the columns of the result. settings: those of daskprs alone.
    """

    kind: str
    script: str
    arguments: tuple[str, ...]
    size: int
    processes: int
    lines: int
    columns: dict[str, str]
    header: dict[str, str]
    settings: dict[str, object]

    @classmethod
    def read(cls, path: str) -> Job:
        facts = json.loads(Path(path).read_text("utf-8"))
        return cls(**{**facts, "arguments": tuple(facts["arguments"])})


def arguments() -> tuple[Job, Path, Path]:
    """Return the job, the folder of the data, and the folder for the result."""
    job, data, out = sys.argv[1:4]
    return Job.read(job), Path(data), Path(out)


def mark(out: Path, name: str) -> None:
    """Note that something has happened now."""
    with (out / "marks").open("a", encoding="utf-8") as stream:
        stream.write(f"{name} {time.time()}\n")


def paths_below(folder: Path):
    """Give the files of a folder of folders, in order, while they are listed."""
    for name in sorted(os.listdir(folder)):
        inner = os.path.join(folder, name)
        if os.path.isdir(inner):
            for file in sorted(os.listdir(inner)):
                yield os.path.join(inner, file)
        else:
            yield inner


def batches(paths, size: int):
    """Give lists of so many paths."""
    paths = iter(paths)
    while batch := list(islice(paths, size)):
        yield batch


@functools.cache
def entry(script: str, arguments: tuple[str, ...]):
    """Import the entry script and call its init(), once in each process; return its run()."""
    sys.argv = [script, *arguments]
    spec = importlib.util.spec_from_file_location("entry", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if hasattr(module, "init"):
        module.init()
    return module.run


def entry_of(job: Job):
    return entry(job.script, job.arguments)


def text_of(rows) -> str:
    return "".join([f"{row}\n" for row in rows])


def join_parts(folder: Path, pattern: str, result: Path, header: str = "") -> None:
    """Put the files that a peer has written one behind the other, as one file."""
    with result.open("wb") as whole:
        whole.write(header.encode())
        for part in sorted(folder.rglob(pattern)):
            with part.open("rb") as stream:
                while block := stream.read(1 << 20):
                    whole.write(block)


def join_csv(out):
    """Put CSV files one behind the other; each has a header."""
    with (out / "result").open("wb") as whole:
        for number, part in enumerate(sorted((out / "rows").glob("*.csv"))):
            with part.open("rb") as stream:
                header = stream.readline()
                if number == 0:
                    whole.write(header)
                while block := stream.read(1 << 20):
                    whole.write(block)
