"""RunFiles: files of the run of a step besides its outputs, in the workspace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from daskprs.exceptions import InputNotFoundError
from daskprs.listing import base_folder, list_files
from daskprs.pipelines.transfer import copy_files, fetch_to

if TYPE_CHECKING:
    from daskprs.output_folder import OutputFolder

__all__ = ["RunFiles"]


class RunFiles:
    """Files of the run of a step besides its outputs: logs, and what its script has uploaded.

    Parameters
    ----------
    workspace : OutputFolder
        Of the workspace.
    run_id : str
        Of the step's run.
    """

    def __init__(self, workspace: OutputFolder, run_id: str) -> None:
        self._options = workspace.storage_options
        self.url = workspace.url_of(f"files/{run_id}")
        self.local = None if workspace.local is None else Path(self.url)

    def names(self, below: str = "") -> list[str]:
        """Return the names of all files, or of those that are a path or below it."""
        url = f"{self.url}/{below}" if below else self.url
        try:
            base = base_folder(self.url, storage_options=self._options)
            found = list_files([url], storage_options=self._options)
            return [file.path[len(base) :].lstrip("/") for file in found]
        except (InputNotFoundError, FileNotFoundError):
            return []

    def upload(self, files: dict[str, Path]) -> None:
        """Copy files of this machine here, over older ones; `files` says their names."""
        copy_files(files, self.url, self._options, overwrite=True)

    def fetch(self, name: str, target: Path) -> Path:
        """Copy one of the files to this machine."""
        return fetch_to(f"{self.url}/{name}", self._options, target)
