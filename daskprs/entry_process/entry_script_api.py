"""``azureml_user.parallel_run.EntryScript``, which entry scripts of Azure ML import."""

from __future__ import annotations

import importlib.util
import logging
import sys
import types
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path

__all__ = ["EntryScript", "install"]

_facts: dict[str, str] = {}


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
            cls._instance._fill(_facts)
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
            handler = logging.FileHandler(Path(log_file), encoding="utf-8")
            handler.setFormatter(logging.Formatter("%(asctime)s|%(levelname)s|%(message)s"))
            self.logger.addHandler(handler)
            self.logger.propagate = False


def install(facts: Mapping[str, str]) -> None:
    """Make the import work; where Azure's own package is installed, it is this one all the same."""
    _facts.update(facts)
    package = _module("azureml_user", is_package=True)
    module = _module("azureml_user.parallel_run")
    module.EntryScript = EntryScript  # type: ignore[attr-defined]
    package.parallel_run = module  # type: ignore[attr-defined]


def _module(name: str, is_package: bool = False) -> types.ModuleType:
    module = importlib.util.module_from_spec(ModuleSpec(name, None, is_package=is_package))
    sys.modules[name] = module
    return module
