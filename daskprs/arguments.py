"""Arguments of the entry script: what is given, and what reaches its sys.argv."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskprs.entry_script import EntryScriptSource
from daskprs.exceptions import ConfigError
from daskprs.listing import is_local

if TYPE_CHECKING:
    from daskprs.job import Argument

__all__ = ["as_argument", "check_arguments"]


def check_arguments(arguments: object) -> list[Any]:
    if arguments is None:
        return []
    accepted = "a list for the script's sys.argv, such as ['--model', 'model.joblib']"
    if isinstance(arguments, str | bytes | Mapping) or not isinstance(arguments, Sequence):
        raise ConfigError.of("arguments", arguments, accepted)
    if any(argument is None or "\0" in str(argument) for argument in arguments):
        raise ConfigError.of("arguments", list(arguments), accepted)
    return list(arguments)


def as_argument(given: Any, source: EntryScriptSource) -> Argument:
    """Make the relative path of a file that exists good for any working directory."""
    from daskprs.script_host import SourcePath

    text = str(given)
    option, mark, value = text.partition("=")
    if mark and text.startswith("--"):
        inner, before = as_argument(value, source), f"{option}="
        if isinstance(inner, SourcePath):
            return replace(inner, before=before)
        return f"{before}{inner}"
    looks_like_path = "/" in text or os.sep in text or bool(Path(text).suffix)
    if not isinstance(given, os.PathLike) and (text.startswith("-") or not looks_like_path):
        return text
    for base in (Path.cwd(), source.folder) if is_local(text) else ():
        path = Path(os.path.abspath(base / text))
        if path.exists():
            inside = path.is_relative_to(source.folder) and path != source.folder
            return SourcePath(str(path.relative_to(source.folder))) if inside else str(path)
    return text
