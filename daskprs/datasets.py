"""Inputs: FileDataset, TabularDataset, and DataFrames that are handed over as they are."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskprs.exceptions import ConfigError, UsageError
from daskprs.file_trees import split_chain
from daskprs.listing import ListedFile, base_folder, is_local, list_files
from daskprs.redaction import Secrets
from daskprs.table_reader import FORMATS, TableReader, check_options, format_of

if TYPE_CHECKING:
    import dask.bag
    import dask.dataframe

__all__ = ["FileDataset", "FrameDataset", "PartitionFormat", "TabularDataset", "as_dataset"]

_DATE_PARTS = {"yyyy": "%Y", "MM": "%m", "dd": "%d", "HH": "%H", "mm": "%M", "ss": "%S"}
_DATE_MARK = re.compile("|".join(_DATE_PARTS))


class PartitionFormat:
    """Keys that stand in the paths of the files.

    Parameters
    ----------
    text : str
        The end of every path, with a name in braces for each key, such as
        ``"{user}/{season}/{genre}.wav"``. A key with a date pattern, ``{day:yyyy/MM/dd}``,
        gives a datetime. ``*`` stands for any text without a slash.

    Examples
    --------
    >>> from daskprs.datasets import PartitionFormat
    >>> PartitionFormat("{user}/{day:yyyy-MM-dd}.wav").values("/data/ann/2024-05-31.wav")
    {'user': 'ann', 'day': datetime.datetime(2024, 5, 31, 0, 0)}
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise self._refused(text)
        self.text = text
        self.keys: list[str] = []
        self._dates: dict[str, str] = {}
        pattern = ""
        for piece in re.split(r"(\{[^{}]*\})", text.lstrip("/")):
            if piece.startswith("{") and piece.endswith("}"):
                pattern += self._key_pattern(*piece[1:-1].partition(":"))
            elif "{" in piece or "}" in piece:
                raise self._refused(text)
            else:
                pattern += "[^/]*".join(re.escape(part) for part in piece.split("*"))
        if not self.keys:
            raise self._refused(text)
        self._pattern = re.compile(f"(?:.*/)?{pattern}", re.DOTALL)

    @staticmethod
    def _refused(text: object) -> ConfigError:
        return ConfigError.of(
            "partition_format",
            text,
            "text with different keys in braces, such as '{user}/{season}/{genre}.wav', or with "
            "a date, such as '{day:yyyy/MM/dd}/*.csv'",
        )

    def _key_pattern(self, name: str, colon: str, date: str) -> str:
        if not name.isidentifier() or name in self.keys:
            raise self._refused(self.text)
        self.keys.append(name)
        if not colon:
            return f"(?P<{name}>[^/]+)"
        marks = _DATE_MARK.findall(date)
        if not marks or len(set(marks)) < len(marks):
            raise self._refused(self.text)
        self._dates[name] = _DATE_MARK.sub(lambda m: _DATE_PARTS[m[0]], date.replace("%", "%%"))
        digits = {mark: rf"\d{{{len(mark)}}}" for mark in _DATE_PARTS}
        pieces = re.split(f"({_DATE_MARK.pattern})", date)
        inside = "".join(digits.get(piece) or re.escape(piece) for piece in pieces)
        return f"(?P<{name}>{inside})"

    def values(self, path: str) -> dict[str, Any]:
        """Read the keys from a path.

        Raises
        ------
        UsageError
            The path does not end as the format says.
        """
        match = self._pattern.fullmatch(path if is_local(path) else split_chain(path)[1])
        try:
            found = {} if match is None else match.groupdict()
            values: dict[str, Any] = {
                name: datetime.strptime(value, self._dates[name]) if name in self._dates else value
                for name, value in found.items()
            }
        except ValueError:  # a date such as 2024-02-30
            values = {}
        if not values:
            raise UsageError(
                f"the file {path!r} does not match partition_format={self.text!r}: every path of "
                "the input must end in this form."
            )
        return values


def _is_path(value: object) -> bool:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    return isinstance(value, str) and bool(value.strip())


