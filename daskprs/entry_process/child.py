"""The inside of an entry process: import, init(), run() for each mini-batch, shutdown()."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import fcntl
import gc
import importlib
import logging
import os
import pickle
import select
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
import types
from collections.abc import Iterator
from pathlib import Path

from daskprs.entry_process import script_imports
from daskprs.entry_process.failures import describe
from daskprs.entry_process.progress import Progress, Tracker
from daskprs.entry_process.results import materialise, to_rows
from daskprs.entry_process.script_module import import_script, wants_context
from daskprs.entry_process.wire import (
    Channel,
    Done,
    Failed,
    GoOn,
    InitDone,
    MessageError,
    Run,
    Shutdown,
    Start,
)

__all__ = ["main"]

_SLOW_SECONDS = 0.1  # after so long, others may have time for what was sent ahead
_STARTING_THRESHOLD = 4999  # new objects between two collections; no number of a script's own
_STACK_SLOTS = 1 << 16  # half a megabyte, of which none is touched


def main(channel_fd: int, lifeline_fd: int, stack_file: str, progress_file: str) -> None:
    """Serve one Dask worker until it says so, or is gone."""
    for fd in (channel_fd, lifeline_fd):
        os.set_inheritable(fd, False)
    _die_with_the_worker(lifeline_fd)
    _dump_stacks(stack_file)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    channel = Channel(socket.socket(fileno=channel_fd))
    # A fork of the script must neither answer nor keep the worker waiting for the end of file.
    os.register_at_fork(after_in_child=channel.close)
    try:
        with _less_collecting():
            start = channel.receive()
            tracker = Tracker(Progress(Path(progress_file)))  # the script may use up all files
            script = _start_script(start, channel)
        if script is not None:
            _Service(script, start, channel, tracker).serve()
    except (EOFError, OSError):
        if not _is_fork():
            _kill_group()  # the worker is gone, there is nobody left to tell
    except BaseException:
        if _is_fork():
            raise
        _write_error(traceback.format_exc())
        os._exit(1)
    else:
        # What flushes logs and removes temporary files; the worker does not wait for it for long.
        atexit._run_exitfuncs()
    _flush()
    # Threads of the script must not keep the process.
    os._exit(0)


# CPython takes memory for the frames of calls in pieces of 16 KB, and gives the last one back when
# it is empty: code that calls to and fro over its edge, as imports do, asks the system for it each
# time. A frame that claims to need so much gets a piece with room for those of the script, too.
main.__code__ = main.__code__.replace(co_stacksize=_STACK_SLOTS)


def _die_with_the_worker(lifeline: int) -> None:
    """End this process and all it started when the other end of the pipe is closed.

    The thread works everywhere. On Linux the kernel's signal also works while C code holds
    the GIL, and SIGKILL in place of SIGIO cannot be blocked.
    """

    def watch() -> None:
        poll = select.poll()
        poll.register(lifeline, select.POLLIN | select.POLLHUP)
        poll.poll()
        _kill_group()

    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)
    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def _kill_group() -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def _is_fork() -> bool:
    """Say whether this is a process that the script has forked off: it leads no group."""
    return os.getpid() != os.getpgrp()


def _dump_stacks(stack_file: str) -> None:
    """On SIGUSR1 write all stacks, also while C code holds the GIL; on a crash too."""
    stream = open(stack_file, "w")  # noqa: SIM115  (open for the life of the process)
    stream.write(f"{threading.main_thread().ident:x}\n")
    stream.flush()
    faulthandler.register(signal.SIGUSR1, file=stream, all_threads=True)
    faulthandler.enable(file=stream)


@contextlib.contextmanager
def _less_collecting() -> Iterator[None]:
    """Look for garbage less often: what is imported stays, and to look it through takes time."""
    usual = gc.get_threshold()
    starting = (usual[0] and max(_STARTING_THRESHOLD, usual[0]), *usual[1:])
    gc.set_threshold(*starting)
    try:
        yield
    finally:
        if gc.get_threshold() == starting:  # else the script has its own
            gc.set_threshold(*usual)


def _start_script(start: Start, channel: Channel) -> types.ModuleType | None:
    sys.argv = [start.script, *start.arguments]
    logging.basicConfig(
        stream=sys.stdout,
        level=start.logging_level,
        format="%(asctime)s|%(levelname)s|%(name)s|%(message)s",
    )
    if start.logging_level != "DEBUG":
        # Of each file that is read from Azure it would tell two dozen lines.
        logging.getLogger("azure.core.pipeline.policies.http_logging_policy").setLevel("WARNING")
    began = time.perf_counter()
    try:
        script_imports.install()
        script = import_script(Path(start.script), Path(start.source_directory))
        if not callable(getattr(script, "run", None)):
            raise AttributeError(f"{start.script} has no function run(mini_batch)")
        init = getattr(script, "init", None)
        if init is not None:
            init()
    except BaseException as error:
        channel.send(_failed("init", error, began))
        return None
    _flush()
    channel.send(InitDone(time.perf_counter() - began))
    return script


class _Service:
    """Runs the mini-batches that come, one after another."""

    def __init__(
        self, script: types.ModuleType, start: Start, channel: Channel, tracker: Tracker
    ) -> None:
        self._script, self._start, self._channel = script, start, channel
        self._with_context = wants_context(script.run)
        self._tracker = tracker

    def serve(self) -> None:
        """Answer until the worker says that no work is left."""
        with contextlib.suppress(Exception):  # which the first mini-batch tells
            # It is on its way, and takes a quarter of a second of imports.
            importlib.import_module("daskprs.pieces")
        goes_on = True
        while True:
            began = time.perf_counter()
            try:
                message = self._channel.receive()
            except MessageError as error:
                if goes_on:
                    self._channel.send(_failed("load", error.__cause__ or error, began))
                    goes_on = False
                continue
            if isinstance(message, GoOn):
                goes_on = True
            elif isinstance(message, Shutdown):
                break
            elif goes_on:
                answer = self._run(message)
                self._channel.send(answer)
                goes_on = not isinstance(answer, Failed) and not answer.throws_away
            del message  # while the next mini-batch comes, there is no need for this one
            if os.access(self._start.scratch, os.F_OK):  # files that were fetched
                shutil.rmtree(self._start.scratch, ignore_errors=True)
        self._channel.send(_shut_down(self._script))

    def _run(self, message: Run) -> Done | Failed:
        start, tracker = self._start, self._tracker
        stage, began = "load", time.perf_counter()
        tracker.begin(message.number)
        known = Done()
        try:
            mini_batch = message.piece.load(start.scratch)
            loaded = time.perf_counter() - began
            known = Done(len(mini_batch), loaded)
            if known.total == 0:
                return known  # no items: there is nothing that run() could be called for
            tracker.loaded(known.total, loaded)
            stage, began = "run", time.perf_counter()
            run = self._script.run
            result = run(mini_batch, message.context) if self._with_context else run(mini_batch)
            result = materialise(result)
            known = Done(known.total, loaded, len(result), time.perf_counter() - began)
            stage = "result"
            tracker.returned(known.run_seconds)
            rows, returned = None, None
            if start.output_format is not None:
                rows = to_rows(result, start.output_format, start.to_csv_options)
            if message.wants_result:
                with contextlib.suppress(Exception):  # its rows are what counts
                    returned = pickle.dumps(result, protocol=5)
        except BaseException as error:
            told = _failed(stage, error, began)
            return (
                told
                if stage == "load"
                else told._replace(total=known.total, load_seconds=known.load_seconds)
            )
        _flush()
        is_short = message.whole_only and known.returned < known.total
        is_slow = known.load_seconds + known.run_seconds > _SLOW_SECONDS
        return Done(
            *(known.total, known.load_seconds, known.returned, known.run_seconds),
            *(rows, returned, is_short or is_slow),
        )


def _shut_down(script: types.ModuleType) -> Done | Failed:
    shutdown = getattr(script, "shutdown", None)
    began = time.perf_counter()
    try:
        if shutdown is not None:
            shutdown()
    except BaseException as error:
        return _failed("shutdown", error, began)
    _flush()
    return Done()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105  (a third of the time of contextlib.suppress, for each mini-batch)
            stream.flush()
        except Exception:  # noqa: S110
            pass


def _write_error(text: str) -> None:
    # The script may have closed or replaced it.
    with contextlib.suppress(Exception):
        sys.stderr.write(text)


def _failed(stage: str, error: BaseException, began: float) -> Failed:
    """Tell an error of the user's code as text, which always travels; stderr has it too."""
    if _is_fork():
        raise error
    last, text = describe(error)
    _write_error(text)
    _flush()
    return Failed(stage, last, text, time.perf_counter() - began)
