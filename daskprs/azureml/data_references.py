"""``DataReference``: a path in a datastore as an input of a step, as before there were datasets."""

from __future__ import annotations

import posixpath
import re
from typing import Any

from daskprs.azureml.datastores import DataPath, Datastore
from daskprs.azureml.partial import Partial, refuse
from daskprs.pipelines.base import NamedInput
from daskprs.pipelines.data import Data

__all__ = ["DataReference"]

_TOLD = "the script is told the path"


class DataReference(Partial):
    """A path in a datastore as an input of a step; to write to, take an output.

    Parameters
    ----------
    datastore : Datastore
    data_reference_name : str, optional
        Default: the last name of the path, or the name of the datastore.
    path_on_datastore : str, optional
    mode : {"mount", "download"}
        The same here.
    """

    def __init__(
        self,
        datastore: Datastore,
        data_reference_name: str | None = None,
        path_on_datastore: str | None = None,
        mode: str = "mount",
        path_on_compute: str | None = None,
        overwrite: bool = False,
    ) -> None:
        refuse(
            path_on_compute=(path_on_compute, _TOLD),
            mode=(mode == "upload" and mode, "take PipelineData as an output of the step"),
        )
        self.datastore, self.mode = datastore, mode
        self.path_on_datastore = (path_on_datastore or "").strip("/")
        word = data_reference_name or posixpath.basename(self.path_on_datastore) or datastore.name
        self.data_reference_name = re.sub(r"\W", "_", word)
        data = Data.files((datastore._native, self.path_on_datastore))
        self._native = NamedInput(self.data_reference_name, data)

    def path(self, path: str | None = None, data_reference_name: str | None = None) -> Any:
        """Name what is below the path."""
        below = posixpath.join(self.path_on_datastore, path or "")
        return DataReference(self.datastore, data_reference_name, below, self.mode)

    def as_mount(self) -> DataReference:
        return self

    def as_download(
        self, path_on_compute: str | None = None, overwrite: bool = False
    ) -> DataReference:
        refuse(path_on_compute=(path_on_compute, _TOLD))
        return self

    @staticmethod
    def create(
        data_reference_name: str | None = None, data_path: DataPath | None = None, **more: Any
    ) -> DataReference:
        """Make one of a path in a datastore."""
        if data_path is None or data_path.datastore is None:
            refuse(data_path=(repr(data_path), "give a path of a datastore"))
        store: Any = data_path and data_path.datastore
        below = data_path.path_on_datastore if data_path is not None else None
        return DataReference(store, data_reference_name, below, **more)

    def __repr__(self) -> str:
        return f"DataReference({self.data_reference_name!r}, {self.datastore!r})"
