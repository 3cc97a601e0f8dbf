"""The shuffle through the cluster, and the waiting for it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import dask
from distributed import Client, Future

from daskprs.buckets import Listing, Report, bucket_of, listing_of, report_of, types_of
from daskprs.exceptions import ClusterLostError, ConfigError, RunFailedError

__all__ = ["Room", "Shuffled", "Work", "shuffled"]

PART_BYTES = 64 * 1024**2
LEAST_PART_BYTES = 1024**2
BUCKET_BYTES = 128 * 1024**2
MOST_BUCKETS = 8192
TASKS_PER_THREAD = 4
DEFAULT_MEMORY = 4 * 1024**3
PARTS_IN_MEMORY = 32  # a table is larger than its file, and is copied several times
LISTINGS_AT_ONCE = 16


@dataclass(frozen=True)
class Room:
    """What the cluster has: threads, and bytes of memory for each."""

    threads: int
    memory: int

    def part_bytes(self, total: int) -> int:
        """How much of the input one task reads."""
        even = total // (TASKS_PER_THREAD * self.threads)
        return min(max(even, LEAST_PART_BYTES), PART_BYTES, self.memory // PARTS_IN_MEMORY)

    def buckets(self, total: int) -> int:
        """How many buckets the input is brought to."""
        size = max(1, min(BUCKET_BYTES, self.memory // PARTS_IN_MEMORY))
        return min(MOST_BUCKETS, max(TASKS_PER_THREAD * self.threads, -(-total // size)))


class Work:
    """Tasks of one call, and the waiting for them."""

    def __init__(self, client: Client, keys: list[str], check: Callable[[], None]) -> None:
        self.client = client
        self.keys = keys
        self.check = check
        self.run = uuid.uuid4().hex
        self._futures: list[Future] = []

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future:
        future = self.client.submit(function, *arguments, pure=False)
        self._futures.append(future)
        return future

    def compute(self, delayed: list[Any]) -> list[Future]:
        futures: list[Future] = self.client.compute(delayed)
        self._futures += futures
        return futures

    def result(self, future: Future) -> Any:
        """Wait for a small result, and let go of it on the workers."""
        self.wait([future])
        patience = 1.0
        while True:
            try:
                result = future.result(timeout=patience)
            except TimeoutError:
                self.wait([future])
                patience = min(2 * patience, 60.0)
            except Exception as error:
                raise self._failed(error) from error
            else:
                # A worker that is lost would make it again.
                future.release()
                return result

    def wait(self, futures: Iterable[Future]) -> None:
        """Wait until all are in the memory of workers."""
        left, pause = list(futures), 0.01
        while left:
            self.check()
            for future in left:
                if future.status == "error":
                    raise self._failed(future.exception())
                if future.status == "cancelled":
                    raise ClusterLostError(
                        "the cluster has dropped the work on partition_keys="
                        f"{self.keys!r}: it was restarted, or the client was closed."
                    )
            left = [future for future in left if not future.done()]
            if left:
                time.sleep(pause)
                pause = min(2 * pause, 0.25)

    def _failed(self, error: BaseException) -> RunFailedError:
        if isinstance(error, RunFailedError):
            return error
        return RunFailedError(
            f"the rows could not be brought together by partition_keys={self.keys!r}: "
            f"{type(error).__name__}: {error}. The logs of the workers tell more. Workers "
            "that die need more memory: 2 GiB for each at least, and several times what the rows "
            "of the largest combination take."
        )

    def room(self) -> Room:
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        limits = [w["memory_limit"] / w["nthreads"] for w in workers if w["memory_limit"]]
        threads = sum(worker["nthreads"] for worker in workers)
        return Room(max(1, threads), int(min(limits, default=DEFAULT_MEMORY)))

    def keep(self, futures: Iterable[Future]) -> None:
        """Release all other futures."""
        kept = set(futures)
        for future in self._futures:
            if future not in kept:
                future.release()

    def release(self) -> None:
        self.keep(())

    def no_column(self, columns: Iterable[Any]) -> ConfigError:
        return ConfigError.of(
            "partition_keys", self.keys, f"a list of columns of the input: {list(columns)}"
        )

    def unusable(self, key: str, reason: str) -> ConfigError:
        return ConfigError.of(
            "partition_keys",
            self.keys,
            "a list of columns whose values can be compared, such as text, numbers and times; "
            f"those of {key!r} cannot ({reason})",
        )


@dataclass(frozen=True)
class Shuffled:
    """All rows in buckets.

    Attributes
    ----------
    buckets : list of (Future of Bucket, Listing)
        Those with any rows.
    """

    buckets: list[tuple[Future, Listing]]
    report: Report


def shuffled(work: Work, pieces: Any, buckets: int) -> Shuffled:
    """Carry pieces of parts to their buckets, and wait until they are there.

    Parameters
    ----------
    pieces : dask.dataframe.DataFrame
        As `split_files` and `split_partition` make them.
    """
    # Known divisions are the public way to say which row goes to which partition.
    divisions = list(range(buckets + 2))
    carried = pieces.set_index("bucket", divisions=divisions, shuffle_method="p2p")
    *partitions, last = carried.to_delayed()
    types, report = dask.delayed(types_of)(last), dask.delayed(report_of)(last)
    filled = [dask.delayed(bucket_of)(partition, types, work.keys) for partition in partitions]
    listed = [dask.delayed(listing_of)(bucket, work.keys) for bucket in filled]
    listed = [
        dask.delayed(list)(listed[i : i + LISTINGS_AT_ONCE])
        for i in range(0, buckets, LISTINGS_AT_ONCE)
    ]
    futures = work.compute([report, *listed, *filled])
    told, listings, filled = futures[0], futures[1 : 1 + len(listed)], futures[1 + len(listed) :]
    found = work.result(told)
    if found.unusable is not None:
        raise work.unusable(*found.unusable)
    work.wait(filled)
    every = [listing for few in listings for listing in work.result(few)]
    kept = [(f, listing) for f, listing in zip(filled, every, strict=True) if len(listing.rows)]
    work.keep(future for future, _ in kept)
    return Shuffled(kept, found)
