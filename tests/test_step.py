"""ParallelRunStep and ParallelRun in Python: what is checked, and the handle on a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pytest

from daskprs import (
    ConfigError,
    FileDataset,
    InputNotFoundError,
    OutputError,
    ParallelRunConfig,
    ParallelRunStep,
    RunCanceledError,
    TabularDataset,
    UsageError,
)
from daskprs.events import ClusterReady, Event, MiniBatchDone, RunEnded, RunStarted

ECHO = "def run(mini_batch):\n    return mini_batch\n"
FRAME = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})


def make_step(workplace: Any, script: str = ECHO, **given: Any) -> ParallelRunStep:
    names = (
        *("mini_batch_size", "partition_keys", "compute_target", "source_directory"),
        "output_action",
    )
    config = {name: given.pop(name) for name in names if name in given}
    return ParallelRunStep(
        **{
            "name": "a-step",
            "parallel_run_config": ParallelRunConfig(
                entry_script=workplace.script(script), process_count_per_node=1, **config
            ),
            "inputs": [FileDataset(workplace.files(3))],
            "output": workplace.output,
            **given,
        }
    )


FILES = FileDataset("input")
KEYED = FileDataset("input", partition_format="{user}.bin")
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": "ab"}, "name='ab'"),
    ({"name": "Digits"}, "name='Digits'"),
    ({"name": "a" * 33}, "name='aaa"),
    ({"name": "ends-"}, "name='ends-'"),
    ({"name": 3}, "name=3"),
    ({"parallel_run_config": {}}, "parallel_run_config={}"),
    ({"inputs": []}, "inputs=[]"),
    ({"inputs": "input"}, "inputs='input'"),
    ({"inputs": ["input"]}, "inputs='input'"),
    ({"inputs": [FILES, FRAME]}, "inputs="),
    ({"inputs": [FILES, TabularDataset("input")]}, "inputs="),
    ({"output": None}, "output=None"),
    ({"output": " "}, "output=' '"),
    ({"output": 3}, "output=3"),
    ({"arguments": "--x"}, "arguments='--x'"),
    ({"arguments": [None]}, "arguments=[None]"),
    ({"arguments": ["\0"]}, "arguments="),
    ({"allow_reuse": 1}, "allow_reuse=1"),
    ({"mini_batch_size": "10MB"}, "mini_batch_size='10MB'"),
    ({"partition_keys": ["user"]}, "partition_keys=['user']"),
    ({"inputs": [KEYED], "partition_keys": ["season"]}, "partition_keys=['season']"),
    ({"compute_target": "somewhere"}, "compute_target='somewhere'"),
    ({"compute_target": 3}, "compute_target=3"),
]


@pytest.mark.parametrize(("given", "word"), WRONG)
def test_a_wrong_value_is_told_when_the_step_is_made(
    workplace: Any, given: dict[str, Any], word: str
) -> None:
    """Field, value and accepted form, as one line."""
    with pytest.raises(ConfigError) as caught:
        make_step(workplace, **given)
    told = str(caught.value)
    assert told.startswith(word)
    assert " is not accepted: it must be " in told
    assert "\n" not in told


def test_with_summary_only_the_output_has_to_be_a_folder_that_a_script_can_write_to(
    workplace: Any,
) -> None:
    """Its files would be lost in a local folder "memory:"; the url's secret is not told."""
    url = "memory://bucket/out?sig=c2VjcmV0"
    make_step(workplace, output=url)
    with pytest.raises(ConfigError, match=r"output='memory://bucket/out.*local folder") as caught:
        make_step(workplace, output=url, output_action="summary_only")
    assert "c2VjcmV0" not in str(caught.value)


def test_keys_that_are_no_columns_are_told_before_any_work_starts(workplace: Any) -> None:
    """For files of every kind, and for DataFrames; the output folder is not even made."""
    data = workplace.folder
    FRAME.to_csv(data / "a.csv", index=False)
    FRAME.to_csv(data / "a.csv.gz", index=False)
    FRAME.to_parquet(data / "a.parquet")
    tables = [TabularDataset(data / name) for name in ("a.csv", "a.csv.gz", "a.parquet")]
    for table in [*tables, FRAME, dd.from_pandas(FRAME, npartitions=1)]:
        step = make_step(workplace, inputs=[table], partition_keys=["a", "c"])
        with pytest.raises(ConfigError, match=r"partition_keys=\['a', 'c'\].*\['a', 'b'\]"):
            step.submit()
    assert not workplace.output.exists()


@pytest.mark.parametrize(
    ("url", "output", "is_wrong"),
    [
        ("data", "data/out", True),
        ("data", "data", True),
        ("data/*", "data/out", True),
        ("data/**/*.csv", "data/a/out", True),
        ("data/*.txt", "data", True),
        ("data/parallel_run_step.txt", "data", True),
        ("data/*.bin", "data", False),
        ("data/a", "data", False),
        ("data", "data/.hidden", False),
        ("data", "data2", False),
    ],
)
def test_an_output_folder_that_the_input_would_list_is_refused(
    workplace: Any, url: str, output: str, is_wrong: bool
) -> None:
    """The next run would take the rows and logs of this one for input."""
    here = workplace.folder
    (here / "data" / "a").mkdir(parents=True)
    for name in ("x.txt", "x.bin", "a/x.csv", "parallel_run_step.txt"):
        (here / "data" / name).write_text("x")
    step = make_step(workplace, inputs=[FileDataset(here / url)], output=here / output)
    if is_wrong:
        with pytest.raises(OutputError, match="is where the input"):
            step.submit()
        assert not list(here.rglob(".daskprs"))
    else:
        run = step.submit()
        run.cancel()
        run.wait_for_completion(raise_on_error=False)


