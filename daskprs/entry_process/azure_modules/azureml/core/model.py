"""``from azureml.core.model import Model``."""

from daskprs.azureml.entry.models import Model

__all__ = ["Model"]
__path__: list[str] = []  # imports from it are asked for what it does not have
