"""Files of every other store that fsspec knows."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from daskprs.file_trees import Content, ListedFile, join, nothing_found, split_chain, takes, walk
from daskprs.globs import HTTP_MAGIC, MAGIC, Pattern, Segment

__all__ = ["RemoteFiles"]

# Best first: a digest of the content, then the number of a version, then a time.
_VERSION_KEYS = (
    *("etag", "contentmd5", "md5hash", "md5", "sha", "blobid", "digest", "crc32c", "crc"),
    *("versionid", "generation"),
    *("lastmodified", "modified", "mtime", "modificationtime", "updated", "timemodified"),
    *("datetime", "created"),
)
_VERSION_RANKS = {key: rank for rank, key in enumerate(_VERSION_KEYS)}


class RemoteFiles:
    """Any store that `fsspec` knows."""

    def __init__(self, url: str, storage_options: Mapping[str, Any]) -> None:
        from fsspec.core import url_to_fs

        self._before, self._link, self._after = split_chain(url)
        self._fs, path = url_to_fs(url, **storage_options)
        protocols = self._fs.protocol
        self._protocols = (protocols,) if isinstance(protocols, str) else tuple(protocols)
        self._is_http = not {"http", "https"}.isdisjoint(self._protocols)
        magic = HTTP_MAGIC if self._is_http else MAGIC
        self._folders_only = self._link.endswith("/")
        self._path: str = path.rstrip("/")
        names = self._path.split("/")
        depth = next((n for n, name in enumerate(names) if magic.search(name)), len(names))
        self._segments = [Segment(name, magic) for name in names[depth:]]
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
        pattern = Pattern(segments, folders_only=self._folders_only, hidden=hidden)
        yield from walk(self, base, pattern)

    def takes(self, url: str, hidden: tuple[str, ...]) -> bool:
        if split_chain(url)[1].partition("://")[0] not in self._protocols:
            return False
        path = str(self._fs._strip_protocol(url))
        info = self._info(self._path or self._fs.root_marker)
        if info is not None and info["type"] != "directory":
            return path == self._path
        segments, base = (self._segments, self._base) if info is None else ([], self._path)
        pattern = Pattern(segments, folders_only=self._folders_only, hidden=hidden)
        return takes(base, pattern, path)

    def why_nothing(self, hidden: tuple[str, ...]) -> str:
        info = self._info(self._base)
        if info is None:
            what = "folder" if self._segments else "file or folder"
            return f"the {what} {self._url_of(self._base)!r} does not exist"
        return nothing_found(self._url_of(self._base), bool(self._segments), hidden)

    def base_folder(self) -> str:
        info = self._info(self._path or self._fs.root_marker)
        if info is None:
            return self._url_of(self._base)
        is_folder = info["type"] == "directory"
        return self._url_of(self._path if is_folder else self._path.rpartition("/")[0])

    def scan(self, folder: str) -> Content:
        content = Content()
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

    def look_up(self, folder: str, names: Mapping[str, bool]) -> Content:
        if self._is_http:
            return self.scan(folder)
        content = Content()
        for name, is_last in names.items():
            path = join(folder, name)
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

    def listed(self, folder: str, names: Sequence[str], content: Content) -> list[ListedFile]:
        told = [(name, content.infos.get(name, {})) for name in names]
        return [self._listed(info.get("name") or join(folder, name), info) for name, info in told]

    def _listed(self, path: str, info: Mapping[str, Any]) -> ListedFile:
        size = info.get("size")
        return ListedFile(
            self._url_of(path), None if size is None else int(size), _version_of(info)
        )


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
