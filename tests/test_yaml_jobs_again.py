"""The same job file again goes on with what is unfinished, and does again only what has changed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from commands import command, journaled
from job_files import Place

from daskprs import OutputError

pytestmark = pytest.mark.usefixtures("no_daskprs_threads")

JOBS = """\
type: pipeline
inputs:
  count: 6
jobs:
  prepare:
    type: command
    code: commands
    command: python make.py ${{inputs.count}} ${{outputs.files}}
    inputs: {count: "${{parent.inputs.count}}"}
    outputs: {files: {type: uri_folder}}
  score:
    type: parallel
    inputs:
      files: {type: uri_folder, path: "${{parent.jobs.prepare.outputs.files}}"}
    outputs: {rows: {type: uri_file, path: azureml://datastores/x/paths/rows.txt}}
    input_data: ${{inputs.files}}
    mini_batch_size: 1
    max_concurrency_per_instance: 1
    task: {code: scripts, entry_script: score.py, append_row_to: "${{outputs.rows}}"}
"""

MAKE = """\
import os, sys, time

with open({marks!r} + "/make", "a") as file:
    file.write(".")
print("making", flush=True)
open("note-of-the-command.txt", "w").write(str(time.time()))  # beside its own code
for number in range(int(sys.argv[1])):
    with open(os.path.join(sys.argv[2], f"{{number}}.txt"), "w") as file:
        file.write("x" * number)
while os.path.exists({marks!r} + "/stop-make"):
    time.sleep(0.01)
"""

SCORE = """\
import os, time

def run(mini_batch):
    with open({marks!r} + "/score", "a") as file:
        file.write(".")
    while os.path.exists({marks!r} + "/stop-score") and mini_batch[0].endswith("3.txt"):
        time.sleep(0.01)
    return [f"{{os.path.basename(p)}} {{os.path.getsize(p)}}" for p in mini_batch]
"""

ROWS = "jobs.outputs/score/rows/rows.txt"


class Counted(Place):
    """A place whose commands and scripts count their calls."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.marks = folder / "marks"
        self.marks.mkdir()
        self.write("jobs.yml", JOBS)
        self.write("commands/make.py", MAKE.format(marks=str(self.marks)))
        self.write("scripts/score.py", SCORE.format(marks=str(self.marks)))

    @property
    def calls(self) -> tuple[int, int]:
        """How often the command was run, and run() called."""
        sizes = [self.marks / name for name in ("make", "score")]
        made, scored = (path.stat().st_size if path.exists() else 0 for path in sizes)
        return made, scored

    def stop_at(self, name: str) -> Path:
        path = self.marks / f"stop-{name}"
        path.touch()
        return path


@pytest.fixture
def place(tmp_path: Path) -> Counted:
    return Counted(tmp_path)


def expected(count: int) -> list[str]:
    return [f"{number}.txt {number}" for number in range(count)]


def test_what_has_not_changed_is_not_done_again(place: Counted) -> None:
    """Each change makes run what depends on it, and nothing else."""
    place.complete("jobs.yml")
    assert (place.calls, place.lines(ROWS)) == ((1, 6), expected(6))
    place.complete("jobs.yml")
    assert (place.calls, place.lines(ROWS)) == ((1, 6), expected(6))
    script = place.folder / "scripts/score.py"
    script.write_text(script.read_text() + "# other\n")
    place.complete("jobs.yml")
    assert place.calls == (1, 12)
    place.complete("jobs.yml", "inputs.count=4")
    assert (place.calls, place.lines(ROWS)) == ((2, 16), expected(4))
    code = place.folder / "commands/make.py"
    code.write_text(code.read_text() + "# other\n")
    place.complete("jobs.yml", "inputs.count=4")
    assert place.calls == (3, 20)
    (place.folder / "jobs.outputs/prepare/files/0.txt").unlink()  # somebody has
    place.complete("jobs.yml", "inputs.count=4")
    assert (place.calls, place.lines(ROWS)) == ((4, 24), expected(4))
    place.complete("jobs.yml", "inputs.count=4", "settings.force_rerun=true")
    assert place.calls == (5, 28)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_command_that_was_stopped_begins_anew(place: Counted, number: int) -> None:
    """Its process ends with ours, and its half outputs are gone before it begins again."""
    mark = place.stop_at("make")
    files = place.folder / "jobs.outputs/prepare/files"
    with command("run", "jobs.yml", "--quiet", cwd=place.folder) as started:
        started.wait_until(lambda: (files / "5.txt").exists())
        os.kill(started.process.pid, number)
        code, _, _ = started.end()
    assert code == (130 if number == signal.SIGINT else -number)
    (files / "half.txt").write_text("half")
    mark.unlink()
    place.complete("jobs.yml")
    assert (place.calls, place.lines(ROWS)) == ((2, 6), expected(6))


def test_a_parallel_job_that_was_killed_goes_on(place: Counted) -> None:
    """The command is not run again, and no mini-batch whose rows are there."""
    mark = place.stop_at("score")
    with command("run", "jobs.yml", "--quiet", cwd=place.folder) as started:
        score = place.folder / "jobs.outputs/score"
        started.wait_until(lambda: journaled(score) and place.calls == (1, 4))
        os.kill(started.process.pid, signal.SIGKILL)
        started.end()
    done = len(journaled(score))
    assert not (place.folder / ROWS).exists()
    mark.unlink()
    place.complete("jobs.yml")
    assert (place.calls, place.lines(ROWS)) == ((1, 4 + 6 - done), expected(6))


def test_two_at_a_time_are_not_let_into_one_folder(place: Counted) -> None:
    mark = place.stop_at("make")
    run = place.load("jobs.yml").submit()
    while place.calls[0] == 0:
        time.sleep(0.01)
    with pytest.raises(OutputError, match="in use"):
        place.load("jobs.yml").submit()
    mark.unlink()
    assert run.wait() == "Completed"


def test_files_of_somebody_else_are_not_removed(place: Counted) -> None:
    """An output folder with files in it that no run has written."""
    other = place.write("jobs.outputs/prepare/files/mine.txt", "mine")
    run = place.run("jobs.yml")
    assert "'files' is not empty" in run.status("prepare")[1]
    assert other.read_text() == "mine"


def test_a_failed_run_does_not_leave_the_rows_of_an_earlier_one(place: Counted) -> None:
    """Where the rows are shown stands nothing that is not of the last run."""
    place.complete("jobs.yml")
    place.write("scripts/score.py", "def run(mini_batch):\n    raise ValueError\n")
    assert place.run("jobs.yml").status("score")[0] == "Failed"
    assert not (place.folder / ROWS).exists()
