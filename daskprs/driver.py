"""The driver of a run: takes mini-batches from the plan, keeps the window full, writes the rows.

::

    Planner ──▶ ready ──▶ Window ──▶ workers
                 ▲           │
    large tables │ rest      ▼
    are surveyed └────── outcomes ──▶ RowStore, counts, thresholds, events

Everything here happens in one thread, the only one that writes.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from daskprs.attempts import Limits
from daskprs.cluster_rows import ClusterRows
from daskprs.events import Event, InitTried, LogArrived, MiniBatchDone, Noticed, Sampled
from daskprs.exceptions import (
    ClusterLostError,
    InitFailedError,
    RunCanceledError,
    ThresholdExceededError,
)
from daskprs.job import Job
from daskprs.local_session import LocalSession
from daskprs.local_start import LocalStart
from daskprs.mini_batches import MiniBatch
from daskprs.outcomes import FirstFailures, Outcome, Tally, has_limits, threshold_exceeded
from daskprs.output import ColumnsChangedError, RowStore
from daskprs.planner import Planner
from daskprs.splitting import items_still_failed, items_to_run
from daskprs.survey_queue import Surveys, source_of
from daskprs.suspects import Suspects
from daskprs.wording import counted
from daskprs.work import Group, GroupSizer, Survey, killed, portable, unreadable
from daskprs.worker_results import Finished, GroupResult, SurveyFailure

if TYPE_CHECKING:
    from daskprs.session import Session

    Place = Session | LocalSession

__all__ = ["Driver"]

MOST_GROUP_BYTES = 64 << 20
MOST_LOST = 5
PLAN_SECONDS = 0.5  # most plans are known by then
MOST_PARTITIONS = 15_000


class Driver:
    """Runs what is missing of a job.

    Parameters
    ----------
    job : Job
    planner : Planner
    store : RowStore
    tally : Tally
        Counts what this start of the run does; the caller adds what was kept.
    emit : callable
    canceled : threading.Event
    wake : threading.Event
        Set by whoever has news for the driver.
    """

    def __init__(
        self,
        job: Job,
        planner: Planner,
        rows: ClusterRows,
        store: RowStore,
        tally: Tally,
        emit: Callable[[Event], None],
        canceled: threading.Event,
        wake: threading.Event,
    ) -> None:
        self.job, self.planner, self.rows, self.store = job, planner, rows, store
        self.tally, self.emit = tally, emit
        self.tick: Callable[[], None] = lambda: None
        self.failures = FirstFailures()
        self.kept_tally = Tally()
        self._canceled, self._wake = canceled, wake
        self._limits = Limits.of(job.config)
        self._stop_at_failure = has_limits(job.config)
        self._sizer = GroupSizer()
        self._ready: deque[MiniBatch] = deque()
        self._again: deque[Group | Survey] = deque()
        self._surveys = Surveys()
        self._open: set[int] = set()
        self._suspects = Suspects(job.config.run_max_try)
        self._warned_long = False
        self._last_progress = time.monotonic()
        self._partitions: list[MiniBatch] = []
        self._local: LocalStart | None = None
        self.session: Place | None = None
        self._sessions: list[Place] = []

    def run(self, session: Session | None) -> None:
        """Work until all is done.

        Parameters
        ----------
        session : Session or None
            On a given cluster; None is for this machine.

        Raises
        ------
        RunCanceledError, ThresholdExceededError, InitFailedError, ClusterLostError,
        WriteFailedError
        """
        with ExitStack() as stack:
            stack.callback(self.planner.stop)
            stack.callback(self.rows.stop)
            if session is not None:
                self._use(session)
            else:
                self._local = LocalStart(self.job, self._wake, self.emit)
            self._wait_for_plan(stack)
            while not self._is_done():
                self._check_canceled()
                if self._local is not None:
                    self._find_place(self._local, stack)
                for place in self._sessions:
                    self._take_results(place)
                if self.session is not None:
                    self._fill(self.session)
                    self._check_progress(self.session)
                self.tick()
                if self.store.flush_is_due:
                    self.store.flush()
                self._check_thresholds()
                if not self._is_done():
                    self._wake.wait(0.1)
                    self._wake.clear()
            if self.planner.error is not None:
                raise self.planner.error
            self._check_thresholds()
            for place in self._sessions:
                place.finish()

    def _wait_for_plan(self, stack: ExitStack) -> None:
        """Wait until the plan is known, or a moment; processes need not wait for all of it."""
        if self.job.is_shuffled:
            return  # it waits for a cluster
        if self._local is not None:
            self.planner.wait_for_pause(PLAN_SECONDS)
            if self._refill(self._local.slots):
                self._local.start_processes(stack, len(self._open))
            self.planner.go_on()
        self.planner.wait(PLAN_SECONDS)
        self.tick()  # the first report tells it

    def _find_place(self, local: LocalStart, stack: ExitStack) -> None:
        """Let work go to where it should go on this machine."""
        if self.session is not None or self._refill(local.slots) or self.rows.is_wanted:
            needs_cluster = self.rows.is_wanted or bool(self._partitions)
            place = local.place(stack, len(self._open), needs_cluster, self._sizer.is_quick)
            if place is not None:
                self._use(place)

    def _use(self, session: Place) -> None:
        self.session = session
        self._sessions.append(session)
        self._last_progress = time.monotonic()
        self.emit(session.ready())
        if session.client is not None:
            self.rows.connect(session.client)

    def _is_done(self) -> bool:
        if self.planner.error is not None:
            return True
        return self._all_scheduled() and not self._open

    def _all_scheduled(self) -> bool:
        nothing_waits = not (
            self._ready or self._again or self._partitions or self._surveys.waiting
            or self._suspects.are_waiting
        )  # fmt: skip
        return self.planner.is_exhausted and nothing_waits

    def _check_canceled(self) -> None:
        if self._canceled.is_set():
            raise RunCanceledError(
                "the run was canceled. What was done is kept: the same run goes on from there."
            )

    def _check_progress(self, session: Place) -> None:
        if not len(session.window) and session.workers:
            # Waiting for the listing of the input.
            self._last_progress = max(self._last_progress, self.planner.last_sign)

        def stuck() -> str:
            groups = [work for work in session.window.works() if isinstance(work, Group)]
            first = groups[0].mini_batches[0].piece if groups else "the listing of the input"
            return f"{counted(len(groups), 'task')}, the first with {first}"

        session.check_alive(self._last_progress, stuck)

    def _check_thresholds(self) -> None:
        tally = self.tally + self.kept_tally
        planned = self.planner.planned if self._all_scheduled() else None
        why = threshold_exceeded(self.job.config, tally, planned=planned)
        if why is not None:
            raise ThresholdExceededError(
                f"{why}: the run was stopped. First failures:\n{self.failures.text(tally)}",
                script_traceback=self.failures.traceback,
            )

    # Work in

    def _refill(self, wanted: int) -> bool:
        """Take from the plan until so many are ready, or it has no more at the moment."""
        while len(self._ready) < wanted and self._surveys.parked < 10 * wanted + 1000:
            mini_batch = self.planner.take()
            if mini_batch is None:
                break
            self._open.add(mini_batch.index)
            if self.rows.is_partition(mini_batch):
                self._partitions.append(mini_batch)
                continue
            self._ready.extend(self._surveys.offer(mini_batch))
        return bool(self._ready or self._partitions or self._surveys.waiting)

    def _fill(self, session: Place) -> None:
        slots = session.slots
        if self._suspects:
            self._try_suspect(session)
            return
        if self._partitions and slots and not isinstance(session, LocalSession):
            self._submit_partitions(session)
        while len(session.window) < 2 * slots:
            work = self._next_work(slots)
            if work is None:
                return
            if isinstance(work, Survey):
                session.survey(work)
                continue
            session.run_group(work, *self._how(session))

    def _try_suspect(self, session: Place) -> None:
        suspect = self._suspects.next(len(session.window))
        if suspect is None:
            return
        is_partition = self.rows.is_partition(suspect.mini_batches[0])
        if is_partition and not isinstance(session, LocalSession):
            session.run_partitions([suspect], *self._how(session))
        else:
            session.run_group(suspect, *self._how(session))

    def _how(self, session: Place) -> tuple[Any, ...]:
        budget = 2 * self._sizer.seconds(session.slots)
        return self._limits, self._stop_at_failure, budget

    def _submit_partitions(self, session: Session) -> None:
        """Submit the partitions of Dask dataframes at once: one by one, each costs a whole graph.

        Dask computes them as workers become free, and holds only as many as they need.
        """
        if not self.planner.is_complete and len(self._partitions) < MOST_PARTITIONS:
            return  # more of them are on their way
        works = [Group([m], self.rows.frame(m)) for m in self._partitions]
        self._partitions = []
        session.run_partitions(works, *self._how(session))

    def _next_work(self, slots: int) -> Group | Survey | None:
        if self._again:
            work = self._again[0]
            if isinstance(work, Group) and self.rows.is_partition(work.mini_batches[0]):
                self._partitions += self._again.popleft().mini_batches  # type: ignore[union-attr]
                return self._next_work(slots)
            return self._again.popleft()
        self._refill(self._sizer.size(None, slots))
        piece = self._surveys.next(most=max(1, slots))
        if piece is not None:
            return Survey(source_of(piece), piece.portable())
        if not self._ready:
            return None
        left = self.planner.left(len(self._ready))
        return self._group(self._sizer.size(left, slots))

    def _group(self, most: int) -> Group:
        first = self._ready.popleft()
        frame = self.rows.frame(first)
        taken, nbytes = [first], first.nbytes or 0
        while self._ready and len(taken) < most:
            following = self._ready[0]
            nbytes += following.nbytes or 0
            if nbytes > MOST_GROUP_BYTES or self.rows.frame(following) is not frame:
                break
            taken.append(self._ready.popleft())
        return Group([portable(mini_batch) for mini_batch in taken], frame)

    # Results out

    def _take_results(self, session: Place) -> None:
        for finished in session.window.take():
            self._last_progress = time.monotonic()
            if not finished.deaths:
                self._suspects.acquit(finished.work)
            if finished.lost:
                self._take_lost(finished, session)
            elif isinstance(finished.work, Survey):
                self._take_survey(finished.work, finished.value)
            else:
                self._take_group(finished.work, finished.value, session)

    def _take_group(self, group: Group, result: GroupResult, session: Place) -> None:
        for record in result.inits:
            self.emit(InitTried(record))
        for chunk in result.logs:
            self.emit(LogArrived(chunk))
        if result.sample is not None:
            self.emit(Sampled(result.sample))
        by_index = {mini_batch.index: mini_batch for mini_batch in group.mini_batches}
        for outcome in result.outcomes:
            self._take_outcome(outcome, by_index[outcome.index])
        seconds = sum(a.elapsed for o in result.outcomes for a in o.attempts)
        self._sizer.saw(len(result.outcomes), seconds, session.slots)
        if result.init_failure is not None:
            raise InitFailedError(
                "the entry script could not be started in three fresh processes: "
                f"{result.init_failure.error}",
                script_traceback=result.init_failure.traceback,
            )
        if result.host_missing:
            session.refused(result.worker, result.host_missing)
        elif result.worker:
            session.hosted(result.worker)
        rest = [by_index[index] for index in result.rest]
        if not rest:
            return
        if group.frame is not None:
            self._again.append(Group(rest, group.frame, group.lost))
        else:
            self._ready.extendleft(reversed(rest))

    def _take_outcome(self, outcome: Outcome, mini_batch: MiniBatch) -> None:
        if outcome.index not in self._open:
            return  # told twice: its rows are taken already
        outcome = self.job.secrets.hide_in_outcome(outcome)
        try:
            record = self.store.add(outcome)
        except ColumnsChangedError as error:
            outcome = outcome._replace(
                failed=True, returned=0, rows=None, error=str(error),
                items=items_to_run(mini_batch, outcome.total),
            )  # fmt: skip
            record = self.store.add(outcome)
        if mini_batch.again:
            total, succeeded = record.total, record.succeeded
            outcome = outcome._replace(total=total, returned=succeeded, failed=record.failed)
            if record.bad_items:
                items = items_still_failed(mini_batch, record.bad_items, total, outcome.items)
                outcome = outcome._replace(items=self.job.secrets.hide_in(items))
        self._open.discard(outcome.index)
        self.rows.done(mini_batch)
        self.tally.add(
            total=outcome.total, succeeded=outcome.succeeded_items, failed=outcome.failed
        )
        if outcome.failed_items:
            self.failures.add(outcome)
        if outcome.returned > outcome.total and not self._warned_long:
            self._warned_long = True
            self.emit(Noticed(f"{outcome.too_many}: all are written; this is said once."))
        self.emit(MiniBatchDone(outcome))

    def _take_survey(self, survey: Survey, found: Any) -> None:
        if isinstance(found, SurveyFailure):
            for mini_batch in self._surveys.failed(survey.source):
                part = mini_batch.piece.part  # type: ignore[union-attr]
                self._take_outcome(unreadable(mini_batch, found, part), mini_batch)
            return
        self._ready.extend(self._surveys.found(survey.source, found))

    def _take_lost(self, finished: Finished, session: Place) -> None:
        session.check_connected()
        work = finished.work
        if finished.deaths and isinstance(work, Group):
            self._take_killed(work, finished)
            return
        work.lost += 1
        if work.lost > MOST_LOST:
            raise ClusterLostError(
                f"a task was lost {work.lost} times ({finished.lost}). The same run goes on "
                "with what is missing."
            )
        self._again.append(work)

    def _take_killed(self, group: Group, finished: Finished) -> None:
        self.emit(Noticed(f"workers died: {finished.lost}"))
        for mini_batch, deaths in self._suspects.accuse(group, finished.deaths):
            self._take_outcome(killed(mini_batch, finished.lost, deaths), mini_batch)