def _urls(name: str, urls: object) -> tuple[str, ...]:
    if isinstance(urls, str | os.PathLike):
        urls = [urls]
    if not isinstance(urls, Sequence) or not urls or not all(map(_is_path, urls)):
        raise ConfigError.of(
            name, urls, "a url, glob or folder, or a list of them, such as 'images/*.png'"
        )
    return tuple(map(os.fspath, urls))


Urls = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class _UrlDataset:
    """What file and table datasets share: urls, a store, and keys in the paths."""

    def __init__(
        self,
        urls: Urls,
        storage_options: Mapping[str, Any] | None,
        partition_format: str | None,
        name: str | None,
    ) -> None:
        self.urls = _urls("urls", urls)
        if storage_options is not None and not isinstance(storage_options, Mapping):
            # It may hold keys: only its type is shown.
            raise ConfigError.of(
                "storage_options", type(storage_options), "a dict, such as {'anon': True}"
            )
        self.storage_options = dict(storage_options or {})
        self.partition_format = (
            None if partition_format is None else PartitionFormat(partition_format)
        )
        if name is not None and (not isinstance(name, str) or not name.strip()):
            raise ConfigError.of("name", name, "text, such as 'images'")
        self.name = name or self.urls[0]

    @property
    def keys(self) -> list[str]:
        """Names of the keys in the paths."""
        return [] if self.partition_format is None else self.partition_format.keys

    def local_folders(self) -> list[Path]:
        """Folders of this machine that the input lies in."""
        return [Path(base_folder(url)) for url in self.urls if is_local(url)]

    def __repr__(self) -> str:
        # storage_options may hold keys, and so may urls: they are never shown.
        secrets = Secrets([self.storage_options], self.urls, {})
        return secrets.hide(f"{type(self).__name__}({list(self.urls)!r})")


