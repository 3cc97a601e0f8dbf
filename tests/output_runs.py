"""Helpers of the tests of the output: a run without a cluster, that goes on where it was killed."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq

from daskprs.entry_process.results import to_rows
from daskprs.journal import Journal
from daskprs.outcomes import Outcome
from daskprs.output import RowStore, open_store
from daskprs.output_folder import OutputFolder

FORMATS = ("text", "csv", "jsonl", "parquet", None)
NAME = "rows.out"
FACTS = {"script": "score.py", "note": 'ü "quoted" \udcff'}
ENDED = {"items": 9}

# What run() returns for each mini-batch; None: it fails in every try.
PLAN: tuple[list[dict[str, Any]] | None, ...] = (
    [],
    None,
    [{"a": 1, "b": "x,\n"}, {"a": 2, "b": "ü"}],
    [{"a": 3, "b": ""}],
    [],
    [{"a": 4, "b": "y"}],
    None,
    [{"b": "z", "a": 5}],
)


def key_of(index: int) -> str:
    return f"{index * 2654435761 % 2**64:016x}"


def outcome(
    index: int, result: Any, output_format: str | None, *, key: str | None = None
) -> Outcome:
    """Tell what became of a mini-batch; a `result` of None is a failure."""
    rows = None
    if result is not None and output_format is not None:
        rows = to_rows(result, output_format, {})
    returned = 0 if result is None else len(result)
    return Outcome(
        index=index,
        key=key_of(index) if key is None else key,
        label=f"mini-batch {index}",
        total=max(1, returned),
        returned=returned,
        failed=result is None,
        rows=rows,
        attempts=(),
    )


def missing_in(journal: Journal, plan: Any = PLAN) -> list[int]:
    """Say which mini-batches have to run: those without a record, and those that had failed."""
    done = {record.index for record in journal.records if not record.failed}
    return [index for index in range(len(plan)) if index not in done]


def start(folder: OutputFolder, output_format: str | None, name: str = NAME) -> RowStore:
    """Begin, or go on with, a run; a finished one stays as it is."""
    store = open_store(folder, name, output_format)
    journal = store.load()
    if journal is None:
        store.begin(FACTS)
    elif journal.finished is None:
        store.resume()
    return store


def run(
    folder: OutputFolder,
    output_format: str | None,
    plan: Any = PLAN,
    *,
    ordered: bool = False,
    step: Callable[[str], None] = lambda what: None,
) -> Journal:
    """Run to the end what is missing; a flush after every two mini-batches."""
    store = start(folder, output_format)
    try:
        journal = store.journal
        assert journal is not None
        if journal.finished is None:
            for count, index in enumerate(missing_in(journal, plan)):
                step("add")
                store.add(outcome(index, plan[index], output_format))
                if count % 2:
                    store.flush()
            order = None
            if ordered:
                order = list(journal.records.by_index())
            store.publish(order, ENDED)
    finally:
        store.close()
    return journal


def content(folder: OutputFolder, output_format: str | None, name: str = NAME) -> Any:
    """Read the output; what is not bytes for bytes the same in two runs as what it means."""
    data = folder.read(name)
    if data is None or output_format != "parquet":
        return data
    return pq.read_table(io.BytesIO(data)).to_pylist()


def rows_in(output: Any, output_format: str | None) -> list[Any]:
    """Take the content of an output apart: rows that are the same are equal."""
    if output_format == "csv":
        text = io.StringIO(output.decode(), newline="")
        return [sorted(row.items()) for row in csv.DictReader(text)]
    if output_format == "jsonl":
        return [sorted(json.loads(line).items()) for line in output.splitlines()]
    if output_format == "parquet":
        return [sorted(row.items()) for row in output]
    return [] if output is None else output.splitlines()
