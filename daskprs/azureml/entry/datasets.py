"""``Run.get_context().input_datasets`` and ``Dataset.get_by_name``: the side inputs of the step."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from daskprs.azureml.entry import facts
from daskprs.azureml.entry.unsupported import Partial, UserErrorException

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Dataset", "InputDatasets", "NamedInput"]


class NamedInput(str):
    """The local path of a side input, as mounted inputs have it, which can do as a dataset does."""

    __slots__ = ()

    def _files(self) -> list[str]:
        if os.path.isfile(self):
            return [str(self)]
        found = [os.path.join(at, name) for at, _, names in os.walk(self) for name in names]
        return sorted(found)

    def to_path(self) -> list[str]:
        """Return the paths of the files, from the folder on."""
        folder = os.path.dirname(self) if os.path.isfile(self) else str(self)
        return [f"/{os.path.relpath(path, folder)}" for path in self._files()]

    def download(
        self, target_path: str | os.PathLike[str] | None = None, overwrite: bool = False
    ) -> list[str]:
        """Copy the files into a folder and return their paths; without one, where they are.

        Raises
        ------
        UserErrorException
            A file is there already, and may not be overwritten.
        """
        if target_path is None:
            return self._files()
        copies = []
        for path, name in zip(self._files(), self.to_path(), strict=True):
            copy = Path(os.path.abspath(target_path), name.lstrip("/"))
            if copy.exists() and not overwrite:
                raise UserErrorException(f"{copy} is there already: use download(overwrite=True)")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            copies.append(str(copy))
        return copies

    @contextlib.contextmanager
    def mount(self, mount_point: str | None = None) -> Iterator[_Mounted]:
        """Give an object whose `mount_point` is the folder, in a ``with`` block.

        Raises
        ------
        UserErrorException
            The folder should be another one.
        """
        if mount_point is not None:
            raise UserErrorException("mount() has no other mount_point than the one it gives")
        yield _Mounted(str(self))

    def to_pandas_dataframe(self) -> pd.DataFrame:
        """Read the files, of CSV, TSV, JSON lines or parquet, as one table.

        Raises
        ------
        UserErrorException
            A file has another ending.
        """
        import pandas as pd

        return pd.concat([_read_table(path) for path in self._files()], ignore_index=True)


class _Mounted:
    def __init__(self, mount_point: str) -> None:
        self.mount_point = mount_point


def _read_table(path: str) -> pd.DataFrame:
    import pandas as pd

    name = path.lower()
    if ".csv" in name[-8:]:
        return pd.read_csv(path)
    if ".tsv" in name[-8:]:
        return pd.read_csv(path, sep="\t")
    if ".jsonl" in name[-10:]:
        return pd.read_json(path, lines=True)
    if name.endswith((".parquet", ".pq")):
        return pd.read_parquet(path)
    raise UserErrorException(
        f"{path} is no table that is known by its ending: read it with pandas, at its path"
    )


class InputDatasets(dict[str, NamedInput]):
    """The side inputs by their names."""

    def __missing__(self, name: str) -> NoReturn:
        raise KeyError(_missing(name, self))


def _missing(name: object, known: InputDatasets) -> str:
    return (
        f"there is no side input {name!r}; there are {sorted(known) or 'none at all'}. Give it "
        "to the step with side_inputs; the inputs themselves come as mini-batches."
    )


def input_datasets() -> InputDatasets:
    return InputDatasets({name: NamedInput(path) for name, path in facts.side_inputs().items()})


class Dataset(Partial):
    """Only `get_by_name`: a side input of the step."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise UserErrorException("Dataset() is not there: use Dataset.get_by_name")

    @staticmethod
    def get_by_name(workspace: Any, name: str, version: int | str | None = None) -> NamedInput:
        """Return the side input of that name.

        Raises
        ------
        UserErrorException
            There is none; names those that are there.
        """
        known = input_datasets()
        if name not in known:
            raise UserErrorException(_missing(name, known))
        return known[name]
