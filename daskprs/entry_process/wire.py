"""Messages between a Dask worker and its entry processes, and the channel that carries them."""

from __future__ import annotations

import pickle
import select
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "Channel",
    "Done",
    "Failed",
    "InitDone",
    "Loaded",
    "MiniBatchContext",
    "Rows",
    "Run",
    "Shutdown",
    "Start",
]


@dataclass(frozen=True)
class MiniBatchContext:
    """What ``run(mini_batch, context)`` receives as its second argument.

    Attributes
    ----------
    minibatch_index : int
        Position of the mini-batch in the plan, from 0.
    partition_key_value : dict or None
        Values of the partition keys; None where the input is not partitioned.
    dataset : str
        Name of the input that the mini-batch is a part of.
    global_row_index_lower_bound : int or None
        Position of the first item in the whole input. For tables it is known only to scripts
        that mention it by name, since it takes an extra reading of the input.
    """

    minibatch_index: int
    partition_key_value: dict[str, Any] | None = None
    dataset: str = ""
    global_row_index_lower_bound: int | None = None


@dataclass(frozen=True)
class Start:
    """First message to the child: the script and the world it expects."""

    script: str
    source_directory: str
    arguments: list[str]
    output_format: str | None  # None: summary_only, no rows are wanted
    scratch: str  # folder for the files that a mini-batch fetches
    to_csv_options: dict[str, Any] = field(default_factory=dict)
    logging_level: str = "INFO"
    facts: dict[str, str] = field(default_factory=dict)  # what EntryScript() tells


@dataclass(frozen=True)
class Run:
    """One mini-batch: ``piece.load(scratch)`` gives what run() receives."""

    piece: Any
    context: MiniBatchContext


@dataclass(frozen=True)
class Shutdown:
    """No work is left: call shutdown() and end."""


@dataclass(frozen=True)
class InitDone:
    seconds: float


@dataclass(frozen=True)
class Loaded:
    """The mini-batch is in memory, from now on the clock of run() ticks."""

    total: int
    seconds: float


@dataclass(frozen=True)
class Rows:
    """Rows as bytes that are ready to be written.

    `columns` are the names of a table's columns, or None where the format has none.
    """

    payload: bytes
    count: int
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Done:
    returned: int  # len() of what run() returned
    rows: Rows | None
    seconds: float


@dataclass(frozen=True)
class Failed:
    """The user's code, or the loading, failed; `error` is its last line."""

    stage: str  # "init", "load", "run", "result", "shutdown"
    error: str
    traceback: str
    seconds: float = 0.0


_HEAD = struct.Struct("!QI")
_LENGTH = struct.Struct("!Q")


class Channel:
    """Pickled messages over a socket, with large buffers out of band."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def send(self, message: object) -> None:
        buffers: list[pickle.PickleBuffer] = []
        body = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
        views = [buffer.raw() for buffer in buffers]
        head = _HEAD.pack(len(body), len(views))
        lengths = b"".join(_LENGTH.pack(view.nbytes) for view in views)
        self._sock.sendall(head + lengths + body)
        for view in views:
            self._sock.sendall(view)

    def receive(self, timeout: float | None = None) -> Any:
        """Wait for the next message.

        Raises
        ------
        TimeoutError
            Nothing, or not all of it, came within `timeout` seconds.
        EOFError
            The other side is gone.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        size, count = _HEAD.unpack(self._read(_HEAD.size, deadline))
        lengths = [_LENGTH.unpack(self._read(_LENGTH.size, deadline))[0] for _ in range(count)]
        body = self._read(size, deadline)
        buffers = [self._read(length, deadline) for length in lengths]
        return pickle.loads(body, buffers=buffers)

    def _read(self, size: int, deadline: float | None) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view.nbytes:
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0 or not self._poll.poll(left * 1000):
                    raise TimeoutError
            try:
                got = self._sock.recv_into(view)
            except ConnectionError as error:
                raise EOFError from error
            if got == 0:
                raise EOFError
            view = view[got:]
        return data

    def close(self) -> None:
        self._sock.close()
