"""The inside of an entry process: import, init(), run() for each mini-batch, shutdown()."""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import logging
import os
import select
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daskprs.entry_process import entry_script_api
from daskprs.entry_process.results import materialise, to_rows
from daskprs.entry_process.script_module import import_script, wants_context
from daskprs.entry_process.wire import Channel, Done, Failed, InitDone, Loaded, Run, Start

__all__ = ["main"]

_OURS = str(Path(__file__).parent)


def main(channel_fd: int, lifeline_fd: int, stack_file: str) -> None:
    """Serve one Dask worker until it says so, or is gone."""
    for fd in (channel_fd, lifeline_fd):
        os.set_inheritable(fd, False)
    _die_with_the_worker(lifeline_fd)
    _dump_stacks_on_request(stack_file)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    channel = Channel(socket.socket(fileno=channel_fd))
    # EOF: the worker is gone, there is nobody left to tell.
    with contextlib.suppress(EOFError, BrokenPipeError):
        start = channel.receive()
        script = _start_script(start, channel)
        if script is not None:
            _serve(script, start, channel)
    _flush()
    # Threads and atexit handlers of the script must not keep the process.
    os._exit(0)


def _die_with_the_worker(lifeline: int) -> None:
    """End this process and all it started when the other end of the pipe is closed.

    The kernel's signal also works while C code holds the GIL; the thread works everywhere.
    """

    def watch() -> None:
        poll = select.poll()
        poll.register(lifeline, select.POLLIN | select.POLLHUP)
        poll.poll()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os._exit(1)

    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)
    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def _dump_stacks_on_request(stack_file: str) -> None:
    """On SIGUSR1 write all stacks, also while C code holds the GIL; on a crash too."""
    stream = open(stack_file, "w")  # noqa: SIM115  (open for the life of the process)
    faulthandler.register(signal.SIGUSR1, file=stream, all_threads=True)
    faulthandler.enable(file=sys.stderr)


def _start_script(start: Start, channel: Channel) -> types.ModuleType | None:
    sys.argv = [start.script, *start.arguments]
    logging.basicConfig(
        stream=sys.stdout,
        level=start.logging_level,
        format="%(asctime)s|%(levelname)s|%(name)s|%(message)s",
    )
    entry_script_api.install(start.facts)
    began = time.perf_counter()
    try:
        script = import_script(Path(start.script), Path(start.source_directory))
        if not callable(getattr(script, "run", None)):
            raise AttributeError(f"{start.script} has no function run(mini_batch)")
        init = getattr(script, "init", None)
        if init is not None:
            init()
    except BaseException as error:
        channel.send(_failed("init", error, time.perf_counter() - began))
        return None
    channel.send(InitDone(time.perf_counter() - began))
    return script


def _serve(script: types.ModuleType, start: Start, channel: Channel) -> None:
    run = script.run
    with_context = wants_context(run)
    while True:
        message = channel.receive()
        if not isinstance(message, Run):
            break
        _run_one(run, with_context, message, start, channel)
        shutil.rmtree(start.scratch, ignore_errors=True)  # files that were fetched
    shutdown = getattr(script, "shutdown", None)
    began = time.perf_counter()
    try:
        if shutdown is not None:
            shutdown()
    except BaseException as error:
        channel.send(_failed("shutdown", error, time.perf_counter() - began))
        return
    channel.send(Done(0, None, time.perf_counter() - began))


def _run_one(
    run: Callable[..., Any],
    with_context: bool,
    message: Run,
    start: Start,
    channel: Channel,
) -> None:
    began = time.perf_counter()
    try:
        mini_batch = message.piece.load(start.scratch)
        total = len(mini_batch)
    except BaseException as error:
        channel.send(_failed("load", error, time.perf_counter() - began))
        return
    channel.send(Loaded(total, time.perf_counter() - began))
    if total == 0:
        # No items: there is nothing that run() could be called for.
        channel.send(Done(0, None, 0.0))
        return
    stage = "run"
    began = time.perf_counter()
    try:
        result = run(mini_batch, message.context) if with_context else run(mini_batch)
        result = materialise(result)
        stage = "result"
        returned = len(result)
        rows = None
        if start.output_format is not None:
            rows = to_rows(result, start.output_format, start.to_csv_options)
    except BaseException as error:
        reply: Failed | Done = _failed(stage, error, time.perf_counter() - began)
    else:
        reply = Done(returned, rows, time.perf_counter() - began)
    _flush()
    channel.send(reply)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _failed(stage: str, error: BaseException, seconds: float) -> Failed:
    """Tell an error with the user's frames only; the whole one goes to stderr."""
    try:
        whole = traceback.TracebackException.from_exception(error)
        last = "".join(whole.format_exception_only()).strip()
        _drop_our_frames(whole)
        text = "".join(whole.format())
    except Exception:  # an exception whose str() raises
        last = text = type(error).__name__
    sys.stderr.write(text)
    _flush()
    return Failed(stage, last, text, seconds)


def _drop_our_frames(whole: traceback.TracebackException | None) -> None:
    while whole is not None:
        frames = [f for f in whole.stack if not f.filename.startswith((_OURS, "<frozen importlib"))]
        whole.stack = traceback.StackSummary.from_list(frames)
        whole = whole.__cause__ or (None if whole.__suppress_context__ else whole.__context__)
