"""Pieces: what a mini-batch is made of, and how it becomes what run() receives."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskprs.file_trees import is_local, split_chain
from daskprs.table_files import TableFile
from daskprs.table_reader import TableReader

if TYPE_CHECKING:
    import pandas as pd

    from daskprs.tables import Survey

__all__ = ["FilePaths", "FrameRows", "ListItems", "Piece", "TableParts", "TableSlice"]


def _in_memory(path: str) -> bool:
    return "memory:" in path and split_chain(path)[1].startswith("memory:")


def _content(path: str, storage_options: Mapping[str, Any]) -> bytes | None:
    """Bytes of a file that only this process can open."""
    if not _in_memory(path):
        return None
    import fsspec

    with fsspec.open(path, "rb", **storage_options) as stream:
        data: bytes = stream.read()
        return data


@dataclass(frozen=True)
class FilePaths:
    """Some files of one folder; loads as a list of local paths."""

    paths: tuple[str, ...]
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    contents: tuple[bytes, ...] | None = field(default=None, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        # There are many of them: without the names of their fields they are shorter.
        return type(self), (self.paths, self.storage_options, self.contents)

    def load(self, scratch: str) -> list[str]:
        """Give local paths; files of other stores are fetched into `scratch` first."""
        if not self.paths or is_local(self.paths[0]):
            return list(self.paths)
        local = _local_paths(self.paths, scratch)
        if self.contents is not None:
            for path, content in zip(local, self.contents, strict=True):
                Path(path).write_bytes(content)
            return local
        from fsspec.core import url_to_fs

        found = [url_to_fs(path, **self.storage_options) for path in self.paths]
        found[0][0].get([inside for _, inside in found], local)
        return local

    def portable(self) -> FilePaths:
        """Take along the bytes of files that only this process can open."""
        if not self.paths or not _in_memory(self.paths[0]):
            return self
        contents = tuple(_content(path, self.storage_options) or b"" for path in self.paths)
        return replace(self, contents=contents)

    def count_items(self) -> int:
        return len(self.paths)

    def items(self, total: int | None) -> list[dict[str, Any]]:
        """Name the items, for the list of failed ones."""
        return [{"path": path} for path in self.paths]

    def __str__(self) -> str:
        more = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        return f"{self.paths[0]}{more}"


def _local_paths(urls: Sequence[str], scratch: str) -> list[str]:
    """Give every file its own name; those of the same name stand in folders of their own."""
    taken: set[str] = set()
    local = []
    for number, url in enumerate(urls):
        name = split_chain(url)[1].rstrip("/").rsplit("/", 1)[-1] or "file"
        folder = os.path.join(scratch, str(number)) if name in taken else scratch
        taken.add(name)
        os.makedirs(folder, exist_ok=True)
        local.append(os.path.join(folder, name))
    return local


@dataclass(frozen=True)
class TableSlice:
    """Part `part` of `parts` of one table file; loads as a DataFrame."""

    path: str
    reader: TableReader
    part: int
    parts: int
    size: int
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    keys: Mapping[str, Any] = field(default_factory=dict)
    found: Survey | None = field(default=None, repr=False)
    content: bytes | None = field(default=None, repr=False)
    version: str = ""

    @property
    def file(self) -> TableFile:
        return TableFile(self.path, self.storage_options, self.content, self.size, self.version)

    def load(self, scratch: str = "") -> pd.DataFrame:
        from daskprs.tables import read_part

        frame = read_part(
            self.file, self.reader, part=self.part, parts=self.parts, found=self.found
        )
        return self.with_keys(frame)

    def with_keys(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Add the keys in the file's path as columns."""
        for name, value in self.keys.items():
            frame[name] = value
        return frame

    @property
    def needs_survey(self) -> bool:
        return self.parts > 1 and self.reader.format != "parquet" and self.found is None

    def survey(self, *, records: bool = False) -> Survey:
        """Look through the whole file, once for all its parts; see `daskprs.tables.survey`."""
        from daskprs.tables import survey

        return survey(self.file, self.parts, self.reader, records=records)

    def portable(self) -> TableSlice:
        return replace(self, content=_content(self.path, self.storage_options))

    def narrowed(self, found: Survey) -> TableSlice:
        """Return the slice with what the survey found, as little as this part needs."""
        return replace(self, found=found.only(self.part))

    def count_items(self) -> int:
        from daskprs.tables import count_items, count_records

        if self.found is not None:
            records = self.found.records_in(self.part)
            if records is None:
                records = count_records(self.file, self.reader, self.found.span(self.part))
            return max(1, records)
        whole = count_items(self.file, self.reader)
        return max(1, (self.part + 1) * whole // self.parts - self.part * whole // self.parts)

    def items(self, total: int | None) -> list[dict[str, Any]]:
        item: dict[str, Any] = {"file": self.path, "rows": total}
        if self.parts == 1:
            item |= {"row_start": 0, "row_stop": total}
        elif self.found is not None:
            item |= {"bytes": list(self.found.span(self.part))}
        else:
            item |= {"part": self.part, "parts": self.parts}
        return [item]

    def __str__(self) -> str:
        where = f" part {self.part + 1} of {self.parts}" if self.parts > 1 else ""
        return f"{self.path}{where}"


@dataclass(frozen=True)
class TableParts:
    """Several whole table files of one combination of keys; loads as one DataFrame."""

    slices: tuple[TableSlice, ...]

    def load(self, scratch: str = "") -> pd.DataFrame:
        import pandas as pd

        frames = [piece.load(scratch) for piece in self.slices]
        frames = [frame for frame in frames if len(frame)] or frames[:1]
        return pd.concat(frames, ignore_index=True)

    def portable(self) -> TableParts:
        return TableParts(tuple(piece.portable() for piece in self.slices))

    def count_items(self) -> int:
        return sum(piece.count_items() for piece in self.slices)

    def items(self, total: int | None) -> list[dict[str, Any]]:
        return [{"file": piece.path, "rows": None} for piece in self.slices]

    def __str__(self) -> str:
        more = f" and {len(self.slices) - 1} more" if len(self.slices) > 1 else ""
        return f"{self.slices[0]}{more}"


@dataclass(frozen=True)
class FrameRows:
    """Rows that are in memory; `start` is their position in the DataFrame."""

    frame: Any = field(repr=False)
    start: int = 0
    label: str = "dataframe"

    def load(self, scratch: str = "") -> Any:
        return self.frame

    def portable(self) -> FrameRows:
        return self

    def count_items(self) -> int:
        return len(self.frame)

    def items(self, total: int | None) -> list[dict[str, Any]]:
        stop = self.start + len(self.frame)
        return [{"file": self.label, "row_start": self.start, "row_stop": stop}]

    def __str__(self) -> str:
        return f"{self.label} rows {self.start} to {self.start + len(self.frame)}"


@dataclass(frozen=True)
class ListItems:
    """Elements of a list that are in memory."""

    elements: Sequence[Any] = field(repr=False)
    label: str = "bag"

    def load(self, scratch: str = "") -> list[Any]:
        return list(self.elements)

    def portable(self) -> ListItems:
        return self

    def count_items(self) -> int:
        return len(self.elements)

    def items(self, total: int | None) -> list[dict[str, Any]]:
        return [{"file": self.label, "rows": len(self.elements)}]

    def __str__(self) -> str:
        return self.label


Piece = FilePaths | TableSlice | TableParts | FrameRows | ListItems
