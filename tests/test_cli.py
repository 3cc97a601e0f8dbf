"""`daskprs run`, `plan` and `report` from a shell: options, arguments, exit codes, Ctrl-C."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from commands import (
    DASKPRS,
    Command,
    command,
    content_of,
    daskprs,
    in_process,
    journaled,
    report_of,
)

EVERYTHING = """
import argparse
import logging
from ..helper import double

parser = argparse.ArgumentParser()
parser.add_argument("--factor", type=int, required=True)
parser.add_argument("--model", required=True)
parser.add_argument("--words", required=True)
parser.add_argument("--tables", required=True)
args = parser.parse_args()

def init():
    global words, level
    mark("init")
    level = logging.getLogger().level
    words = open(args.words).read() + open(args.model).read()
    words += "".join(sorted(os.listdir(args.tables)))

def run(mini_batch):
    import pandas as pd
    mark("run")
    names = [os.path.basename(path) for path in mini_batch]
    rows = [(name, double(args.factor), words, os.environ["COLOUR"], level) for name in names]
    return pd.DataFrame(rows, columns=["name", "factor", "words", "colour", "level"])
"""


def test_every_option_reaches_the_run_and_its_script(workplace: Any) -> None:
    """All fields of the configuration, arguments, environment, side inputs; then it is reused."""
    here = workplace.folder
    workplace.script(EVERYTHING, "src/pkg/score.py")
    (here / "src" / "helper.py").write_text("def double(n):\n    return 2 * n\n")
    (here / "src" / "model.txt").write_text("M")
    (here / "my words.txt").write_text("W")
    (here / "tables").mkdir()
    (here / "tables" / "t1").write_text("")
    inputs = here / "in put"
    inputs.mkdir()
    names = ["plain.bin", "two words.bin", "ünï.bin", "日本.bin", "a,b.bin", '"q".bin', "x.txt"]
    for name in names:
        (inputs / name).write_bytes(b"x")
    words = ["run", "pkg/score.py", "--files", "in put/*.bin", inputs / "x.txt", "--output", "out"]
    words += ["--source-directory", "src", "--mini-batch-size", 2, "--name", "everything"]
    words += ["--append-row-file-name", "rows.csv", "--output-format", "CSV", "--ordered"]
    words += ["--output-action", "append_row", "--logging-level", "warn", "--node-count", 1]
    words += ["--environment", "none", "--description", "Aufruf für alle"]
    words += ["--env", "COLOUR=red=blue", "--side-input", "words=my words.txt"]
    words += ["--side-input=tables=tables", "--storage-option", "auto_mkdir=false"]
    changeable = ["--error-threshold", 0, "--allowed-failed-count", 0, "--allowed-failed-percent"]
    changeable += ["0.5", "--run-invocation-timeout", 30, "--run-max-try", 2, "--init-timeout", 60]
    changeable += ["--first-task-creation-timeout", 60, "--progress-update-timeout", 60]
    changeable += ["--process-count-per-node", 2, "--memory-limit-per-process", "2GB"]
    arguments = ["--", "--factor", "21", "--model=src/model.txt"]
    done = daskprs(*words, *changeable, *arguments, cwd=here)
    assert done.returncode == 0, done.stderr

    with (here / "out" / "rows.csv").open(newline="", encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)
    assert header == ["name", "factor", "words", "colour", "level"]
    assert Counter(map(tuple, rows)) == Counter((n, "42", "WMt1", "red=blue", "30") for n in names)
    assert [row[0] for row in rows] == [*sorted(names[:-1]), "x.txt"]
    output_file = str(here / "out" / "rows.csv")
    assert f"Output        {output_file}\n" in done.stdout

    told = json.loads(daskprs("report", "out", "--json", cwd=here).stdout)
    assert told["status"] == "Completed"
    assert told["mini_batches"] == {"total": 4, "succeeded": 4, "failed": 0}
    assert told["items"] == {"total": 7, "succeeded": 7, "failed": 0}
    assert told["output_file"] == output_file
    assert 0 < told["seconds"] < 60
    assert told["failures"] == []
    assert (told["name"], told["description"]) == ("everything", "Aufruf für alle")
    calls = workplace.count("run")
    assert calls == 4

    before = content_of(here / "out")
    again = daskprs(*words, "--run-max-try", 9, "--quiet", *arguments, cwd=here)
    assert (again.returncode, again.stderr) == (0, "")
    assert "Completed (reused)" in again.stdout
    assert workplace.count("run") == calls
    assert content_of(here / "out") == before


FAILING = """
import argparse
import sys

