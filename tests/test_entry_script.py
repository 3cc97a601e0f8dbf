"""The entry script before any work starts: what is refused, and what reaches the workers."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from entry_hosts import write

from daskprs import entry_script
from daskprs.entry_script import EntryScriptSource, check_script, unpack
from daskprs.exceptions import EntryScriptNotUsableError

RUN = "def run(mini_batch): return mini_batch\n"

ACCEPTED = {
    "a function": RUN,
    "with a context": "def run(mini_batch, context): pass",
    "with options of its own": "def run(m, c=None, *, batch_size=10, **more): pass",
    "any arguments": "def run(*arguments): pass",
    "a generator": "def run(m):\n    yield 1",
    "imported": "from other import run",
    "imported by another name": "from other import score as run",
    "star import": "from other import *",
    "assigned": "import functools\nrun = functools.partial(print, 1)",
    "assigned with others": "init, run = 1, 2",
    "annotated": "run: object = print",
    "a class": "class run: pass",
    "an object": "class A:\n    def __call__(self, m): return m\nrun = A()",
    "walrus": "print(run := print)",
    "in if": "if 1:\n    pass\nelif 2:\n    def run(m): pass",
    "in if, else async": "if 1:\n    def run(m): pass\nelse:\n    async def run(m): pass",
    "in try": "try:\n    1 / 0\nexcept ZeroDivisionError:\n    def run(m): pass",
    "in finally": "try: pass\nfinally:\n    run = print",
    "in with": "with open('x') as f:\n    run = print",
    "in for": "for run in [print]: pass",
    "in match": "match 1:\n    case 1:\n        def run(m): pass",
    "captured by match": "match print:\n    case run: pass",
    "made by exec": "exec('def run(m): return m')",
    "made in globals": "globals()['run'] = print",
    "made by a function": "def make():\n    global run\n    run = print\nmake()",
    "on demand": "def __getattr__(name): return print",
    "decorated": "import functools\n@functools.wraps(print)\ndef run(): pass",
    "defined again": "def run(): pass\ndef run(m): pass",
    "init and shutdown": f"def init(): pass\ndef shutdown(wait=1): pass\n{RUN}",
    "coding cookie": b"# -*- coding: latin-1 -*-\nNAME = '\xe9'\ndef run(m): pass",
    "byte order mark": b"\xef\xbb\xbfdef run(m): pass",
    "carriage returns": b"def run(m):\r\n    return m\r\n",
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_a_script_with_a_run_of_any_kind_is_accepted(what: str, tmp_path: Path) -> None:
    write(tmp_path, {"score.py": ACCEPTED[what]})
    assert check_script(tmp_path / "score.py")


REFUSED: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "has no function run: define run(mini_batch), which returns one element"),
    "no run": ("def runs(m): pass", "has no function run"),
    "run in a class": ("class A:\n    def run(self, m): pass", "has no function run"),
    "run in a function": ("def main():\n    def run(m): pass", "has no function run"),
    "run as a local name": ("def main():\n    run = 1", "has no function run"),
    "run only used": ("print(run)\nrun.x = 1", "has no function run"),
    "run in a comprehension": ("[run for run in range(3)]", "has no function run"),
    "a module of run": ("import other.run", "has no function run"),
    "imported by another name": ("from other import run as score", "has no function run"),
    "async": ("async def run(m): pass", "run() is an async function, which nobody awaits: define"),
    "async init": (f"async def init(): pass\n{RUN}", "init() is an async function"),
    "no parameter": ("def run(): pass", "run() does not take the mini-batch: define run(mini_ba"),
    "three parameters": ("def run(a, b, c): pass", "run() requires a, b, c: define run(mini_batch"),
    "by name only": ("def run(m, *, model): pass", "run() requires m, model: define"),
    "init with a parameter": (f"def init(model): pass\n{RUN}", "init() requires model: define in"),
    "shutdown with one": (f"def shutdown(x): pass\n{RUN}", "shutdown() requires x: define shut"),
    "syntax error": (
        "x = 1\ndef run(m:\n    pass",
        "does not parse: '(' was never closed (line 2)",
    ),
    "tabs": ("def run(m):\n\tif m:\n        pass", "does not parse: inconsistent use of tabs"),
    "not UTF-8": (b"NAME = '\xe9'\ndef run(m): pass", "does not parse: "),
    "unknown cookie": (b"# coding: klingon\ndef run(m): pass", "unknown encoding: klingon"),
    "zero bytes": (b"def run(m): pass\0", "null bytes"),
    "too deep": ("x = " + "(" * 5000 + ")" * 5000 + f"\n{RUN}", "too many nested parentheses"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_script_that_cannot_be_run_is_refused_with_the_reason(what: str, tmp_path: Path) -> None:
    content, message = REFUSED[what]
    write(tmp_path, {"score.py": content})
    with pytest.raises(EntryScriptNotUsableError) as caught:
        check_script(tmp_path / "score.py")
    assert message in str(caught.value)
    assert f"entry_script {str(tmp_path / 'score.py')!r}" in str(caught.value)


def test_a_path_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere.py"):
        with pytest.raises(EntryScriptNotUsableError, match="cannot be read"):
            check_script(path)


def test_the_text_of_the_script_is_decoded_as_python_does(tmp_path: Path) -> None:
    write(tmp_path, {"score.py": ACCEPTED["coding cookie"]})
    assert "'é'" in check_script(tmp_path / "score.py")


# The source directory


def source_of(folder: Path, *skipped: str) -> EntryScriptSource:
    return EntryScriptSource.of(folder / "score.py", folder, tuple(folder / s for s in skipped))


TREE: dict[str, str | bytes] = {
    "score.py": RUN,
    "lib/util.py": "",
    "lib/model.bin": "x",
    ".env": "",
    ".git/config": "",
    "__pycache__/score.pyc": "",
    "lib/__pycache__/util.pyc": "",
    "old.pyc": "",
    "venv/bin/python": "",
    "my_env/pyvenv.cfg": "",
    "my_env/lib.py": "",
    "node_modules/x.js": "",
    "images/1.png": "",
}


def test_the_files_are_those_of_the_script_without_caches_and_environments(tmp_path: Path) -> None:
    """Folders of inputs and output are left out too; the source directory itself never is."""
    write(tmp_path, TREE)
    found = [str(p.relative_to(tmp_path)) for p in source_of(tmp_path, "images", "").files()]
    assert found == [".env", "score.py", "lib/model.bin", "lib/util.py"]


def test_linked_folders_are_a_part_and_circles_end(tmp_path: Path) -> None:
    write(tmp_path, {"src/score.py": RUN, "shared/util.py": ""})
    (tmp_path / "src" / "shared").symlink_to(tmp_path / "shared")
    (tmp_path / "src" / "again").symlink_to(tmp_path / "src")
    (tmp_path / "src" / "broken").symlink_to(tmp_path / "nowhere")
    found = [str(p.relative_to(tmp_path / "src")) for p in source_of(tmp_path / "src").files()]
    assert found == ["score.py", "shared/util.py"]


def test_files_whose_paths_are_too_long_are_no_part(tmp_path: Path) -> None:
    """Nobody could open them by these paths."""
    write(tmp_path, {"score.py": RUN})
    depth, name = 30, "x" * 200
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=folder)
        inner = os.open(name, os.O_RDONLY, dir_fd=folder)
        for file in (f"{name}.py", f"{name}.bin"):
            os.close(os.open(file, os.O_CREAT, dir_fd=inner))
        os.close(folder)
        folder = inner
    os.close(folder)
    source = source_of(tmp_path)
    assert 1 < len(list(source.files())) < 2 * depth
    assert source.code_token()
    assert 1 <= len(source.data_files()) < depth


def test_files_that_are_removed_at_that_moment_are_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may work in the folder."""
    write(tmp_path, {"score.py": RUN})
    for name in ("gone.py", "gone.bin"):
        (tmp_path / name).symlink_to(tmp_path / "nowhere")
    source = source_of(tmp_path)
    names = [tmp_path / "score.py", tmp_path / "gone.py", tmp_path / "gone.bin"]
    monkeypatch.setattr(EntryScriptSource, "files", lambda source: iter(names))
    assert source.code_token()
    assert source.data_files() == {}


