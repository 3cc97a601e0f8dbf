"""How the script is imported: names, packages, paths, arguments, and run()'s parameters."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from entry_hosts import Hosted, hosted, write

from daskprs.entry_process.script_module import wants_context
from daskprs.script_host import ScriptHost, ScriptPackage

SIBLINGS: dict[str, str | bytes] = {
    "helper.py": "WHO = 'helper'",
    "lib/__init__.py": "WHO = 'lib'",
    "lib/deep.py": "from . import WHO as ABOVE\nWHO = 'lib.deep'",
    "sub/beside.py": "WHO = 'sub/beside'",
    "sub/pack/inner.py": "WHO = 'inner'",
}

IMPORTS = {
    "a module beside it": ("score.py", "from helper import WHO", "helper"),
    "a package beside it": ("score.py", "from lib.deep import WHO, ABOVE", "lib.deep"),
    "relatively, a module beside it": ("score.py", "from .helper import WHO", "helper"),
    "relatively, a package": ("score.py", "from .lib import deep\nWHO = deep.WHO", "lib.deep"),
    "in a folder, beside it": ("sub/score.py", "from beside import WHO", "sub/beside"),
    "in a folder, above": ("sub/score.py", "from helper import WHO", "helper"),
    "in a folder, relatively beside": ("sub/score.py", "from .beside import WHO", "sub/beside"),
    "in a folder, relatively above": ("sub/score.py", "from ..helper import WHO", "helper"),
    "in a folder, relatively below": ("sub/score.py", "from .pack.inner import WHO", "inner"),
    "in a package, by its name": ("lib/score.py", "from lib.deep import WHO", "lib.deep"),
    "in a package, relatively": ("lib/score.py", "from . import WHO, deep", "lib"),
}


@pytest.mark.parametrize("what", IMPORTS)
def test_a_script_imports(what: str) -> None:
    """Both the source directory and the script's own folder are on sys.path."""
    name, line, expected = IMPORTS[what]
    with hosted(f"{line}\ndef run(m): return [WHO]", name=name, files=SIBLINGS) as host:
        outcome = host.run("a")
    assert outcome.rows is not None, outcome.traceback
    assert outcome.rows.payload.decode() == f"{expected}\n"


def test_pythonpath_means_the_same_folders_as_for_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative ones too, although the working directory is another."""
    write(tmp_path, {"lib/of_the_worker.py": "WHO = 'worker'"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"lib{os.pathsep}elsewhere")
    with hosted("from of_the_worker import WHO\ndef run(m): return [WHO]") as host:
        outcome = host.run("a")
    assert outcome.rows is not None
    assert outcome.rows.payload == b"worker\n"


NAMES = ["score.py", "score-1.py", "json.py", "daskprs.py", "x", "スコア.py", "sub/json.py"]


@pytest.mark.parametrize("name", NAMES)
def test_a_script_may_have_any_name_and_its_classes_pickle(name: str) -> None:
    """A name that is taken does not replace the module that has it."""
    script = """
        import dataclasses, json, pickle
        @dataclasses.dataclass
        class Point:
            x: int
        def run(mini_batch):
            point = pickle.loads(pickle.dumps(Point(1)))
            return [point, json.dumps([]), isinstance(point, Point)]
    """
    with hosted(script, name=name) as host:
        outcome = host.run("a")
    assert outcome.rows is not None, outcome.traceback
    assert outcome.rows.payload.decode().splitlines() == ["Point(x=1)", "[]", "True"]


@pytest.mark.parametrize("name", ["score.py", "score-1.py", "sub/relative.py"])
def test_functions_of_the_script_travel_to_processes_that_are_spawned(name: str) -> None:
    script = """
        import multiprocessing
        {}
        def double(x):
            return 2 * x
        def run(mini_batch):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                return pool.map(double, [1, 2])
    """.format("from .beside import WHO" if "relative" in name else "")
    with hosted(script, name=name, files=SIBLINGS) as host:
        outcome = host.run("a", timeout=20)
    assert outcome.rows is not None, outcome.traceback
    assert outcome.rows.payload == b"2\n4\n"


def test_an_edit_of_equal_size_in_the_same_second_is_not_missed(tmp_path: Path) -> None:
    """Python's cached bytecode knows a source by its size and the second of its last change."""
    script = tmp_path / "score.py"
    found = []
    for text in ("def run(m): return ['{150}']", "def run(m): return ['set()']"):
        script.write_text(text)
        os.utime(script, (1_000_000_000, 1_000_000_000))
        package = ScriptPackage("t", script.name, str(tmp_path), None)
        host = ScriptHost(package, node="node0", ip="127.0.0.1", threads=1)
        try:
            outcome = Hosted(host, tmp_path).run("a")
        finally:
            host.close()
        assert outcome.rows is not None
        found.append(outcome.rows.payload)
    assert found == [b"{150}\n", b"set()\n"]


