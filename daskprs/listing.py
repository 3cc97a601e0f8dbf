"""Turn urls, folders and globs into a stream of files.

A tree is walked folder by folder, each time only into the folders that can still match, so that
the first file comes out long before the last one was found.
"""

from __future__ import annotations

import errno
import fnmatch
import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote

import fsspec
from fsspec.core import url_to_fs

from daskprs.exceptions import InputNotFoundError

__all__ = ["ListedFile", "base_folder", "is_local", "list_files"]

_MAGIC = re.compile(r"[*?\[]")
# A question mark begins the query of an http url, so it is no wildcard there.
_HTTP_MAGIC = re.compile(r"[*\[]")
_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)(://|::)")
_LOCAL_PROTOCOLS = ("file", "local")
# Put before "::", these have no path of their own but that of what follows.
_CACHES = ("blockcache", "cached", "filecache", "simplecache")
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
# Best first: a digest of the content, then the number of a version, then a time.
_VERSION_KEYS = (
    *("etag", "contentmd5", "md5hash", "md5", "sha", "blobid", "digest", "crc32c", "crc"),
    *("versionid", "generation"),
    *("lastmodified", "modified", "mtime", "modificationtime", "updated", "timemodified"),
    *("datetime", "created"),
)
_VERSION_RANKS = {key: rank for rank, key in enumerate(_VERSION_KEYS)}
_ACCEPTED = (
    "Accepted are a file, a folder (for all files below it) and a glob (with *, ?, [..] or **), "
    "as a path or as a url."
)


@dataclass(frozen=True, slots=True)
class ListedFile:
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
        before, link, after = _split_chain(self.path)
        return before + link.rpartition("/")[0] + after


def is_local(url: str) -> bool:
    """Tell whether a url is that of a local path."""
    match = _PROTOCOL.match(url)
    if match is None:
        return True
    protocol, mark = match.groups()
    if mark == "::":
        # A local file may have such a name, too.
        return protocol not in fsspec.available_protocols()
    return protocol in _LOCAL_PROTOCOLS


def list_files(
    urls: Sequence[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    skip_underscored: bool = False,
) -> Iterator[ListedFile]:
    """List files one by one while they are found.

    The files of a folder come first, sorted by name, then those of its subfolders, again sorted
    by name. A file that several urls match is given once. Symbolic links to folders are followed
    unless they lead back to a folder on the way to the link. Names that start with a dot are
    skipped unless the url itself has the dot.

    Parameters
    ----------
    urls
        Each one a file, a folder (for all files below it, at any depth) or a glob, in which
        ``**`` is any number of folders; a folder that a glob matches is for all files below it.
        A url that exists just as it is written is taken so, whatever characters are in it.
    storage_options
        Options of `fsspec` for stores that are not local.
    skip_underscored
        Whether to skip names that start with an underscore like those that start with a dot.

    Yields
    ------
    ListedFile
        The files.

    Raises
    ------
    InputNotFoundError
        At the first url that matches no file, when it is its turn.
    """
    urls = [urls] if isinstance(urls, str) else list(urls)
    hidden = (".", "_") if skip_underscored else (".",)
    seen: set[str] = set()
    for number, url in enumerate(urls, 1):
        store = _store_of(url, storage_options)
        is_last = number == len(urls)
        is_matched = False
        for file in store.find(hidden):
            is_matched = True
            if file.path in seen:
                continue
            if not is_last:
                seen.add(file.path)
            yield file
        if not is_matched:
            reason = store.why_nothing(hidden)
            raise InputNotFoundError(f"no input files matched {url!r}: {reason}.\n{_ACCEPTED}")


def base_folder(url: str, *, storage_options: Mapping[str, Any] | None = None) -> str:
    """Give the folder that all files of a url are in, in the same form as in `ListedFile`.

    Parameters
    ----------
    url
        A file, a folder or a glob, as for `list_files`.
    storage_options
        Options of `fsspec` for stores that are not local, where files are to be told from
        folders.

    Returns
    -------
    str
        The folder itself, that of the file, or the one before the first wildcard.
    """
    return _store_of(url, storage_options).base_folder()


class _Segment:
    """What a glob has between two slashes."""

    __slots__ = ("_match", "is_literal", "is_recursive", "text")

    def __init__(self, text: str, magic: re.Pattern[str]) -> None:
        self.text = text
        self.is_recursive = text == "**"
        self.is_literal = not magic.search(text)
        if magic is _HTTP_MAGIC:
            text = text.replace("?", "[?]")
        self._match = re.compile(fnmatch.translate(text)).match

    def matches(self, name: str, hidden: tuple[str, ...]) -> bool:
        if self.is_literal:
            return name == self.text
        if name.startswith(hidden) and not self.text.startswith(name[0]):
            return False
        return self._match(name) is not None


class _Pattern:
    """The part of a url from its first wildcard on, as a state machine over names of folders.

    A state is the number of segments that are already matched. All segments are matched within
    a folder that is taken as a whole.
    """

    def __init__(
        self, segments: Sequence[_Segment], *, folders_only: bool, hidden: tuple[str, ...]
    ) -> None:
        self._segments: list[_Segment] = []
        for segment in segments:
            if not (segment.is_recursive and self._segments and self._segments[-1].is_recursive):
                self._segments.append(segment)
        self._count = len(self._segments)
        self._folders_only = folders_only
        self._hidden = hidden

    def start(self) -> frozenset[int]:
        return self._with_none_for_recursive({0})

    def _with_none_for_recursive(self, states: set[int]) -> frozenset[int]:
        skipped = (state + 1 for state in states if self._is_recursive(state))
        return frozenset(states.union(skipped))

    def _is_recursive(self, state: int) -> bool:
        return state < self._count and self._segments[state].is_recursive

    def takes_file(self, states: frozenset[int], name: str) -> bool:
        """Tell whether a file matches, within a folder reached in `states`."""
        if self._count in states and not name.startswith(self._hidden):
            return True
        if self._folders_only or self._count - 1 not in states:
            return False
        last = self._segments[-1]
        return not last.is_recursive and last.matches(name, self._hidden)

    def enter(self, states: frozenset[int], name: str) -> frozenset[int]:
        """Give the states of a subfolder; none if nothing in it can match."""
        is_hidden = name.startswith(self._hidden)
        reached = set()
        for state in states:
            if state == self._count or self._segments[state].is_recursive:
                if not is_hidden:
                    reached.add(state)
            elif self._segments[state].matches(name, self._hidden):
                reached.add(state + 1)
        return self._with_none_for_recursive(reached)

    def literal_names(self, states: frozenset[int]) -> dict[str, bool] | None:
        """Give the only names that can match, and whether as the last ones of the url.

        None if the names are not known in advance.
        """
        names: dict[str, bool] = {}
        for state in sorted(states):
            if state == self._count or not self._segments[state].is_literal:
                return None
            names[self._segments[state].text] = state == self._count - 1
        return names


@dataclass(slots=True)
class _Content:
    """What is in a folder."""

    files: list[str] = field(default_factory=list)
    infos: dict[str, dict[str, Any]] = field(default_factory=dict)
    folders: list[tuple[str, str]] = field(default_factory=list)


class _Store(Protocol):
    """What a url is a part of, and how to find files there."""

    def find(self, hidden: tuple[str, ...]) -> Iterator[ListedFile]:
        """Give the files that the url matches."""

    def why_nothing(self, hidden: tuple[str, ...]) -> str:
        """Tell why the url matched nothing."""

    def base_folder(self) -> str:
        """Give the folder that all files of the url are in."""

    def scan(self, folder: str) -> _Content:
        """Give the content of a folder, nothing if it does not exist."""

    def look_up(self, folder: str, names: Mapping[str, bool]) -> _Content:
        """Give the same for only some names, told whether each is the last one of the url."""

    def real_path(self, folder: str, parent: str) -> str:
        """Give the same for each way to a folder; `parent` is that of the folder it is in."""

    def listed(self, folder: str, name: str, info: Mapping[str, Any] | None) -> ListedFile:
        """Give the file for what a scan told of it."""


def _store_of(url: str, storage_options: Mapping[str, Any] | None) -> _Store:
    return _LocalStore(url) if is_local(url) else _RemoteStore(url, storage_options or {})


def _walk(store: _Store, base: str, pattern: _Pattern) -> Iterator[ListedFile]:
    # With a stack instead of recursion a file costs the same at any depth.
    stack = [(base, pattern.start(), store.real_path(base, ""), frozenset[str]())]
    while stack:
        folder, states, real, above = stack.pop()
        names = pattern.literal_names(states)
        content = store.scan(folder) if names is None else store.look_up(folder, names)
        content.files.sort()
        for name in content.files:
            if pattern.takes_file(states, name):
                yield store.listed(folder, name, content.infos.get(name))
        content.folders.sort(reverse=True)
        here = above | {real}
        for name, path in content.folders:
            entered = pattern.enter(states, name)
            if not entered:
                continue
            entered_real = store.real_path(path, real)
            # A way round in circles ends here, unless the url itself spells it out.
            if entered_real not in here or names is not None:
                stack.append((path, entered, entered_real, here))


def _nothing_found(base: str, is_glob: bool, hidden: tuple[str, ...]) -> str:
    starts = " or ".join(repr(start) for start in hidden)
    what = "nothing matches in the folder" if is_glob else "there are no files in the folder"
    return f"{what} {base!r} (names that start with {starts} are skipped)"


def _join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}" if folder else name


class _LocalStore:
    """The local file system."""

    def __init__(self, url: str) -> None:
        self._is_empty = not url
        match = _PROTOCOL.match(url)
        if match is not None and match[2] == "://":
            url = url[match.end() :]
        self._folders_only = url.endswith("/")
        self._path = "/" + os.path.abspath(os.path.expanduser(url)).lstrip("/")
        self._exists = not self._is_empty and self._exists_as(self._path)
        self._base, self._segments = self._path, list[_Segment]()
        if not self._exists:
            self._base, self._segments = self._split(self._path)

    @staticmethod
    def _exists_as(path: str) -> bool:
        try:
            os.lstat(path)
        except ValueError:
            return False
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return False
        return True

    def _split(self, path: str) -> tuple[str, list[_Segment]]:
        names = path[1:].split("/")
        base = "/"
        for depth, name in enumerate(names):
            inner = _join(base, name)
            # A glob does not match its own brackets: a folder named so would be out of reach.
            if _MAGIC.search(name) and not ("[" in name and self._exists_as(inner)):
                return base, [_Segment(name, _MAGIC) for name in names[depth:]]
            base = inner
        return base, []

    def find(self, hidden: tuple[str, ...]) -> Iterator[ListedFile]:
        if self._is_empty or not (self._exists or self._segments):
            return
        if self._exists and not os.path.isdir(self._path):
            yield self._stat(self._path)
            return
        pattern = _Pattern(self._segments, folders_only=self._folders_only, hidden=hidden)
        yield from _walk(self, self._base, pattern)

    def why_nothing(self, hidden: tuple[str, ...]) -> str:
        if self._is_empty:
            return "it is empty"
        folder = self._base if self._exists or self._segments else os.path.dirname(self._path)
        if not os.path.isdir(folder):
            return f"the folder {folder!r} does not exist"
        if not (self._exists or self._segments):
            return f"there is no such file or folder in {folder!r}"
        return _nothing_found(folder, bool(self._segments), hidden)

    def base_folder(self) -> str:
        if self._exists and not os.path.isdir(self._path):
            return os.path.dirname(self._path)
        return self._base

    def scan(self, folder: str) -> _Content:
        content = _Content()
        try:
            entries = os.scandir(folder)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return content
        with entries:
            for entry in entries:
                try:
                    if entry.is_dir():
                        content.folders.append((entry.name, entry.path))
                    elif entry.is_file() or self._is_broken_link(entry):
                        content.files.append(entry.name)
                except OSError as error:
                    if error.errno not in _GONE:
                        raise
                    # A link to itself is broken, too.
                    content.files.append(entry.name)
        return content

    @staticmethod
    def _is_broken_link(entry: os.DirEntry[str]) -> bool:
        return entry.is_symlink() and not os.path.exists(entry.path)

    def look_up(self, folder: str, names: Mapping[str, bool]) -> _Content:
        content = _Content()
        for name in names:
            path = _join(folder, name)
            if os.path.isdir(path):
                content.folders.append((name, path))
            elif self._exists_as(path):
                content.files.append(name)
        return content

    def real_path(self, folder: str, parent: str) -> str:
        if not parent or os.path.islink(folder):
            return os.path.realpath(folder)
        return _join(parent, folder.rpartition("/")[2])

    def listed(self, folder: str, name: str, info: Mapping[str, Any] | None) -> ListedFile:
        return self._stat(_join(folder, name))

    @staticmethod
    def _stat(path: str) -> ListedFile:
        try:
            status = os.stat(path)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return ListedFile(path, None, "")
        return ListedFile(path, status.st_size, str(status.st_mtime_ns))


class _RemoteStore:
    """Any store that `fsspec` knows."""

    def __init__(self, url: str, storage_options: Mapping[str, Any]) -> None:
        self._before, self._link, self._after = _split_chain(url)
        self._fs, path = url_to_fs(url, **storage_options)
        protocols = self._fs.protocol
        self._protocols = (protocols,) if isinstance(protocols, str) else tuple(protocols)
        self._is_http = not {"http", "https"}.isdisjoint(self._protocols)
        magic = _HTTP_MAGIC if self._is_http else _MAGIC
        self._folders_only = self._link.endswith("/")
        self._path: str = path.rstrip("/")
        names = self._path.split("/")
        depth = next((n for n, name in enumerate(names) if magic.search(name)), len(names))
        self._segments = [_Segment(name, magic) for name in names[depth:]]
        self._base = "/".join(names[:depth]) or self._fs.root_marker
        self._heads = self._find_heads()
        invalidate = getattr(self._fs, "invalidate_cache", None)
        if invalidate is not None:
            invalidate()

    def _find_heads(self) -> tuple[list[str], list[str]] | None:
        """Give what to replace in a path by what, to write a url as the given one was.

        None if the path with the protocol before it is enough. It is not where the url has a
        host or an account that is no part of the path, or chains several protocols.
        """
        protocol = self._link.partition("://")[0]
        is_plain = not (self._before or self._after) and protocol in self._protocols
        if is_plain:
            options_of = type(self._fs)._get_kwargs_from_urls
            if options_of(self._link) == options_of(self._fs.unstrip_protocol(self._path)):
                return None
        ours, given = self._path.split("/"), self._link.rstrip("/").split("/")
        if self._link.endswith("://"):
            given = self._link.split("/")
        while ours and given and ours[-1] == given[-1]:
            ours.pop()
            given.pop()
        return ours, given

    def _url_of(self, path: str) -> str:
        path = path.rstrip("/")
        if self._heads is not None:
            ours, given = self._heads
            names = path.split("/")
            if names[: len(ours)] == ours:
                names = given + names[len(ours) :]
                return self._before + "/".join(names) + self._after
        url: str = self._fs.unstrip_protocol(path)
        return url

    def _info(self, path: str) -> dict[str, Any] | None:
        try:
            info: dict[str, Any] = self._fs.info(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:
            # A wildcard is no valid part of the name of a bucket.
            if not self._segments:
                raise
            return None
        # A server redirects from a folder to the same url with a slash at its end.
        if self._is_http and (self._folders_only or info.get("url", "").endswith("/")):
            info = {**info, "type": "directory"}
        return info

    def find(self, hidden: tuple[str, ...]) -> Iterator[ListedFile]:
        info = self._info(self._path or self._fs.root_marker)
        if info is not None and info["type"] != "directory":
            yield self._listed(self._path, info)
            return
        segments, base = self._segments, self._base
        if info is not None:
            segments, base = [], self._path or self._fs.root_marker
        elif not segments:
            return
        pattern = _Pattern(segments, folders_only=self._folders_only, hidden=hidden)
        yield from _walk(self, base, pattern)

    def why_nothing(self, hidden: tuple[str, ...]) -> str:
        info = self._info(self._base)
        if info is None:
            what = "folder" if self._segments else "file or folder"
            return f"the {what} {self._url_of(self._base)!r} does not exist"
        return _nothing_found(self._url_of(self._base), bool(self._segments), hidden)

    def base_folder(self) -> str:
        info = self._info(self._path or self._fs.root_marker)
        if info is None:
            return self._url_of(self._base)
        is_folder = info["type"] == "directory"
        return self._url_of(self._path if is_folder else self._path.rpartition("/")[0])

    def scan(self, folder: str) -> _Content:
        content = _Content()
        try:
            infos = self._fs.ls(folder + "/" if self._is_http else folder, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return content
        for info in infos:
            path = info["name"].rstrip("/")
            above, _, name = path.rpartition("/")
            # A store may list a folder in itself, a page may link to anything.
            if path.strip("/") == folder.strip("/"):
                continue
            if self._is_http:
                if above != folder or name.startswith(("?", "#")):
                    continue
                name = unquote(name)
            kind = info["type"]
            if kind == "link":
                kind = "directory" if self._fs.isdir(path) else "file"
            if kind == "directory":
                content.folders.append((name, path))
            # An object whose name ends with a slash stands for a folder.
            elif kind != "other" and not info["name"].endswith("/"):
                content.files.append(name)
                content.infos[name] = info
        return content

    def look_up(self, folder: str, names: Mapping[str, bool]) -> _Content:
        if self._is_http:
            return self.scan(folder)
        content = _Content()
        for name, is_last in names.items():
            path = _join(folder, name)
            # To list a folder that does not exist costs no more than to ask whether it does.
            info = self._info(path) if is_last else {"type": "directory"}
            if info is None:
                continue
            if info["type"] == "directory":
                content.folders.append((name, path))
            else:
                content.files.append(name)
                content.infos[name] = {"name": path, **info}
        return content

    def real_path(self, folder: str, parent: str) -> str:
        return folder

    def listed(self, folder: str, name: str, info: Mapping[str, Any] | None) -> ListedFile:
        info = info or {}
        return self._listed(info.get("name") or _join(folder, name), info)

    def _listed(self, path: str, info: Mapping[str, Any]) -> ListedFile:
        size = info.get("size")
        return ListedFile(
            self._url_of(path), None if size is None else int(size), _version_of(info)
        )


def _split_chain(url: str) -> tuple[str, str, str]:
    """Split a url such as ``a::b://path::c://path`` around the part that files are found in."""
    links = url.split("::")
    number = 0
    while number < len(links) - 1 and links[number] in _CACHES:
        number += 1
    link = links[number]
    if len(links) > 1 and "://" not in link and link in fsspec.available_protocols():
        link += "://"
    before = "".join(f"{name}::" for name in links[:number])
    after = "".join(f"::{name}" for name in links[number + 1 :])
    return before, link, after


@functools.lru_cache(maxsize=1024)
def _version_rank(key: str) -> int | None:
    return _VERSION_RANKS.get(re.sub(r"[^a-z0-9]", "", key.lower()))


def _version_of(info: Mapping[str, Any]) -> str:
    best, version = len(_VERSION_KEYS), ""
    for key, value in info.items():
        rank = _version_rank(key)
        if rank is not None and rank < best and value not in (None, "", b""):
            best, version = rank, str(value)
    return version
