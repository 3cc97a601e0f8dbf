"""Runs where nobody waits, and in a notebook, whose kernel has an event loop of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

MAKE = """
from pathlib import Path
from daskprs import FileDataset, ParallelRunConfig, ParallelRunStep

def step(target, output):
    config = ParallelRunConfig(entry_script="score.py", mini_batch_size=1, compute_target=target,
                               process_count_per_node=1, run_max_try=1)
    return ParallelRunStep("in-a-notebook", config, inputs=[FileDataset("input")], output=output)
"""
LOCAL = """
run = step(None, "local").submit()
print(run.wait_for_completion(show_output=True))
"""
CLUSTER = """
from distributed import Client, LocalCluster

with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=":0") as cluster:
    with Client(cluster) as client:
        run = step(client, "cluster").submit()
        print(run.wait_for_completion(show_output=True))
"""
REPORT = "run"
FAILING = """
Path("score.py").write_text("def run(mini_batch): raise ValueError('bad item')")
step(None, "failing").submit().wait_for_completion()
"""


@pytest.fixture
def place(workplace: Any) -> Path:
    workplace.script("def run(mini_batch): return [os.path.basename(mini_batch[0])]", "score.py")
    workplace.files(5)
    folder: Path = workplace.folder
    return folder


def execute(place: Path, *cells: str) -> list[list[dict[str, Any]]]:
    """Run the cells in a kernel of their own; return the outputs of each."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    NotebookClient(
        notebook, timeout=90, allow_errors=True, resources={"metadata": {"path": str(place)}}
    ).execute()
    return [cell["outputs"] for cell in notebook["cells"]]


def test_runs_in_a_notebook(place: Path) -> None:
    """On this machine and on a cluster: progress as HTML, the status, the report, no traceback."""
    made, local, cluster, report, failing = execute(place, MAKE, LOCAL, CLUSTER, REPORT, FAILING)
    assert made == []
    for outputs in (local, cluster):
        kinds = {output["output_type"] for output in outputs}
        assert "error" not in kinds
        html = [o["data"]["text/html"] for o in outputs if o["output_type"] == "display_data"]
        assert len(html) == 1, "it is replaced in place"
        assert "<progress value='5' max='5'" in html[0]
        assert "Completed" in html[0]
        text = "".join(o["text"] for o in outputs if o["output_type"] == "stream")
        assert text == "Completed\n"
    for name in ("local", "cluster"):
        rows = (place / name / "parallel_run_step.txt").read_text().split()
        assert sorted(rows) == [f"f{number:05d}.bin" for number in range(5)]
    assert "<table" in report[0]["data"]["text/html"]
    (error,) = [o for o in failing if o["output_type"] == "error"]
    assert error["ename"] == "NothingSucceededError"
    assert error["evalue"].startswith("Traceback (most recent call last)")
    assert "bad item" in error["evalue"]


SUBMIT = f"{MAKE}\nstep(None, 'out').submit()\n"


# Rarely, the loop of Dask's cluster ends before a wait with a limit, and tells of it.
OF_DASK = (
    "Future exception was never retrieved",
    "future: <Future finished exception=TimeoutError('Timeout')>",
    "TimeoutError: Timeout",
)


def test_a_script_that_does_not_wait_gets_its_run_done(place: Path) -> None:
    """Though nobody keeps the run, Python ends when it has ended."""
    done = subprocess.run(
        [sys.executable, "-c", SUBMIT], cwd=place, capture_output=True, text=True, timeout=60
    )
    told = [line for line in done.stderr.splitlines() if not line.endswith(OF_DASK)]
    assert (done.returncode, done.stdout, told) == (0, "", [])
    assert len((place / "out" / "parallel_run_step.txt").read_text().split()) == 5


def test_a_script_that_does_not_wait_says_that_its_run_failed(place: Path) -> None:
    (place / "score.py").write_text("def run(mini_batch): raise ValueError('bad item')")
    done = subprocess.run(
        [sys.executable, "-c", SUBMIT], cwd=place, capture_output=True, text=True, timeout=60
    )
    assert "the run 'in-a-notebook' is Failed." in done.stderr
    assert "ValueError: bad item" in done.stderr