known, unknown = argparse.ArgumentParser().parse_known_args()
sys.stdout.write(repr(unknown))

def run(mini_batch):
    for path in mini_batch:
        mark(os.path.basename(path))
        if path.endswith(("1.bin", "3.bin")):
            raise ValueError("cannot read " + os.path.basename(path))
    return [" ".join(unknown)] * len(mini_batch)
"""


def test_a_run_that_fails_shows_the_scripts_traceback_first_and_goes_on(workplace: Any) -> None:
    """Exit code 1, the rows in the partial file; the same command with another limit completes."""
    here = workplace.folder
    workplace.script(FAILING, "score.py")
    workplace.files(5, "in")
    words = ["run", "score.py", "--files", "in", "--output", "out", "--mini-batch-size", 1]
    words += ["--run-max-try", 2, "--process-count-per-node", 1, "--quiet"]
    arguments = ["--", "-x", "--frob", "file name", "--run-max-try", "7"]
    failed = daskprs(*words, "--error-threshold", 1, *arguments, cwd=here)
    assert failed.returncode == 1
    first, _, ours = failed.stderr.partition("\n\n")
    assert first.startswith("Traceback (most recent call last):\n")
    assert f'File "{here}/score.py"' in first
    assert first.splitlines()[-1] == "ValueError: cannot read f00001.bin"
    assert "daskprs/" not in first
    assert ours.startswith("Error: 2 failed items exceed error_threshold=1")
    partial = here / "out" / "parallel_run_step.txt.partial"
    assert str(partial) in ours
    rows = partial.read_text().splitlines()
    assert set(rows) == {"-x --frob file name --run-max-try 7"}
    assert not (here / "out" / "parallel_run_step.txt").exists()
    told = report_of(here / "out")
    assert (told["status"], told["output_file"]) == ("Failed", str(partial))
    assert told["items"]["failed"] == 2
    assert "Status        Failed" in failed.stdout

    done = in_process(*words, *arguments, cwd=here)
    assert done.returncode == 0, done.stderr
    assert (here / "out" / "parallel_run_step.txt").read_text().splitlines() == rows[:1] * 3
    told = report_of(here / "out")
    assert told["mini_batches"] == told["items"] == {"total": 5, "succeeded": 3, "failed": 2}
    shown = [{name: failure[name] for name in ("mini_batch", "items", "tries")}
             for failure in told["failures"]]  # fmt: skip
    expected = [{"mini_batch": number, "items": 1, "tries": 2} for number in (1, 3)]
    assert sorted(shown, key=lambda failure: failure["mini_batch"]) == expected
    errors = {f["mini_batch"]: f["error"].splitlines()[0] for f in told["failures"]}
    assert errors == {n: f"ValueError: cannot read f0000{n}.bin" for n in (1, 3)}
    # What had succeeded was not run again, what had failed was.
    kept = told["kept"]
    assert kept == len(rows)
    assert [workplace.count(f"f0000{n}.bin") for n in (1, 3)] == [4, 4]
    assert sum(workplace.count(f"f0000{n}.bin") == 1 for n in (0, 2, 4)) >= kept


SLOW = """
import time

def run(mini_batch):
    if not os.path.exists(os.path.join(CALLS, "in_a_hurry")):
        time.sleep(0.5)
    name = os.path.basename(mini_batch[0])
    mark(name)
    return [name]