ARGV = """
import sys

def run(mini_batch):
    return ["|".join(sys.argv[1:])] * len(mini_batch)
"""


def test_relative_paths_in_the_arguments_are_made_good_for_any_folder(
    workplace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of files that exist, alone or behind an option; other words stay as they are."""
    here = workplace.folder
    monkeypatch.chdir(here)
    (here / "model.bin").write_text("m")
    (here / "models").mkdir()
    (here / "scripts" / "inside").mkdir(parents=True)
    (here / "scripts" / "inside" / "w.bin").write_text("w")
    (here / "train").mkdir()
    words: dict[Any, str] = {
        "--model": "--model",
        "model.bin": str(here / "model.bin"),
        "--weights=model.bin": f"--weights={here / 'model.bin'}",
        "./models": str(here / "models"),
        Path("models"): str(here / "models"),
        "inside/w.bin": str(here / "scripts" / "inside" / "w.bin"),
        "--w=inside/w.bin": f"--w={here / 'scripts' / 'inside' / 'w.bin'}",
        "train": "train",
        "nowhere.bin": "nowhere.bin",
        "--rate=0.5": "--rate=0.5",
        "s3://bucket/model.bin": "s3://bucket/model.bin",
        "-m": "-m",
        3: "3",
        0.25: "0.25",
        "": "",
    }
    run = make_step(workplace, ARGV, arguments=list(words)).submit()
    assert run.wait_for_completion() == "Completed"
    assert set(workplace.rows()) == {"|".join(words.values())}


def test_a_plan_shows_the_mini_batches_and_what_only_a_cluster_can_tell(workplace: Any) -> None:
    """As a list, as text, and as a page on which no file name is code."""
    data = workplace.folder / "data"
    data.mkdir()
    for number in range(25):
        (data / f"<b>{number:02d}.bin").write_bytes(b"12")
    step = make_step(workplace, inputs=[FileDataset(data)], mini_batch_size=1)
    plan = step.plan()
    assert len(plan) == 25
    assert [mini_batch.index for mini_batch in plan] == list(range(25))
    assert (plan.nbytes, plan.later) == (50, [])
    assert repr(plan).splitlines()[0] == plan.summary == "25 mini-batches, 25 items, 50 bytes"
    assert "... and 5 more" in repr(plan)
    page = plan._repr_html_()
    assert "<b>00.bin" not in page
    assert "&lt;b&gt;00.bin" in page
    keyed = make_step(workplace, inputs=[FRAME], partition_keys=["a"]).plan()
    assert len(keyed) == 0
    assert keyed.later == ["dataframe: one for each combination of ['a']"]
    with pytest.raises(InputNotFoundError, match="nowhere"):
        make_step(workplace, inputs=[FileDataset("nowhere")]).plan()
    assert not workplace.output.exists()


SLOW = """
import time

def run(mini_batch):
    while os.path.exists(os.path.join(CALLS, "wait")):
        time.sleep(0.02)
    return [os.path.basename(path) for path in mini_batch]
"""


@pytest.mark.usefixtures("no_daskprs_threads")
def test_the_handle_on_a_run(workplace: Any) -> None:
    """Status, progress and report while it runs; events; a timeout of waiting; canceling."""
    wait = workplace.calls / "wait"
    wait.touch()
    step = make_step(workplace, SLOW, name="the-run", mini_batch_size=1)
    run = step.submit()
    events: list[Event] = []
    run.subscribe(events.append)
    run.subscribe(lambda event: 1 / 0)
    with pytest.raises(TimeoutError, match=r"'the-run' has not ended within 0.5 s"):
        run.wait_for_completion(timeout=0.5)
    assert (run.status, run.report.status) == ("Running", "Running")
    assert repr(run) == "ParallelRun('the-run', Running)"
    assert run.progress.done == 0
    with pytest.raises(OutputError, match="is in use"):
        step.submit()
    run.cancel()
    with pytest.raises(RunCanceledError, match="the same run goes on from there"):
        run.wait_for_completion()
    assert run.status == "Canceled"
    assert isinstance(events[-1], RunEnded)

    wait.unlink()
    again = step.submit()
    again.subscribe(events.append)
    assert again.wait_for_completion() == "Completed"
    assert again.progress.done == again.progress.total == 3
    kinds = [type(event) for event in events if not isinstance(event, RunEnded)]
    assert kinds.count(MiniBatchDone) == 3
    assert ClusterReady in kinds
    assert kinds.count(RunStarted) <= 2
    assert again.output_file == str(workplace.output / "parallel_run_step.txt")
    assert "<b>the-run</b>" in again._repr_html_()
    assert repr(step) == "ParallelRunStep('the-run', score.py)"
    assert sorted(workplace.rows()) == [f"f0000{number}.bin" for number in range(3)]


def test_what_is_wrong_on_the_way_to_the_output_is_told(workplace: Any) -> None:
    """A file in place of the folder; an output whose store nobody knows."""
    (workplace.folder / "file").write_text("x")
    for output in (workplace.folder / "file", "frob://x/out"):
        with pytest.raises(UsageError, match=f"output='{os.fspath(output)}"):
            make_step(workplace, output=output).submit()
