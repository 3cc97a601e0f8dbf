"""YAML files that know the line of each of their values."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from daskprs.exceptions import ConfigError

__all__ = ["At", "Document", "Section"]

At = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Takes a date for text: in these files it is a value for a script."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


@dataclass(frozen=True)
class Document:
    """A YAML file.

    Attributes
    ----------
    path : Path or str
        A url where it is in a store.
    content : object
    origins : dict
        Where each value stands, by the names that lead to it.
    """

    path: Path | str
    content: Any
    origins: dict[At, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Document:
        """Read a file of this machine.

        Raises
        ------
        ConfigError
        """
        try:
            return cls.parse(path.read_bytes(), path)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}.") from None

    @classmethod
    def parse(cls, data: bytes, path: Path | str) -> Document:
        """Read YAML.

        Raises
        ------
        ConfigError
            It is none, or a key is there twice.
        """
        name = path.name if isinstance(path, Path) else path
        origins: dict[At, str] = {}
        try:
            loader = _Loader(data)
            node = loader.get_single_node()
            for at, line in _lines(node, (), name):
                origins[at] = f"{name}, line {line + 1}"
            content = {} if node is None else loader.construct_document(node)
        except (yaml.YAMLError, ValueError) as error:
            if isinstance(error, ConfigError):
                raise
            mark = getattr(error, "problem_mark", None)
            where = "" if mark is None else f", line {mark.line + 1}"
            problem = getattr(error, "problem", None) or str(error).splitlines()[0]
            raise ConfigError(f"{name}{where}: this is not YAML: {problem}.") from None
        return cls(path, content, origins)

    def with_changes(self, changes: Iterable[str]) -> Document:
        """Set values as ``az ml job create --set`` does: ``inputs.x.path=data``.

        Raises
        ------
        ConfigError
        """
        content, origins = copy.deepcopy(self.content), dict(self.origins)
        for change in changes:
            dotted, mark, text = change.partition("=")
            names = [name.strip() for name in dotted.split(".")]
            if not mark or not all(names):
                raise ConfigError(f"--set {change!r} is not of the form inputs.NAME.path=VALUE.")
            at = _set(content, names, _scalar(text), change)
            origins = {known: where for known, where in origins.items() if known[: len(at)] != at}
            origins[at] = f"--set {dotted}"
        return Document(self.path, content, origins)

    def where(self, at: At) -> str:
        """Say where a value stands, or the mapping that it should stand in."""
        while at and at not in self.origins:
            at = at[:-1]
        return self.origins.get(at, str(getattr(self.path, "name", self.path)))

    def error(self, at: At, message: str) -> ConfigError:
        """Make an error that names file, line and key."""
        where, dotted = self.where(at), ".".join(map(str, at))
        if not dotted or where == f"--set {dotted}":
            return ConfigError(f"{where}: {message}", is_located=True)
        return ConfigError(f"{where}: {dotted}: {message}", is_located=True)

    @property
    def section(self) -> Section:
        return Section(self, ())


@dataclass(frozen=True)
class Section:
    """A part of a document."""

    document: Document
    at: At

    @property
    def content(self) -> Any:
        value = self.document.content
        for name in self.at:
            value = value[name]
        return value

    def child(self, *names: str | int) -> Section:
        return Section(self.document, (*self.at, *names))

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value of a mapping; what is empty is not there."""
        content = self.content
        value = content.get(name) if isinstance(content, dict) else None
        return default if value is None else value

    def names(self, name: str) -> list[str]:
        """Return the keys of an inner mapping, which may be missing."""
        return list(self.get(name, {}))

    def error(self, message: str, *names: str | int) -> ConfigError:
        return self.document.error((*self.at, *names), message)

    @property
    def folder(self) -> Path:
        """Where the paths in it begin."""
        return Path(self.document.path).parent


def _lines(node: yaml.Node | None, at: At, name: str) -> Iterator[tuple[At, int]]:
    if node is None:
        return
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            inner = (*at, key.value if isinstance(key, yaml.ScalarNode) else "?")
            if inner in seen and inner[-1] != "<<":
                line = key.start_mark.line + 1
                raise ConfigError(f"{name}, line {line}: the key {inner[-1]!r} is there twice.")
            seen.add(inner)
            yield inner, key.start_mark.line
            yield from _lines(value, inner, name)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield (*at, number), value.start_mark.line
            yield from _lines(value, (*at, number), name)


def _scalar(text: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # noqa: S506 (it is a safe one)
    except yaml.YAMLError:
        return text


def _set(content: Any, names: list[str], value: Any, change: str) -> At:
    """Set a value, making the mappings around it; return the first name that is new."""
    at: list[str | int] = []
    first: At = ()
    for name in names[:-1]:
        content, key = _step(content, name, change), _key(content, name)
        at.append(key)
        if isinstance(content, dict) and content.get(key) is None:
            content[key] = {}
            first = first or tuple(at)
        content = content[key]
    key = _key(_step(content, names[-1], change), names[-1])
    content[key] = value
    return first or (*at, key)


def _step(content: Any, name: str, change: str) -> Any:
    is_there = isinstance(content, list) and name.isdigit() and int(name) < len(content)
    if not is_there and not isinstance(content, dict):
        raise ConfigError(f"--set {change!r}: there is no mapping that could hold {name!r}.")
    return content


def _key(content: Any, name: str) -> str | int:
    return int(name) if isinstance(content, list) else name
