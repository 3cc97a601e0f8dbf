"""Poison items: split_failed_mini_batches isolates them, in a bounded number of calls."""

from __future__ import annotations

import json
import math
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskprs import (
    ConfigError,
    FileDataset,
    ParallelRunConfig,
    ParallelRunStep,
    TabularDataset,
)
from daskprs.entry_process.host import Reply
from daskprs.splitting import MOST_CALLS, split


@settings(deadline=None)
@given(data=st.data(), total=st.integers(2, 300))
def test_exactly_the_bad_items_fail_in_few_calls(data: Any, total: int) -> None:
    """Every good item runs in a call that succeeds; the number of calls is bounded."""
    bad = data.draw(st.sets(st.integers(0, total - 1), min_size=1))
    calls = []

    def try_part(start: int, stop: int) -> Reply:
        calls.append((start, stop))
        ok = not bad & set(range(start, stop))
        return Reply("RUN_DONE" if ok else "RUN_EXCEPTION", total=stop - start)

    parts = split(total, try_part)
    assert [p.start for p in parts] == [0, *[p.stop for p in parts][:-1]]
    assert parts[-1].stop == total
    failed = {i for p in parts if not p.reply.ok for i in range(p.start, p.stop)}
    assert failed == bad
    assert len(calls) <= 2 * total - 2
    assert len(calls) <= 2 * len(bad) * math.ceil(math.log2(total))


def test_a_mini_batch_that_fails_everywhere_costs_a_bounded_number_of_calls() -> None:
    """2,000 calls at most; what is left then fails as it is, and no item is forgotten."""
    calls = 0

    def try_part(start: int, stop: int) -> Reply:
        nonlocal calls
        calls += 1
        return Reply("RUN_EXCEPTION", total=stop - start)

    parts = split(100_000, try_part)
    assert calls <= MOST_CALLS
    assert sum(part.total for part in parts) == 100_000


SCRIPT = """
import ctypes, time

def run(mini_batch):
    mark("run")
    for path in mini_batch:
        name = os.path.basename(path)
        if name == "f00003.bin":
            raise ValueError("poison")
        if name == "f00007.bin":
            time.sleep(100)
        if name == "f00012.bin":
            ctypes.string_at(0)
    return [os.path.basename(path) for path in mini_batch]
"""


def test_items_that_raise_hang_or_crash_stand_alone(workplace: Any) -> None:
    """All others succeed, and each bad item is named with its own reason."""
    config = ParallelRunConfig(
        entry_script=workplace.script(SCRIPT),
        mini_batch_size=16,
        run_max_try=1,
        run_invocation_timeout=0.5,
        split_failed_mini_batches=True,
        process_count_per_node=1,
    )
    step = ParallelRunStep(
        "poison", config, inputs=[FileDataset(workplace.files(16))], output=workplace.output
    )
    run = step.submit()
    assert run.wait_for_completion() == "Completed"
    bad = {3: "poison", 7: "run_invocation_timeout", 12: "SIGSEGV"}
    assert sorted(workplace.rows()) == [f"f{n:05d}.bin" for n in range(16) if n not in bad]
    lines = (workplace.output / "logs/failed_items.jsonl").read_text().splitlines()
    told = {int(item["path"][-9:-4]): item["error"] for item in map(json.loads, lines)}
    assert told.keys() == bad.keys()
    for number, reason in bad.items():
        assert reason in told[number]
    report = run.report
    assert (report.items.failed, report.mini_batches.failed) == (3, 0)
    assert workplace.count("run") <= 1 + 2 * 16 - 2


@pytest.mark.parametrize("output_format", ["text", "csv", "jsonl", "parquet"])
def test_rows_of_a_split_table_are_those_of_the_good_rows(
    workplace: Any, output_format: str
) -> None:
    """In their order, whatever the format, and though the parts differ in their columns."""
    script = workplace.script(
        """
        def run(mini_batch):
            if (mini_batch.x == 5).any():
                raise ValueError("five")
            if (mini_batch.x < 5).all():
                return mini_batch
            return mini_batch.assign(more=1)
        """
    )
    table = pd.DataFrame({"x": range(20)})
    config = ParallelRunConfig(
        entry_script=script,
        output_format=output_format,
        run_max_try=1,
        split_failed_mini_batches=True,
        process_count_per_node=1,
    )
    run = ParallelRunStep("rows", config, inputs=[table], output=workplace.output).submit()
    assert run.wait_for_completion() == "Completed"
    assert run.output_file is not None
    if output_format == "parquet":
        found = pd.read_parquet(run.output_file)
    elif output_format == "csv":
        found = pd.read_csv(run.output_file)
    elif output_format == "jsonl":
        found = pd.read_json(run.output_file, lines=True)
    else:
        found = pd.DataFrame({"x": [int(row.split()[0]) for row in workplace.rows()]})
    assert found.x.tolist() == [n for n in range(20) if n != 5]
    items = (workplace.output / "logs/failed_items.jsonl").read_text().splitlines()
    assert [(i["row_start"], i["row_stop"]) for i in map(json.loads, items)] == [(5, 6)]


def test_the_same_items_fail_in_a_part_of_a_large_file(workplace: Any) -> None:
    """A part of a CSV file is split by its rows."""
    script = workplace.script(
        """
        def run(mini_batch):
            if (mini_batch.x % 250 == 0).any():
                raise ValueError("bad")
            return list(mini_batch.x)
        """
    )
    source = workplace.folder / "table.csv"
    pd.DataFrame({"x": range(1, 1001)}).to_csv(source, index=False)
    config = ParallelRunConfig(
        entry_script=script,
        mini_batch_size="1KB",
        run_max_try=1,
        split_failed_mini_batches=True,
        process_count_per_node=2,
    )
    inputs = [TabularDataset(source)]
    run = ParallelRunStep("parts", config, inputs=inputs, output=workplace.output).submit()
    run.wait_for_completion()
    assert sorted(map(int, workplace.rows())) == [n for n in range(1, 1001) if n % 250]
    assert run.report.items.failed == 4


def test_partitioned_mini_batches_are_not_split(workplace: Any) -> None:
    """All rows of a combination belong into one call."""
    script = workplace.script("def run(mini_batch):\n    return mini_batch\n")
    with pytest.raises(ConfigError, match="partition_keys"):
        ParallelRunConfig(entry_script=script, split_failed_mini_batches=True, partition_keys=["a"])
