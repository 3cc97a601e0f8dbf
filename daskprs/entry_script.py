"""Find the entry script, check it before any work starts, and package it for the workers."""

from __future__ import annotations

import ast
import contextlib
import errno
import hashlib
import inspect
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import decode_source
from pathlib import Path
from typing import Any

from daskprs.entry_process.script_names import bindings, is_dynamic
from daskprs.exceptions import EntryScriptNotUsableError

__all__ = ["EntryScriptSource", "check_script", "unpack"]

_ACCEPTED = {
    "run": "run(mini_batch) or run(mini_batch, context)",
    "init": "init() without parameters",
    "shutdown": "shutdown() without parameters",
}
SETTINGS_FILE = "parallel_run_step.settings.json"
MOST_BYTES = 300 * 1024**2
MOST_FILES = 20_000
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.ENAMETOOLONG}
# Rows are UTF-8 text that goes into the one output file.
_NOT_FOR_USERS = {
    "self",
    "path_or_buf",
    "mode",
    "encoding",
    "errors",
    "compression",
    "storage_options",
}
_SKIPPED_FOLDERS = {"__pycache__", "node_modules", "venv", "site-packages",
                    "dask-scratch-space", "dask-worker-space"}  # fmt: skip
WORKSPACE_MARK = ".daskprs-workspace"
_MARKS = ("pyvenv.cfg", WORKSPACE_MARK)  # of folders that are no part of a script


def check_script(script: Path) -> str:
    """Return the text of the script.

    Raises
    ------
    EntryScriptNotUsableError
        It cannot be read or parsed, or its run(), init() or shutdown() cannot be called. What
        only running the script can show is left for then.
    """
    name = f"entry_script {str(script)!r}"
    try:
        data = script.read_bytes()
        tree = ast.parse(data, str(script))
        text = decode_source(data)
    except SyntaxError as error:
        where = f" (line {error.lineno})" if error.lineno else ""
        raise EntryScriptNotUsableError(f"{name} does not parse: {error.msg}{where}.") from error
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise EntryScriptNotUsableError(
            f"{name} cannot be read: {type(error).__name__}: {error}."
        ) from error
    found = {name: bindings(tree, name) for name in ("run", "init", "shutdown")}
    if not found["run"] and not is_dynamic(tree, "run"):
        raise EntryScriptNotUsableError(
            f"{name} has no function run: "
            "define run(mini_batch), which returns one element for each item that succeeded."
        )
    for function, accepted in _ACCEPTED.items():
        why = _why_not_callable(found[function], most=2 if function == "run" else 0)
        if why:
            raise EntryScriptNotUsableError(f"{name}: {function}() {why}: define {accepted}.")
    return text


def _why_not_callable(found: Sequence[ast.AST], most: int) -> str:
    """Say why we cannot call a function with up to `most` arguments; only where that is sure."""
    if len(found) != 1 or not isinstance(found[0], ast.FunctionDef | ast.AsyncFunctionDef):
        return ""
    function = found[0]
    if isinstance(function, ast.AsyncFunctionDef):
        return "is an async function, which nobody awaits"
    if function.decorator_list:
        return ""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    required = [a.arg for a in positional[: len(positional) - len(arguments.defaults)]]
    defaults = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    by_name = [argument.arg for argument, default in defaults if default is None]
    if by_name or len(required) > most:
        return f"requires {', '.join([*required, *by_name])}"
    if most and not positional and arguments.vararg is None:
        return "does not take the mini-batch"
    return ""


