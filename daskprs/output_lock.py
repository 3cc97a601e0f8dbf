"""The lock that keeps a second run out of an output folder.

A lock is a numbered file, ``.daskprs/lock-000007``, that tells who has it; the highest number
counts. Who wants the folder and finds its owner gone creates the next number, which only one can.
A released lock stays until the next one is taken, so that numbers only grow: who was too slow
sees a higher one, and gives up.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from daskprs.exceptions import DaskprsError, OutputError, WriteFailedError
from daskprs.output_files import WORK
from daskprs.store_calls import one_line

if TYPE_CHECKING:
    from daskprs.output_folder import OutputFolder

__all__ = ["Lock"]

STALE_AFTER = 120.0
REFRESH_SECONDS = 20.0
_GOODBYE_SECONDS = 10.0
_UNREADABLE_STALE_AFTER = 5.0
_TRIES = 100
_PREFIX = "lock-"
# Ids of locks of this process, which lives on: whether or not the release could be written.
_given_back: set[str] = set()


class Lock:
    """Keeps other runs out of an output folder; the lock of a run that is gone is taken over.

    A run on the same machine is gone when its process is. Of one on another machine this is known
    only when it has given no sign of life for two minutes, which `kept` does.

    Notes
    -----
    On a store that cannot create an object exclusively, two runs that start within the same
    moment can both get the lock.
    """

    def __init__(self, folder: OutputFolder) -> None:
        self._folder = folder
        self._number = 0
        self._content = b""
        self._lost: WriteFailedError | None = None
        self._trouble: WriteFailedError | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        OutputError
            Another run that is alive has it, or the folder cannot be written to.
        """
        try:
            for _ in range(_TRIES):
                if self._try():
                    return
                time.sleep(0.1)
        except DaskprsError:
            raise
        except Exception as error:
            raise OutputError(
                f"output={self._folder.url!r} cannot be locked ({one_line(error)}): give a folder "
                "that you may write to."
            ) from error
        raise OutputError(
            f"output={self._folder.url!r} cannot be locked: its lock files in {WORK} keep "
            "changing. Do not start several runs with the same output folder."
        )

    @property
    def is_held(self) -> bool:
        """Whether a run that is alive has the lock."""
        newest = self._newest()
        try:
            return newest > 0 and not self._is_free(newest)
        except OutputError:
            return True

    def _try(self) -> bool:
        newest = self._newest()
        if newest and not self._is_free(newest):
            return False
        number, content = newest + 1, _content_of(_myself())
        if not self._folder.create(_name(number), content):
            return False
        try:
            # A slow one may have had an older number in mind: the highest counts.
            if self._newest() == number and self._folder.read(_name(number)) == content:
                self._number, self._content = number, content
        finally:
            if self._number != number:
                self._give_up(number, content)
        if self._number != number:
            return False
        with contextlib.suppress(Exception):  # older ones do no harm
            self._folder.remove_all(_name(old) for old in self._numbers() if old < number)
        return True

    def _give_up(self, number: int, content: bytes) -> None:
        with contextlib.suppress(Exception):
            if self._folder.read(_name(number)) == content:
                self._folder.remove(_name(number))

    def _numbers(self) -> list[int]:
        names = self._folder.sizes(WORK)
        ends = [name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX)]
        return [int(end) for end in ends if end.isdecimal()]

    def _newest(self) -> int:
        return max(self._numbers(), default=0)

    def _is_free(self, number: int) -> bool:
        """Say whether nobody has this lock (any more); False means: look again."""
        content = self._folder.read(_name(number))
        if content is None:
            return False
        owner = _owner_in(content)
        if owner is not None and (owner["released"] or owner.get("id") in _given_back):
            return True
        if owner is not None and _is_this_machine(owner):
            if _is_alive(owner["pid"], owner["started"]):
                raise self._in_use(owner, "")
            return True
        try:
            age = self._folder.age(_name(number))
        except FileNotFoundError:
            return False
        if owner is None:
            # It is being written, or was torn: a live owner gives up when a higher number comes.
            return age is None or age > _UNREADABLE_STALE_AFTER
        if age is None:
            age = time.time() - owner["refreshed"]
        if age <= STALE_AFTER:
            raise self._in_use(
                owner,
                f" Its last sign of life is {max(0.0, age):.0f} s old; after {STALE_AFTER:.0f} s "
                "without one it counts as gone.",
            )
        return True

    def _in_use(self, owner: dict[str, Any], more: str) -> OutputError:
        return OutputError(
            f"output={self._folder.url!r} is in use: process {owner['pid']} on host "
            f"{owner['host']} has been writing to it for {time.time() - owner['since']:.0f} s. "
            f"Wait until it has ended, or give another output folder.{more}",
            host=owner["host"],
            pid=owner["pid"],
        )

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Show from a thread of its own that this run is alive, whatever else it does."""
        ended = threading.Event()
        thread = threading.Thread(
            target=self._keep, args=(ended,), name="daskprs-lock", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(_GOODBYE_SECONDS)  # of a store that stalls it may wait for an answer

    def _keep(self, ended: threading.Event) -> None:
        while not self.is_lost and not ended.wait(REFRESH_SECONDS):
            try:
                self.refresh()
            except WriteFailedError as error:
                self._trouble = error

    @property
    def is_lost(self) -> bool:
        """Whether another run is known to have taken the folder over."""
        return self._lost is not None

    def check(self) -> None:
        """Raise what the thread of `kept` has met, without a look of its own.

        Raises
        ------
        WriteFailedError
            As `refresh` does.
        """
        if self._trouble is not None:
            raise self._trouble

    def refresh(self) -> None:
        """Show that this run is alive, and look whether the lock is still its own.

        Raises
        ------
        WriteFailedError
            Another run has taken the folder over, for this one was silent for too long. To write
            on would mix both runs' rows. Or the store does not answer.
        """
        if self._lost is not None:
            raise self._lost
        number = self._number
        if not number:
            return
        owner = {**json.loads(self._content), "refreshed": time.time()}
        self._content = _content_of(owner)
        try:
            newest = self._newest()
            if newest <= number:
                self._folder.touch(_name(number), self._content)
                return
        except TimeoutError as error:
            raise WriteFailedError(
                f"output={self._folder.url!r} does not answer ({one_line(error)}). What was "
                "written before is kept: when it answers again, the same run goes on."
            ) from error
        except Exception:
            # That nothing can be read or written now says nothing about who has the lock.
            return
        self._number = 0
        self._lost = WriteFailedError(
            f"output={self._folder.url!r} was taken over by another run, since this one gave no "
            f"sign of life for {STALE_AFTER:.0f} s. This run stops, so that no row is written "
            "twice; see the report of the other one."
        )
        raise self._lost

    def release(self) -> None:
        """Give the lock back; nothing happens where it is not held."""
        number, self._number = self._number, 0
        if number:
            _given_back.add(json.loads(self._content)["id"])
        # Where this fails, the lock is found to be without an owner later.
        with contextlib.suppress(Exception):
            if number and self._newest() == number:
                owner = {**json.loads(self._content), "released": True}
                self._folder.write(_name(number), _content_of(owner))


def _name(number: int) -> str:
    return f"{WORK}/{_PREFIX}{number:06d}"


def _content_of(owner: dict[str, Any]) -> bytes:
    return json.dumps(owner).encode("ascii")


def _owner_in(content: bytes) -> dict[str, Any] | None:
    try:
        owner = json.loads(content)
    except ValueError:
        return None
    if not isinstance(owner, dict) or not owner.keys() >= _FIELDS:
        return None
    return owner


def _myself() -> dict[str, Any]:
    now, pid = time.time(), os.getpid()
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": pid,
        "started": _started(pid),
        "since": now,
        "refreshed": now,
        "released": False,
        "id": uuid.uuid4().hex,
    }


_FIELDS = {"host", "machine", "pid", "started", "since", "refreshed", "released"}


def _machine() -> str:
    """Tell this boot of this machine, and this container, from others with the same host name."""
    if not sys.platform.startswith("linux"):
        return ""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _is_this_machine(owner: dict[str, Any]) -> bool:
    return (owner["host"], owner["machine"]) == (socket.gethostname(), _machine())


def _started(pid: int) -> float:
    """Return when a process started, which tells it from a later one with the same pid."""
    if not sys.platform.startswith("linux"):
        return psutil.Process(pid).create_time()
    # Ticks since the boot: unlike a time of day they stay when the clock is set.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return float(fields[19])


def _is_alive(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and abs(_started(pid) - started) < 2
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return False
    except psutil.AccessDenied:
        return True
