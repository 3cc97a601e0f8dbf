"""``from azureml.core.experiment import Experiment``."""

from daskprs.azureml.entry.runs import Experiment

__all__ = ["Experiment"]
__path__: list[str] = []  # imports from it are asked for what it does not have
