"""What a store tells of its folders, and the walk through a tree of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from daskprs.globs import Pattern

__all__ = [
    "AT_ONCE",
    "Content",
    "FileTree",
    "ListedFile",
    "is_local",
    "join",
    "nothing_found",
    "split_chain",
    "takes",
    "walk",
]

PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)(://|::)")
_LOCAL_PROTOCOLS = ("file", "local")
AT_ONCE = 256  # files of a folder; before they are asked for
# Put before "::", these have no path of their own but that of what follows.
_CACHES = ("blockcache", "cached", "filecache", "simplecache")


class ListedFile(NamedTuple):
    """A file found.

    Parameters
    ----------
    path
        Absolute path of a local file; else a url that `fsspec` opens with the same storage
        options.
    size
        Number of bytes; None if the store does not tell, if the file vanished meanwhile, or if
        it is a broken symbolic link.
    version
        Changes when the content changes; empty if the store tells nothing of the kind.
    """

    path: str
    size: int | None
    version: str

    @property
    def folder(self) -> str:
        """Path or url of the folder that the file is in."""
        if self.path.startswith("/"):
            return self.path.rpartition("/")[0] or "/"
        before, link, after = split_chain(self.path)
        return before + link.rpartition("/")[0] + after


def is_local(url: str) -> bool:
    """Tell whether a url is that of a local path."""
    match = PROTOCOL.match(url)
    if match is None:
        return True
    protocol, mark = match.groups()
    if mark == "::":
        # A local file may have such a name, too.
        return not _is_protocol(protocol)
    return protocol in _LOCAL_PROTOCOLS


def _is_protocol(name: str) -> bool:
    import fsspec

    return name in fsspec.available_protocols()


def split_chain(url: str) -> tuple[str, str, str]:
    """Split a url such as ``a::b://path::c://path`` around the part that files are found in."""
    links = url.split("::")
    number = 0
    while number < len(links) - 1 and links[number] in _CACHES:
        number += 1
    link = links[number]
    if len(links) > 1 and "://" not in link and _is_protocol(link):
        link += "://"
    before = "".join(f"{name}::" for name in links[:number])
    after = "".join(f"::{name}" for name in links[number + 1 :])
    return before, link, after


@dataclass(slots=True)
class Content:
    """What is in a folder."""

    files: list[str] = field(default_factory=list)
    infos: dict[str, dict[str, Any]] = field(default_factory=dict)
    folders: list[tuple[str, str]] = field(default_factory=list)


class FileTree(Protocol):
    """What a url is a part of, and how to find files there."""

    def find(self, hidden: tuple[str, ...]) -> Iterator[ListedFile]:
        """Give the files that the url matches."""

    def takes(self, url: str, hidden: tuple[str, ...]) -> bool:
        """Tell whether a file would be found, if it was there."""

    def why_nothing(self, hidden: tuple[str, ...]) -> str:
        """Tell why the url matched nothing."""

    def base_folder(self) -> str:
        """Give the folder that all files of the url are in."""

    def scan(self, folder: str) -> Content:
        """Give the content of a folder, nothing if it does not exist."""

    def look_up(self, folder: str, names: Mapping[str, bool]) -> Content:
        """Give the same for only some names, told whether each is the last one of the url."""

    def real_path(self, folder: str, parent: str) -> str:
        """Give the same for each way to a folder; `parent` is that of the folder it is in."""

    def listed(self, folder: str, names: Sequence[str], content: Content) -> list[ListedFile]:
        """Give files of a folder, for what a scan told of them."""


def walk(tree: FileTree, base: str, pattern: Pattern) -> Iterator[ListedFile]:
    # With a stack instead of recursion a file costs the same at any depth.
    stack = [(base, pattern.start(), tree.real_path(base, ""), frozenset[str]())]
    while stack:
        folder, states, real, above = stack.pop()
        names = pattern.literal_names(states)
        content = tree.scan(folder) if names is None else tree.look_up(folder, names)
        files = sorted(name for name in content.files if pattern.takes_file(states, name))
        for start in range(0, len(files), AT_ONCE):
            yield from tree.listed(folder, files[start : start + AT_ONCE], content)
        content.folders.sort(reverse=True)
        here = above | {real}
        for name, path in content.folders:
            entered = pattern.enter(states, name)
            if not entered:
                continue
            entered_real = tree.real_path(path, real)
            # A way round in circles ends here, unless the url itself spells it out.
            if entered_real not in here or names is not None:
                stack.append((path, entered, entered_real, here))


def takes(base: str, pattern: Pattern, path: str) -> bool:
    """Tell whether a walk would give the file of this path, if it was there."""
    above = base.rstrip("/") + "/"
    if not path.startswith(above):
        return False
    *folders, name = path[len(above) :].split("/")
    states = pattern.start()
    for folder in folders:
        states = pattern.enter(states, folder)
    return pattern.takes_file(states, name)


def nothing_found(base: str, is_glob: bool, hidden: tuple[str, ...]) -> str:
    starts = " or ".join(repr(start) for start in hidden)
    what = "nothing matches in the folder" if is_glob else "there are no files in the folder"
    return f"{what} {base!r} (names that start with {starts} are skipped)"


def join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}" if folder else name
