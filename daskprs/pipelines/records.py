"""Records: JSON with versions, in the folder of a workspace."""

from __future__ import annotations

import json
import re
import time
import uuid
from typing import Any
from urllib.parse import quote, unquote

from daskprs.exceptions import ConfigError
from daskprs.json_text import json_text
from daskprs.output_folder import OutputFolder

__all__ = ["Records", "check_name"]

_FILE = re.compile(r"(?P<name>.+)@(?P<version>\d+)\.json")


def check_name(field: str, name: object) -> str:
    """Return `name` if it can name something in a workspace.

    Raises
    ------
    ConfigError
    """
    if not isinstance(name, str) or not name.strip() or len(name) > 100:
        raise ConfigError.of(field, name, "a name of 1 to 100 characters, such as 'digits'")
    return name


class Records:
    """Named records of one kind; each name has versions, counted from 1.

    Parameters
    ----------
    folder : OutputFolder
        Of the workspace.
    kind : str
        Names the sub-folder.
    """

    def __init__(self, folder: OutputFolder, kind: str) -> None:
        self._folder, self.kind = folder, kind

    def _file(self, name: str, version: int) -> str:
        return f"{self.kind}/{quote(name, safe='')}@{version}.json"

    def all(self) -> dict[str, list[int]]:
        """Tell all names, sorted, with their versions."""
        found: dict[str, list[int]] = {}
        for file in self._folder.sizes(self.kind):
            match = _FILE.fullmatch(file)
            if match is not None:
                found.setdefault(unquote(match["name"]), []).append(int(match["version"]))
        return {name: sorted(found[name]) for name in sorted(found)}

    def read(self, name: str, version: int | None = None) -> dict[str, Any] | None:
        """Return a version of a record, by default the latest; None where it is not there."""
        if version is None:
            version = max(self.all().get(name, [0]))
        data = self._folder.read(self._file(name, version))
        return None if data is None else json.loads(data)

    def add(self, name: str, record: dict[str, Any]) -> dict[str, Any]:
        """Write a new version; two who do so at the same time get two versions."""
        self._folder.write(f"{self.kind}/README", b"One file for each name and version.\n")
        version = max(self.all().get(name, [0])) + 1
        while True:
            told = _with_facts(name, version, record)
            if self._folder.create(self._file(name, version), json_text(told, indent=2).encode()):
                return told
            version += 1

    def replace(self, name: str, record: dict[str, Any], version: int = 1) -> dict[str, Any]:
        """Write a record in the place of the one that is there."""
        told = _with_facts(name, version, record)
        self._folder.write(self._file(name, version), json_text(told, indent=2).encode())
        return told

    def remove(self, name: str) -> None:
        """Remove all versions."""
        for version in self.all().get(name, []):
            self._folder.remove(self._file(name, version))


def _with_facts(name: str, version: int, record: dict[str, Any]) -> dict[str, Any]:
    facts = {"name": name, "version": version, "id": uuid.uuid4().hex, "created": time.time()}
    return {**facts, **record}