def test_a_script_is_a_module_and_not_the_main_program() -> None:
    """`__file__` is its real path; sys.argv holds its path and the user's arguments."""
    script = """
        import os, sys
        if __name__ == "__main__":
            raise SystemExit("run as the main program")
        def run(mini_batch):
            beside = os.path.join(os.path.dirname(__file__), "calls.py")
            return [__file__, os.path.exists(beside), *sys.argv]
    """
    with hosted(script, arguments=("--model_name", "iris", "-v")) as host:
        outcome = host.run("a")
        path = str(host.source / "score.py")
    assert outcome.rows is not None
    lines = outcome.rows.payload.decode().splitlines()
    assert lines == [path, "True", path, "--model_name", "iris", "-v"]


@pytest.mark.parametrize("parse", ["parse_args()", "parse_known_args()[0]"])
def test_argparse_at_module_level_sees_the_user_s_arguments_and_no_others(parse: str) -> None:
    script = f"""
        import argparse
        parser = argparse.ArgumentParser()
        parser.add_argument("--model_name", required=True)
        args = parser.{parse}
        def run(mini_batch):
            return [args]
    """
    with hosted(script, arguments=("--model_name", "iris")) as host:
        outcome = host.run("a")
    assert outcome.rows is not None, outcome.traceback
    assert outcome.rows.payload == b"Namespace(model_name='iris')\n"


def test_run_with_a_second_parameter_gets_the_context() -> None:
    script = """
        import json
        def run(data, anything):
            return [json.dumps(vars(anything))]
    """
    with hosted(script) as host:
        host.run("a")
        outcome = host.run("a", dataset="files", partition_key_value={"user": "x"}, row_start=40)
    assert outcome.rows is not None
    assert json.loads(outcome.rows.payload) == {
        "minibatch_index": 1,
        "partition_key_value": {"user": "x"},
        "dataset": "files",
        "global_row_index_lower_bound": 40,
    }


class Callable2:
    def __call__(self, mini_batch: Any, context: Any) -> None: ...


class Callable1:
    def __call__(self, mini_batch: Any) -> None: ...


def one(mini_batch: Any) -> None: ...
def two(mini_batch: Any, context: Any) -> None: ...
def default_none(mini_batch: Any, context: Any = None) -> None: ...
def own_default(mini_batch: Any, threshold: float = 0.5) -> None: ...
def by_name(mini_batch: Any, *, context: Any = None) -> None: ...
def many(*mini_batch: Any, **options: Any) -> None: ...
def positional(mini_batch: Any, context: Any, /) -> None: ...
@functools.wraps(two)
def wrapped(*args: Any) -> None: ...


SIGNATURES: list[tuple[Callable[..., Any], bool]] = [
    (one, False),
    (two, True),
    (default_none, True),
    (own_default, False),
    (by_name, False),
    (many, False),
    (positional, True),
    (wrapped, True),
    (functools.partial(two, context=None), False),
    (functools.partial(two), True),
    (Callable1(), False),
    (Callable2(), True),
    (len, False),
    (dict, False),
]


@pytest.mark.parametrize(("run", "wanted"), SIGNATURES)
def test_the_signature_decides_whether_run_gets_the_context(
    run: Callable[..., Any], wanted: bool
) -> None:
    """A second positional parameter of any name, unless its default is the user's own."""
    assert wants_context(run) is wanted


RUNS = {
    "a partial": "import functools\ndef f(add, m): return [add]\nrun = functools.partial(f, 'x')",
    "an object": "class A:\n    def __call__(self, m): return ['x']\nrun = A()",
    "a lambda": "run = lambda m: ['x']",
    "imported": "from other import run",
    "replaced by init": "def run(m): return []\ndef init():\n"
    "    global run\n    run = lambda m: ['x']",
    "found on demand": "def __getattr__(name):\n    if name == 'run': return lambda m: ['x']\n"
    "    raise AttributeError(name)",
}


@pytest.mark.parametrize("what", RUNS)
def test_run_may_be_anything_that_can_be_called(what: str) -> None:
    with hosted(RUNS[what], files={"other.py": "def run(m): return ['x']"}) as host:
        outcome = host.run("a")
    assert outcome.rows is not None, outcome.traceback
    assert outcome.rows.payload == b"x\n"
