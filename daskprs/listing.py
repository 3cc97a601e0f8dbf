"""Turn urls, folders and globs into a stream of files.

A tree is walked folder by folder, each time only into the folders that can still match, so that
the first file comes out long before the last one was found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from daskprs.exceptions import InputNotFoundError
from daskprs.file_trees import FileTree, ListedFile, is_local
from daskprs.local_files import LocalFiles
from daskprs.remote_files import RemoteFiles

__all__ = ["ListedFile", "base_folder", "is_local", "list_files", "would_list"]

_ACCEPTED = (
    "Accepted are a file, a folder (for all files below it) and a glob (with *, ?, [..] or **), "
    "as a path or as a url."
)


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
    hidden = _hidden(skip_underscored)
    seen: set[str] = set()
    for number, url in enumerate(urls, 1):
        tree = _tree_of(url, storage_options)
        is_last = number == len(urls)
        is_matched = False
        for file in tree.find(hidden):
            is_matched = True
            if file.path in seen:
                continue
            if not is_last:
                seen.add(file.path)
            yield file
        if not is_matched:
            reason = tree.why_nothing(hidden)
            raise InputNotFoundError(f"no input files matched {url!r}: {reason}.\n{_ACCEPTED}")


def would_list(
    url: str,
    file: str,
    *,
    storage_options: Mapping[str, Any] | None = None,
    skip_underscored: bool = False,
) -> bool:
    """Tell whether `list_files` would give a file for a url, if that file was there.

    Parameters
    ----------
    file
        Path or url.
    """
    if is_local(url) != is_local(file):
        return False
    return _tree_of(url, storage_options).takes(file, _hidden(skip_underscored))


def _hidden(skip_underscored: bool) -> tuple[str, ...]:
    return (".", "_") if skip_underscored else (".",)


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
    return _tree_of(url, storage_options).base_folder()


def _tree_of(url: str, storage_options: Mapping[str, Any] | None) -> FileTree:
    return LocalFiles(url) if is_local(url) else RemoteFiles(url, storage_options or {})