"""

COUNT = 24


def interrupted(started: Command, how: str) -> tuple[int, str, str]:
    """Interrupt a command that runs: once, as SIGTERM, or twice."""
    if how == "SIGTERM":
        started.process.send_signal(signal.SIGTERM)
    else:
        started.interrupt()
    if how == "twice":
        assert started.process.stderr is not None
        assert started.process.stderr.readline().startswith("Stopping; what is done is kept.")
        started.interrupt()
    return started.end()


@pytest.mark.parametrize("how", ["once", "SIGTERM", "twice"])
def test_after_ctrl_c_the_same_command_goes_on(workplace: Any, how: str) -> None:
    """Exit code 130; rows that were done are kept, and run() is not called for them again."""
    here, out = workplace.folder, workplace.output
    workplace.script(SLOW, "score.py")
    workplace.files(COUNT, "in")
    words = ["run", "score.py", "--files", "in", "--output", "out", "--mini-batch-size", 1]
    words += ["--process-count-per-node", 2]
    with command(*words, cwd=here) as started:
        started.wait_until(lambda: len(journaled(out)) > 3)
        running = report_of(out)
        code, printed, told = interrupted(started, how)
    assert (running["status"], running["output_file"][-8:]) == ("Running", ".partial")
    assert code == 130
    assert "Traceback" not in told
    report = report_of(out)
    if how == "twice":
        assert told.splitlines()[-1].startswith("Stopped at once.")
        assert report["status"] == "Interrupted"
        assert "the same command again goes on" in report["message"]
    else:
        assert told.splitlines()[-1] == "Canceled. The same command goes on from there."
        assert "Status        Canceled" in printed
        assert report["status"] == "Canceled"
        assert report["items"]["succeeded"] == len(journaled(out))
        partial = (out / "parallel_run_step.txt.partial").read_text().splitlines()
        assert len(partial) == len(journaled(out))
        assert (out / "logs" / "job_result.txt").read_text() == "Canceled\n"
    assert not (out / "parallel_run_step.txt").exists()
    kept = journaled(out)
    assert 3 < len(kept) < COUNT

    (workplace.calls / "in_a_hurry").touch()
    done = in_process(*words, cwd=here)
    assert done.returncode == 0, done.stderr
    names = [f"f{number:05d}.bin" for number in range(COUNT)]
    assert workplace.row_counts() == Counter(names)
    assert all(workplace.count(names[index]) == 1 for index in kept)
    assert report_of(out)["kept"] == len(kept)
    assert (out / "logs" / "job_result.txt").read_text() == "Completed\n"
    assert not (out / "logs" / "job_error.txt").exists()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_whose_streams_are_closed_does_its_work(workplace: Any, closed: str) -> None:
    """As what starts programs at night may do."""
    workplace.files(3)
    workplace.script("def run(mini_batch): return list(map(os.path.basename, mini_batch))", "s.py")
    line = f"exec {DASKPRS} run s.py --files input --output out {closed}"
    done = subprocess.run(
        ["sh", "-c", line], cwd=workplace.folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr
    assert sorted(workplace.rows()) == ["f00000.bin", "f00001.bin", "f00002.bin"]


def test_a_line_of_the_plan_is_a_line_whatever_the_names_are(workplace: Any) -> None:
    here = workplace.folder
    workplace.script("def run(mini_batch):\n    return mini_batch\n", "score.py")
    place = workplace.files(0, "in")
    (place / "a\nb\tc.txt").touch()
    told = daskprs("plan", "score.py", "--files", "in", cwd=here)
    assert told.stdout.splitlines()[1].split("\t") == ["0", "1", "0", rf"{place}/a\nb\tc.txt"]


def test_plan_shows_the_mini_batches_and_reads_no_data(workplace: Any) -> None:
    """Files that are no tables at all are planned like others: only their sizes count."""
    here = workplace.folder
    workplace.script("def run(mini_batch):\n    return mini_batch\n", "score.py")
    workplace.files(5, "in", size=7)
    told = daskprs("plan", "score.py", "--files", "in", "--mini-batch-size", "2", cwd=here)
    assert (told.returncode, told.stderr) == (0, "")
    head, *rows, total = told.stdout.splitlines()
    assert head.split("\t") == ["mini-batch", "items", "bytes", "input"]
    cells = [row.split("\t") for row in rows]
    assert [row[:3] for row in cells] == [["0", "2", "14"], ["1", "2", "14"], ["2", "1", "7"]]
    assert cells[2][3] == str(here / "in" / "f00004.bin")
    assert total == "3 mini-batches, 5 items, 35 bytes"

    tables = here / "tables"
    tables.mkdir()
    (tables / "a.parquet").write_bytes(b"?" * 2500)
    (tables / "b.csv.gz").write_bytes(b"?" * 2500)
    (tables / "c.csv").write_bytes(b'"' * 2500)
    (tables / "empty.csv").write_bytes(b"")
    told = in_process(
        "plan", "score.py", "--tabular", "tables", "--mini-batch-size", "1KB", cwd=here
    )
    assert told.returncode == 0, told.stderr
    planned = [row.split("\t")[3].split("/")[-1] for row in told.stdout.splitlines()[1:-1]]
    expected = [f"a.parquet part {n} of 3" for n in (1, 2, 3)] + ["b.csv.gz"]
    assert planned == expected + [f"c.csv part {n} of 3" for n in (1, 2, 3)]
    assert not (here / "out").exists()


PARTITIONED = """
def run(mini_batch, context):
    keys = sorted(context.partition_key_value.items())
    if isinstance(mini_batch, list):
        return [f"{keys} {os.path.basename(path)}" for path in mini_batch]
    return [f"{keys} {sorted(row.items())}" for row in mini_batch.to_dict("records")]
