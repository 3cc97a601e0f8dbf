"""``from azureml.core.dataset import Dataset``."""

from daskprs.azureml.entry.datasets import Dataset

__all__ = ["Dataset"]
__path__: list[str] = []  # imports from it are asked for what it does not have