@dataclass(frozen=True)
class EntryScriptSource:
    """The entry script and its folder on the machine of the driver.

    Attributes
    ----------
    script, folder : Path
        Absolute.
    text : str
    skipped : tuple of Path
        Folders that are not a part of the script: inputs and output.
    """

    script: Path
    folder: Path
    text: str
    skipped: tuple[Path, ...] = ()

    @classmethod
    def of(cls, script: Path, folder: Path, skipped: tuple[Path, ...] = ()) -> EntryScriptSource:
        return cls(script, folder, check_script(script), tuple(p for p in skipped if p != folder))

    @property
    def relative(self) -> str:
        return str(self.script.relative_to(self.folder))

    def to_csv_options(self) -> dict[str, Any]:
        """Read the settings file that Azure ML knows.

        Raises
        ------
        EntryScriptNotUsableError
            It is not JSON of the known shape.
        """
        path = self.folder / SETTINGS_FILE
        if not path.is_file():
            return {}
        shape = '{"append_row": {"pandas.DataFrame.to_csv": {"sep": ","}}}'
        try:
            settings = json.loads(path.read_text("utf-8"))
            options = settings.get("append_row", {}).get("pandas.DataFrame.to_csv", {})
        except (OSError, ValueError, AttributeError) as error:
            raise EntryScriptNotUsableError(
                f"{SETTINGS_FILE} is not accepted ({error}): it must be JSON such as {shape}."
            ) from error
        if not isinstance(options, Mapping):
            raise EntryScriptNotUsableError(
                f"{SETTINGS_FILE} is not accepted: it must be JSON such as {shape}."
            )
        _check_to_csv(options)
        return dict(options)

    def files(self) -> Iterator[Path]:
        """All files of the source directory, sorted; no caches, environments, hidden folders."""
        skipped = {str(path) for path in self.skipped}
        seen = set()
        for folder, names, files in os.walk(self.folder, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:  # a link to a folder above
                names[:] = []
                continue
            seen.add(real)
            names[:] = sorted(
                name
                for name in names
                if not name.startswith(".")
                and name not in _SKIPPED_FOLDERS
                and os.path.join(folder, name) not in skipped
                and not any(os.path.exists(os.path.join(folder, name, m)) for m in _MARKS)
            )
            for name in sorted(files):
                path = Path(folder, name)
                is_file = False
                with _unless_gone(path):
                    is_file = not name.endswith(".pyc") and stat.S_ISREG(path.stat().st_mode)
                if is_file:
                    yield path

    def code_token(self) -> str:
        """Hash of all Python code and settings: runs with another token are other runs."""
        digest = hashlib.sha256()
        for number, path in enumerate(self.files()):
            if number > MOST_FILES:
                break
            if path.suffix == ".py" or path.name == SETTINGS_FILE or path == self.script:
                digest.update(str(path.relative_to(self.folder)).encode("utf-8", "replace"))
                with _unless_gone(path):
                    digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()[:32]

    def data_files(self) -> dict[str, list[int]]:
        """Size and time (ns) of the other files, by their relative path; not of notebooks."""
        found = {}
        for number, path in enumerate(self.files()):
            if number > MOST_FILES:
                break
            is_hidden = path.name.startswith(".") or path.name.endswith("~")
            is_code = path.suffix in (".py", ".ipynb") or path.name == SETTINGS_FILE
            if not is_hidden and not is_code:
                with _unless_gone(path):
                    status = path.stat()
                    size_and_time = [status.st_size, status.st_mtime_ns]
                    found[str(path.relative_to(self.folder))] = size_and_time
        return found

    def archive(self) -> bytes:
        """Pack the whole source directory for workers on other machines; see `unpack`.

        Raises
        ------
        EntryScriptNotUsableError
            More than 300 MB or 20,000 files, or one that cannot be read.
        """
        buffer, size = io.BytesIO(), 0
        # tar, since zip loses which files are executable and does not take every file name.
        with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1, dereference=True) as bundle:
            for number, path in enumerate(self.files()):
                try:
                    size += path.stat().st_size
                    if size > MOST_BYTES or number >= MOST_FILES:
                        raise self._too_large()
                    bundle.add(path, str(path.relative_to(self.folder)))
                except OSError as error:
                    raise _unreadable(path, error) from error
        return buffer.getvalue()

    def _too_large(self) -> EntryScriptNotUsableError:
        return EntryScriptNotUsableError(
            f"source_directory {str(self.folder)!r} holds more than {MOST_BYTES // 1024**2} MB "
            f"or {MOST_FILES} files, too much to send to every worker: put the script into a "
            "folder of its own, and give data as side_inputs."
        )


@contextlib.contextmanager
def _unless_gone(path: Path) -> Iterator[None]:
    """Leave out what a script could not open either; anything else might be there later."""
    try:
        yield
    except OSError as error:
        if error.errno not in _GONE:
            raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> EntryScriptNotUsableError:
    return EntryScriptNotUsableError(
        f"{str(path)!r} in the source_directory cannot be read: {error}."
    )


def unpack(archive: bytes, folder: Path) -> None:
    """Unpack what `EntryScriptSource.archive` has packed."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as bundle:
        bundle.extraction_filter = lambda member, path: member  # our own archive
        bundle.extractall(folder)  # noqa: S202


def _check_to_csv(options: Mapping[str, Any]) -> None:
    import pandas as pd

    known = set(inspect.signature(pd.DataFrame.to_csv).parameters) - _NOT_FOR_USERS
    unknown = sorted(set(options) - known)
    if unknown:
        raise EntryScriptNotUsableError(
            f"{SETTINGS_FILE} is not accepted: {', '.join(map(repr, unknown))} for "
            f"pandas.DataFrame.to_csv; known are {', '.join(sorted(known))}."
        )
