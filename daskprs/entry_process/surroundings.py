"""What the script finds around it: environment variables and a working directory of its own."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Mapping
from pathlib import Path

import psutil

from daskprs.entry_process.entry_script_api import FOLDER
from daskprs.entry_process.script_imports import MODULES
from daskprs.entry_process.script_module import ROOT_PACKAGE

__all__ = ["data_references", "kill_marked", "link_package", "link_source", "make_environment"]

# Some folders of scripts hold data too; more links than this would delay every start.
_MOST_LINKS = 5_000


def make_environment(
    folder: Path, given: Mapping[str, str], output_folder: str, gpu: str | None, has_gpus: bool
) -> dict[str, str]:
    """Environment of an entry process: the worker's, then ours, then what the user has given."""
    environment = {
        **os.environ,
        "AZUREML_BI_OUTPUT_PATH": output_folder,
        "PYTHONIOENCODING": "utf-8",
    }
    if (
        "PYTHONPATH" in environment
    ):  # relative to the worker's directory, not to that of the process
        folders = environment["PYTHONPATH"].split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, folders))
    if has_gpus:
        environment.pop("CUDA_VISIBLE_DEVICES", None)
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
    return {**environment, **given, FOLDER: str(folder)}


def data_references(side_inputs: Mapping[str, str]) -> dict[str, str]:
    """Name the local paths of side inputs as Azure ML does."""
    return {f"AZUREML_DATAREFERENCE_{name}": path for name, path in side_inputs.items()}


def link_package(source_directory: Path, folder: Path) -> None:
    """Let what multiprocessing starts import the package that the script may be in."""
    modules = folder / MODULES
    modules.mkdir()
    (modules / ROOT_PACKAGE).symlink_to(source_directory)


def link_source(script_folder: Path, source_directory: Path, work: Path) -> None:
    """Let what lies beside the script be opened by a relative path, from the private folder.

    Names of the source directory come before those of the script's own folder.
    """
    for folder in dict.fromkeys((source_directory, script_folder)):
        with os.scandir(folder) as found:
            entries = list(itertools.islice(found, _MOST_LINKS + 1))
        if len(entries) > _MOST_LINKS:
            continue
        for entry in entries:
            hidden_folder = entry.name.startswith(".") and entry.is_dir()
            if not hidden_folder and entry.name != "__pycache__":
                with contextlib.suppress(FileExistsError):
                    os.symlink(entry.path, work / entry.name)


def kill_marked(folder: Path) -> None:
    """Kill what an entry process has started, also in sessions and groups of its own."""
    for _ in range(5):  # one that forks meanwhile is found in the next round
        found = False
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                # What a process starts inherits its environment.
                if process.environ().get(FOLDER) == str(folder):
                    process.kill()
                    found = True
        if not found:
            return
