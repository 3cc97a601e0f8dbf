"""What is not there in an entry process: it says so by its name, and what to use instead."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from daskprs import entry_process
from daskprs.azureml import names, partial
from daskprs.azureml.stand_ins import StandInLoader, is_stand_in

__all__ = [
    "AzureMLException",
    "ModelNotFoundException",
    "Partial",
    "UserErrorException",
    "WebserviceException",
    "install",
]

_OUTPUT = "write files to EntryScript().output_dir, the output folder of the run"
_SIDE_INPUT = "give the data as side_inputs of the step, and open Run.get_context().input_datasets"
_SECRET = "give it in environment_variables, and read os.environ"  # noqa: S105
_DRIVER = "that belongs into the code that submits the run"
_DRIVER_MODULES = ("azureml.data", "azureml.pipeline", "azureml.widgets")
_INSTEAD = {
    "Datastore": _SIDE_INPUT,
    "Keyvault": _SECRET,
    "Environment": _DRIVER,
    "ScriptRunConfig": _DRIVER,
    "authentication": "there is nothing to log in to",
    "Run.log_image": f"{_OUTPUT}, with figure.savefig()",
    "Run.download_files": _SIDE_INPUT,
    "Run.get_secret": _SECRET,
    "Run.get_secrets": _SECRET,
    "Run.output_datasets": _OUTPUT,
    "Workspace.datastores": _SIDE_INPUT,
    "Workspace.get_default_datastore": _SIDE_INPUT,
    "Workspace.get_default_keyvault": _SECRET,
    "Dataset.File": _SIDE_INPUT,
    "Dataset.Tabular": "read the file with pandas; it can be one of the side_inputs of the step",
    "Dataset.get_by_id": "use Dataset.get_by_name for a side input",
}
_ANYTHING_ELSE = (
    "entry scripts have Run, Model, Workspace, Experiment and Dataset of azureml.core; install "
    "azureml-core for the workers where they need more"
)
_ENTRY_SCRIPT = "entry scripts have EntryScript of azureml_user.parallel_run"
_OURS = str(Path(entry_process.__file__).parent / "azure_modules") + os.sep


class AzureMLException(Exception):  # noqa: N818  (as Azure ML names it)
    """Base of the errors that scripts catch by the names of Azure ML."""


class UserErrorException(AzureMLException):
    """Something was asked for that cannot be."""


class WebserviceException(AzureMLException):
    """What Azure ML raises where a model cannot be found."""


class ModelNotFoundException(WebserviceException):
    """There is no such model."""


def _told(name: str) -> str:
    anything_else = _ANYTHING_ELSE
    if name.startswith("azureml_user."):
        anything_else = _ENTRY_SCRIPT
    elif name.startswith(_DRIVER_MODULES):
        anything_else = _DRIVER
    parts = [name, *reversed(name.split("."))]
    instead = next((_INSTEAD[part] for part in parts if part in _INSTEAD), anything_else)
    return f"{name} is not there in an entry process of daskprs: {instead}."


def _is_known(name: str) -> bool:
    """Say whether Azure ML has the name, which can then be imported as long as it is not used."""
    above, _, inner = name.rpartition(".")
    driver = names.is_package(name) or name in names.MODULES
    driver = driver or inner in names.MODULES.get(above, {})
    return driver or inner in _INSTEAD or names.is_known(name)


class Partial(partial.Partial):
    """Base of classes of which a part is there in an entry process."""

    _told = staticmethod(_told)


class _Finder:  # of no base: importing that takes longer than all of this
    """Asked when no other finder has the module: tells what is missing in one of ours."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        parent, _, inner = name.rpartition(".")
        above = sys.modules.get(parent)
        known = is_stand_in(above) or _is_known(name)
        if not is_stand_in(above):
            file = str(getattr(above, "__file__", None) or "")
            if not file.startswith(_OURS) or inner.startswith("_"):
                return None  # of packages that are installed
        if known:
            loader: Any = StandInLoader(_told, UserErrorException)
            return ModuleSpec(name, loader)
        # Without its name: an import of several names would take it for one that may be missing.
        raise ModuleNotFoundError(_told(name))


def install() -> None:
    """Let imports of what is missing tell so; once for a process."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
