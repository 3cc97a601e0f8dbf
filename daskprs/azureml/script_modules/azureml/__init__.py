"""Stands on sys.path of the scripts of steps, and of what they start: opens the door there."""

import importlib
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[4]))  # where daskprs is not installed

from daskprs.azureml.door import install

del sys.modules[__name__]
install(replace=True)

importlib.import_module("azureml")  # that of the door, which takes the place of this module
