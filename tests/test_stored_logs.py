"""Logs of a run into a store are there as they are on this machine, and no more than that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from stores import STORES, new_store

from daskprs import stored_logs
from daskprs.output_folder import OutputFolder
from daskprs.stored_logs import StoredLogs


@pytest.fixture(params=STORES)
def folder(request: pytest.FixtureRequest) -> Iterator[OutputFolder]:
    with new_store(request.param) as url:
        yield OutputFolder(url)


@pytest.fixture
def logs(folder: OutputFolder) -> Iterator[StoredLogs]:
    logs = StoredLogs(folder)
    (logs.path / "logs").mkdir()
    yield logs
    logs.close()
    assert not logs.path.exists()


@pytest.mark.parametrize("most_at_once", [1 << 20, 10])
def test_a_file_of_any_size_is_sent_when_it_has_changed(
    folder: OutputFolder, logs: StoredLogs, most_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_logs, "_MOST_AT_ONCE", most_at_once)
    path = logs.path / "logs/a.txt"
    for text in (b"12345", b"1234567890" * 9):
        path.write_bytes(text)
        logs.send("logs/a.txt")
        assert folder.read("logs/a.txt") == text
    folder.remove("logs/a.txt")
    logs.send("logs/a.txt")
    assert folder.read("logs/a.txt") is None
    assert folder.sizes(".daskprs") == {}


def test_what_an_earlier_start_has_left_and_this_one_removes_is_removed_in_the_store(
    folder: OutputFolder, logs: StoredLogs
) -> None:
    folder.write("logs/job_error.txt", b"it failed")
    logs.fetch("logs/job_error.txt")
    logs.fetch("logs/nothing.txt")
    path = logs.path / "logs/job_error.txt"
    assert path.read_bytes() == b"it failed"
    path.unlink()
    logs.send_all()
    assert folder.sizes("logs") == {}
