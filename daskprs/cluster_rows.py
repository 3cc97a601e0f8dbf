"""Inputs whose rows the cluster holds: Dask dataframes, and tables shuffled by their keys.

The planner's thread asks for their mini-batches, the driver for the futures of their rows.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from daskprs.datasets import FrameDataset, TabularDataset
from daskprs.exceptions import RunCanceledError
from daskprs.job import Job
from daskprs.lazy_rows import LazyRows, UnreadableRows
from daskprs.mini_batches import Dataset, Draft, MiniBatch, frame_token, is_shuffled, plan
from daskprs.row_starts import known_rows, with_row_starts

if TYPE_CHECKING:
    from daskprs.partitioning import Combination

__all__ = ["ClusterRows"]

_ROW_START_NAME = "global_row_index_lower_bound"


class ClusterRows:
    """What the cluster knows of the inputs of one run.

    Parameters
    ----------
    job : Job
    canceled, wake : threading.Event
        `wake` is set when the driver is wanted.

    Attributes
    ----------
    is_wanted : bool
        Whether the planner waits for a cluster.
    """

    def __init__(self, job: Job, canceled: threading.Event, wake: threading.Event) -> None:
        self.is_wanted = False
        self._job, self._canceled, self._wake = job, canceled, wake
        self._frames: dict[str, Any] = {}
        self._uses: Counter[str] = Counter()
        self._client: Any = None
        self._connected, self._stopped = threading.Event(), threading.Event()

    # The planner's side

    def plan(self) -> Iterator[MiniBatch]:
        """Plan the inputs, with the help of the cluster where it takes that."""
        mini_batches = plan(self._job.inputs, self._job.config, self._drafts)
        if _ROW_START_NAME in self._job.source.text:
            return with_row_starts(mini_batches, self._ask_for_rows)
        return mini_batches

    def _drafts(self, dataset: Dataset) -> Iterator[Draft] | None:
        return self._shuffled(dataset) if is_shuffled(dataset, self._job.config) else None

    def _shuffled(self, dataset: Dataset) -> Iterator[Draft]:
        from daskprs.partitioning import combinations

        assert isinstance(dataset, TabularDataset | FrameDataset)
        keys = self._job.config.partition_keys or []
        found = combinations(self._wait_for_client(), dataset, keys, check=self._check)
        for rank, part in enumerate(found.unreadable):
            identity = f"{found.token} unreadable {part.piece}"
            piece = UnreadableRows(part.piece, part.error)
            yield Draft(piece, identity=identity, items=part.items, nbytes=0, rank=rank)
        # Combinations of one bucket come together, to ride in one task; their places in the
        # plan are those of their first rows, however many buckets there are.
        ranked = list(enumerate(found.combinations, len(found.unreadable)))
        for rank, combination in sorted(ranked, key=_bucket_and_rank):
            yield self._combination(combination, rank, found.token)

    def _combination(self, combination: Combination, rank: int, token: str) -> Draft:
        from distributed import Future

        piece: Any = combination.piece()
        if isinstance(combination.bucket, Future):
            source = str(combination.bucket.key)
            self._frames[source] = combination.bucket
            self._uses[source] += 1
            piece = LazyRows(source, combination.label, piece)
        return Draft(
            piece,
            identity=f"{token} {combination.values!r}",
            items=combination.rows,
            nbytes=None,
            keys=dict(combination.values),
            rank=rank,
        )

    def _ask_for_rows(self, piece: Any) -> Callable[[], Any]:
        future = self._wait_for_client().submit(known_rows, piece, pure=False)

        def answer() -> Any:
            while not future.done():
                self._check()
                self._stopped.wait(0.05)
            return future.result(timeout=60)

        return answer

    def _wait_for_client(self) -> Any:
        self.is_wanted = True
        self._wake.set()
        while not self._connected.wait(0.2):
            self._check()
        return self._client

    def _check(self) -> None:
        if self._canceled.is_set() or self._stopped.is_set():
            raise RunCanceledError("the run was canceled while its input was being planned.")

    # The driver's side

    def connect(self, client: Any) -> None:
        self._client = client
        self._connected.set()

    def frame(self, mini_batch: MiniBatch) -> Any:
        """Return the future, or the delayed partition, that holds the rows; or None."""
        piece = mini_batch.piece
        if not isinstance(piece, LazyRows):
            return None
        if piece.is_partition and piece.source not in self._frames:
            self._add_partitions()
        return self._frames[piece.source]

    def _add_partitions(self) -> None:
        for dataset in self._job.inputs:
            if isinstance(dataset, FrameDataset) and dataset.is_lazy:
                token = frame_token(dataset.frame)
                parts = dataset.frame.optimize().to_delayed(optimize_graph=False)
                for number, part in enumerate(parts):
                    self._frames[f"{token}/{number}"] = part
                    self._uses[f"{token}/{number}"] = 1

    @staticmethod
    def is_partition(mini_batch: MiniBatch) -> bool:
        """Whether its rows are a partition of a Dask dataframe, which is not computed yet."""
        piece = mini_batch.piece
        return isinstance(piece, LazyRows) and piece.is_partition

    def done(self, mini_batch: MiniBatch) -> None:
        """Let go of the rows when their last mini-batch is done."""
        piece = mini_batch.piece
        if isinstance(piece, LazyRows):
            self._uses[piece.source] -= 1
            if self._uses[piece.source] <= 0:
                self._frames.pop(piece.source, None)

    def stop(self) -> None:
        self._stopped.set()
        self._frames.clear()


def _bucket_and_rank(ranked: tuple[int, Combination]) -> tuple[str, int]:
    rank, combination = ranked
    return str(getattr(combination.bucket, "key", "")), rank
