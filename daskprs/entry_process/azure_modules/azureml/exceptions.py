"""``from azureml.exceptions import ModelNotFoundException``."""

from daskprs.azureml.entry.unsupported import (
    AzureMLException,
    ModelNotFoundException,
    UserErrorException,
    WebserviceException,
)

__all__ = [
    "AzureMLException",
    "ModelNotFoundException",
    "UserErrorException",
    "WebserviceException",
]
__path__: list[str] = []  # imports from it are asked for what it does not have
