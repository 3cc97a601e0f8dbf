"""The entry script and all that its processes have in common, ready to travel to the workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from daskprs.side_inputs import SideInput, SideModel, SidePath

__all__ = ["ScriptPackage", "SourcePath"]


@dataclass(frozen=True)
class SourcePath:
    """An argument that stands for a path inside the source directory, wherever that is.

    Attributes
    ----------
    before : str
        Text in front of the path, such as ``--model=``.
    """

    relative: str
    before: str = ""


@dataclass(frozen=True)
class ScriptPackage:
    """The entry script and all that its processes have in common, ready to travel.

    Attributes
    ----------
    archive : bytes or None
        The packed source directory; None where `folder` can be used in place.
    """

    token: str
    script: str
    folder: str
    archive: bytes | None = field(repr=False)
    arguments: tuple[str | SourcePath | SidePath, ...] = ()
    side_inputs: tuple[SideInput, ...] = field(default=(), repr=False)
    models: tuple[SideModel, ...] = ()
    output_format: str | None = "text"
    to_csv_options: Mapping[str, Any] = field(default_factory=dict)
    logging_level: str = "INFO"
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    output_folder: str = ""
    init_timeout: float = 600.0
    process_count: int | None = None
    memory_limit: int | None = None
    shutdown_timeout: float = 60.0
