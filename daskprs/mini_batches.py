"""MiniBatch, and the plan: which part of which input each mini-batch is.

The plan is pure: it looks at names, sizes and times, reads no data, and gives the same
mini-batches for the same input. It is a stream: the first mini-batch comes out while the
listing goes on.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec

from daskprs.config import DEFAULT_FILES, DEFAULT_TABLE_BYTES, ParallelRunConfig, parse_size
from daskprs.datasets import FileDataset, FrameDataset, TabularDataset
from daskprs.exceptions import ConfigError, InputNotFoundError, UsageError
from daskprs.listing import ListedFile, is_local
from daskprs.tables import Survey, TableReader, count_items, read_part, survey

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FilePaths", "FrameRows", "MiniBatch", "TableParts", "TableSlice", "plan"]

Dataset = FileDataset | TabularDataset | FrameDataset


def _in_memory(path: str) -> bool:
    return path.startswith("memory:")


def _content(path: str, storage_options: Mapping[str, Any]) -> bytes | None:
    """Bytes of a file that only this process can open."""
    if not _in_memory(path):
        return None
    with fsspec.open(path, "rb", **storage_options) as stream:
        data: bytes = stream.read()
        return data


@dataclass(frozen=True)
class FilePaths:
    """Some files of one folder; loads as a list of local paths."""

    paths: tuple[str, ...]
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    contents: tuple[bytes, ...] | None = field(default=None, repr=False)

    def load(self, scratch: str) -> list[str]:
        """Give local paths; files of other stores are fetched into `scratch` first."""
        if not self.paths or is_local(self.paths[0]):
            return list(self.paths)
        os.makedirs(scratch, exist_ok=True)
        local = [os.path.join(scratch, _base_name(path)) for path in self.paths]
        if self.contents is not None:
            for path, content in zip(local, self.contents, strict=True):
                Path(path).write_bytes(content)
            return local
        fs, _ = fsspec.core.url_to_fs(self.paths[0], **self.storage_options)
        fs.get([fs._strip_protocol(path) for path in self.paths], local)
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


def _base_name(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1] or "file"


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

    def load(self, scratch: str = "") -> pd.DataFrame:
        frame = read_part(
            self.path,
            self.reader,
            self.storage_options,
            part=self.part,
            parts=self.parts,
            found=self.found,
            content=self.content,
        )
        for name, value in self.keys.items():
            frame[name] = value
        return frame

    @property
    def needs_survey(self) -> bool:
        return self.parts > 1 and self.reader.format != "parquet" and self.found is None

    def survey(self) -> Survey:
        """Look through the whole file, once for all its parts."""
        return survey(
            self.path, self.size, self.parts, self.reader, self.storage_options, self.content
        )

    def portable(self) -> TableSlice:
        return replace(self, content=_content(self.path, self.storage_options))

    def narrowed(self, found: Survey) -> TableSlice:
        """Return the slice with what the survey found, as little as this part needs."""
        offsets, records = [0] * (self.parts + 1), [0] * self.parts
        offsets[self.part : self.part + 2] = found.offsets[self.part : self.part + 2]
        records[self.part] = found.records[self.part]
        return replace(self, found=replace(found, offsets=tuple(offsets), records=tuple(records)))

    def count_items(self) -> int:
        if self.found is not None:
            return max(1, self.found.records[self.part])
        whole = count_items(self.path, self.reader, self.storage_options, self.content)
        return max(1, (self.part + 1) * whole // self.parts - self.part * whole // self.parts)

    def items(self, total: int | None) -> list[dict[str, Any]]:
        item: dict[str, Any] = {"file": self.path, "rows": total}
        if self.parts == 1:
            item |= {"row_start": 0, "row_stop": total}
        elif self.found is not None:
            item |= {"bytes": list(self.found.offsets[self.part : self.part + 2])}
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


Piece = FilePaths | TableSlice | TableParts | FrameRows


@dataclass(frozen=True)
class MiniBatch:
    """One call of run().

    Attributes
    ----------
    index : int
        Position in the plan, from 0.
    key : str
        16 hex digits: what this mini-batch is. Another plan with the same key at the same
        index means the same rows.
    piece
        Loads what run() receives.
    items : int or None
        Files or rows; None where only reading can tell.
    nbytes : int or None
        Bytes of source data.
    """

    index: int
    key: str
    piece: Piece
    items: int | None
    nbytes: int | None
    dataset: str = ""
    partition_key_value: dict[str, Any] | None = None
    row_start: int | None = None


@dataclass(frozen=True)
class _Draft:
    """A mini-batch before it has its place in the plan."""

    piece: Piece
    identity: str
    items: int | None
    nbytes: int | None
    keys: dict[str, Any] | None = None


def _numbered(drafts: Iterator[tuple[str, _Draft]]) -> Iterator[MiniBatch]:
    for index, (name, draft) in enumerate(drafts):
        digest = hashlib.sha256(f"{index}\n{draft.identity}".encode("utf-8", "surrogateescape"))
        yield MiniBatch(
            index=index,
            key=digest.hexdigest()[:16],
            piece=draft.piece,
            items=draft.items,
            nbytes=draft.nbytes,
            dataset=name,
            partition_key_value=draft.keys,
        )


def plan(inputs: Sequence[Dataset], config: ParallelRunConfig) -> Iterator[MiniBatch]:
    """Cut the inputs into mini-batches, as a stream.

    Parameters
    ----------
    inputs : sequence of datasets
        Each is cut on its own; a mini-batch never mixes two.
    config : ParallelRunConfig
        Its `mini_batch_size` or `partition_keys`.

    Raises
    ------
    InputNotFoundError
        When the stream comes to an input that matches nothing.
    """
    return _numbered(
        (dataset.name, draft) for dataset in inputs for draft in _drafts(dataset, config)
    )


def is_shuffled(dataset: Dataset, config: ParallelRunConfig) -> bool:
    """Say whether the combinations of keys are known only when the rows have been read."""
    if config.partition_keys is None or isinstance(dataset, FileDataset):
        return False
    return not set(config.partition_keys) <= set(dataset.keys)


def _drafts(dataset: Dataset, config: ParallelRunConfig) -> Iterator[_Draft]:
    if isinstance(dataset, FileDataset):
        if config.partition_keys is not None:
            return _file_partitions(dataset, config.partition_keys)
        return _file_groups(dataset, count_of(config.mini_batch_size))
    size = bytes_of(config.mini_batch_size)
    if isinstance(dataset, FrameDataset):
        return _frame_rows(dataset, size)
    if config.partition_keys is not None:
        return _table_partitions(dataset, config.partition_keys)
    return _table_slices(dataset, size)


def count_of(mini_batch_size: object) -> int:
    """Files in a mini-batch.

    Raises
    ------
    ConfigError
        The size is one in bytes.
    """
    if mini_batch_size is None:
        return DEFAULT_FILES
    text = str(mini_batch_size).strip()
    if not text.isdigit():
        raise ConfigError.of(
            "mini_batch_size", mini_batch_size, "a number of files for file inputs, such as 10"
        )
    return parse_size("mini_batch_size", mini_batch_size)


def bytes_of(mini_batch_size: object) -> int:
    """Bytes of source data in a mini-batch of a table."""
    if mini_batch_size is None:
        return DEFAULT_TABLE_BYTES
    return parse_size("mini_batch_size", mini_batch_size)


def _identity(file: ListedFile) -> str:
    return f"{file.path}\t{file.size}\t{file.version}"


# Files


def _file_groups(dataset: FileDataset, count: int) -> Iterator[_Draft]:
    group: list[ListedFile] = []
    for file in dataset.files():
        if group and (len(group) == count or group[0].folder != file.folder):
            yield _file_draft(dataset, group)
            group = []
        group.append(file)
    if group:
        yield _file_draft(dataset, group)


def _file_draft(
    dataset: FileDataset, files: list[ListedFile], keys: dict[str, Any] | None = None
) -> _Draft:
    sizes = [file.size for file in files]
    return _Draft(
        piece=FilePaths(tuple(file.path for file in files), dataset.storage_options),
        identity="\n".join(map(_identity, files)),
        items=len(files),
        nbytes=None if None in sizes else sum(size or 0 for size in sizes),
        keys=keys,
    )


def _by_keys(
    dataset: FileDataset | TabularDataset, keys: list[str]
) -> dict[tuple[Any, ...], list[ListedFile]]:
    if dataset.partition_format is None or not set(keys) <= set(dataset.keys):
        raise ConfigError.of(
            "partition_keys",
            keys,
            "keys of the input's partition_format, such as "
            "FileDataset('data', partition_format='{user}/{season}.wav') with ['user']; "
            f"this input has {dataset.keys or 'no partition_format'}",
        )
    groups: dict[tuple[Any, ...], list[ListedFile]] = {}
    for file in dataset.files():
        values = dataset.partition_format.values(file.path)
        groups.setdefault(tuple(values[key] for key in keys), []).append(file)
    return groups


def _file_partitions(dataset: FileDataset, keys: list[str]) -> Iterator[_Draft]:
    for values, files in _by_keys(dataset, keys).items():
        yield _file_draft(dataset, files, dict(zip(keys, values, strict=True)))


# Tables


def _table_slices(dataset: TabularDataset, size: int) -> Iterator[_Draft]:
    for file in dataset.files():
        yield from slices_of(dataset, file, size)


def slices_of(dataset: TabularDataset, file: ListedFile, size: int) -> Iterator[_Draft]:
    """Cut one file into even parts of at most `size` bytes; an empty file has none."""
    reader = dataset.reader(file.path)
    if file.size == 0:
        return
    parts = 1
    if file.size is not None and reader.can_cut(file.path):
        parts = -(-file.size // size)
    keys = {} if dataset.partition_format is None else dataset.partition_format.values(file.path)
    for part in range(parts):
        yield _Draft(
            piece=TableSlice(
                path=file.path,
                reader=reader,
                part=part,
                parts=parts,
                size=file.size or 0,
                storage_options=dataset.storage_options,
                keys=keys,
            ),
            identity=f"{_identity(file)}\t{part}/{parts}",
            items=None,
            nbytes=None if file.size is None else file.size // parts,
        )


def _table_partitions(dataset: TabularDataset, keys: list[str]) -> Iterator[_Draft]:
    for values, files in _by_keys(dataset, keys).items():
        whole = [d for f in files for d in slices_of(dataset, f, max(1, f.size or 1))]
        if not whole:
            continue
        pieces = tuple(d.piece for d in whole if isinstance(d.piece, TableSlice))
        yield _Draft(
            piece=TableParts(pieces),
            identity="\n".join(d.identity for d in whole),
            items=None,
            nbytes=sum(d.nbytes or 0 for d in whole),
            keys=dict(zip(keys, values, strict=True)),
        )


# DataFrames


def _frame_rows(dataset: FrameDataset, size: int) -> Iterator[_Draft]:
    """Cut a pandas DataFrame by the bytes it takes in memory, into even runs of rows."""
    frame = dataset.frame
    if dataset.is_lazy:
        raise UsageError("the mini-batches of a Dask dataframe are its partitions")
    rows = len(frame)
    if rows == 0:
        raise InputNotFoundError("the input DataFrame has no rows.")
    nbytes = int(frame.memory_usage(index=False, deep=True).sum())
    parts = min(rows, max(1, -(-nbytes // size)))
    token = frame_token(frame)
    for part in range(parts):
        start, stop = part * rows // parts, (part + 1) * rows // parts
        yield _Draft(
            piece=FrameRows(frame.iloc[start:stop], start, dataset.name),
            identity=f"{token}\t{start}:{stop}",
            items=stop - start,
            nbytes=nbytes // parts,
        )


def frame_token(frame: Any) -> str:
    """Hash of a DataFrame's content, or of the graph of a lazy one."""
    from dask.base import tokenize

    return str(tokenize(frame))

