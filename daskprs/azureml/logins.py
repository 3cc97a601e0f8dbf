"""``azureml.core.authentication``: accepted, and not used."""

from __future__ import annotations

from daskprs.azureml.partial import Partial

__all__ = [
    "ArmTokenAuthentication",
    "AzureCliAuthentication",
    "InteractiveLoginAuthentication",
    "MsiAuthentication",
    "ServicePrincipalAuthentication",
    "TokenAuthentication",
]


class _Login(Partial):
    """A login: a workspace here is a folder, and nothing of what is given is kept."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass


class ArmTokenAuthentication(_Login):
    pass


class AzureCliAuthentication(_Login):
    pass


class InteractiveLoginAuthentication(_Login):
    pass


class MsiAuthentication(_Login):
    pass


class ServicePrincipalAuthentication(_Login):
    pass


class TokenAuthentication(_Login):
    pass
