"""``azureml_user.parallel_run.EntryScript``, which entry scripts of Azure ML import."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["FOLDER", "MODULES", "EntryScript", "install", "write_facts"]

FOLDER = "DASKPRS_ENTRY_PROCESS"  # environment variable: the private folder of the process
MODULES = "modules"  # in that folder: what is to be imported from it
_FACTS = "facts.json"
_AZURE_MODULES = Path(__file__).parent / "azure_modules"


class EntryScript:
    """Facts of this process for the user's script; one object per process.

    Attributes
    ----------
    logger : logging.Logger
        Writes to ``logs/user/entry_script_log`` of the output folder.
    log_dir : str
        A folder for the script's own logs. It is not created for the script.
    agent_name, working_dir, output_dir, logging_level : str
    """

    _instance: EntryScript | None = None

    def __new__(cls) -> EntryScript:
        if cls._instance is None:
            cls._instance = super().__new__(cls)
            cls._instance._fill(_read_facts())
        return cls._instance

    def _fill(self, facts: Mapping[str, str]) -> None:
        self.log_dir = facts.get("log_dir", "")
        self.agent_name = facts.get("agent_name", "")
        self.working_dir = facts.get("working_dir", "")
        self.output_dir = facts.get("output_dir", "")
        self.logging_level = facts.get("logging_level", "INFO")
        self.logger = logging.getLogger("EntryScript")
        self.logger.setLevel(self.logging_level)
        log_file = facts.get("log_file")
        if log_file and not self.logger.handlers:
            handler = logging.FileHandler(log_file, encoding="utf-8", errors="backslashreplace")
            handler.setFormatter(logging.Formatter("%(asctime)s|%(levelname)s|%(message)s"))
            self.logger.addHandler(handler)
            self.logger.propagate = False


def write_facts(folder: Path, facts: Mapping[str, str]) -> None:
    """Leave the facts where the process and all that it starts find them."""
    (folder / _FACTS).write_text(json.dumps(facts), "utf-8")


def _read_facts() -> dict[str, str]:
    folder = os.environ.get(FOLDER)
    if folder is None:  # a script that is tested by itself
        return {}
    facts: dict[str, str] = json.loads(Path(folder, _FACTS).read_text("utf-8"))
    return facts


def install() -> None:
    """Make the imports work, here and in what multiprocessing starts, before any other of them."""
    sys.path[:0] = [str(_AZURE_MODULES), os.path.join(os.environ[FOLDER], MODULES)]
