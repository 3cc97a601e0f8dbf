"""One run at a time has an output folder; who is gone loses it, to one other only."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stores import fault, new_store

from daskprs.exceptions import OutputError, WriteFailedError
from daskprs.output_folder import Lock, OutputFolder

NUMBER = ".daskprs/lock-{:06d}"


@pytest.fixture(params=["disk", "dir", "memory", "closing"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OutputFolder]:
    if request.param == "disk":
        folder = OutputFolder(tmp_path)
    elif request.param == "dir":
        folder = OutputFolder("dir://out", {"path": str(tmp_path), "target_protocol": "file"})
    else:
        with new_store(request.param) as url:
            folder = OutputFolder(url)
            folder.make()
            yield folder
        return
    folder.make()
    yield folder


@pytest.fixture
def disk(tmp_path: Path) -> OutputFolder:
    folder = OutputFolder(tmp_path)
    folder.make()
    return folder


def taken(folder: OutputFolder, number: int = 1, **changes: Any) -> Lock:
    """Take the lock, and change what it tells of its owner."""
    lock = Lock(folder)
    lock.acquire()
    name = NUMBER.format(number)
    owner = {**json.loads(folder.read(name) or b""), **changes}
    folder.write(name, json.dumps(owner).encode())
    return lock


def make_old(folder: OutputFolder, seconds: float, number: int = 1) -> None:
    assert folder.local is not None
    when = time.time() - seconds
    os.utime(folder.local / NUMBER.format(number), (when, when))


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_second_run_is_refused_with_host_pid_and_age(folder: OutputFolder) -> None:
    lock = taken(folder, since=time.time() - 75)
    text = rf"in use: process {os.getpid()} on host {socket.gethostname()} .* for 7\d s"
    for _ in range(2):
        with pytest.raises(OutputError, match=text):
            Lock(folder).acquire()
    assert Lock(folder).is_held
    lock.release()


def test_a_released_lock_can_be_taken_again_and_again(folder: OutputFolder) -> None:
    assert not Lock(folder).is_held
    for _ in range(3):
        lock = Lock(folder)
        lock.acquire()
        lock.refresh()
        assert lock.is_held
        lock.release()
        lock.release()
        assert not lock.is_held
    assert folder.sizes(".daskprs").keys() == {"lock-000003"}


@pytest.mark.parametrize("changes", [{"pid": dead_pid()}, {"started": 1.0}])
def test_the_lock_of_a_process_that_is_gone_is_taken_over(
    folder: OutputFolder, changes: dict[str, Any]
) -> None:
    taken(folder, **changes)
    assert not Lock(folder).is_held
    Lock(folder).acquire()
    assert folder.sizes(".daskprs").keys() == {"lock-000002"}


def test_the_lock_of_a_process_that_nobody_has_waited_for_is_taken_over(
    disk: OutputFolder,
) -> None:
    code = """
        import sys
        from daskprs.output_folder import Lock, OutputFolder
        Lock(OutputFolder(sys.argv[1])).acquire()
        print("locked", flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(code), disk.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(OutputError, match=f"process {process.pid}"):
            Lock(disk).acquire()
        process.kill()
        deadline = time.monotonic() + 10
        while Lock(disk).is_held and time.monotonic() < deadline:
            time.sleep(0.02)
        Lock(disk).acquire()


@pytest.mark.parametrize("changes", [{"host": "elsewhere"}, {"machine": "another boot"}])
def test_a_run_on_another_machine_keeps_its_lock_while_it_refreshes_it(
    disk: OutputFolder, changes: dict[str, Any]
) -> None:
    lock = taken(disk, pid=dead_pid(), **changes)
    make_old(disk, 110)
    with pytest.raises(OutputError, match=r"sign of life is 11\d s old; after 120 s"):
        Lock(disk).acquire()
    make_old(disk, 1000)
    lock.refresh()
    with pytest.raises(OutputError, match=r"sign of life is \d s old"):
        Lock(disk).acquire()
    make_old(disk, 130)
    Lock(disk).acquire()


def test_in_a_store_a_refresh_is_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    with new_store("memory") as url:
        folder = OutputFolder(url)
        folder.make()
        lock = taken(folder, host="elsewhere")
        age = folder.age
        monkeypatch.setattr(folder, "age", lambda name: (age(name) or 0) + 119)
        with pytest.raises(OutputError, match="in use"):
            Lock(folder).acquire()
        monkeypatch.setattr(folder, "age", lambda name: (age(name) or 0) + 119.8)
        time.sleep(0.25)
        lock.refresh()
        assert json.loads(folder.read(NUMBER.format(1)) or b"")["host"] == socket.gethostname()
        # What it wrote tells its real host, where its process is alive.
        with pytest.raises(OutputError, match="in use"):
            Lock(folder).acquire()


@pytest.mark.parametrize("content", [b"", b"\0" * 20, b"{", b"[]", b"{}", b'{"host": "x"}'])
def test_a_lock_that_tells_nothing_is_taken_over_after_a_moment(
    disk: OutputFolder, content: bytes
) -> None:
    disk.write(NUMBER.format(7), content)
    make_old(disk, 3, number=7)
    assert Lock(disk).is_held
    started = time.monotonic()
    make_old(disk, 4.7, number=7)
    Lock(disk).acquire()
    assert time.monotonic() - started < 4
    assert disk.sizes(".daskprs").keys() == {"lock-000008"}


def test_who_was_silent_for_too_long_learns_that_the_folder_was_taken_over(
    folder: OutputFolder,
) -> None:
    slow = taken(folder, pid=dead_pid())
    other = Lock(folder)
    other.acquire()
    with pytest.raises(WriteFailedError, match="was taken over by another run"):
        slow.refresh()
    slow.release()
    assert other.is_held
    other.refresh()
    other.release()


def test_a_refresh_that_fails_says_nothing_about_the_lock() -> None:
    with new_store("memory") as url:
        folder = OutputFolder(url)
        folder.make()
        lock = Lock(folder)
        lock.acquire()
        with fault("memory", 1, after=False, killed=False):
            lock.refresh()
        lock.refresh()
        assert lock.is_held
        lock.release()


def test_a_folder_that_cannot_be_locked_is_reported(tmp_path: Path) -> None:
    (tmp_path / ".daskprs").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be locked"):
        Lock(OutputFolder(tmp_path)).acquire()


def test_who_was_too_slow_to_take_a_lock_over_gives_up(disk: OutputFolder) -> None:
    """Others took the stale lock over, ended, and took the next one, all in one blink of its."""
    taken(disk, pid=dead_pid())
    slow = OutputFolder(disk.url)
    holders: list[Lock] = []

    def create(name: str, data: bytes) -> bool:
        if not holders:
            for _ in range(2):
                holders.append(Lock(disk))
                holders[-1].acquire()
                if len(holders) == 1:
                    holders[-1].release()
        return OutputFolder.create(slow, name, data)

    slow.create = create  # type: ignore[method-assign]
    with pytest.raises(OutputError, match="in use"):
        Lock(slow).acquire()
    holders[-1].refresh()
    assert holders[-1].is_held
    assert disk.sizes(".daskprs").keys() == {"lock-000003"}


def test_a_run_that_fails_while_it_takes_the_lock_leaves_none(
    disk: OutputFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, calls = disk.sizes, []

    def failing(name: str) -> dict[str, int]:
        calls.append(name)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        return sizes(name)

    monkeypatch.setattr(disk, "sizes", failing)
    with pytest.raises(OutputError, match=r"cannot be locked.*Input/output error"):
        Lock(disk).acquire()
    Lock(disk).acquire()


def test_without_hard_links_the_lock_is_as_good(
    disk: OutputFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(source: str, target: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    lock = Lock(disk)
    lock.acquire()
    with pytest.raises(OutputError, match="in use"):
        Lock(disk).acquire()
    lock.release()
    assert disk.sizes(".daskprs").keys() == {"lock-000001"}


RACE = """
    import sys, time
    from pathlib import Path
    from daskprs.exceptions import OutputError
    from daskprs.output_folder import Lock, OutputFolder

    folder, rounds = OutputFolder(sys.argv[1]), int(sys.argv[2])
    for number in range(rounds):
        print("ready", flush=True)
        sys.stdin.readline()
        lock = Lock(folder)
        try:
            lock.acquire()
            print("won", flush=True)
        except OutputError as error:
            print("in use" if "in use" in str(error) else error, flush=True)
        sys.stdin.readline()
        lock.release()
"""


def test_of_processes_that_find_a_stale_lock_one_wins(disk: OutputFolder) -> None:
    """In each round all see the lock of a dead process at the same moment."""
    rounds, count = 25, 4
    command = [sys.executable, "-c", textwrap.dedent(RACE), disk.url, str(rounds)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    processes = [subprocess.Popen(command, **pipes) for _ in range(count)]  # type: ignore[call-overload]
    gone = dead_pid()
    number = 0
    try:
        for _ in range(rounds):
            number += 1
            stale = json.loads(_owner(gone))
            disk.write(NUMBER.format(number), json.dumps(stale).encode())
            told = [process.stdout.readline().strip() for process in processes]
            assert told == ["ready"] * count
            for process in processes:
                process.stdin.write("go\n")
            told = [process.stdout.readline().strip() for process in processes]
            assert sorted(told) == ["in use"] * (count - 1) + ["won"]
            number += 1
            assert max(disk.sizes(".daskprs")) == NUMBER.format(number)[9:]
            for process in processes:
                process.stdin.write("go on\n")
            for process in processes:
                assert process.poll() is None
            _wait_until_free(disk)
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()


def _owner(pid: int) -> bytes:
    with new_store("memory") as url:
        folder = OutputFolder(url)
        folder.make()
        taken(folder, pid=pid)
        return folder.read(NUMBER.format(1)) or b""


def _wait_until_free(folder: OutputFolder) -> None:
    deadline = time.monotonic() + 20
    while Lock(folder).is_held:
        assert time.monotonic() < deadline
        time.sleep(0.005)
