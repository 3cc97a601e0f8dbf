"""`run_entry_script`: a user's own test of an entry script, without a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from entry_hosts import write

from daskprs import EntryScriptError, InitFailedError, MiniBatchFailedError, UsageError
from daskprs.testing import EntryScriptResult, run_entry_script


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files for mini-batches; we are in it."""
    write(tmp_path, {"in/a.txt": "1", "in/b.txt": "22", "in/[c].txt": "333"})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(script: str, mini_batch: Any = "in/a.txt", *more: Any, **options: Any) -> EntryScriptResult:
    write(Path.cwd(), {"score.py": script})
    return run_entry_script("score.py", mini_batch, *more, **options)


MINI_BATCHES = {
    "a path": ("in/a.txt", ["a.txt True"]),
    "paths": (["in/b.txt", Path("in/a.txt")], ["b.txt True", "a.txt True"]),
    "a name that looks like a pattern": (["in/[c].txt"], ["[c].txt True"]),
}


@pytest.mark.parametrize("kind", MINI_BATCHES)
def test_files_come_as_absolute_paths_in_the_order_given(kind: str, place: Path) -> None:
    mini_batch, expected = MINI_BATCHES[kind]
    script = """
        import os
        def run(mini_batch):
            return [f"{os.path.basename(p)} {os.path.isabs(p) and os.path.exists(p)}"
                    for p in mini_batch]
    """
    assert run(script, mini_batch).rows == expected


def test_a_table_comes_as_a_dataframe_and_can_be_had_back(place: Path) -> None:
    table = pd.DataFrame({"x": [1.5, 2.5], "y": ["a b", None]})
    result = run("def run(df): return df.assign(z=df['x'] * 2)", table)
    pd.testing.assert_frame_equal(result.result, table.assign(z=[3.0, 5.0]))
    assert result.text == '1.5 "a b" 3.0\n2.5  5.0\n'
    assert result.rows == ['1.5 "a b" 3.0', "2.5  5.0"]


COUNTS = {
    "as many": ("[1, 2]", (2, 2, 0), ["1", "2"]),
    "fewer": ("[1]", (1, 1, 1), ["1"]),
    "none": ("[]", (0, 0, 2), []),
    "more": ("[1, 2, 3]", (3, 2, 0), ["1", "2", "3"]),
}


@pytest.mark.parametrize("kind", COUNTS)
def test_items_are_counted_as_in_a_run(kind: str, place: Path) -> None:
    returned, counts, rows = COUNTS[kind]
    result = run(f"def run(m): return {returned}", ["in/a.txt", "in/b.txt"])
    assert (result.returned, result.succeeded, result.failed) == counts
    assert (result.total, result.rows, str(result.result)) == (2, rows, returned)


def test_what_cannot_be_had_back_is_told_and_has_its_rows(place: Path) -> None:
    script = """
        class Score:
            def __str__(self): return "good"
        def run(m): return [Score()]
    """
    result = run(script)
    assert result.rows == ["good"]
    with pytest.raises(UsageError, match=r"cannot be loaded here .*look at rows"):
        _ = result.result


def test_init_run_and_shutdown_are_called_once_each(place: Path) -> None:
    script = """
        import os
        def mark(name):
            with open(os.path.join(os.environ["PLACE"], "calls"), "a") as calls:
                calls.write(name + " ")
        mark("import")
        def init(): mark("init")
        def run(m): mark("run"); return m
        def shutdown(): mark("shutdown")
    """
    run(script, environment_variables={"PLACE": str(place)})
    assert (place / "calls").read_text() == "import init run shutdown "


FAILURES = {
    "import": (InitFailedError, "1 / 0\ndef run(m): pass", "ZeroDivisionError", "import"),
    "init": (InitFailedError, "def init(): 1 / 0\ndef run(m): pass", "in init\n", "init"),
    "run": (MiniBatchFailedError, "def run(m): 1 / 0", "in run\n", "run"),
    "shutdown": (
        EntryScriptError,
        "def run(m): return m\ndef shutdown(): 1 / 0",
        "in shutdown\n",
        "shutdown",
    ),
}


@pytest.mark.parametrize("where", FAILURES)
def test_a_failure_tells_the_traceback_of_the_script_only(where: str, place: Path) -> None:
    kind, script, expected, printed = FAILURES[where]
    with pytest.raises(kind) as failed:
        run(f"print({printed!r})\n{script}")
    assert expected in failed.value.script_traceback
    assert "daskprs/" not in failed.value.script_traceback
    assert f"{printed}\n" in failed.value.stdout
    assert type(failed.value) is kind


def test_a_failing_script_is_tried_once(place: Path) -> None:
    script = """
        import os
        def run(m):
            with open(os.path.join(os.environ["PLACE"], "calls"), "a") as calls:
                calls.write("x")
            raise ValueError("always")
    """
    with pytest.raises(MiniBatchFailedError, match="ValueError: always"):
        run(script, environment_variables={"PLACE": str(place)})
    assert (place / "calls").read_text() == "x"


