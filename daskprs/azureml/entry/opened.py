"""The workspace of the run, opened where a script writes to it or asks it for models."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from daskprs.azureml.entry import facts
from daskprs.azureml.entry.unsupported import UserErrorException

if TYPE_CHECKING:
    from daskprs.pipelines.workspace import Workspace

__all__ = ["has_workspace", "open_workspace"]


def has_workspace() -> bool:
    """Say whether the run belongs to a workspace; that may still be out of reach."""
    return "folder" in facts.workspace_facts()


def open_workspace(what: str) -> Workspace:
    """Open the workspace of the run.

    Parameters
    ----------
    what : str
        Who asks for it.

    Raises
    ------
    UserErrorException
        There is none, or it cannot be reached from here.
    """
    if not has_workspace():
        raise UserErrorException(
            f"{what} needs a workspace, and this run belongs to none: submit it in a pipeline, "
            "or write files to EntryScript().output_dir, the output folder of the run."
        )
    # Not at the top: most scripts need nothing of it.
    from daskprs.exceptions import UsageError

    try:
        return _opened()
    except UsageError as error:
        raise UserErrorException(f"{what}: {error}") from None


@functools.cache
def _opened() -> Workspace:
    from daskprs.pipelines.workspace import Workspace

    return Workspace.from_facts(facts.workspace_facts())
