"""Mini-batches on their way to run() and back: files, tables and DataFrames, small and large."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from entry_hosts import hosted
from hypothesis import given, settings
from hypothesis import strategies as st

from daskprs.datasets import TabularDataset
from daskprs.entry_process.wire import Channel, MessageError
from daskprs.pieces import FilePaths, FrameRows, TableSlice
from daskprs.tables import TableReader


def test_a_dataframe_arrives_as_it_was_and_can_be_changed() -> None:
    script = """
        def run(frame):
            frame["sum"] = frame["number"] + 1
            frame.loc[frame.index[0], "number"] = -1
            return frame
    """
    frame = pd.DataFrame(
        {"number": [1.5, 2.5], "text": ["a b", None], "day": pd.to_datetime(["2020-01-02"] * 2)},
        index=[7, 8],
    )
    before = frame.copy()
    with hosted(script) as host:
        outcome = host.run(piece=FrameRows(frame, 10, "sales"))
    assert outcome.rows is not None, outcome.traceback
    assert outcome.rows.payload == b'-1.0 "a b" 2020-01-02 2.5\n2.5  2020-01-02 3.5\n'
    assert (outcome.total, outcome.rows.count, outcome.label) == (2, 2, "sales rows 10 to 12")
    pd.testing.assert_frame_equal(frame, before)


def test_large_data_goes_both_ways_whole() -> None:
    """50 MB there and back, bit for bit."""
    script = "def run(frame): return frame[['a']]"
    frame = pd.DataFrame(
        np.random.default_rng(0).integers(0, 9, (800_000, 8)), columns=[*"abcdefgh"]
    )
    with hosted(script) as host:
        outcome = host.run(piece=FrameRows(frame))
    assert outcome.rows is not None
    assert outcome.rows.payload == ("\n".join(map(str, frame["a"])) + "\n").encode()


def test_a_part_of_a_table_file_is_read_by_the_entry_process(tmp_path: Path) -> None:
    path = tmp_path / "sales.csv"
    path.write_text("a,b\n1,x\n2,y\n")
    reader: TableReader = TabularDataset(str(path)).reader(str(path))
    piece = TableSlice(str(path), reader, 0, 1, path.stat().st_size, keys={"year": 2020})
    script = "import os\ndef run(frame): return [*frame.columns, len(frame)]"
    with hosted(script) as host:
        outcome = host.run(piece=piece)
        path.unlink()
        gone = host.run(piece=piece)
    assert outcome.rows is not None, outcome.traceback
    assert outcome.rows.payload == b"a\nb\nyear\n2\n"
    assert (outcome.total, outcome.failed_items) == (2, 0)
    assert gone.attempts[0].status == "LOAD_EXCEPTION"
    assert "sales.csv" in gone.error
    assert gone.failed_items == 1


def test_fetched_files_are_there_for_run_and_removed_afterwards() -> None:
    script = """
        import os
        seen = []
        def run(paths):
            left = [path for path in seen if os.path.exists(path)]
            seen.extend(paths)
            if os.path.basename(paths[0]) == "fail.txt":
                raise ValueError
            return [open(paths[0]).read(), os.path.isabs(paths[0]), left]
    """
    pieces = [
        FilePaths((f"memory://in/{name}.txt",), contents=(name.encode(),))
        for name in ("one", "fail", "two")
    ]
    with hosted(script) as host:
        one, fail, two = [host.run(piece=piece) for piece in pieces]
    assert fail.failed
    for outcome, content in ((one, b"one"), (two, b"two")):
        assert outcome.rows is not None, outcome.traceback
        assert outcome.rows.payload == content + b"\nTrue\n[]\n"


def test_a_process_that_does_not_take_its_mini_batch_is_killed_in_time() -> None:
    """Larger than any buffer of the system: sending it must not block for ever."""
    frame = pd.DataFrame({"a": np.zeros(10_000_000)})
    with hosted("def run(m): return m") as host:
        with host.host.slot(1) as slot:
            os.kill(slot.process().pid, signal.SIGSTOP)
        began = time.monotonic()
        outcome = host.run(piece=FrameRows(frame), load_timeout=0.3)
        assert time.monotonic() - began < 5
    assert outcome.attempts[0].status == "LOAD_TIMEOUT"
    assert outcome.failed_items == 10_000_000


# The channel


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from([0, 1, 12, 1000, 65_535, 65_536, 300_000]), min_size=1, max_size=6),
    st.sampled_from([1, 7, 4096, 1 << 20]),
)
def test_messages_arrive_in_order_however_they_are_cut(sizes: list[int], chunk: int) -> None:
    """In band and out of band, and several that come at once."""
    messages: list[Any] = [(size, b"x" * size, np.arange(size // 8)) for size in sizes]
    ours, theirs = socket.socketpair()
    sent = bytearray()
    with ours, theirs:
        recorder = threading.Thread(target=record, args=(theirs, sent))
        recorder.start()
        channel = Channel(ours)
        for message in messages:
            channel.send(message, timeout=5)
        channel.interrupt()
        recorder.join()
    if chunk < 4096 and len(sent) > 5000:
        chunk = 4096
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(ours)
        feeder = threading.Thread(target=feed, args=(theirs, bytes(sent), chunk))
        feeder.start()
        for size, body, array in messages:
            got = channel.receive(timeout=5)
            assert got[:2] == (size, body)
            assert np.array_equal(got[2], array)
            assert got[2].flags.writeable
        with pytest.raises(EOFError):
            channel.receive(timeout=5)
        feeder.join()


def record(sock: socket.socket, into: bytearray) -> None:
    while data := sock.recv(1 << 20):
        into += data


def feed(sock: socket.socket, data: bytes, chunk: int) -> None:
    for start in range(0, len(data), chunk):
        sock.sendall(data[start : start + chunk])
    sock.shutdown(socket.SHUT_WR)


def test_a_message_that_does_not_come_whole_times_out_or_is_the_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(ours)
        with pytest.raises(TimeoutError):
            channel.receive(timeout=0.01)
        Channel(theirs).send("whole")
        assert channel.receive(timeout=1) == "whole"
        theirs.sendall(b"\0" * 7 + b"\5")
        with pytest.raises(TimeoutError):
            channel.receive(timeout=0.01)
        theirs.close()
        with pytest.raises(EOFError):
            channel.receive()


def test_a_message_that_cannot_be_pickled_or_unpickled_leaves_the_channel_usable() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel, other = Channel(ours), Channel(theirs)
        with pytest.raises(MessageError, match="cannot pickle"):
            channel.send(threading.Lock())
        channel.send(Unreadable())
        channel.send(lambda: "by value")
        with pytest.raises(MessageError, match="UnpicklingError: not here"):
            other.receive(timeout=1)
        assert other.receive(timeout=1)() == "by value"


def refuse() -> None:
    raise pickle.UnpicklingError("not here")


class Unreadable:
    def __reduce__(self) -> tuple[Any, ...]:
        return refuse, ()
