"""``azureml.core.Workspace``: the names of the workspace, with nothing behind them."""

from __future__ import annotations

from daskprs.azureml.entry import facts
from daskprs.azureml.entry.models import Model
from daskprs.azureml.entry.opened import has_workspace
from daskprs.azureml.entry.unsupported import Partial, UserErrorException

__all__ = ["Workspace"]


class Workspace(Partial):
    """The workspace of the run, from ``Run.get_context().experiment.workspace``.

    Attributes
    ----------
    name, subscription_id, resource_group : str
    models : dict
        The latest version of each model of the step, by its name.
    """

    def __init__(
        self,
        subscription_id: str | None = None,
        resource_group: str | None = None,
        workspace_name: str | None = None,
        *args: object,
        **kwargs: object,
    ) -> None:
        told = facts.workspace_facts()
        self.name, self.subscription_id = told["name"], told["subscription_id"]
        self.resource_group = told["resource_group"]
        if has_workspace() and workspace_name not in (None, self.name):
            raise UserErrorException(
                f"the workspace of this run is {self.name!r}, and {workspace_name!r} cannot be "
                "opened from an entry process of daskprs: submit the step in that workspace, or "
                "give it what the script needs as models and side_inputs."
            )

    @classmethod
    def _of_run(cls) -> Workspace:
        return cls()

    name: str
    subscription_id: str
    resource_group: str

    @property
    def models(self) -> dict[str, Model]:
        return {model.name: model for model in Model.list(self, latest=True)}

    @classmethod
    def from_config(cls, *args: object, **kwargs: object) -> Workspace:
        """Return the workspace of the run, whatever a config.json says."""
        return cls()

    @classmethod
    def get(cls, name: str | None = None, *args: object, **kwargs: object) -> Workspace:
        return cls(workspace_name=name)

    def __repr__(self) -> str:
        return (
            f"Workspace.create(name={self.name!r}, subscription_id={self.subscription_id!r}, "
            f"resource_group={self.resource_group!r})"
        )
