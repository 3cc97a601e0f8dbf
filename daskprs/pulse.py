"""The pulse of a cluster: who is there, who takes the script; and the sign that the run lives."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from distributed import Client

from daskprs.worker import renew_lease

__all__ = ["Pulse"]

LOOK_SECONDS = 2.0
LONELY_LOOK_SECONDS = 0.5
# A worker that cannot host the script is tried again: its disk may have been full for a moment.
REFUSAL_SECONDS = 5.0
MOST_REFUSALS = 3
PAUSE_SECONDS = 10.0


@dataclass
class _Refusal:
    why: str
    count: int = 0
    until: float = 0.0

    @property
    def is_final(self) -> bool:
        return self.count >= MOST_REFUSALS

    def holds(self) -> bool:
        return self.is_final or time.monotonic() < self.until


class Pulse:
    """Asks the cluster regularly who is there, and tells the workers that the driver lives.

    Parameters
    ----------
    client : distributed.Client
    plugin : str
        Name of the worker plugin.
    process_count : int or None
        At most so many entry processes a worker.
    lease : float or None
        Seconds of the workers' lease.
    on_paused : callable
        Told the address of a worker that has been paused for long.

    Attributes
    ----------
    workers, slots : int
        Workers that are there, and how many mini-batches those that are at work and take the
        script can run at a time.
    heard, had_slots : float
        When the scheduler last answered, and when it last had slots (monotonic seconds).
    """

    def __init__(
        self,
        client: Client,
        plugin: str,
        process_count: int | None,
        lease: float | None,
        on_paused: Callable[[str], None],
    ) -> None:
        self._client, self._plugin, self._lease = client, plugin, lease
        self._process_count, self._on_paused = process_count, on_paused
        self._lock = threading.Lock()
        self._threads: dict[str, int] = {}
        self._running: set[str] = set()
        self._paused: dict[str, float] = {}
        self._refusals: dict[str, _Refusal] = {}
        self.workers = self.slots = 0
        self.heard = self.had_slots = time.monotonic()
        self._stopped = threading.Event()
        self._look()
        self._thread = threading.Thread(target=self._work, name="daskprs-pulse", daemon=True)
        self._thread.start()

    def _look(self) -> None:
        threads: dict[str, int] = self._client.nthreads()
        running = set(self._client.sync(self._client.scheduler.ncores_running))
        now = time.monotonic()
        with self._lock:
            self._threads, self._running = threads, running
            for gone in self._refusals.keys() - threads.keys():
                del self._refusals[gone]
            paused = threads.keys() - running
            self._paused = {address: self._paused.get(address, now) for address in paused}
        self.heard = now
        self._count()

    def _count(self) -> None:
        with self._lock:
            able = self._able()
            most = self._process_count
            counts = [self._threads[address] for address in able]
            self.workers = len(self._threads)
            self.slots = sum(count if most is None else min(count, most) for count in counts)
        if self.slots:
            self.had_slots = time.monotonic()

    def _able(self) -> list[str]:
        refusing = {address for address, refusal in self._refusals.items() if refusal.holds()}
        return [a for a in self._threads if a in self._running and a not in refusing]

    def _work(self) -> None:
        renew_every = float("inf") if self._lease is None else self._lease / 4
        renewed = time.monotonic()
        while not self._stopped.wait(min(self._wait(), renew_every)):
            now = time.monotonic()
            if now - renewed >= renew_every:
                renewed = now
                # In a thread of its own: one worker that does not answer holds up no other.
                threading.Thread(target=self._renew, name="daskprs-lease", daemon=True).start()
            with contextlib.suppress(Exception):
                self._look()
                for address, since in list(self._paused.items()):
                    if now - since > PAUSE_SECONDS:
                        self._on_paused(address)

    def _wait(self) -> float:
        return LOOK_SECONDS if self.slots else LONELY_LOOK_SECONDS

    def _renew(self) -> None:
        with contextlib.suppress(Exception):
            self._client.run(renew_lease, self._plugin, on_error="ignore")

    def close(self) -> None:
        self._stopped.set()
        self._thread.join(5)

    # Workers that cannot host the script

    def refused(self, address: str, why: str) -> bool:
        """Leave out a worker for a while, after some times for good; say whether it is new."""
        with self._lock:
            is_new = address not in self._refusals
            refusal = self._refusals.setdefault(address, _Refusal(why))
            if not refusal.holds():  # else it is of a task that was sent before the first refusal
                refusal.why, refusal.count = why, refusal.count + 1
                refusal.until = time.monotonic() + REFUSAL_SECONDS
        self._count()
        return is_new

    def accepted(self, address: str) -> None:
        """Take note that a worker hosts the script."""
        if address in self._refusals:
            with self._lock:
                self._refusals.pop(address, None)

    def allowed(self) -> list[str] | None:
        """Return where tasks may go; None is anywhere."""
        with self._lock:
            able = self._able()
            refusing = any(refusal.holds() for refusal in self._refusals.values())
        return able if refusing and able else None

    def final_refusal(self) -> str:
        """Say why no worker that is there will ever take the script; or ""."""
        with self._lock:
            final = {a: r.why for a, r in self._refusals.items() if r.is_final}
            if not self._threads or final.keys() < self._threads.keys():
                return ""
            return next(iter(final.values()), "")
