"""``azureml.core.Workspace``: the names of the workspace, with nothing behind them."""

from __future__ import annotations

from typing import Any, NoReturn

from daskprs.azureml.entry import facts
from daskprs.azureml.entry.models import Model
from daskprs.azureml.entry.unsupported import Partial, UserErrorException

__all__ = ["Workspace"]

_TOLD = (
    "{} cannot connect to a workspace from an entry process of daskprs: "
    "Run.get_context().experiment.workspace has its name; models, data and secrets come as models, "
    "side_inputs and environment_variables of the step."
)


def _refuse(name: str) -> NoReturn:
    raise UserErrorException(_TOLD.format(name))


class Workspace(Partial):
    """The workspace of the run, from ``Run.get_context().experiment.workspace``.

    Attributes
    ----------
    name, subscription_id, resource_group : str
    models : dict
        The latest version of each model of the step, by its name.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        _refuse("Workspace()")

    @classmethod
    def _of_run(cls) -> Workspace:
        workspace = cls.__new__(cls)
        told = facts.workspace_facts()
        workspace.name = told["name"]
        workspace.subscription_id = told["subscription_id"]
        workspace.resource_group = told["resource_group"]
        return workspace

    name: str
    subscription_id: str
    resource_group: str

    @property
    def models(self) -> dict[str, Model]:
        return {model.name: model for model in Model.list(self, latest=True)}

    @staticmethod
    def from_config(*args: Any, **kwargs: Any) -> NoReturn:
        """Say what to do instead.

        Raises
        ------
        UserErrorException
        """
        _refuse("Workspace.from_config()")

    @staticmethod
    def get(*args: Any, **kwargs: Any) -> NoReturn:
        """Say what to do instead.

        Raises
        ------
        UserErrorException
        """
        _refuse("Workspace.get()")

    def __repr__(self) -> str:
        return (
            f"Workspace.create(name={self.name!r}, subscription_id={self.subscription_id!r}, "
            f"resource_group={self.resource_group!r})"
        )
