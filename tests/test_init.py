"""The start of an entry process: import and init(), tried three times, and what is around them."""

from __future__ import annotations

import ast
import gc
import json
import os
from pathlib import Path
from typing import Any

import pytest
from entry_hosts import hosted

from daskprs.gpus import visible_gpus
from daskprs.script_host import InitGaveUpError

FAILING = {
    "raises": ("def init(): raise ValueError('no model')", "ValueError: no model", "in init"),
    "raises at module level": ("1 / 0", "ZeroDivisionError: division by zero", "in <module>"),
    "exits": ("def init():\n    import os; os._exit(9)", "ended with exit code 9 while imp", ""),
    "dies": (
        *("def init():\n    import ctypes; ctypes.string_at(0)", "was killed by SIGSEGV"),
        "ctypes.string_at(0)",
    ),
    "hangs": (
        *("def init():\n    while True: pass", "did not end within init_timeout=0.8 s"),
        "while True: pass",
    ),
    "hangs at module level": (
        *("import time; time.sleep(1000)", "did not end within init_timeout=0.8 s"),
        "import time; time.sleep(1000)",
    ),
    "imports what is not there": (
        *("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        "import no_such_module",
    ),
    "wants an argument": (
        "import argparse; p = argparse.ArgumentParser(prog='score.py'); "
        "p.add_argument('--model', required=True); p.parse_args()",
        "SystemExit: 2 (score.py: error: the following arguments are required: --model)",
        "p.parse_args()",
    ),
    "has a syntax error": ("def broken(:", "SyntaxError: invalid syntax", "def broken(:"),
    "takes a parameter": ("def init(model): pass", "missing 1 required positional argument", ""),
    "warns a lot, then dies": (
        "import os, sys; sys.stderr.write('w' * 100_000 + 'the last words'); os._exit(1)",
        "ended with exit code 1 while importing the script or in init().",
        "the last words",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FAILING)
def test_three_failures_in_a_row_in_fresh_processes_give_up(what: str) -> None:
    """The error carries the script's traceback, and the tries are known one by one."""
    body, error, traceback = FAILING[what]
    script = f"from calls import count; count('import')\n{body}\ndef run(m): return m"
    broken = what == "has a syntax error"
    with hosted(script, init_timeout=0.8 if "hangs" in what else 30) as host:
        with pytest.raises(InitGaveUpError) as caught:
            host.run("a")
        with host.host.slot(1) as slot:
            inits = slot.take_inits()
        assert host.calls("import") == (0 if broken else 3)
    assert [process for process, _, _ in inits] == ["process000", "process001", "process002"]
    assert {reply.ok for _, reply, _ in inits} == {False}
    assert len({reply.status for _, reply, _ in inits}) == 1
    assert caught.value.process == "process002"
    reply = caught.value.reply
    assert error in reply.error
    assert traceback in reply.traceback
    assert "entry_process" not in reply.traceback
    assert len(reply.traceback) < 20_100


def test_a_script_without_run_says_so() -> None:
    with (
        hosted("exec('walk = 1')") as host,
        pytest.raises(InitGaveUpError, match="has no function run"),
    ):
        host.run("a")


@pytest.mark.parametrize("works", [1, 2, 3])
def test_init_is_tried_again_in_a_fresh_process_until_it_works(works: int) -> None:
    script = f"""
        from calls import count
        imports = count("import")
        def init():
            if count("init") < {works}:
                raise ValueError("not yet")
        def run(mini_batch):
            return [imports]
    """
    with hosted(script) as host:
        first, second = host.run("a"), host.run("b")
        with host.host.slot(1) as slot:
            statuses = [reply.status for _, reply, _ in slot.take_inits()]
            assert slot.take_inits() == []
        assert (host.calls("init"), host.calls("import")) == (works, works)
    assert statuses == ["INIT_EXCEPTION"] * (works - 1) + ["INIT_DONE"]
    for outcome in (first, second):
        assert outcome.rows is not None
        assert outcome.rows.payload == f"{works}\n".encode()
        assert outcome.tries == 1


def test_failures_of_init_that_are_not_in_a_row_do_not_add_up() -> None:
    """Every second init() fails, every run() dies: each replacement has three tries anew."""
    script = """
        import os
        from calls import count
        def init():
            if count("init") % 2:
                raise ValueError
        def run(mini_batch):
            os._exit(1)
    """
    with hosted(script) as host:
        assert host.run("a", tries=3).tries == 3
        assert host.calls("init") == 6


def test_init_is_called_once_per_process_and_not_at_all_without_work() -> None:
    script = """
        from calls import count
        def init(): count("init")
        def run(m): return m
    """
    with hosted(script, threads=2) as host:
        assert host.calls("init") == 0
        for _ in range(4):
            host.run("a")
        assert host.calls("init") == 2


def test_a_script_without_init_is_fine() -> None:
    with hosted("def run(m): return m") as host:
        assert not host.run("a").failed


SURROUNDINGS = """
    import json, os, sys
    at_import = dict(os.environ)
    def run(mini_batch):
        return [json.dumps(at_import)]
"""


def environment_of(process_count: int = 1, **package: Any) -> list[dict[str, str]]:
    with hosted(SURROUNDINGS, threads=process_count, **package) as host:
        found = []
        for _ in range(process_count):
            outcome = host.run("a")
            assert outcome.rows is not None
            found.append(json.loads(outcome.rows.payload))
        return found


def test_environment_variables_are_there_before_the_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's, AZUREML_BI_OUTPUT_PATH, and the user's own, which come last."""
    monkeypatch.setenv("OF_THE_WORKER", "1")
    monkeypatch.setenv("OF_BOTH", "worker")
    given = {"OF_BOTH": "user", "OF_THE_USER": "2"}
    [found] = environment_of(environment=given, output_folder="/out")
    names = ("OF_THE_WORKER", "OF_BOTH", "OF_THE_USER", "AZUREML_BI_OUTPUT_PATH")
    assert [found[name] for name in names] == ["1", "user", "2", "/out"]
    assert "OF_THE_USER" not in os.environ


GPUS = {
    "0,1": ["0", "1"],
    "3, GPU-8932f937-d72c,MIG-GPU-8932/1/2": ["3", "GPU-8932f937-d72c", "MIG-GPU-8932/1/2"],
    "2,-1,0": ["2"],
    "": [],
    "-1": [],
    "NoDevFiles": [],
}


@pytest.mark.parametrize("given", GPUS)
def test_the_gpus_are_those_that_the_worker_may_use(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for CUDA, the list ends at the first that is no device."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == GPUS[given]


TOOLS = {
    "two": (
        "echo 'GPU 0: NVIDIA A100'; echo '  MIG 1g.5gb'; echo 'GPU 1: NVIDIA A100'",
        ["0", "1"],
    ),
    "no driver": ("echo 'NVIDIA-SMI has failed'; exit 9", []),
    "not text": (r"printf 'GPU 0: \377\n'", ["0"]),
}


@pytest.mark.parametrize("what", TOOLS)
def test_without_the_variable_the_gpus_are_those_of_the_node(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, expected = TOOLS[what]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{text}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert visible_gpus() == expected


def test_each_process_has_a_gpu_of_its_own_and_those_beyond_have_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    found = environment_of(3)
    assert [one.get("CUDA_VISIBLE_DEVICES") for one in found] == ["3", "5", None]


def test_gpus_that_are_hidden_from_the_worker_stay_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    [found] = environment_of()
    assert found["CUDA_VISIBLE_DEVICES"] == ""


def test_a_gpu_given_by_the_user_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    [found] = environment_of(environment={"CUDA_VISIBLE_DEVICES": ""})
    assert found["CUDA_VISIBLE_DEVICES"] == ""


def test_a_new_process_has_the_lowest_gpu_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU of a process that died is free again, whatever became of it."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,4")
    script = """
        import os
        from calls import count
        gpu = os.environ["CUDA_VISIBLE_DEVICES"]
        def init():
            if count("init") == 1: raise ValueError
        def run(mini_batch):
            if mini_batch[0] == "die": os._exit(1)
            return [gpu]
    """
    with hosted(script, threads=2) as host:
        for expected in (b"5\n", b"4\n"):
            outcome = host.run("a")
            assert outcome.rows is not None
            assert outcome.rows.payload == expected
        died = [host.run("die").attempts[0].status for _ in range(2)]
        after = [host.run("a").rows for _ in range(2)]
    assert died == ["PROCESS_DIED"] * 2
    assert {rows.payload for rows in after if rows is not None} == {b"5\n", b"4\n"}


FOLDERS = """
    import os
    def run(mini_batch):
        open("made.txt", "w").write("mine")
        names = sorted(os.listdir())
        return [os.getcwd(), open("model.bin").read(), open("data/table.csv").read(), names]
"""
BESIDE: dict[str, str | bytes] = {
    "model.bin": "model",
    "data/table.csv": "table",
    ".env": "hidden file",
    ".git/config": "hidden folder",
    "__pycache__/x.pyc": "",
}


@pytest.mark.parametrize("folder", ["", "sub/"])
def test_files_beside_the_script_open_by_relative_path_from_a_folder_of_its_own(
    folder: str,
) -> None:
    """The working directory is private to the process, and can be written to."""
    files = {f"{folder}{name}": content for name, content in BESIDE.items()}
    with hosted(FOLDERS, name=f"{folder}score.py", files=files, threads=2) as host:
        outcomes = [host.run("a"), host.run("a")]
        assert not (host.source / "made.txt").exists()
        assert not (host.source / folder / "made.txt").exists()
    found = [o.rows.payload.decode().splitlines() for o in outcomes if o.rows is not None]
    assert len({Path(lines[0]) for lines in found}) == 2
    assert {tuple(lines[1:3]) for lines in found} == {("model", "table")}
    expected = {".env", "calls.py", "data", "made.txt", "model.bin", "score.py"}
    expected |= {"sub"} if folder else set()
    assert {lines[3] for lines in found} == {str(sorted(expected))}


def test_entry_script_tells_the_facts_of_its_process() -> None:
    script = """
        import json, os
        from azureml_user.parallel_run import EntryScript
        me = EntryScript()
        def run(mini_batch):
            return [
                me.agent_name, me.working_dir == os.getcwd(), me.output_dir, me.logging_level,
                os.path.exists(me.log_dir), EntryScript() is me, me.logger.name,
            ]
    """
    with hosted(script, output_folder="/out", logging_level="DEBUG") as host:
        outcome = host.run("a")
    assert outcome.rows is not None, outcome.traceback
    assert outcome.rows.payload.decode().splitlines() == [
        *("node0-process000", "True", "/out", "DEBUG", "False", "True", "EntryScript"),
    ]


def test_a_source_folder_with_very_many_files_does_not_slow_down_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Above the limit, the private folder has no links; __file__ leads to the files."""
    monkeypatch.setattr("daskprs.entry_process.surroundings._MOST_LINKS", 5)
    files: dict[str, str | bytes] = {f"data/{i}": "" for i in range(6)}
    script = "import os\ndef run(m): return [sorted(os.listdir())]"
    with hosted(script, name="data/score.py", files=files) as host:
        outcome = host.run("a")
    assert outcome.rows is not None
    assert outcome.rows.payload == b"['calls.py', 'data']\n"


@pytest.mark.parametrize("left", [0, 1])
def test_init_may_close_stderr_and_use_up_the_files_that_a_process_may_open(left: int) -> None:
    """What daskprs itself keeps open is open before; an import needs one, and says so."""
    script = f"""
        import os, resource
        def init():
            global files
            os.close(2)
            resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))
            files = []
            try:
                while True: files.append(open("/dev/null"))
            except OSError:
                del files[len(files) - {left}:]
        def run(mini_batch): return [len(files) > 40]
    """
    with hosted(script) as host:
        outcome = host.run("a")
    if left:
        assert outcome.rows is not None
        assert outcome.rows.payload == b"True\n"
    else:
        assert "OSError: [Errno 24] Too many open files" in outcome.error


@pytest.mark.parametrize("own", [None, (300, 5, 5), (0, 5, 5)])
def test_run_has_the_garbage_collector_of_python_or_of_the_script(
    own: tuple[int, int, int] | None,
) -> None:
    """While the script starts it looks for garbage less often, which makes imports faster."""
    usual = gc.get_threshold()
    script = f"""
        import gc
        starting = gc.get_threshold()
        def init():
            if {own}: gc.set_threshold(*{own})
        def run(mini_batch): return [starting, gc.get_threshold()]
    """
    with hosted(script) as host:
        rows = host.run("a").rows
    assert rows is not None
    starting, running = map(ast.literal_eval, rows.payload.decode().splitlines())
    assert starting[0] > usual[0]
    assert starting[1:] == usual[1:]
    assert running == (own or usual)


def test_calls_take_no_memory_from_the_system_again_and_again() -> None:
    """Python has frames in pieces of memory: at no depth do calls cross the edge of one."""
    script = """
        import resource
        def leaf(): pass
        def faults_of_calls_at(depth):
            if depth:
                return faults_of_calls_at(depth - 1)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(1000): leaf()
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        def run(mini_batch): return [max(map(faults_of_calls_at, range(300)))]
    """
    with hosted(script) as host:
        rows = host.run("a").rows
    assert rows is not None
    assert int(rows.payload) < 500
