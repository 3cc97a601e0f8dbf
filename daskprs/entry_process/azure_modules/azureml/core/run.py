"""``from azureml.core.run import Run``."""

from daskprs.azureml.entry.runs import Run

__all__ = ["Run"]
__path__: list[str] = []  # imports from it are asked for what it does not have
