"""Find the entry script, check it before any work starts, and package it for the workers."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daskprs.exceptions import EntryScriptNotUsableError

__all__ = ["EntryScriptSource", "check_script"]

SETTINGS_FILE = "parallel_run_step.settings.json"
MOST_BYTES = 300 * 1024**2
MOST_FILES = 20_000
_SKIPPED_FOLDERS = {"__pycache__", "node_modules", "venv", "site-packages"}


def check_script(script: Path) -> str:
    """Return the text of the script.

    Raises
    ------
    EntryScriptNotUsableError
        It does not parse, or has no run() at module level.
    """
    try:
        data = script.read_bytes()
        tree = ast.parse(data, str(script))
    except SyntaxError as error:
        raise EntryScriptNotUsableError(
            f"entry_script {str(script)!r} does not parse: {error.msg} (line {error.lineno})."
        ) from error
    except (OSError, ValueError) as error:
        raise EntryScriptNotUsableError(
            f"entry_script {str(script)!r} cannot be read: {error}."
        ) from error
    if not _defines(tree.body, "run"):
        raise EntryScriptNotUsableError(
            f"entry_script {str(script)!r} has no function run: "
            "define run(mini_batch), which returns one element for each item that succeeded."
        )
    return data.decode("utf-8", "replace")


def _defines(body: list[ast.stmt], name: str) -> bool:
    return any(_binds(node, name) for node in body)


def _binds(node: ast.stmt, name: str) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name == name
    if isinstance(node, ast.Import | ast.ImportFrom):
        return any((a.asname or a.name) in (name, "*") for a in node.names)
    if isinstance(node, ast.Global | ast.Expr):
        # exec(), globals()["run"] = ...: only the process of the script can know.
        return isinstance(node, ast.Expr) and "globals" in ast.dump(node)
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    for target in targets:
        if target is not None:
            names = {n.id for n in ast.walk(target) if isinstance(n, ast.Name)}
            if name in names or "globals" in names:
                return True
    blocks = ("body", "orelse", "finalbody")
    if any(_defines(getattr(node, block, []), name) for block in blocks):
        return True
    return any(_defines(handler.body, name) for handler in getattr(node, "handlers", []))


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
        return dict(options)

    def files(self) -> Iterator[Path]:
        """All files of the source directory, sorted; no caches, environments, hidden folders."""
        skipped = {str(path) for path in self.skipped}
        for folder, names, files in os.walk(self.folder):
            names[:] = sorted(
                name
                for name in names
                if not name.startswith(".")
                and name not in _SKIPPED_FOLDERS
                and os.path.join(folder, name) not in skipped
                and not os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))
            )
            for name in sorted(files):
                path = Path(folder, name)
                if not name.endswith(".pyc") and path.is_file():
                    yield path

    def code_token(self) -> str:
        """Hash of all Python code and settings: runs with another token are other runs."""
        digest = hashlib.sha256()
        for number, path in enumerate(self.files()):
            if number > MOST_FILES:
                break
            if path.suffix == ".py" or path.name == SETTINGS_FILE or path == self.script:
                digest.update(str(path.relative_to(self.folder)).encode("utf-8", "replace"))
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()[:32]

    def data_files(self) -> dict[str, list[int]]:
        """Size and time (ns) of the other files, by their relative path."""
        found = {}
        for number, path in enumerate(self.files()):
            if number > MOST_FILES:
                break
            if path.suffix != ".py" and path.name != SETTINGS_FILE:
                stat = path.stat()
                found[str(path.relative_to(self.folder))] = [stat.st_size, stat.st_mtime_ns]
        return found

    def archive(self) -> bytes:
        """Zip the whole source directory for workers on other machines.

        Raises
        ------
        EntryScriptNotUsableError
            More than 300 MB or 20,000 files.
        """
        buffer, size = io.BytesIO(), 0
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as bundle:
            for number, path in enumerate(self.files()):
                size += path.stat().st_size
                if size > MOST_BYTES or number >= MOST_FILES:
                    raise EntryScriptNotUsableError(
                        f"source_directory {str(self.folder)!r} holds more than "
                        f"{MOST_BYTES // 1024**2} MB or {MOST_FILES} files, too much to send to "
                        "every worker: put the script into a folder of its own, and give data "
                        "as side_inputs."
                    )
                bundle.write(path, path.relative_to(self.folder))
        return buffer.getvalue()
