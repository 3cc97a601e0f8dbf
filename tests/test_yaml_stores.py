"""Outputs of jobs in a store, and what is elsewhere and cannot be reached."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from commands import in_process
from job_files import Place

from daskprs import UsageError, WriteFailedError

pytestmark = pytest.mark.usefixtures("no_daskprs_threads")

JOBS = """\
type: pipeline
inputs: {count: 3}
jobs:
  make:
    type: command
    code: code
    command: python make.py ${{outputs.files}} ${{inputs.count}} ${{outputs.direct}}
    inputs: {count: "${{parent.inputs.count}}"}
    outputs:
      files: {type: uri_folder, path: memory://store/files}
      direct: {type: uri_folder, path: memory://store/direct, mode: direct}
  score:
    type: parallel
    inputs:
      files: {type: uri_folder, path: "${{parent.jobs.make.outputs.files}}"}
    outputs:
      rows: {type: uri_file, path: memory://store/results/rows.csv}
      notes: {type: uri_folder, path: memory://store/notes}
    input_data: ${{inputs.files}}
    task:
      code: code
      entry_script: score.py
      program_arguments: --notes ${{outputs.notes}}
      append_row_to: ${{outputs.rows}}
  count:
    type: command
    inputs:
      rows: {type: uri_file, path: "${{parent.jobs.score.outputs.rows}}"}
    command: wc -l < ${{inputs.rows}}
"""

MAKE = """\
import os, sys
assert sys.argv[3] == "memory://store/direct"
for number in range(int(sys.argv[2])):
    with open(os.path.join(sys.argv[1], f"{number}.txt"), "w") as file:
        file.write("x" * number)
"""

SCORE = """\
import os, sys

def run(mini_batch):
    for path in mini_batch:
        with open(os.path.join(sys.argv[2], os.path.basename(path)), "w") as file:
            file.write("note")
    return [f"{os.path.basename(path)} {os.path.getsize(path)}" for path in mini_batch]
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.write("jobs.yml", JOBS)
    place.write("code/make.py", MAKE)
    place.write("code/score.py", SCORE)
    return place


@pytest.fixture
def store() -> Iterator[Any]:
    found = fsspec.filesystem("memory")
    yield found
    found.store.clear()
    found.pseudo_dirs[:] = [""]


def content(store: Any) -> dict[str, bytes]:
    return {path.removeprefix("/store/"): store.cat(path) for path in store.find("/store")}


def expected(count: int) -> dict[str, bytes]:
    files = {f"files/{n}.txt": b"x" * n for n in range(count)}
    notes = {f"notes/{n}.txt": b"note" for n in range(count)}
    rows = "".join(f"{n}.txt {n}\n" for n in range(count)).encode()
    return {**files, **notes, "results/rows.csv": rows}


def sorted_rows(found: dict[str, bytes]) -> dict[str, bytes]:
    rows = sorted(found["results/rows.csv"].splitlines(keepends=True))
    return {**found, "results/rows.csv": b"".join(rows)}


def test_outputs_are_copied_to_their_urls(place: Place, store: Any) -> None:
    """Those of commands and of parallel jobs; what another job reads is here."""
    run = place.complete("jobs.yml")
    assert sorted_rows(content(store)) == expected(3)
    assert place.lines("jobs.outputs/count/logs/std_log.txt") == ["3"]
    assert ("rows", "memory://store/results/rows.csv") in run.outputs("score")
    report = run.wait_for_start("make").report  # type: ignore[union-attr]
    assert report.outputs["files"] == "memory://store/files (3 files)"


def test_the_same_jobs_again_leave_there_what_they_have_written(place: Place, store: Any) -> None:
    """Nothing is copied twice, what is gone is copied again, and files of a last run that this
    one has not are removed; those of others stay."""
    place.complete("jobs.yml")
    store.pipe("/store/files/other.txt", b"other")
    before = {path: store.created(path) for path in store.find("/store")}
    place.complete("jobs.yml")
    assert {path: store.created(path) for path in store.find("/store")} == before
    store.rm("/store/files/1.txt")
    place.complete("jobs.yml")
    assert content(store)["files/1.txt"] == b"x"
    place.complete("jobs.yml", "inputs.count=2")
    found = sorted_rows(content(store))
    assert found.pop("files/other.txt") == b"other"
    # What a script writes beside its rows is its own affair: an earlier note is still here, too.
    assert found.pop("notes/2.txt") == b"note"
    assert found == expected(2)


def test_a_failed_job_copies_nothing(place: Place, store: Any) -> None:
    place.write("code/score.py", "def run(mini_batch): raise ValueError")
    assert place.run("jobs.yml").status("score")[0] == "Failed"
    assert set(content(store)) == {f"files/{n}.txt" for n in range(3)}


def test_a_copy_that_fails_is_told_and_done_again(
    place: Place, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work itself is not."""
    place.write("jobs.yml", JOBS.split("  score:", maxsplit=1)[0])
    with monkeypatch.context() as patch:
        patch.setattr(type(store), "put_file", refused)
        run = place.run("jobs.yml")
        assert isinstance(run.run.error, WriteFailedError)
        assert "the output 'files' could not be copied to 'memory://store/files'" in str(
            run.run.error
        )
    place.complete("jobs.yml")
    assert set(content(store)) == {f"files/{n}.txt" for n in range(3)}


def refused(*_: Any, **__: Any) -> None:
    raise OSError("no room")


@pytest.mark.parametrize("url", ["nosuch://store/files", "abfs://container/files"])
def test_a_store_that_cannot_be_used_is_found_before_any_work(
    url: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT_NAME"):
        monkeypatch.delenv(name, raising=False)
    job = place.load("jobs.yml", f"jobs.make.outputs.files.path={url}")
    with pytest.raises(UsageError, match=r"jobs\.yml, line \d+: jobs\.make: output='"):
        job.submit()
    assert not (place.folder / "jobs.outputs").exists()


def test_a_scheduler_that_cannot_be_reached_is_found_before_any_work(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daskprs.targets.CONNECT_SECONDS", 0.5)
    done = in_process("run", "jobs.yml", "--scheduler", "127.0.0.1:9", cwd=place.folder)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: the scheduler '127.0.0.1:9' cannot be reached")
    assert len(done.stderr.splitlines()) == 1
    assert not (place.folder / "jobs.outputs").exists()
