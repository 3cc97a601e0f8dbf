"""Bringing the rows of each combination of keys together: what runs in the Dask workers.

Each part of the input is split by the hash of its key columns; the shuffle of Dask carries the
pieces, as bytes, to the buckets of their hashes, and puts them on disk where they do not fit
into memory. A bucket has all rows of each of its combinations. What a part alone knows, the types
of its columns and what could not be read, travels to one more bucket, the last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from dask.sizeof import sizeof
from distributed.protocol.pickle import dumps, loads

from daskprs.key_hashes import UnusableKeyError, factorize, row_hashes
from daskprs.whole_types import Encoded, Sample, WholeTypes, encode, sample_of, whole_types

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from daskprs.pieces import TableSlice

__all__ = [
    "Bucket",
    "Listing",
    "Part",
    "Report",
    "Unread",
    "bucket_of",
    "columns_of",
    "empty_pieces",
    "entry_of",
    "group",
    "listing_of",
    "report_of",
    "split_files",
    "split_partition",
    "types_of",
]


@dataclass(frozen=True)
class Part:
    """Rows that one task reads: some small files, or one part of a large one.

    Attributes
    ----------
    source : int or None
        Number of the large file.
    """

    run: str
    number: int
    pieces: tuple[TableSlice, ...]
    source: int | None = None

    def __dask_tokenize__(self) -> tuple[str, int]:
        # The content of the files may change between two runs: so do the keys of the tasks.
        return self.run, self.number


@dataclass(frozen=True)
class Unread:
    """A piece that could not be read."""

    part: int
    position: int
    error: str
    items: int


@dataclass(frozen=True)
class Report:
    """What is known of parts beside their rows.

    Attributes
    ----------
    unusable : tuple or None
        A key whose values cannot be compared, and why.
    """

    samples: tuple[Sample, ...] = ()
    unread: tuple[Unread, ...] = ()
    unusable: tuple[str, str] | None = None


def columns_of(piece: TableSlice) -> list[Any] | None:
    """Read the columns of a file, as a Dask task; None where it has none, or cannot be read."""
    try:
        return list(piece.load().columns) or None
    except Exception:
        return None  # it fails again when it is split, with its reason


# Splitting a part


def empty_pieces() -> pd.DataFrame:
    """Make the table that the shuffle carries, without rows."""
    return _pieces([], 0)


def _pieces(rows: Sequence[tuple[int, bytes]], number: int) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    payloads = pa.array([payload for _, payload in rows], type=pa.large_binary())
    return pd.DataFrame(
        {
            "bucket": np.array([bucket for bucket, _ in rows], dtype=np.int64),
            "part": np.full(len(rows), number, dtype=np.int64),
            "payload": pd.arrays.ArrowExtensionArray(payloads),
        }
    )


def split_files(part: Part, keys: Sequence[str], buckets: int) -> pd.DataFrame:
    """Read a part and split it, as a Dask task."""
    frames, unread = [], []
    for position, piece in enumerate(part.pieces):
        try:
            frames.append(_distinct_columns(piece.load()))
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            unread.append(Unread(part.number, position, told, piece.count_items()))
    return _split(part.number, frames, keys, buckets, part.source, tuple(unread))


def split_partition(
    frame: pd.DataFrame,
    run: str,
    keys: Sequence[str],
    buckets: int,
    partition_info: dict[str, Any] | None = None,
) -> pd.DataFrame:
    """Split a partition of a Dask dataframe; `run` makes the names of the tasks unique."""
    number = int(partition_info["number"]) if partition_info else 0
    return _split(number, [_distinct_columns(frame)], keys, buckets, source=0)


def _distinct_columns(frame: pd.DataFrame) -> pd.DataFrame:
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise ValueError(f"more than one column has the name {repeated[0]!r}")
    return frame


def _split(
    number: int,
    frames: list[pd.DataFrame],
    keys: Sequence[str],
    buckets: int,
    source: int | None,
    unread: tuple[Unread, ...] = (),
) -> pd.DataFrame:
    rows: list[tuple[int, bytes]] = []
    samples, unusable, start = [], None, 0
    try:
        for position, frame in enumerate(_joined([f for f in frames if len(f)])):
            targets = (row_hashes(frame, keys) % np.uint64(buckets)).astype(np.int64)
            encoded = encode(frame, source)
            samples.append(sample_of(frame, encoded))
            for bucket, piece in _by_target(encoded, targets, start):
                rows.append((bucket, dumps((position, piece))))
            start += len(frame)
    except UnusableKeyError as error:
        unusable = (error.key, error.reason)
    rows.append((buckets, dumps(Report(tuple(samples), unread, unusable))))
    return _pieces(rows, number)


def _joined(frames: list[pd.DataFrame]) -> Iterable[pd.DataFrame]:
    """Concatenate neighbours whose columns have the same types."""
    import pandas as pd

    runs: list[list[pd.DataFrame]] = []
    for frame in frames:
        if runs and _alike(runs[-1][0], frame):
            runs[-1].append(frame)
        else:
            runs.append([frame])
    for run in runs:
        yield pd.concat(run, ignore_index=True) if len(run) > 1 else run[0]


def _alike(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    return one.columns.equals(other.columns) and list(one.dtypes) == list(other.dtypes)


def _by_target(
    encoded: Encoded, targets: NDArray[np.int64], start: int
) -> Iterable[tuple[int, Encoded]]:
    """Cut rows by their buckets; the index is the position in the part, counted from `start`."""
    frame = encoded.frame.set_axis(np.arange(start, start + len(targets)), axis=0)
    order = np.argsort(targets, kind="stable")
    frame, targets = frame.take(order), targets[order]
    cuts = [0, *(np.flatnonzero(np.diff(targets)) + 1).tolist(), len(targets)]
    for begin, end in pairwise(cuts):
        piece = frame.iloc[begin:end]
        yield int(targets[begin]), Encoded(piece, encoded.categories, encoded.source)


# The last bucket


def _reports(pieces: pd.DataFrame) -> list[Report]:
    pairs = sorted(zip(pieces["part"].tolist(), pieces["payload"].tolist(), strict=True))
    return [loads(payload) for _, payload in pairs]


def types_of(pieces: pd.DataFrame) -> WholeTypes:
    """Find the types of the whole input, as a Dask task on the last bucket."""
    return whole_types(sample for report in _reports(pieces) for sample in report.samples)


def report_of(pieces: pd.DataFrame) -> Report:
    """Tell what could not be read, as a Dask task on the last bucket."""
    reports = _reports(pieces)
    unusable = (report.unusable for report in reports if report.unusable is not None)
    return Report(
        unread=tuple(unread for report in reports for unread in report.unread),
        unusable=next(unusable, None),
    )


# The other buckets


@dataclass(frozen=True, eq=False)
class Bucket:
    """All rows of some combinations, one combination after the other.

    Attributes
    ----------
    offsets : array of int
        Where each combination begins, and the number of rows.
    first : array of int
        Of each combination, the part and the row in the part where it appears first.
    """

    frame: pd.DataFrame = field(repr=False)
    offsets: NDArray[np.int64] = field(repr=False)
    first: NDArray[np.int64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, position: int) -> pd.DataFrame:
        rows = self.frame.iloc[self.offsets[position] : self.offsets[position + 1]]
        return rows.reset_index(drop=True)

    def __sizeof__(self) -> int:
        # Dask decides by it what goes to disk.
        return int(sizeof(self.frame) + self.offsets.nbytes + self.first.nbytes)


@dataclass(frozen=True, eq=False)
class Listing:
    """The combinations of a bucket, in the order of the bucket."""

    values: tuple[list[Any], ...]
    rows: NDArray[np.int64]
    first: NDArray[np.int64]


def bucket_of(pieces: pd.DataFrame, types: WholeTypes, keys: Sequence[str]) -> Bucket:
    """Put the pieces of a bucket together, as a Dask task."""
    loaded = zip(pieces["part"].tolist(), map(loads, pieces["payload"]), strict=True)
    parts = sorted(((n, position, piece) for n, (position, piece) in loaded), key=_place)
    if not parts:
        return group(_empty_frame(types), np.empty((0, 2), np.int64), keys)
    frame = types.concat(piece for _, _, piece in parts)
    numbers = np.repeat([n for n, _, _ in parts], [len(piece.frame) for _, _, piece in parts])
    return group(frame, np.column_stack([numbers, frame.index.to_numpy(np.int64)]), keys)


def _place(part: tuple[int, int, Encoded]) -> tuple[int, int]:
    return part[0], part[1]


def _empty_frame(types: WholeTypes) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns=types.columns)


def group(frame: pd.DataFrame, places: NDArray[np.int64], keys: Sequence[str]) -> Bucket:
    """Put rows of one combination side by side, the combinations in order of appearance.

    Parameters
    ----------
    places : array of int
        Part and row in the part, of each row of the frame.
    """
    import pandas as pd

    combined = np.zeros(len(frame), np.int64)
    for key in keys:
        codes, values = factorize(frame, key)
        combined = pd.factorize(combined * max(1, len(values)) + codes)[0]
    order = np.argsort(combined, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(combined))]).astype(np.int64)
    ordered = frame.take(order).reset_index(drop=True)
    return Bucket(ordered, offsets, places[order[offsets[:-1]]])


def listing_of(bucket: Bucket, keys: Sequence[str]) -> Listing:
    """List the combinations of a bucket, as a Dask task."""
    firsts = bucket.frame.take(bucket.offsets[:-1])
    return Listing(
        values=tuple(_scalars(firsts, key) for key in keys),
        rows=np.diff(bucket.offsets),
        first=bucket.first,
    )


def entry_of(bucket: Bucket, position: int, keys: Sequence[str]) -> tuple[list[Any], int]:
    """Tell the values and the number of rows of one combination."""
    begin, end = bucket.offsets[position : position + 2].tolist()
    first = bucket.frame.iloc[begin : begin + 1]
    return [_scalars(first, key)[0] for key in keys], end - begin


def _scalars(frame: pd.DataFrame, key: str) -> list[Any]:
    """Values as Python and pandas have them; None for every missing one."""
    if key not in frame.columns:
        return [None] * len(frame)
    values = frame[key]
    missing = values.isna().tolist()
    plain = (v.item() if isinstance(v, np.generic) else v for v in values.tolist())
    return [None if gone else value for value, gone in zip(plain, missing, strict=True)]
