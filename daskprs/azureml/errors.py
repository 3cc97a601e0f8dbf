"""Errors by the names that driver code catches."""

from __future__ import annotations

from daskprs.exceptions import DaskprsError, UsageError

__all__ = [
    "AzureMLException",
    "ComputeTargetException",
    "UserErrorException",
    "WebserviceException",
]

# Whatever daskprs raises is caught by it.
AzureMLException = DaskprsError
UserErrorException = UsageError


class ComputeTargetException(UsageError):  # noqa: N818  (as Azure ML names it)
    """There is no such compute target."""


class WebserviceException(UsageError):  # noqa: N818  (as Azure ML names it)
    """There is no such model."""
