"""What the script can import besides what is installed: folders on sys.path, and TensorFlow 1.

Folders also work in what multiprocessing starts, and cost nothing where nothing is imported.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from daskprs.entry_process.entry_script_api import FOLDER, read_facts, read_variable

__all__ = ["MODULES", "install"]

MODULES = "modules"  # in the folder of the process: what is to be imported from it
_AZURE_MODULES = str(Path(__file__).parent / "azure_modules")
# Variables by which scripts of Azure ML know their run, and where it is told to us.
_VARIABLES = {
    "AZUREML_RUN_ID": ("DASKPRS_RUN", "id"),
    "AZUREML_ARM_PROJECT_NAME": ("DASKPRS_RUN", "experiment"),
    "AZUREML_ARM_WORKSPACE_NAME": ("DASKPRS_WORKSPACE", "name"),
    "AZUREML_ARM_SUBSCRIPTION": ("DASKPRS_WORKSPACE", "subscription_id"),
    "AZUREML_ARM_RESOURCEGROUP": ("DASKPRS_WORKSPACE", "resource_group"),
}


def install() -> None:
    """Make the imports work, before any other of them."""
    sys.path.insert(0, os.path.join(os.environ[FOLDER], MODULES))
    # What is installed comes first, but where it would look for a workspace that is ours.
    sys.path.insert(0 if _is_asked_for() else len(sys.path), _AZURE_MODULES)
    _set_variables()
    if "tensorflow" in os.environ.get("DASKPRS_ENVIRONMENT", ""):
        from daskprs.azureml.entry import tensorflow1

        tensorflow1.install()


def _is_asked_for() -> bool:
    asked = os.environ.get("DASKPRS_AZUREML", "")
    if asked:
        return asked == "1"
    return any(name in os.environ for name in ("DASKPRS_MODELS", "DASKPRS_WORKSPACE"))


def _set_variables() -> None:
    for name, (source, key) in _VARIABLES.items():
        value = read_variable(source, {}).get(key)
        if value:
            os.environ.setdefault(name, str(value))
    # Scripts ask whether it is there to know that they do not run by themselves.
    os.environ.setdefault("AZUREML_RUN_ID", str(read_facts().get("run_id") or "daskprs"))
    models = read_variable("DASKPRS_MODELS", {})
    versions = [version for found in models.values() for version in found]
    if len(versions) == 1:  # the folder that the one model of a deployment is in
        folder = os.path.dirname(str(versions[0]["path"]).rstrip("/"))
        os.environ.setdefault("AZUREML_MODEL_DIR", folder)
