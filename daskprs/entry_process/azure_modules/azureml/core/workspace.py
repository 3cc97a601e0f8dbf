"""``from azureml.core.workspace import Workspace``."""

from daskprs.azureml.entry.workspaces import Workspace

__all__ = ["Workspace"]
__path__: list[str] = []  # imports from it are asked for what it does not have