class FileDataset(_UrlDataset):
    """Files; a mini-batch is a list of their paths.

    Parameters
    ----------
    urls : str, PathLike or list of them
        Files, globs (``**`` too) or folders (with all that is below), of any store that fsspec
        opens. Names that start with a dot are left out, as in a shell.
    storage_options : mapping, optional
        For the store; see fsspec.
    partition_format : str, optional
        Keys in the paths: see `PartitionFormat`.
    name : str, optional

    Examples
    --------
    >>> from daskprs import FileDataset
    >>> FileDataset("images/**/*.png")
    FileDataset(['images/**/*.png'])
    """

    def __init__(
        self,
        urls: Urls,
        *,
        storage_options: Mapping[str, Any] | None = None,
        partition_format: str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(urls, storage_options, partition_format, name)

    def files(self) -> Iterator[ListedFile]:
        """List the files, as a stream."""
        return list_files(self.urls, storage_options=self.storage_options)

    def to_dask_bag(self, mini_batch_size: int | str | None = None) -> dask.bag.Bag:
        """Make the lazy bag whose partitions are the mini-batches.

        Parameters
        ----------
        mini_batch_size : int, optional
            Files in a mini-batch; default 10.

        Returns
        -------
        dask.bag.Bag
            Of paths: local ones, or the urls of other stores.
        """
        from daskprs.collections import to_dask_bag

        return to_dask_bag(self, mini_batch_size)


class TabularDataset(_UrlDataset):
    """Tables in files; a mini-batch is a DataFrame of rows of one file.

    Parameters
    ----------
    urls : str, PathLike or list of them
        As for `FileDataset`; in folders and globs, names that start with an underscore are left
        out too.
    format : {"csv", "tsv", "jsonl", "parquet"}, optional
        Default: what each file's name says; ``.gz`` and other compressions may follow it.
    storage_options, partition_format, name
        As for `FileDataset`; the keys become columns.
    quoted_newlines : bool
        Whether quoted CSV fields may hold newlines. With False, and the types of all columns in
        ``dtype``, large files are not read before their parts are.
    **reader_options
        Go through to ``pandas.read_csv``, ``read_json`` or ``read_parquet``. Options that only
        mean something for a whole file, such as ``skiprows``, ``parse_dates`` or
        ``dtype="category"``, keep files in one piece.

    Notes
    -----
    The rows and types of a mini-batch are those that pandas gives for the whole file: "007" is
    text if the column is text anywhere in the file. The values of JSON lines keep their JSON
    types, as with ``pandas.read_json(path, lines=True, dtype=False)``; give ``dtype=True`` for
    what pandas guesses from text, which keeps files in one piece.

    Examples
    --------
    >>> from daskprs import TabularDataset
    >>> TabularDataset("sales/*.csv", sep=";", dtype={"zip": str})
    TabularDataset(['sales/*.csv'])
    """

    def __init__(
        self,
        urls: Urls,
        *,
        format: str | None = None,  # noqa: A002  (the word that users of pandas and Spark type)
        storage_options: Mapping[str, Any] | None = None,
        partition_format: str | None = None,
        quoted_newlines: bool = True,
        name: str | None = None,
        **reader_options: Any,
    ) -> None:
        super().__init__(urls, storage_options, partition_format, name)
        formats = sorted(set(FORMATS.values()))
        if format is not None and format not in formats:
            raise ConfigError.of("format", format, "one of " + ", ".join(map(repr, formats)))
        if not isinstance(quoted_newlines, bool):
            raise ConfigError.of("quoted_newlines", quoted_newlines, "True or False")
        for option in ("chunksize", "iterator"):
            if reader_options.get(option):
                raise ConfigError.of(
                    option, reader_options[option], "left out: mini_batch_size cuts the files"
                )
        if format is not None:
            check_options(format, reader_options)
        self.format = format
        self.quoted_newlines = quoted_newlines
        self.reader_options = reader_options

    def files(self) -> Iterator[ListedFile]:
        """List the files, as a stream."""
        return list_files(self.urls, storage_options=self.storage_options, skip_underscored=True)

    def reader(self, path: str) -> TableReader:
        """Return the reader for one file.

        Raises
        ------
        UsageError
            The name does not tell the format, and `format` is not given; or the reader of pandas
            for it has no such option.
        """
        format_ = self.format or format_of(path)
        if format_ is None:
            raise UsageError(
                f"the file {path!r} has no suffix that tells a table's format: name files "
                f"{', '.join(FORMATS)}, or give format='csv' (--format csv)."
            )
        check_options(format_, self.reader_options)
        return TableReader(format_, self.reader_options, self.quoted_newlines)

    def to_dask_dataframe(
        self, mini_batch_size: int | str | None = None
    ) -> dask.dataframe.DataFrame:
        """Make the lazy dataframe whose partitions are the mini-batches.

        Lists the files, and reads the beginning of the first one for the columns.

        Parameters
        ----------
        mini_batch_size : int or str, optional
            Bytes of source data, such as ``"10MB"``; default ``"1MB"`` (1024-based).
        """
        from daskprs.collections import to_dask_dataframe

        return to_dask_dataframe(self, mini_batch_size)


@dataclass(frozen=True)
class FrameDataset:
    """A pandas or Dask DataFrame as an input."""

    frame: Any = field(repr=False)
    name: str = "dataframe"

    @property
    def is_lazy(self) -> bool:
        return hasattr(self.frame, "dask")

    @property
    def keys(self) -> list[str]:
        return []

    def local_folders(self) -> list[Path]:
        return []


def as_dataset(value: object) -> FileDataset | TabularDataset | FrameDataset:
    """Accept what users give as an input.

    Raises
    ------
    ConfigError
        It is none of the known kinds.
    """
    if isinstance(value, FileDataset | TabularDataset | FrameDataset):
        return value
    for kind in type(value).__mro__:
        if kind.__name__ == "DataFrame" and kind.__module__.split(".")[0] in ("pandas", "dask"):
            return FrameDataset(value)
    raise ConfigError.of(
        "inputs",
        value,
        "a list of FileDataset, or of TabularDataset, pandas or Dask DataFrames, such as "
        "[FileDataset('images/*.png')]",
    )
