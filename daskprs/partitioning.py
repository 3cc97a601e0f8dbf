"""partition_keys that are columns: all rows of a combination become one mini-batch.

The rows go from worker to worker, in the shuffle of Dask, and never through this process; what
comes here is a list of the combinations. Their rows wait in buckets on the workers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import dask.dataframe as dd
import numpy as np
from dask.base import tokenize
from distributed import Client, Future

from daskprs.buckets import (
    Bucket,
    Listing,
    Part,
    columns_of,
    empty_pieces,
    entry_of,
    group,
    listing_of,
    split_files,
    split_partition,
)
from daskprs.datasets import FrameDataset, TabularDataset
from daskprs.exceptions import InputChangedError
from daskprs.host_tasks import survey_piece
from daskprs.key_hashes import UnusableKeyError
from daskprs.mini_batches import slices_of
from daskprs.pieces import TableSlice
from daskprs.shuffle import MOST_BUCKETS, PART_BYTES, Work, shuffled
from daskprs.worker_results import SurveyFailure

if TYPE_CHECKING:
    from daskprs.listing import ListedFile
    from daskprs.tables import TableReader

__all__ = ["Combination", "CombinationRows", "Partitioned", "Unreadable", "combinations"]

FILES_IN_PART = 1000
PACKED = 4  # how much larger compressed data is in memory, about


@dataclass(frozen=True)
class CombinationRows:
    """All rows of one combination of keys; loads as a DataFrame.

    `bind` takes them out of their bucket; those of a DataFrame of this process are bound.
    """

    label: str
    values: dict[str, Any]
    rows: int
    position: int
    frame: Any = field(default=None, repr=False)

    def bind(self, bucket: Bucket) -> CombinationRows:
        """Take the rows of the combination; what is wrong with them is told by `load`."""
        return replace(self, frame=bucket[self.position] if self._is_in(bucket) else None)

    def _is_in(self, bucket: Bucket) -> bool:
        # A bucket that was lost with its worker is made again, from files that may have changed.
        if self.position >= len(bucket):
            return False
        values, rows = entry_of(bucket, self.position, list(self.values))
        return rows == self.rows and all(map(_same, values, self.values.values()))

    def load(self, scratch: str = "") -> Any:
        """Give the rows.

        Raises
        ------
        InputChangedError
        """
        if self.frame is None:
            raise InputChangedError(
                f"the rows {self} are no longer what they were: they were read again after a "
                "worker was lost, and a file of the input has changed. Start again when nothing "
                "writes to the input any more.",
                path=self.label,
            )
        return self.frame

    def portable(self) -> CombinationRows:
        return self

    def count_items(self) -> int:
        return self.rows

    def items(self, total: int | None) -> list[dict[str, Any]]:
        plain = (str, int, float, bool, type(None))
        values = {k: v if isinstance(v, plain) else str(v) for k, v in self.values.items()}
        return [{"dataset": self.label, "partition_key_value": values, "rows": self.rows}]

    def __str__(self) -> str:
        values = ", ".join(f"{key}={value!r}" for key, value in self.values.items())
        return f"{self.label} where {values}"


def _same(one: Any, other: Any) -> bool:
    # A tuple with a NaN in it does not equal its copy.
    return bool(one == other) or repr(one) == repr(other)


@dataclass(frozen=True, slots=True)
class Combination:
    """One existing combination of key values.

    Attributes
    ----------
    values : dict
        Key to value; None where it is missing.
    rows : int
    bucket : Future or Bucket
        Holds the rows; a Bucket of this process where the input is a pandas DataFrame.
    position : int
        Entry of the bucket.
    """

    values: dict[str, Any]
    rows: int
    bucket: Future | Bucket
    position: int
    label: str

    def piece(self) -> CombinationRows:
        """Make the piece of the mini-batch; unbound where the bucket is on a worker."""
        piece = CombinationRows(self.label, self.values, self.rows, self.position)
        return piece.bind(self.bucket) if isinstance(self.bucket, Bucket) else piece


@dataclass(frozen=True)
class Unreadable:
    """A part of a file that could not be read.

    Attributes
    ----------
    items : int
        Its rows, as well as they could be counted.
    """

    piece: TableSlice
    error: str
    items: int


@dataclass(frozen=True)
class Partitioned:
    """One input, with the rows of each combination of keys brought together.

    Attributes
    ----------
    combinations : list of Combination
        In order of first appearance in the input.
    token : str
        Same token: same input, keys and unreadable parts, and so the same rows in the same
        combinations, in the same order.
    """

    combinations: list[Combination]
    unreadable: list[Unreadable]
    token: str


def combinations(
    client: Client,
    dataset: TabularDataset | FrameDataset,
    keys: Sequence[str],
    *,
    check: Callable[[], None],
) -> Partitioned:
    """Bring the rows of each combination of keys together on the workers.

    Parameters
    ----------
    client : Client
        It need not be the default client.
    dataset : TabularDataset or FrameDataset
    keys : sequence of str
        Columns of the input, or keys of its `partition_format`.
    check : callable
        Called again and again while the workers work; what it raises ends the work.

    Returns
    -------
    Partitioned
        The futures in it keep the buckets alive.

    Raises
    ------
    ConfigError
        A key is no column, or its values cannot be compared.
    RunFailedError
        The workers could not do it.
    """
    work = Work(client, list(keys), check)
    try:
        if isinstance(dataset, TabularDataset):
            return _of_files(work, dataset)
        if dataset.is_lazy:
            return _of_dask_frame(work, dataset)
        return _of_pandas_frame(work, dataset)
    except BaseException:
        # The traceback holds references: without this the workers would work on.
        work.release()
        raise


# A pandas DataFrame is in this process: its rows go out with their mini-batches.


def _of_pandas_frame(work: Work, dataset: FrameDataset) -> Partitioned:
    frame = dataset.frame
    labels = list(frame.columns)
    if any(labels.count(key) != 1 for key in work.keys):
        raise work.no_column(labels)
    places = np.column_stack([np.zeros(len(frame), np.int64), np.arange(len(frame))])
    try:
        bucket = group(frame, places, work.keys)
    except UnusableKeyError as error:
        raise work.unusable(error.key, error.reason) from error
    listing = listing_of(bucket, work.keys)
    found = _combinations([(bucket, listing)], work.keys, dataset.name)
    return Partitioned(found, [], str(tokenize(frame, work.keys)))


# A Dask DataFrame


def _of_dask_frame(work: Work, dataset: FrameDataset) -> Partitioned:
    frame = dataset.frame
    labels = list(frame.columns)
    if not set(work.keys) <= set(labels):
        raise work.no_column(labels)
    buckets = max(work.room().buckets(0), min(frame.npartitions, MOST_BUCKETS))
    pieces = frame.map_partitions(
        split_partition, work.run, work.keys, buckets, meta=empty_pieces()
    )
    done = shuffled(work, pieces, buckets)
    found = _combinations(done.buckets, work.keys, dataset.name)
    return Partitioned(found, [], str(tokenize(frame, work.keys)))


# Files


def _of_files(work: Work, dataset: TabularDataset) -> Partitioned:
    files, token = _listed(work, dataset)
    room = work.room()
    total = sum(_bytes_in_memory(dataset, file) for file in files)
    size = room.part_bytes(total)
    slices = [_slices(dataset, file, size) for file in files]
    slices = [pieces for pieces in slices if pieces]
    unreadable = _survey(work, slices)
    parts = list(_parts(work.run, slices, size))
    if not parts:
        return _partitioned([], unreadable, token)
    buckets = room.buckets(total)
    pieces = dd.from_map(split_files, parts, keys=work.keys, buckets=buckets, meta=empty_pieces())
    done = shuffled(work, pieces, buckets)
    for unread in done.report.unread:
        piece = parts[unread.part].pieces[unread.position]
        unreadable.append(Unreadable(piece, unread.error, unread.items))
    found = _combinations(done.buckets, work.keys, dataset.name)
    return _partitioned(found, unreadable, token)


def _partitioned(found: list[Combination], unreadable: list[Unreadable], token: str) -> Partitioned:
    """Make a token that is another one where rows are missing."""
    missing = "".join(f"\n{part.piece}" for part in unreadable)
    digest = hashlib.sha256((token + missing).encode("utf-8", "surrogateescape"))
    return Partitioned(found, unreadable, digest.hexdigest())


def _listed(work: Work, dataset: TabularDataset) -> tuple[list[ListedFile], str]:
    files, digest = [], hashlib.sha256(repr(work.keys).encode())
    for file in dataset.files():
        identity = f"{file.path}\t{file.size}\t{file.version}\n"
        digest.update(identity.encode("utf-8", "surrogateescape"))
        files.append(file)
        if len(files) % 1000 == 0:
            work.check()
    return files, digest.hexdigest()


def _bytes_in_memory(dataset: TabularDataset, file: ListedFile) -> int:
    size = PART_BYTES if file.size is None else file.size
    return size * _packing(dataset.reader(file.path), file.path)


def _packing(reader: TableReader, path: str) -> int:
    return PACKED if reader.format == "parquet" or not reader.can_cut(path) else 1


def _slices(dataset: TabularDataset, file: ListedFile, size: int) -> list[TableSlice]:
    in_memory = file.path.startswith("memory:")
    if in_memory:
        # Its bytes go along with each part: one part.
        size = max(1, file.size or 0)
    drafts = slices_of(
        dataset, file, max(1, size // _packing(dataset.reader(file.path), file.path))
    )
    pieces = [draft.piece for draft in drafts if isinstance(draft.piece, TableSlice)]
    return [piece.portable() for piece in pieces] if in_memory else pieces


def _survey(work: Work, slices: list[list[TableSlice]]) -> list[Unreadable]:
    """Look through the large files; in the first one that can be read, look for the keys.

    `slices` gets what was found.
    """
    surveys = {
        number: work.submit(survey_piece, pieces[0])
        for number, pieces in enumerate(slices)
        if pieces[0].needs_survey
    }
    unreadable: list[Unreadable] = []
    has_keys = False
    for number, pieces in enumerate(slices):
        if number in surveys:
            found = work.result(surveys[number])
            if isinstance(found, SurveyFailure):
                slices[number] = []
                failed = zip(pieces, found.items, strict=True)
                unreadable += [Unreadable(piece, found.error, items) for piece, items in failed]
                continue
            slices[number] = [piece.narrowed(found) for piece in pieces]
        has_keys = has_keys or _has_keys(work, slices[number][0])
    return unreadable


def _has_keys(work: Work, piece: TableSlice) -> bool:
    columns = work.result(work.submit(columns_of, piece))
    if columns is not None and not set(work.keys) <= set(columns):
        raise work.no_column(columns)
    return columns is not None


def _parts(run: str, slices: list[list[TableSlice]], size: int) -> Iterator[Part]:
    number, small, nbytes = 0, list[TableSlice](), 0
    for source, pieces in enumerate(slices):
        full = nbytes >= size or len(small) == FILES_IN_PART
        if small and (full or len(pieces) > 1):
            yield Part(run, number, tuple(small))
            number, small, nbytes = number + 1, [], 0
        if len(pieces) == 1:
            small += pieces
            nbytes += pieces[0].size * _packing(pieces[0].reader, pieces[0].path)
            continue
        for piece in pieces:
            yield Part(run, number, (piece,), source)
            number += 1
    if small:
        yield Part(run, number, tuple(small))


def _combinations(
    found: Sequence[tuple[Any, Listing]], keys: list[str], label: str
) -> list[Combination]:
    """Make the combinations of all buckets, in order of first appearance in the input."""
    every = [
        Combination(dict(zip(keys, values, strict=True)), rows, bucket, position, label)
        for bucket, listing in found
        for position, (rows, *values) in enumerate(
            zip(listing.rows.tolist(), *listing.values, strict=True)
        )
    ]
    first = np.concatenate([np.empty((0, 2), np.int64), *(listing.first for _, listing in found)])
    return [every[i] for i in np.lexsort((first[:, 1], first[:, 0]))]