def test_files_that_cannot_be_read_just_now_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without them the run would be another one, and begin anew."""
    write(tmp_path, {"score.py": RUN, "util.py": "", "model.bin": ""})
    source, real = source_of(tmp_path), Path.stat

    def stale(path: Path, **how: Any) -> os.stat_result:
        if path.name != "score.py":
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        return real(path, **how)

    monkeypatch.setattr(Path, "stat", stale)
    for look in (source.code_token, source.data_files):
        with pytest.raises(EntryScriptNotUsableError, match=r"model\.bin' in the source_directory"):
            look()


def test_an_archive_holds_what_the_files_are(tmp_path: Path) -> None:
    write(tmp_path, {f"src/{name}": content for name, content in TREE.items()})
    source = source_of(tmp_path / "src")
    os.chmod(tmp_path / "src" / "lib" / "util.py", 0o755)
    (tmp_path / "src" / "linked.bin").symlink_to(tmp_path / "src" / "lib" / "model.bin")
    unpack(source.archive(), tmp_path / "copy")
    copied = EntryScriptSource.of(tmp_path / "copy" / "score.py", tmp_path / "copy")
    assert [p.relative_to(copied.folder) for p in copied.files()] == [
        p.relative_to(source.folder) for p in source.files()
    ]
    assert os.access(tmp_path / "copy" / "lib" / "util.py", os.X_OK)
    assert not (tmp_path / "copy" / "linked.bin").is_symlink()
    assert copied.code_token() == source.code_token()


@pytest.mark.parametrize("limit", ["MOST_FILES", "MOST_BYTES"])
def test_a_folder_that_is_too_large_is_refused_only_when_it_has_to_travel(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Used in place, any number of files may lie beside the script."""
    write(tmp_path, {"score.py": RUN, "a.bin": "x" * 90, "b.bin": "x" * 90, "c.py": ""})
    limits = {"MOST_FILES": 3, "MOST_BYTES": 200}
    monkeypatch.setattr(entry_script, limit, limits[limit])
    source = source_of(tmp_path)
    assert source.code_token()
    assert len(source.data_files()) >= 2
    with pytest.raises(EntryScriptNotUsableError, match="too much to send to every worker"):
        source.archive()
    monkeypatch.setattr(entry_script, limit, limits[limit] * 2)
    assert source.archive()


