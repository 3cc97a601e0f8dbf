"""The Azure-compatible door: names and signatures of Azure ML, on daskprs.

``import daskprs.azureml`` before the imports of ``azureml`` opens it, and so does
``python -m daskprs.azureml driver.py``. Where the packages of Azure are installed, they stay in
use unless ``daskprs.azureml.install(replace=True)`` says otherwise.
"""

from __future__ import annotations

import os

from daskprs.azureml.door import install, uninstall
from daskprs.entry_process.entry_script_api import FOLDER

__all__ = ["install", "uninstall"]

# Entry processes have modules of their own.
if FOLDER not in os.environ:
    install()