TIMEOUTS = {
    "run": ("def run(m): time.sleep(60)", MiniBatchFailedError, "run_invocation_timeout"),
    "init": ("def init(): time.sleep(60)\ndef run(m): pass", InitFailedError, "init_timeout"),
}


@pytest.mark.parametrize("where", TIMEOUTS)
def test_a_script_that_hangs_is_stopped_and_tells_where(where: str, place: Path) -> None:
    script, kind, limit = TIMEOUTS[where]
    with pytest.raises(kind, match=f"did not .*within {limit}=0.5 s") as failed:
        run(f"import time\n{script}", **{limit: 0.5})
    assert "time.sleep(60)" in failed.value.script_traceback


USAGE = {
    "a script that is not there": (("no.py", "in/a.txt"), {}, "entry_script='no.py'"),
    "a script without run()": (("in/a.txt", "in/a.txt"), {}, "has no function run"),
    "a file that is not there": (("ok.py", "in/z.txt"), {}, "'in/z.txt' of the mini-batch"),
    "nothing": (("ok.py", []), {}, "the mini_batch is empty"),
    "an empty table": (("ok.py", pd.DataFrame()), {}, "the mini_batch is empty"),
    "a dict": (("ok.py", {"a": 1}), {}, "mini_batch of type dict is not accepted"),
    "numbers": (("ok.py", [1]), {}, "mini_batch of type list is not accepted"),
    "a timeout": (("ok.py", "in/a.txt"), {"run_invocation_timeout": 0}, "run_invocation_timeout=0"),
    "a variable": (("ok.py", "in/a.txt"), {"environment_variables": {"A": 1}}, "a dict of text"),
}


@pytest.mark.parametrize("kind", USAGE)
def test_what_is_wrong_is_told_before_anything_is_started(kind: str, place: Path) -> None:
    arguments, options, message = USAGE[kind]
    write(place, {"ok.py": "def run(m): return m"})
    with pytest.raises(UsageError) as told:
        run_entry_script(*arguments, **options)
    assert message in str(told.value)


def test_the_script_finds_arguments_context_models_and_entry_script(place: Path) -> None:
    script = """
        import os, sys
        from azureml.core import Model
        from azureml_user.parallel_run import EntryScript
        def run(m, context):
            return [
                sys.argv[1:], Model.get_model_path("net"), os.environ["WORD"],
                context.minibatch_index, context.partition_key_value, context.dataset,
                context.global_row_index_lower_bound, EntryScript().logging_level,
                os.path.basename(EntryScript().output_dir),
            ]
    """
    result = run(
        script,
        "in/a.txt",
        ["--labels", "in/b.txt", 3],
        models={"net": "in"},
        environment_variables={"WORD": "hello"},
        minibatch_index=4,
        partition_key_value={"store": 7},
        dataset="images",
        global_row_index_lower_bound=100,
        logging_level="DEBUG",
        output="out",
    )
    assert result.result == [
        *(["--labels", str(place / "in/b.txt"), "3"], str(place / "in"), "hello"),
        *(4, {"store": 7}, "images", 100, "DEBUG", "out"),
    ]


def test_a_module_of_the_source_directory_can_be_imported(place: Path) -> None:
    write(place, {"src/common.py": "word = 'shared'", "src/pkg/score.py": """
        from common import word
        def run(m): return [word]
    """})  # fmt: skip
    assert run_entry_script("pkg/score.py", "in/a.txt", source_directory="src").rows == ["shared"]


def test_what_the_script_writes_to_a_given_output_folder_stays(place: Path) -> None:
    script = """
        import os
        def run(m):
            open(os.path.join(os.environ["AZUREML_BI_OUTPUT_PATH"], "model"), "w").write("kept")
            return m
    """
    run(script, output=place / "out")
    assert (place / "out/model").read_text() == "kept"


def test_nothing_else_stays(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place / "tmp"))
    before = set(place.rglob("*")) | {place / "score.py"}
    run("open('made', 'w')\ndef run(m): return m")
    with pytest.raises(MiniBatchFailedError):
        run("def run(m): 1 / 0")
    left = {path for path in place.rglob("*") if "__pycache__" not in path.parts}
    assert left == before


def test_a_test_of_a_script_passes_under_pytest(place: Path) -> None:
    write(place, {
        "score.py": "def run(m): return [len(m)]",
        "test_score.py": """
            from daskprs.testing import run_entry_script
            def test_score():
                assert run_entry_script("score.py", ["in/a.txt", "in/b.txt"]).rows == ["2"]
        """,
    })  # fmt: skip
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_score.py"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, cwd=place, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