def test_the_code_token_changes_with_code_and_settings_and_with_nothing_else(
    tmp_path: Path,
) -> None:
    write(tmp_path, {"score.py": RUN, "lib/util.py": "", "model.bin": "1"})
    tokens = [source_of(tmp_path).code_token()]
    write(tmp_path, {"model.bin": "2", "notes.txt": ""})
    assert source_of(tmp_path).code_token() == tokens[0]
    for name in ("score.py", "lib/util.py", "lib/new.py", entry_script.SETTINGS_FILE):
        write(tmp_path, {name: f"{RUN}# changed"})
        tokens.append(source_of(tmp_path).code_token())
    (tmp_path / "lib" / "util.py").rename(tmp_path / "lib" / "moved.py")
    tokens.append(source_of(tmp_path).code_token())
    assert len(set(tokens)) == 6


def test_data_files_are_told_with_size_and_time(tmp_path: Path) -> None:
    write(tmp_path, {"score.py": RUN, "lib/model.bin": "123"})
    os.utime(tmp_path / "lib" / "model.bin", ns=(5, 7))
    assert source_of(tmp_path).data_files() == {"lib/model.bin": [3, 7]}


# The settings file


def options(tmp_path: Path, settings: str) -> dict[str, Any]:
    write(tmp_path, {"score.py": RUN, entry_script.SETTINGS_FILE: settings})
    return source_of(tmp_path).to_csv_options()


def test_the_settings_file_gives_options_of_to_csv(tmp_path: Path) -> None:
    write(tmp_path, {"score.py": RUN})
    assert source_of(tmp_path).to_csv_options() == {}
    assert options(tmp_path, "{}") == {}
    settings = '{"append_row": {"pandas.DataFrame.to_csv": {"sep": ",", "float_format": "%.3f"}}}'
    assert options(tmp_path, settings) == {"sep": ",", "float_format": "%.3f"}


SETTINGS = {
    "not JSON": ("{", "it must be JSON such as"),
    "a list": ("[]", "it must be JSON such as"),
    "append_row is no dict": ('{"append_row": 1}', "it must be JSON such as"),
    "options are no dict": ('{"append_row": {"pandas.DataFrame.to_csv": 1}}', "it must be JSON"),
    "misspelt": (
        '{"append_row": {"pandas.DataFrame.to_csv": {"seperator": ","}}}',
        "'seperator' for pandas.DataFrame.to_csv; known are chunksize, columns,",
    ),
    "another file": (
        '{"append_row": {"pandas.DataFrame.to_csv": {"path_or_buf": "x"}}}',
        "'path_or_buf' for pandas.DataFrame.to_csv",
    ),
}


@pytest.mark.parametrize("what", SETTINGS)
def test_settings_that_mean_nothing_are_refused(what: str, tmp_path: Path) -> None:
    settings, message = SETTINGS[what]
    with pytest.raises(EntryScriptNotUsableError) as caught:
        options(tmp_path, settings)
    assert message in str(caught.value)
    assert entry_script.SETTINGS_FILE in str(caught.value)


def test_an_archive_is_one_that_other_tools_open(tmp_path: Path) -> None:
    write(tmp_path, {"score.py": RUN})
    with tarfile.open(fileobj=io.BytesIO(source_of(tmp_path).archive())) as bundle:
        assert bundle.getnames() == ["score.py"]
