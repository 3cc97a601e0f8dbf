"""Runs the code blocks of a Markdown page, from top to bottom, as a reader would.

=========  ========================================================================================
console    lines with ``$ `` are commands; what they print has to be what the page shows
sh         commands; each has to succeed
python     code that runs; with ``>>>``, its output has to be what the page shows
python     whose first line is ``# name.py``: becomes that file, and is not run
python     that imports from azureml without the door: only has to be Python
yaml       whose first line is ``# name.yml``: becomes that file
json       only has to be JSON
text       nothing
=========  ========================================================================================

Commands that install something, or that other tests run, are not run, but what they name has to
be there. In what is shown, ``...`` stands for any text.
"""

from __future__ import annotations

import contextlib
import doctest
import json
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SHOWN_HOME = "/home/ada/daskprs"  # where the pages say that they are
DOOR = "import daskprs.azureml"  # then it runs
PORT = "8786"  # of the scheduler, in the pages

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w/.-]+\.\w+)\n")
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#([^)]*))?\)")
_TIMES = re.compile(r"[\d,.]+ s, [\d,]+ items/s|\b\d+\.\d s\b|\d:\d\d:\d\d")
_CHECKED_ONLY = ("git", "cd", "make", "pip", "source")
_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class _Shown(doctest.OutputChecker):
    """Compares what is printed with what a page shows, which is of another place and time."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)

    def check_output(self, want: str, got: str, optionflags: int = _FLAGS) -> bool:
        got = got.replace(self._folder, SHOWN_HOME)
        return super().check_output(_TIMES.sub("TIME", want), _TIMES.sub("TIME", got), optionflags)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    kind: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page}, line {self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [
        Block(str(page.relative_to(ROOT)), text.count("\n", 0, m.start()) + 2, m[1], m[2])
        for m in _FENCE.finditer(text)
    ]


def links(page: Path) -> list[tuple[str, str]]:
    """Targets of the links of a page that lead to files: (path, heading)."""
    found = _LINK.findall(_FENCE.sub("", page.read_text("utf-8")))
    return [(path, heading) for path, heading in found if "://" not in path]


class Reader:
    """Somebody who types a page into a shell and into Python.

    Parameters
    ----------
    folder : Path
        Where they are: like a fresh clone.
    port : int
        Where their scheduler is to be.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self._code = 0
        self._shown = _Shown(folder)
        self._background: list[subprocess.Popen[bytes]] = []
        self._environment = {
            **{k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "100",
        }

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._background:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(20)

    def do(self, block: Block) -> None:
        """Do what a block says.

        Raises
        ------
        AssertionError
            It does not work, or not as the page says.
        """
        doing = getattr(self, f"_{block.kind}", None)
        assert doing is not None, f"{block.where}: blocks of {block.kind!r} cannot be checked"
        doing(block)

    def _text(self, block: Block) -> None:
        pass

    def _json(self, block: Block) -> None:
        json.loads(block.text)

    def _yaml(self, block: Block) -> None:
        assert self._becomes_file(block.text), f"{block.where}: it has no name"

    def _becomes_file(self, text: str) -> bool:
        """Write a block that begins with the name of a file."""
        file = _FILE.match(text)
        if file is not None:
            path = self.folder / file[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text[file.end() :], "utf-8")
        return file is not None

    def _python(self, block: Block) -> None:
        text = self._here(block.text)
        code = (
            None if ">>> " in text else compile("\n" * (block.line - 1) + text, block.page, "exec")
        )
        if self._becomes_file(text):
            return
        if re.search(r"^from azureml\.", text, re.MULTILINE) and DOOR not in text:
            return
        if code is not None:
            exec(code, self.names)
        else:
            self._doctest(block, text)

    def _doctest(self, block: Block, text: str) -> None:
        name = block.where
        test = doctest.DocTestParser().get_doctest(
            text, self.names, name, block.page, block.line - 1
        )
        told: list[str] = []
        runner = doctest.DocTestRunner(self._shown, optionflags=_FLAGS)
        runner.run(test, out=told.append, clear_globs=False)
        self.names.update(test.globs)
        assert not told, "".join(told)

    def _sh(self, block: Block) -> None:
        if block.text.startswith("dask scheduler"):
            self._start_cluster(block)
            return
        for command in _commands(block.text):
            if command.split()[0] in _CHECKED_ONLY:
                check_command(command)
                continue
            printed = self._run(command)
            assert self._code == 0, f"{block.where}: {command}\nexit code {self._code}\n{printed}"

    def _console(self, block: Block) -> None:
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            while command.endswith("\\"):
                line, _, shown = shown.partition("\n")
                command = f"{command[:-1]}{line.removeprefix('>').strip()}"
            printed = self._run(command)
            told = f"{block.where}: {command}\nshould print\n{shown}\nbut printed\n{printed}"
            assert self._shown.check_output(shown, printed), told

    def _run(self, command: str) -> str:
        done = subprocess.run(
            ["/bin/bash", "-c", f"(exit {self._code}); {self._here(command)}"],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
        )
        self._code = done.returncode
        return done.stdout

    def _start_cluster(self, block: Block) -> None:
        process = subprocess.Popen(
            ["/bin/bash", "-c", self._here(block.text) + "\nwait"],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._background.append(process)

    def _here(self, text: str) -> str:
        return text.replace(f":{PORT}", f":{self.port}").replace(
            f"port {PORT}", f"port {self.port}"
        )


def _commands(text: str) -> Iterator[str]:
    for line in text.replace("\\\n", " ").splitlines():
        command = line.partition(" # ")[0].strip()
        if command and not command.startswith("#"):
            yield command


def check_command(command: str) -> None:
    """Check what a command names that is not run."""
    words = shlex.split(command)
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert words[1] in targets, f"{command}: the Makefile has no such target"
    if words[0] == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        extras = set(project["optional-dependencies"])
        named = {
            extra for listed in re.findall(r"\[([\w,]+)\]", command) for extra in listed.split(",")
        }
        assert words[1] == "install", command
        assert named <= extras, f"{command}: there are only the extras {sorted(extras)}"


def free_port() -> int:
    """Choose a port below those that the system gives to whoever asks for any."""
    while True:
        port = random.randrange(20_000, 30_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
