"""``from azureml.core.run import Run``."""

from daskprs.azureml.entry.runs import OfflineRun as _OfflineRun  # scripts ask for its type
from daskprs.azureml.entry.runs import Run

__all__ = ["Run", "_OfflineRun"]
__path__: list[str] = []  # imports from it are asked for what it does not have
