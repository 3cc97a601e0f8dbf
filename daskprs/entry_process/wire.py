"""Messages between a Dask worker and its entry processes, and the channel that carries them."""

from __future__ import annotations

import contextlib
import pickle
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

__all__ = [
    "Channel",
    "Done",
    "Failed",
    "GoOn",
    "InitDone",
    "MessageError",
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


class Start(NamedTuple):
    """First message to the child: the script and the world it expects."""

    script: str
    source_directory: str
    arguments: list[str]
    output_format: str | None  # None: summary_only, no rows are wanted
    scratch: str  # folder for the files that a mini-batch fetches
    to_csv_options: dict[str, Any]
    logging_level: str


class Run(NamedTuple):
    """One mini-batch: ``piece.load(scratch)`` gives what run() receives.

    Attributes
    ----------
    number : int
        Which of the mini-batches for this process, from 1.
    whole_only : bool
        Fewer results than items count as a failure.
    """

    piece: Any
    context: MiniBatchContext
    number: int
    wants_result: bool = False
    whole_only: bool = False


class GoOn:
    """What was sent before this is not wanted any more, and what comes now is."""


class Shutdown:
    """No work is left: call shutdown() and end."""


class InitDone(NamedTuple):
    seconds: float


class Rows(NamedTuple):
    """Rows as bytes that are ready to be written.

    `columns` are the names of a table's columns, or None where the format has none.
    """

    payload: bytes
    count: int  # type: ignore[assignment]
    columns: tuple[str, ...] | None = None


class Done(NamedTuple):
    """The mini-batch is done, or shutdown() is.

    Attributes
    ----------
    total, returned : int
        Items, and results of run().
    result : bytes or None
        What run() returned, pickled.
    throws_away : bool
        What was sent ahead is not run, until a `GoOn` comes.
    """

    total: int = 0
    load_seconds: float = 0.0
    returned: int = 0
    run_seconds: float = 0.0
    rows: Rows | None = None
    result: bytes | None = None
    throws_away: bool = False


class Failed(NamedTuple):
    """The user's code, or the loading, failed; `error` is its last line.

    What was sent ahead is not run, until a `GoOn` comes.
    """

    stage: str  # "init", "load", "run", "result", "shutdown"
    error: str
    traceback: str
    seconds: float = 0.0
    total: int | None = None
    load_seconds: float = 0.0


_KINDS: tuple[Any, ...] = (None, Start, Run, GoOn, Shutdown, InitDone, Done, Failed)
_NUMBERS = {kind: number for number, kind in enumerate(_KINDS)}
_HEAD = struct.Struct("!QI")
_LENGTH = struct.Struct("!Q")
_SMALL = 1 << 16  # bytes that are cheaper to copy than to send or receive on their own
_Got = TypeVar("_Got", bytes, int)


class MessageError(Exception):
    """A message cannot be pickled or unpickled; the channel can still be used."""


class Channel:
    """Pickled messages over a socket, with large buffers out of band."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._timeout = sock.gettimeout()
        self._ahead = bytearray()  # received, but not read yet

    def send(self, message: object, timeout: float | None = None) -> None:
        """Send a message.

        Raises
        ------
        TimeoutError
            The other side did not take all of it within `timeout` seconds.
        OSError
            The other side is gone.
        MessageError
            It cannot be pickled: nothing was sent.
        """
        head, body, views = _parts(message)
        small = len(body) < _SMALL
        chunks: list[bytes | memoryview] = [head + body] if small else [head, body]
        deadline = None if timeout is None else time.monotonic() + timeout
        for chunk in (*chunks, *views):
            left = None if deadline is None else max(1e-3, deadline - time.monotonic())
            self._send(chunk, left)

    def _send(self, data: bytes | memoryview, timeout: float | None) -> None:
        if timeout != self._timeout:
            self._sock.settimeout(timeout)  # for sending only: poll() waits for what comes
            self._timeout = timeout
        self._sock.sendall(data)

    def packed(self, message: object) -> bytes | None:
        """Return a message for `send_packed`; None where it cannot be pickled, or is large."""
        try:
            head, body, views = _parts(message)
        except MessageError:
            return None
        return None if views or len(body) > _SMALL else head + body

    def send_packed(self, data: bytes, timeout: float) -> None:
        """Send what `packed` has made.

        Raises
        ------
        TimeoutError, OSError
        """
        self._send(data, timeout)

    @property
    def has_received(self) -> bool:
        """Whether at least a part of the next message is here."""
        return bool(self._ahead)

    def wait(self, timeout: float) -> bool:
        """Wait for at least a part of the next message; False where nothing came in time.

        Raises
        ------
        EOFError
            The other side is gone.
        """
        if self.has_received:
            return True
        try:
            self._wait(time.monotonic() + timeout)
        except TimeoutError:
            return False
        self._ahead += self._received(self._sock.recv, _SMALL)
        return True

    def receive(self, timeout: float | None = None) -> Any:
        """Wait for the next message.

        Raises
        ------
        TimeoutError
            Nothing, or not all of it, came within `timeout` seconds.
        EOFError
            The other side is gone.
        MessageError
            It came, but cannot be unpickled.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        size, count = _HEAD.unpack(self._read(_HEAD.size, deadline))
        lengths = [_LENGTH.unpack(self._read(_LENGTH.size, deadline))[0] for _ in range(count)]
        body = self._read(size, deadline)
        buffers = [self._read(length, deadline) for length in lengths]
        try:
            return _unfolded(*pickle.loads(body, buffers=buffers))
        except Exception as error:
            raise MessageError(f"{type(error).__name__}: {error}") from error

    def _read(self, size: int, deadline: float | None) -> bytearray:
        if size <= len(self._ahead):
            data = self._ahead[:size]
            del self._ahead[:size]
            return data
        data, self._ahead = self._ahead, bytearray()
        # Small messages follow one another: take what is there. Large ones are not copied again.
        missing = size - len(data)
        if missing < _SMALL:
            while len(data) < size:
                self._wait(deadline)
                data += self._received(self._sock.recv, _SMALL)
            self._ahead = data[size:]
            del data[size:]
            return data
        data += bytes(missing)
        view = memoryview(data)[-missing:]
        while view.nbytes:
            self._wait(deadline)
            view = view[self._received(self._sock.recv_into, view) :]
        return data

    def _wait(self, deadline: float | None) -> None:
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        if not self._poll.poll(left):
            raise TimeoutError

    @staticmethod
    def _received(receive: Callable[[Any], _Got], what: Any) -> _Got:
        try:
            got = receive(what)
        except ConnectionError as error:
            raise EOFError from error
        if not got:
            raise EOFError
        return got

    def interrupt(self) -> None:
        """From any thread: whoever waits here is told that the other side is gone."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._sock.close()


def _parts(message: object) -> tuple[bytes, bytes, list[memoryview]]:
    body, buffers = _pickled(message)
    views = [buffer.raw() for buffer in buffers]
    head = _HEAD.pack(len(body), len(views))
    return head + b"".join(_LENGTH.pack(view.nbytes) for view in views), body, views


def _pickled(message: object) -> tuple[bytes, list[pickle.PickleBuffer]]:
    buffers: list[pickle.PickleBuffer] = []
    folded = _folded(message)
    try:
        return pickle.dumps(folded, protocol=5, buffer_callback=buffers.append), buffers
    except Exception:
        # Dask pickles in the same order, so what has come to a worker can go on from there.
        import cloudpickle  # type: ignore[import-untyped]

        buffers = []
        try:
            return cloudpickle.dumps(folded, protocol=5, buffer_callback=buffers.append), buffers
        except Exception as error:
            raise MessageError(f"{type(error).__name__}: {error}") from error


def _folded(message: Any) -> tuple[Any, ...]:
    """Return a message as plain tuples: to name its types would take longer than the rest."""
    number = _NUMBERS.get(type(message), 0)
    if isinstance(message, Run):
        piece, context, *rest = message
        return number, piece, tuple(vars(context).values()), *rest
    if isinstance(message, Done) and message.rows is not None:
        return number, *message[:4], tuple(message.rows), *message[5:]
    if isinstance(message, GoOn | Shutdown):
        return (number,)
    return number, *(message if number else [message])


def _unfolded(number: int, *fields: Any) -> Any:
    kind = _KINDS[number]
    if kind is Run:
        fields = (fields[0], MiniBatchContext(*fields[1]), *fields[2:])
    elif kind is Done and fields[4] is not None:
        fields = (*fields[:4], Rows(*fields[4]), *fields[5:])
    return kind(*fields) if number else fields[0]
