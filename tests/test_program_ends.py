"""A program that ends without waiting for what it has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from clusters import wait_until

SUBMIT = """
import sys
from daskprs import FileDataset, ParallelRunConfig, ParallelRunStep
config = ParallelRunConfig(entry_script=sys.argv[1], mini_batch_size=1, process_count_per_node=1)
ParallelRunStep("not-waited-for", config, [FileDataset(sys.argv[2])], sys.argv[3]).submit()
"""
PIPELINE = (
    SUBMIT
    + """
from daskprs.pipelines import Data, ParallelStep, Pipeline, StepOutput, Workspace
one, two = StepOutput("one"), StepOutput("two")
steps = [ParallelStep("first", config, [Data.files(sys.argv[2])], one),
         ParallelStep("second", config, [one], two)]
Pipeline(Workspace.create(sys.argv[4]), steps).submit("test")
"""
)
SLOW = """
import time
def run(mini_batch):
    mark("run")
    time.sleep(0.2)
    return [os.path.basename(mini_batch[0])]
"""


def start(workplace: Any, program: str) -> subprocess.Popen[str]:
    script = workplace.script(SLOW)
    scratch = workplace.folder / "scratch"
    scratch.mkdir(exist_ok=True)
    given = [script, workplace.folder / "input", workplace.output, workplace.folder / "workspace"]
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, given)],
        env={**os.environ, "TMPDIR": str(scratch)},
        stderr=subprocess.PIPE,
        text=True,
    )


def left_in(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.glob("dask-scratch-space/daskprs-*"))


def test_ctrl_c_cancels_the_run_and_is_how_the_program_ends(workplace: Any) -> None:
    """Nobody takes it for a success; nothing is left, and the same program goes on."""
    workplace.files(20)
    process = start(workplace, SUBMIT)
    wait_until(lambda: workplace.count("run") > 2)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT, told
    assert "the run 'not-waited-for' is Canceled." in told
    assert "the same run goes on from there" in told
    assert "Traceback" not in told
    assert left_in(workplace.folder / "scratch") == []
    calls = workplace.count("run")
    assert 2 < calls < 20
    again = start(workplace, SUBMIT)
    _, told = again.communicate(timeout=30)
    assert (again.returncode, told) == (0, "")
    assert sorted(workplace.rows()) == [f"f{number:05d}.bin" for number in range(20)]
    assert workplace.count("run") < 20 + calls


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_cancels_a_pipeline_and_the_run_beside_it(workplace: Any, times: int) -> None:
    """One is enough for both; a second one does not wait for the end."""
    workplace.files(30)
    process = start(workplace, PIPELINE)
    wait_until(lambda: workplace.count("run") > 2)
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    _, told = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT, told
    assert "Traceback" not in told
    assert workplace.count("run") < 30, "of 60"
