"""MiniBatch, and the plan: which part of which input each mini-batch is.

The plan is pure: it looks at names, sizes and times, reads no data, and gives the same
mini-batches for the same input. It is a stream: the first mini-batch comes out while the
listing goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from daskprs.config import DEFAULT_FILES, DEFAULT_TABLE_BYTES, ParallelRunConfig, parse_size
from daskprs.datasets import FileDataset, FrameDataset, TabularDataset
from daskprs.exceptions import ConfigError, InputNotFoundError
from daskprs.lazy_rows import LazyRows, UnreadableRows
from daskprs.listing import ListedFile
from daskprs.pieces import FilePaths, FrameRows, Piece, TableParts, TableSlice

__all__ = [
    "FilePaths",
    "FrameRows",
    "MiniBatch",
    "Piece",
    "TableParts",
    "TableSlice",
    "bytes_of",
    "count_of",
    "frame_token",
    "groups_of",
    "is_shuffled",
    "plan",
    "slices_of",
]

Dataset = FileDataset | TabularDataset | FrameDataset


class MiniBatch(NamedTuple):
    """One call of run(); those of a `ParallelRunStep` are told by its plan().

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
    again : bool
        It has rows from a run before, and what had failed of it is to run again.
    only : tuple of (int, int) or None
        The items to run then, as (start, stop); None where all are.
    """

    index: int  # type: ignore[assignment]
    key: str
    piece: Piece | LazyRows | UnreadableRows
    items: int | None
    nbytes: int | None
    dataset: str = ""
    partition_key_value: dict[str, Any] | None = None
    row_start: int | None = None
    again: bool = False
    only: tuple[tuple[int, int], ...] | None = None


class Draft(NamedTuple):
    """A mini-batch before it has its place in the plan.

    Attributes
    ----------
    identity : str
        Changes when the rows of the mini-batch may have changed.
    rank : int or None
        Its place in its input, where the mini-batches do not come in their order.
    """

    piece: Piece | LazyRows | UnreadableRows
    identity: str
    items: int | None
    nbytes: int | None
    keys: dict[str, Any] | None = None
    rank: int | None = None


def _numbered(drafts: Iterator[Draft], name: str, first: int) -> Iterator[MiniBatch]:
    for number, draft in enumerate(drafts):
        index = first + (number if draft.rank is None else draft.rank)
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


def plan(
    inputs: Sequence[Dataset],
    config: ParallelRunConfig,
    on_cluster: Callable[[Dataset], Iterator[Draft] | None] = lambda _: None,
) -> Iterator[MiniBatch]:
    """Cut the inputs into mini-batches, as a stream.

    Parameters
    ----------
    inputs : sequence of datasets
        Each is cut on its own; a mini-batch never mixes two.
    config : ParallelRunConfig
        Its `mini_batch_size` or `partition_keys`.
    on_cluster : callable
        Cuts the inputs that only a cluster can cut, and gives None for the others.

    Raises
    ------
    InputNotFoundError
        When the stream comes to an input that matches nothing.
    """
    count = 0
    for dataset in inputs:
        drafts = on_cluster(dataset) or _drafts(dataset, config)
        for mini_batch in _numbered(drafts, dataset.name, count):
            yield mini_batch
            count += 1


def is_shuffled(dataset: Dataset, config: ParallelRunConfig) -> bool:
    """Say whether the combinations of keys are known only when the rows have been read."""
    if config.partition_keys is None or isinstance(dataset, FileDataset):
        return False
    return not set(config.partition_keys) <= set(dataset.keys)


def _drafts(dataset: Dataset, config: ParallelRunConfig) -> Iterator[Draft]:
    if isinstance(dataset, FileDataset):
        if config.partition_keys is not None:
            return _file_partitions(dataset, config.partition_keys)
        return groups_of(dataset, count_of(config.mini_batch_size))
    size = bytes_of(config.mini_batch_size)
    if isinstance(dataset, FrameDataset):
        return _frame_partitions(dataset) if dataset.is_lazy else _frame_rows(dataset, size)
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


def groups_of(dataset: FileDataset, count: int) -> Iterator[Draft]:
    """Cut the files into groups of at most `count` files of one folder."""
    group: list[ListedFile] = []
    folder = ""
    for file in dataset.files():
        if len(group) == count or folder != file.folder:
            if group:
                yield _file_draft(dataset, group)
            group, folder = [], file.folder
        group.append(file)
    if group:
        yield _file_draft(dataset, group)


def _file_draft(
    dataset: FileDataset, files: list[ListedFile], keys: dict[str, Any] | None = None
) -> Draft:
    sizes = [file.size for file in files]
    return Draft(
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


def _file_partitions(dataset: FileDataset, keys: list[str]) -> Iterator[Draft]:
    for values, files in _by_keys(dataset, keys).items():
        yield _file_draft(dataset, files, dict(zip(keys, values, strict=True)))


# Tables


def _table_slices(dataset: TabularDataset, size: int) -> Iterator[Draft]:
    for file in dataset.files():
        yield from slices_of(dataset, file, size)


def slices_of(dataset: TabularDataset, file: ListedFile, size: int) -> Iterator[Draft]:
    """Cut one file into even parts of at most `size` bytes; an empty file has none."""
    reader = dataset.reader(file.path)
    if file.size == 0:
        return
    parts = 1
    if file.size is not None and reader.can_cut(file.path):
        parts = -(-file.size // size)
    keys = {} if dataset.partition_format is None else dataset.partition_format.values(file.path)
    for part in range(parts):
        yield Draft(
            piece=TableSlice(
                path=file.path,
                reader=reader,
                part=part,
                parts=parts,
                size=file.size or 0,
                storage_options=dataset.storage_options,
                keys=keys,
                version=file.version,
            ),
            identity=f"{_identity(file)}\t{part}/{parts}",
            items=None,
            nbytes=None if file.size is None else file.size // parts,
        )


def _table_partitions(dataset: TabularDataset, keys: list[str]) -> Iterator[Draft]:
    for values, files in _by_keys(dataset, keys).items():
        whole = [d for f in files for d in slices_of(dataset, f, max(1, f.size or 1))]
        if not whole:
            continue
        pieces = tuple(d.piece for d in whole if isinstance(d.piece, TableSlice))
        yield Draft(
            piece=TableParts(pieces),
            identity="\n".join(d.identity for d in whole),
            items=None,
            nbytes=sum(d.nbytes or 0 for d in whole),
            keys=dict(zip(keys, values, strict=True)),
        )


# DataFrames


def _frame_rows(dataset: FrameDataset, size: int) -> Iterator[Draft]:
    """Cut a pandas DataFrame by the bytes it takes in memory, into even runs of rows."""
    frame = dataset.frame
    rows = len(frame)
    if rows == 0:
        raise InputNotFoundError("the input DataFrame has no rows.")
    nbytes = int(frame.memory_usage(index=False, deep=True).sum())
    parts = min(rows, max(1, -(-nbytes // size)))
    token = frame_token(frame)
    for part in range(parts):
        start, stop = part * rows // parts, (part + 1) * rows // parts
        yield Draft(
            piece=FrameRows(frame.iloc[start:stop], start, dataset.name),
            identity=f"{token}\t{start}:{stop}",
            items=stop - start,
            nbytes=nbytes // parts,
        )


def _frame_partitions(dataset: FrameDataset) -> Iterator[Draft]:
    """The mini-batches of a Dask dataframe are its partitions."""
    token = frame_token(dataset.frame)
    for number in range(dataset.frame.npartitions):
        source = f"{token}/{number}"
        piece = LazyRows(source, f"{dataset.name} partition {number}")
        yield Draft(piece, identity=source, items=None, nbytes=None)


def frame_token(frame: Any) -> str:
    """Hash of a DataFrame's content, or of the graph of a lazy one."""
    from dask.base import tokenize

    return str(tokenize(frame))
