"""``EntryScript``, which entry scripts of Azure ML import, and the facts that it tells."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["FOLDER", "EntryScript", "read_facts", "read_variable", "write_facts"]

FOLDER = "DASKPRS_ENTRY_PROCESS"  # environment variable: the private folder of the process
_FACTS = "facts.json"


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
            cls._instance._fill(read_facts())
        return cls._instance

    def _fill(self, facts: Mapping[str, Any]) -> None:
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


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Leave the facts where the process and all that it starts find them."""
    (folder / _FACTS).write_text(json.dumps(facts), "utf-8")


def read_facts() -> dict[str, Any]:
    """Return what `write_facts` has left; nothing outside of an entry process."""
    folder = os.environ.get(FOLDER)
    if folder is None:  # a script that is tested by itself
        return {}
    facts: dict[str, Any] = json.loads(Path(folder, _FACTS).read_text("utf-8"))
    return facts


def read_variable(name: str, default: Any) -> Any:
    """Return the value of an environment variable that holds JSON, as those of a run do.

    Raises
    ------
    ValueError
        It is no JSON, or not of the type of `default`.
    """
    text = os.environ.get(name)
    if not text:
        return default
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"the environment variable {name} is not JSON: {error}") from error
    if not isinstance(value, type(default)):
        raise ValueError(f"the environment variable {name} is not a JSON {type(default).__name__}")
    return value
