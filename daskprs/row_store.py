"""The one writer: rows of finished mini-batches become the single output file, exactly once.

::

    outcome ─▶ add() ─▶ buffer ─▶ flush(): rows, then journal ─▶ publish(): the final name

The journal alone says what is done. Whatever moment a run is killed in, the next one cuts away
what the journal does not vouch for, and goes on with what is missing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from daskprs.entry_process.wire import Rows
from daskprs.exceptions import DaskprsError, OutputError, WriteFailedError
from daskprs.journal import Journal, record_line
from daskprs.outcome_rows import recorded
from daskprs.outcomes import Outcome
from daskprs.output_files import WORK, UnnamedFile
from daskprs.output_folder import OutputFolder
from daskprs.records import Record
from daskprs.row_formats import ColumnsChangedError, row_format
from daskprs.store_calls import one_line
from daskprs.store_kind import StoreKind

__all__ = ["JOURNAL", "KEPT", "RowStore"]

JOURNAL = f"{WORK}/journal.jsonl"
KEPT = "kept"


class RowStore(StoreKind):
    """Rows and journal of one run in one output folder; for one thread.

    Parameters
    ----------
    folder : OutputFolder
    name : str
    output_format : {"text", "csv", "jsonl", "parquet"} or None
        None: summary_only, only the journal is kept.

    Attributes
    ----------
    journal : Journal or None
        What `load` has read, or `begin` has started; grows with every `add`.
    before_commit : callable
        Called before anything is changed that the final name needs; may raise.
    """

    flush_bytes = 8 << 20

    def __init__(self, folder: OutputFolder, name: str, output_format: str | None) -> None:
        if name == WORK:
            raise OutputError(f"{name!r} cannot be the name of the output: the journal is in it.")
        self.folder, self.name, self.output_format = folder, name, output_format
        self.journal: Journal | None = None
        self.before_commit: Callable[[], None] = lambda: None
        self._format = row_format(output_format)
        self._rows: list[bytes] = []
        self._lines: list[bytes] = []
        self._buffered = 0
        self._flushed_records = 0
        self._flushed = time.monotonic()

    @property
    def partial_name(self) -> str:
        return f"{self.name}.partial"

    @property
    def final_url(self) -> str:
        return self.folder.url_of(self.name)

    @property
    def partial_url(self) -> str:
        return self.folder.url_of(self.partial_name)

    # The beginning

    def load(self) -> Journal | None:
        """Read what an earlier run has left; None where it left nothing to go on with.

        Returns
        -------
        Journal or None
            Its `finished` is not None only if the output is there, as it was published. Else the
            run can go on with `resume` as if it had been killed; see `Journal.output_missing`.

        Raises
        ------
        OutputError
            The journal cannot be read, or is of a newer version.
        """
        with self._reporting("read"):
            self.journal = self._load()
        return self.journal

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Start a new journal, and move aside what an earlier run has left.

        Parameters
        ----------
        facts : mapping
            What the run is, as JSON can hold it: `journal.header` of the next `load`.

        Raises
        ------
        OutputError
            The folder cannot be written to.
        """
        with self._reporting("written to"):
            old = self.journal
            if old is not None and old.finished is not None:
                self._forget_rows(old)
            elif old is not None and old.name != self.name:
                self.folder.set_aside(f"{old.name}.partial")
            self.journal = Journal(dict(facts), self.name, self.output_format)
            self._format = row_format(self.output_format)
            self._begin(self.journal)
        self._flushed_records = 0

    def resume(self) -> None:
        """Go on with the journal that `load` has read.

        Raises
        ------
        OutputError
            The folder cannot be written to.
        """
        journal = self.journal
        if journal is None or journal.finished is not None:
            raise ValueError("there is nothing to go on with")
        if (journal.name, journal.output_format) != (self.name, self.output_format):
            raise ValueError("the journal is of another output")
        with self._reporting("written to"):
            self._format = row_format(self.output_format, journal.shape)
            self._set_aside_what_is_not_ours(journal)
            self._resume(journal)
        self._flushed_records = len(journal.records)

    def retry(self, facts: Mapping[str, Any]) -> None:
        """Go on with the journal that `load` has read, also of a finished run.

        The output of a finished run stays until `publish` puts another one in its place.

        Parameters
        ----------
        facts : mapping
            What the run is from now on: `journal.header` of the next `load`.

        Raises
        ------
        OutputError
            Rows of the finished run are not there any more. Nothing was changed.
        """
        if self.journal is None:
            raise ValueError("there is nothing to go on with")
        with self._reporting("written to"):
            if self.journal.finished is not None:
                self.journal = self._bring_back(self.journal)
            self.resume()
            self.journal.header, self.journal.retried = dict(facts), len(self.journal.records)
            self._mark_retry(self.journal)

    def _set_aside_what_is_not_ours(self, journal: Journal) -> None:
        is_ours = journal.size is not None and self.folder.size(self.name) == journal.size
        if self.output_format is not None and not is_ours:
            self.folder.set_aside(self.name)

    def _is_published(self, journal: Journal) -> bool:
        if journal.finished is None:
            return False
        if journal.size is not None and self.folder.size(journal.name) != journal.size:
            return False
        # Perhaps it was killed between the final name and the end.
        self._tidy(journal)
        return True

    def _tidy(self, journal: Journal) -> None:
        # What cannot be removed now does no harm.
        with contextlib.suppress(OSError):
            self.folder.remove_unfinished()
            if journal.rows == KEPT:
                self._put_away_rows(journal)
            else:
                self._forget_rows(journal)

    @contextlib.contextmanager
    def _reporting(self, what: str) -> Iterator[None]:
        try:
            yield
        except DaskprsError:
            raise
        except OSError as error:
            raise OutputError(
                f"output={self.folder.url!r} cannot be {what} ({one_line(error)}): give a folder "
                "that you may read and write."
            ) from error

    # Adding

    def add(self, outcome: Outcome) -> Record:
        """Take the rows of a mini-batch that is done, or the fact that it has failed.

        A mini-batch that is reported again after its rows were taken changes nothing, unless it
        is `again`: then its rows are put among those that were taken.

        Returns
        -------
        Record
            What is known now of the whole mini-batch.

        Raises
        ------
        ColumnsChangedError
            Its rows do not fit those before it. Nothing was taken.
        WriteFailedError
        """
        journal = self._begun()
        before = self._taken(journal, outcome)
        if before is not None and (outcome.failed or not outcome.again):
            return journal.records[before]
        known, rows = None, b""
        if before is not None:
            known = journal.records[before]
            rows = b"".join(self._payloads([before])) if known.length else b""
        shape = self._format.shape
        try:
            record, payload = recorded(outcome, known, rows, self._format, self._fit)
        except ColumnsChangedError:
            self._format = row_format(self.output_format, shape)
            raise
        if self._format.shape != shape:
            journal.shape = self._format.shape
            self._shape_changed(journal)
        journal.records.append(*record)
        self._lines.append(record_line(record))
        self._buffered += len(self._lines[-1])
        self._buffer(payload)
        return record

    @staticmethod
    def _taken(journal: Journal, outcome: Outcome) -> int | None:
        """Return the position of its record, if its rows were taken."""
        records = journal.records
        at = records.find(outcome.index)
        record = None if at is None else records[at]
        return at if record and not record.failed and record.key == outcome.key else None

    def _fit(self, rows: Rows) -> bytes:
        return b"" if self.output_format is None else self._format.fit(rows, self._earlier)

    def _begun(self) -> Journal:
        if self.journal is None or self.journal.finished is not None:
            raise ValueError("begin() or resume() comes first")
        return self.journal

    def _buffer(self, rows: bytes) -> None:
        if rows:
            self._rows.append(rows)
            self._buffered += len(rows)

    def _earlier(self) -> Iterator[bytes]:
        self.flush()
        return self._payloads(range(self._flushed_records))

    @property
    def flush_seconds(self) -> float:
        """How much work a kill may cost."""
        return 0.5

    @property
    def flush_is_due(self) -> bool:
        """Whether to call `flush`; to be asked after each `add`, and while waiting for work."""
        if not self._lines:
            return False
        waited = time.monotonic() - self._flushed
        return self._buffered >= self.flush_bytes or waited >= self.flush_seconds

    def flush(self) -> None:
        """Make safe what was added.

        Raises
        ------
        WriteFailedError
            The disk is full, the folder is gone, ... : what was flushed before is kept. It may be
            tried again.
        """
        if self._lines:
            with self._writing():
                self._append(b"".join(self._rows), self._lines)
            self._rows, self._lines, self._buffered = [], [], 0
            self._flushed_records = len(self._begun().records)
        self._flushed = time.monotonic()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except DaskprsError:
            raise
        except OSError as error:
            local = self.folder.local is not None
            when = "there is room and permission" if local else "the store takes it again"
            raise WriteFailedError(
                f"the output could not be written to {self.folder.url} ({one_line(error)}). What "
                f"was written before is kept: when {when}, the same run goes on from there."
            ) from error

    # The end

    def publish(
        self, order: Iterable[int] | None, facts: Mapping[str, Any], *, keep: bool = False
    ) -> None:
        """Give the rows their final name, at once and whole.

        Parameters
        ----------
        order : iterable of int or None
            Positions in ``journal.records`` whose rows to take, in this order; gone through more
            than once. None takes all rows as they stand, where an index stands twice its last.
        facts : mapping
            What the run came to, as JSON can hold it: `journal.finished` of the next `load`.
        keep : bool
            Leave the rows where `retry` finds them, out of sight.

        Raises
        ------
        WriteFailedError
            The final name is not given; the run can go on, or publish again.
        """
        self.flush()
        journal = self._begun()
        if order is not None:
            journal.records.check_order(order)
        with self._writing():
            journal.rows = KEPT if keep else None
            size = self._commit(journal, order, facts)
        journal.finished, journal.size, journal.retried = dict(facts), size, 0
        self._tidy(journal)

    def _commit(
        self, journal: Journal, order: Iterable[int] | None, facts: Mapping[str, Any]
    ) -> int | None:
        self.before_commit()
        if self.output_format is None:
            self._mark_finished(journal, facts, None)
            return None
        self._set_aside_what_is_not_ours(journal)
        with self._final_file(journal, order) as new:
            self.before_commit()
            if journal.size == new.size:
                # It would be taken for the new one, should the run be killed after the mark.
                self.folder.set_aside(self.name)
            # First the mark: it counts once the file has its name.
            self._mark_finished(journal, facts, new.size)
            try:
                new.commit()
            except OSError:
                # A store may have done it, and only its answer was lost.
                if self.folder.size(self.name) != new.size:
                    raise
        return new.size

    def _final_file(self, journal: Journal, order: Iterable[int] | None) -> UnnamedFile:
        positions = journal.records.current() if order is None else order
        return self._composed(self.name, positions)

    def _composed(self, name: str, positions: Iterable[int]) -> UnnamedFile:
        """Write the rows into a file that is finished, but not committed."""
        with contextlib.ExitStack() as stack:
            new = stack.enter_context(self.folder.new(name))
            for piece in self._format.compose(self._payloads(positions)):
                new.write(piece)
            new.finish()
            stack.pop_all()
        return new

    def show_partial(self) -> bool:
        """After a run that did not complete, say whether its rows are in `partial_url`.

        They are put there if they can be. The run can still go on.

        Raises
        ------
        WriteFailedError
        """
        journal = self.journal
        if journal is None or journal.finished is not None or self.output_format is None:
            return False
        if self.partial_grows:
            return True
        flushed = (at for at in journal.records.current() if at < self._flushed_records)
        with self._writing(), self._composed(self.partial_name, flushed) as new:
            new.commit()
        return True
