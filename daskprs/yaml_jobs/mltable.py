"""MLTable files: which files or tables they describe."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from daskprs.datasets import FileDataset, TabularDataset
from daskprs.exceptions import ConfigError
from daskprs.listing import is_local
from daskprs.pipelines import Data
from daskprs.yaml_jobs.checking import check, nearest
from daskprs.yaml_jobs.documents import Document, Section
from daskprs.yaml_jobs.values import not_of_azure

__all__ = ["read_mltable"]

NAME = "MLTable"
_ENCODINGS = {"utf8": "utf-8", "iso88591": "latin1", "utf16": "utf-16", "utf32": "utf-32",
              "utf8bom": "utf-8-sig", "windows1252": "cp1252"}  # fmt: skip
_TYPES = {"int": "Int64", "float": "float64", "string": "str", "boolean": "boolean"}
_READERS = {"read_delimited": "csv", "read_parquet": "parquet", "read_json_lines": "jsonl"}
# Names of the same thing in the documentation and in what the SDK writes.
_KEYS = ("extract_columns_from_partition_format", "extract_partition_format_into_columns")
_NOT_HERE = {
    "read_delta_lake": "Delta Lake tables are not read",
    **dict.fromkeys(
        ("filter", "skip", "take", "take_random_sample"),
        "all rows are taken: leave rows out in run(), or write the table without them",
    ),
}


def read_mltable(url: str, name: str | None = None) -> FileDataset | TabularDataset:
    """Open what an MLTable file describes.

    Parameters
    ----------
    url : str
        The folder that it is in, or the file itself.
    name : str, optional
        Of the dataset.

    Raises
    ------
    ConfigError
        There is none; or it says what is not supported.
    """
    folder = url.rstrip("/").removesuffix(f"/{NAME}")
    section = _load(folder)
    check(section, "mltable")
    transformations = [_named(section, n) for n in range(len(section.get("transformations", [])))]
    options = _Options(transformations).read()
    kind = "tables" if "format" in options else "files"
    make = Data.files if kind == "files" else Data.tables
    return make(*_paths(section, folder), **options).open(name)


def _load(folder: str) -> Section:
    from fsspec.core import open as open_url

    where = f"{folder}/{NAME}"
    try:
        with open_url(where, "rb") as stream:
            data: bytes = stream.read()
    except Exception as error:
        why = "there is no such file" if isinstance(error, FileNotFoundError) else error
        raise ConfigError(
            f"{where}: {why}: an input of type mltable is a folder with a file {NAME}; files "
            "without one are of type uri_folder."
        ) from None
    return Document.parse(data, Path(where) if is_local(where) else where).section


def _paths(section: Section, folder: str) -> list[str]:
    found = []
    for number, entry in enumerate(section.get("paths")):
        [(key, text)] = entry.items()
        if text.startswith("azureml:"):
            raise not_of_azure(section.child("paths", number, key), text)
        if "://" in text or os.path.isabs(text):
            found.append(text)
        else:
            found.append(f"{folder}/{posixpath.normpath(text)}" if text != "." else folder)
    return found


def _named(section: Section, number: int) -> tuple[str, Section]:
    content = section.get("transformations")[number]
    at = section.child("transformations", number)
    if isinstance(content, str):  # - read_parquet
        return content, at
    [name] = content
    return str(name), at.child(name)


class _Options:
    """Transformations as options of a dataset."""

    def __init__(self, transformations: list[tuple[str, Section]]) -> None:
        self._all = transformations
        self.options: dict[str, Any] = {}

    def read(self) -> dict[str, Any]:
        for name, section in sorted(self._all, key=_place):
            doing: Callable[[Section], None] | None = getattr(self, f"_{name}", None)
            if name in _KEYS:
                doing = self._keys
            if name in _NOT_HERE:
                raise section.error(f"it is not supported: {_NOT_HERE[name]}.")
            if doing is None:
                known = [*_READERS, "keep_columns", "drop_columns", "convert_column_types", *_KEYS]
                raise section.error(f"there is no such transformation; {nearest(name, known)}")
            doing(section)
        return self.options

    @property
    def _format(self) -> str | None:
        return self.options.get("format")

    def _begin(self, section: Section, name: str) -> None:
        if self._format is not None:
            raise section.error("the files are read already: give one of the read_ alone.")
        if isinstance(section.content, Mapping):
            check(section, name)
        if section.get("include_path_column", False) and "Path" not in self._dropped():
            raise self._without(section, "include_path_column", "the path is no column here")
        self.options["format"] = _READERS[name]

    @staticmethod
    def _without(section: Section, key: str, why: str) -> ConfigError:
        given = section.get(key)
        shown = str(given).lower() if isinstance(given, bool) else given
        return section.error(f"{shown} is not supported: {why}.", key)

    def _read_delimited(self, section: Section) -> None:
        self._begin(section, "read_delimited")
        self.options["sep"] = section.get("delimiter", ",")
        self._encoding(section)
        header = section.get("header", "all_files_same_headers")
        if header == "from_first_file":
            raise self._without(section, "header", "each file is read on its own, so that "
                                "each needs a header, or none")  # fmt: skip
        if header == "no_header":
            self.options |= {"header": None, "numbered_columns": True}
        if section.get("empty_as_string", False):
            raise self._without(section, "empty_as_string", "empty values are missing values")
        if section.get("infer_column_types", True) is False:
            self.options["dtype"] = str

    def _read_parquet(self, section: Section) -> None:
        self._begin(section, "read_parquet")

    def _read_json_lines(self, section: Section) -> None:
        self._begin(section, "read_json_lines")
        self._encoding(section)
        if section.get("invalid_lines", "error") == "drop":
            raise self._without(section, "invalid_lines", "a line that is no JSON is an error")

    def _encoding(self, section: Section) -> None:
        encoding = section.get("encoding", "utf8")
        if encoding not in ("utf8", "utf-8"):
            self.options["encoding"] = _ENCODINGS.get(encoding, encoding)

    def _keep_columns(self, section: Section) -> None:
        option = {"csv": "usecols", "parquet": "columns"}.get(self._format or "")
        if option is None or self.options.get("header", "") is None:
            raise section.error("it is not supported for such files: choose columns in run().")
        check(section, "columns")
        self.options[option] = _list(section.content)

    def _dropped(self) -> list[str]:
        contents = [section.content for name, section in self._all if name == "drop_columns"]
        return [column for content in contents for column in _list(content)]

    def _drop_columns(self, section: Section) -> None:
        """Leave out keys of the paths: their places in the paths may then hold anything."""
        check(section, "columns")
        keys = self.options.get("partition_format", "")
        for column in _list(section.content):
            if column != "Path" and f"{{{column}}}" not in keys:
                raise section.error(
                    f"{column!r} is not supported: name those that stay with keep_columns, or "
                    "drop it in run()."
                )
            keys = keys.replace(f"{{{column}}}", "*")
        if keys:
            self.options["partition_format"] = keys

    def _convert_column_types(self, section: Section) -> None:
        if self._format != "csv" or self.options.get("header", "") is None:
            raise section.error("it is not supported for such files: convert columns in run().")
        check(section, "convert_column_types")
        types: dict[str, str] = {}
        dates: dict[str, str | None] = {}
        for number, entry in enumerate(section.content):
            where = section.child(number, "column_type")
            kind, facts = _type_of(where, entry["column_type"])
            for column in _list(entry["columns"]):
                if kind == "datetime":
                    dates[column] = _date_format(where, facts)
                else:
                    types[column] = _TYPES[kind]
        if types:
            self.options["dtype"] = types
        if dates:
            self.options["parse_dates"] = list(dates)
            formats = {column: text for column, text in dates.items() if text}
            self.options |= {"date_format": formats} if formats else {}

    def _keys(self, section: Section) -> None:
        if section.get("partition_format") is not None:  # both forms are written
            section = section.child("partition_format")
        check(section, "partition_format")
        content = section.content
        if isinstance(content, Mapping):  # {day:yyyy/MM/dd}, which YAML takes for a mapping
            text = ",".join(str(key) if value is None else f"{key}:{value}"
                            for key, value in content.items())  # fmt: skip
            content = f"{{{text}}}"
        self.options["partition_format"] = content


def _place(transformation: tuple[str, Section]) -> int:
    """How the files are read comes first, and what is left out of it last."""
    name, _ = transformation
    return 0 if name in _READERS else 2 if name == "drop_columns" else 1


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _type_of(where: Section, given: Any) -> tuple[str, Any]:
    kind, facts = next(iter(given.items()), ("", None)) if isinstance(given, dict) else (given, {})
    if kind not in (*_TYPES, "datetime"):
        raise where.error(f"{kind!r} is no type; {nearest(kind, (*_TYPES, 'datetime'))}")
    if kind == "boolean" and facts:
        raise where.error("values of one's own are not supported: convert the column in run().")
    return kind, facts or {}


def _date_format(where: Section, facts: Any) -> str | None:
    formats = _list(facts.get("formats", [])) if isinstance(facts, dict) else []
    if len(formats) > 1:
        raise where.error("several formats are not supported: convert the column in run().")
    return formats[0] if formats else None
