"""Wrong command lines: said in a line or two, with exit code 2, and nothing is touched."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from commands import DASKPRS, command, content_of, daskprs, environment

from daskprs import ParallelRunConfig

RUN = "run s.py --files in --output out"
TABLES = "run s.py --tabular tables --output out"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scripts, inputs, and the output of a run that has completed."""
    folder = tmp_path_factory.mktemp("usage")
    (folder / "s.py").write_text("def run(mini_batch):\n    return mini_batch\n")
    (folder / "norun.py").write_text("def ruin(mini_batch):\n    return mini_batch\n")
    (folder / "syntax.py").write_text("def run(mini_batch:\n")
    (folder / "three.py").write_text("def run(a, b, c):\n    return a\n")
    (folder / "in").mkdir()
    (folder / "in" / "a.bin").write_bytes(b"1")
    (folder / "tables").mkdir()
    (folder / "tables" / "a.csv").write_text("a,b\n1,2\n")
    (folder / "nosuffix").mkdir()
    (folder / "nosuffix" / "rows").write_text("a,b\n1,2\n")
    (folder / "settings").mkdir()
    (folder / "settings" / "s.py").write_text("def run(mini_batch):\n    return mini_batch\n")
    (folder / "settings" / "parallel_run_step.settings.json").write_text("{")
    done = daskprs(*RUN.split(), "--process-count-per-node", 1, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


# command line -> the word that is wrong
WRONG = {
    "": "command",
    "frob": "frob",
    "run": "SCRIPT",
    "run s.py": "--files",
    "run s.py --files in": "--output",
    "run s.py --output out": "--files",
    "run s.py --files --output out": "--files",
    "run s.py --output out --tabular": "--tabular",
    "run --output out --files in s.py": "SCRIPT",
    f"{RUN} --tabular tables": "--tabular",
    f"{RUN} --frob": "--frob",
    f"{RUN} --mini-batch-siz 3": "--mini-batch-siz",
    f"{RUN} --mini-batch-size 0": "--mini-batch-size",
    f"{RUN} --mini-batch-size 10XB": "10XB",
    f"{RUN} --mini-batch-size 10MB": "10MB",
    f"{RUN} --error-threshold -2": "--error-threshold",
    f"{RUN} --error-threshold few": "few",
    f"{RUN} --error-threshold": "--error-threshold",
    f"{RUN} --allowed-failed-count -2": "--allowed-failed-count",
    f"{RUN} --allowed-failed-percent 101": "--allowed-failed-percent",
    f"{RUN} --allowed-failed-percent nan": "--allowed-failed-percent",
    f"{RUN} --output-action append": "append",
    f"{RUN} --output-format xls": "xls",
    f"{RUN} --append-row-file-name a/b": "a/b",
    f"{RUN} --append-row-file-name logs": "--append-row-file-name",
    f"{RUN} --append-row-file-name Logs.previous": "--append-row-file-name",
    f"{RUN} --append-row-file-name .daskprs": "--append-row-file-name",
    f"{RUN} --output other": "--output is given 2 times",
    f"{RUN} --ordered --ordered": "--ordered is given 2 times",
    f"{RUN} --node-count 0": "--node-count",
    f"{RUN} --process-count-per-node 0": "--process-count-per-node",
    f"{RUN} --run-invocation-timeout 0": "--run-invocation-timeout",
    f"{RUN} --run-invocation-timeout inf": "--run-invocation-timeout",
    f"{RUN} --run-max-try 0": "--run-max-try",
    f"{RUN} --init-timeout -1": "--init-timeout",
    f"{RUN} --memory-limit-per-process much": "--memory-limit-per-process",
    f"{RUN} --logging-level LOUD": "LOUD",
    f"{RUN} --scheduler nonsense": "it must be a scheduler's address",
    f"{RUN} --scheduler http://127.0.0.1:1": "--scheduler",
    f"{RUN} --env FOO": "FOO",
    f"{RUN} --side-input words": "NAME=URL",
    f"{RUN} --side-input words=nowhere": "--side-input='words': no input files matched 'nowhere'",
    f"{RUN} --side-input words=frob://x": "frob://x",
    f"{RUN} --side-input 1=in": "--side-input",
    f"{RUN} --reader-option sep=;": "--reader-option is for --tabular only",
    f"{RUN} --format csv": "--format is for --tabular only",
    f"{RUN} --partition-keys user": "--partition-keys",
    f"{RUN} --partition-keys user --mini-batch-size 3": "--partition-keys",
    f"{RUN} --partition-keys user --partition-format {{season}}.bin": "user",
    f"{RUN} --partition-format nothing": "--partition-format",
    f"{RUN} --name Digits": "Digits",
    f"{RUN} --name=": "--name=''",
    f"{RUN} --source-directory nowhere": "--source-directory",
    f"{RUN} --source-directory in": "s.py",
    f"{RUN} more": "more",
    "run nowhere.py --files in --output out": "nowhere.py",
    "run in --files in --output out": "in",
    "run norun.py --files in --output out": "norun.py",
    "run syntax.py --files in --output out": "line 1",
    "run three.py --files in --output out": "three.py",
    "run settings/s.py --files in --output out": "parallel_run_step.settings.json",
    "run s.py --files nowhere --output out": "nowhere",
    "run s.py --files in in/*.png --output out": "in/*.png",
    "run s.py --files frob://x/y --output out": "frob://x/y",
    "run s.py --files in --output frob://x/y": "frob://x/y",
    "run s.py --files in --output s.py": "s.py",
    "run s.py --files in --output in": "in",
    "run s.py --files out --output out": "out",
    "run s.py --tabular nosuffix --output out": "nosuffix/rows",
    f"{TABLES} --format xls": "xls",
    f"{TABLES} --reader-option frob=1": "frob",
    f"{TABLES} --reader-option format=csv": "format",
    f"{TABLES} --partition-keys c": "--partition-keys",
    "plan s.py": "--files",
    "plan s.py --files nowhere": "nowhere",
    "report": "OUTPUT",
    "report nowhere": "nowhere",
    "report out --frob": "--frob",
}


Told = tuple[int, str, str]

# What the command `daskprs` does, for one line after the other, without its start each time.
PROGRAM = """
    import contextlib, io, json, sys
    from daskprs.cli import main

    told = {}
    for line in json.load(sys.stdin):
        sys.argv = ["daskprs", *line.split()]
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as end:
                code = end.code
        texts = []
        for stream in (out, err):
            stream.flush()
            texts.append(stream.buffer.getvalue().decode())
        told[line] = (code, *texts)
    json.dump(told, sys.stdout)
"""


@pytest.fixture(scope="module")
def told(place: Path) -> dict[str, Told]:
    """What every wrong command line leads to: exit code, stdout and stderr."""
    before = content_of(place)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        cwd=place, env=environment(), input=json.dumps(list(WRONG)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert content_of(place) == before, "nothing of the earlier output was touched"
    assert done.stderr == ""
    return {line: tuple(answer) for line, answer in json.loads(done.stdout).items()}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_command_line_is_answered_in_two_lines(told: dict[str, Told], line: str) -> None:
    """Exit code 2, and at most two lines that name the wrong word."""
    code, out, err = told[line]
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert lines[0].startswith("Error: ")
    assert len(lines) <= 2
    assert WRONG[line] in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "line", ["", f"{RUN} --frob", "run syntax.py --files in --output out", "report nowhere"]
)
def test_the_installed_command_gives_the_same_answer(
    place: Path, told: dict[str, Told], line: str
) -> None:
    done = daskprs(*line.split(), cwd=place)
    assert (done.returncode, done.stdout, done.stderr) == told[line]


def test_an_output_folder_in_use_is_wrong_usage(place: Path, tmp_path: Path) -> None:
    """Two runs into one folder at a time would mix their rows."""
    (place / "slow.py").write_text(
        "import time\ndef run(mini_batch):\n    time.sleep(60)\n    return mini_batch\n"
    )
    words = ["run", "slow.py", "--files", "in", "--output", tmp_path / "used"]
    lock = tmp_path / "used" / ".daskprs"
    with command(*words, cwd=place) as first:
        first.wait_until(lambda: lock.is_dir() and any(lock.glob("lock-*")))
        told = daskprs(*words, cwd=place)
    assert told.returncode == 2
    assert "is in use: process" in told.stderr
    assert len(told.stderr.splitlines()) == 1


@pytest.fixture(scope="module", autouse=True)
def unreachable(place: Path) -> Iterator[subprocess.Popen[str]]:
    """A command that waits for a scheduler while the other tests run."""
    shutil.copytree(place / "out", place / "out2")
    words = [DASKPRS, *RUN.replace("--output out", "--output out2").split(), "--no-reuse"]
    words += ["--scheduler", "tcp://127.0.0.1:1"]
    process = subprocess.Popen(
        words, cwd=place, env=environment(), stderr=subprocess.PIPE, text=True
    )
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def test_every_field_of_the_configuration_is_an_option(place: Path) -> None:
    """Of the same name in kebab-case, but for the few that have a better one."""
    told = daskprs("run", "--help", cwd=place).stdout
    others = {
        "entry_script": "SCRIPT",
        "compute_target": "--scheduler",
        "environment_variables": "--env",
    }
    for field in fields(ParallelRunConfig):
        option = others.get(field.name, f"--{field.name.replace('_', '-')}")
        assert f"{option} " in told.replace("\n", " "), option


def test_wrong_usage_is_told_without_waiting_for_dask_or_pandas(place: Path) -> None:
    """They take a second to import, and whoever has mistyped something waits for nothing."""
    program = """
        import contextlib, io, sys
        import daskprs
        heavy = {"dask", "distributed", "pandas", "pyarrow"}
        assert not heavy & set(sys.modules), "import daskprs"
        from daskprs.cli import main
        for line in sys.argv[1:]:
            sys.argv = ["daskprs", *line.split()]
            with contextlib.redirect_stderr(io.TextIOWrapper(io.BytesIO())):
                try:
                    main()
                except SystemExit as end:
                    assert end.code == 2, line
            assert not heavy & set(sys.modules), line
    """
    lines = ["frob", "run", f"{RUN} --frob", f"{RUN} --run-max-try 0", f"{RUN} --scheduler x",
             "run norun.py --files in --output out", "run nowhere.py --files in --output out",
             "run s.py --files nowhere --output out", "report nowhere"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *lines],
        cwd=place, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_scheduler_that_cannot_be_reached_is_wrong_usage(
    place: Path, unreachable: subprocess.Popen[str]
) -> None:
    """It is found out before the earlier output is touched."""
    before = content_of(place / "out2")
    _, told = unreachable.communicate(timeout=60)
    assert unreachable.returncode == 2
    assert "tcp://127.0.0.1:1" in told
    assert len(told.splitlines()) <= 2
    assert content_of(place / "out2") == before == content_of(place / "out")
    assert before["parallel_run_step.txt"].endswith(b"a.bin\n")


def test_a_ctrl_c_that_python_loses_stops_the_command_all_the_same(
    place: Path, tmp_path: Path
) -> None:
    """An exception in a callback of Python's own, as imports have many of, goes no further."""
    program = """
        import signal, sys, weakref
        from daskprs import cli

        make_step = cli._make_step

        class Lost:
            pass

        def press(*given):
            lost = Lost()
            callback = weakref.ref(lost, lambda _: signal.raise_signal(signal.SIGINT))
            del lost
            return make_step(*given)

        cli._make_step = press
        cli.main()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *RUN.split()[:-1], str(tmp_path / "out")],
        cwd=place, env=environment(), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert "Exception ignored" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Canceled.")
    assert not (tmp_path / "out" / "parallel_run_step.txt").exists()
