"""What inputs and outputs of a job stand for: literals, data, places."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from daskprs.exceptions import ConfigError
from daskprs.globs import MAGIC
from daskprs.listing import is_local
from daskprs.yaml_jobs.documents import Section

__all__ = ["DATA", "DataInput", "Given", "Literal", "Output", "data_path", "literal"]

DATA = ("uri_folder", "uri_file", "mltable", "custom_model", "mlflow_model")
_NUMBERS: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


@dataclass(frozen=True)
class Literal:
    """A value that is text for the command or the script."""

    text: str


@dataclass(frozen=True)
class DataInput:
    """Files, at a path or url, or where another job writes them.

    Attributes
    ----------
    type : str or None
        None: as the other job says.
    produced : tuple of str or None
        The other job, and its output.
    mode : str or None
        With ``direct``, a command gets the url itself.
    """

    type: str | None
    section: Section
    url: str = ""
    produced: tuple[str, str] | None = None
    mode: str | None = None

    def with_type(self, type_: str | None) -> DataInput:
        return self if type_ is None else replace(self, type=type_)


Given = Literal | DataInput


@dataclass(frozen=True)
class Output:
    """What a job writes, and where.

    Attributes
    ----------
    folder : Path
    file_name : str or None
        Of the file in it, where it is one.
    is_own : bool
        Whether the folder is that of this output alone, below the folder of all outputs.
    url : str or None
        Where it is copied to when its job has completed.
    is_direct : bool
        The job writes to the url by itself.
    """

    name: str
    type: str
    folder: Path
    file_name: str | None
    is_own: bool
    url: str | None = None
    is_direct: bool = False

    @property
    def local(self) -> Path:
        """The folder or the file of this machine."""
        return self.folder if self.file_name is None else self.folder / self.file_name

    @property
    def path(self) -> str:
        """What an expression for it becomes."""
        return str(self.url if self.is_direct else self.local)


def literal(section: Section, declared: dict[str, Any]) -> Literal:
    """Take a plain value.

    Parameters
    ----------
    declared : mapping
        How the component declares the input.

    Raises
    ------
    ConfigError
    """
    value = section.content
    kind = declared.get("type", "string")
    wanted = _NUMBERS.get(kind)
    if wanted is not None and not _is_of(value, wanted):
        raise section.error(f"{value!r} is not accepted: the input is of type {kind}.")
    allowed = declared.get("enum")
    if allowed is not None and value not in allowed:
        raise section.error(f"{value!r} is not accepted: it must be one of {allowed}.")
    number = value if isinstance(value, int | float) else None
    if number is not None and not (
        declared.get("min", number) <= number <= declared.get("max", number)
    ):
        least, most = declared.get("min", "any"), declared.get("max", "any")
        raise section.error(f"{value!r} is not accepted: it must be from {least} to {most}.")
    return Literal(str(value))


def _is_of(value: Any, wanted: tuple[type, ...]) -> bool:
    return isinstance(value, wanted) and (bool in wanted or not isinstance(value, bool))


def data_path(section: Section, text: str) -> str:
    """Return the absolute path or the url that a path in a file means.

    Raises
    ------
    ConfigError
        It names data of a workspace of Azure ML, or is not there.
    """
    if text.startswith("azureml:"):
        raise not_of_azure(section, text)
    if not is_local(text) or "://" in text:
        return text
    path = os.path.abspath(section.folder / Path(text).expanduser())
    if not os.path.exists(path) and not MAGIC.search(text):
        raise section.error(f"{text!r} is not there: there is no {path}.")
    return path


def not_of_azure(section: Section, text: str) -> ConfigError:
    """Say that something is only in a workspace of Azure ML."""
    dotted = ".".join(map(str, section.at))
    return section.error(
        f"{text!r} is in a workspace of Azure ML, which cannot be reached from here: give a path "
        "of this machine or the url of a store, such as abfs://container/data, also by "
        f"--set {dotted}=PATH."
    )