"""


def test_partitions_by_paths_and_by_columns(workplace: Any) -> None:
    """One mini-batch for each combination: of keys in the paths of files and tables, of columns."""
    here = workplace.folder
    workplace.script(PARTITIONED, "score.py")
    expected: dict[str, Counter[str]] = {"files": Counter(), "paths": Counter(), "both": Counter()}
    for user in ("ann", "bob"):
        for season in ("1", "2"):
            folder = here / "data" / user / f"s{season}"
            folder.mkdir(parents=True)
            (folder / "x.csv").write_text("b;c\n1;x\n2;y\n")
            path_keys = [("season", season), ("user", user)]
            expected["files"][f"{path_keys} x.csv"] += 1
            for b, c in ((1, "x"), (2, "y")):
                row = [("b", b), ("c", c), ("season", season), ("user", user)]
                expected["paths"][f"{[('user', user)]} {row}"] += 1
                expected["both"][f"{[('b', b), ('user', user)]} {row}"] += 1
    path = ["--partition-format", "{user}/s{season}/x.csv", "--process-count-per-node", 1]
    table = ["--tabular", "data", *path, "--reader-option", "sep=;"]
    options: dict[str, list[Any]] = {
        "files": ["--files", "data", *path, "--partition-keys", "user,season"],
        "paths": [*table, "--partition-keys", "user"],
        "both": [*table, "--partition-keys", "user, b"],
    }
    counts = {"files": 4, "paths": 2, "both": 4}
    for kind, words in options.items():
        done = in_process("run", "score.py", *words, "--output", kind, cwd=here)
        assert done.returncode == 0, done.stderr
        rows = (here / kind / "parallel_run_step.txt").read_text().splitlines()
        assert Counter(rows) == expected[kind]
        assert report_of(here / kind)["mini_batches"]["total"] == counts[kind]


def test_a_report_shows_what_no_terminal_can(tmp_path: Path) -> None:
    """Names that are not UTF-8, and letters that the terminal's encoding does not have."""
    from daskprs import RunReport
    from daskprs.report import Failure

    failure = Failure(0, 1, "ValueError: \udc80\n[...]", 3, "/in/f\udcff日.bin")
    report = RunReport("odd", status="Failed", message="ünï \udcff", failures=[failure])
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "report.json").write_text(report.to_json(), "utf-8")
    for encoding in ("ascii", "utf-8"):
        told = daskprs("report", ".", cwd=tmp_path, env={"PYTHONIOENCODING": encoding})
        assert (told.returncode, told.stderr) == (0, "")
        assert "日.bin" in told.stdout
        as_json = daskprs("report", ".", "--json", cwd=tmp_path, env={"PYTHONIOENCODING": encoding})
        assert json.loads(as_json.stdout)["failures"][0]["input"] == failure.input
