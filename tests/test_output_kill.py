"""A local run can be killed, or refused by the disk, at any call: the next one goes on."""

from __future__ import annotations

import concurrent.futures
import gc
import multiprocessing
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from output_runs import ENDED, FORMATS, NAME, PLAN, content, outcome, run, start

from daskprs.exceptions import OutputError, WriteFailedError
from daskprs.output import JOURNAL, open_store
from daskprs.output_folder import OutputFolder

TESTS = Path(__file__).parent


@pytest.mark.parametrize(
    ("output_format", "order", "step", "kills"),
    [
        ("csv", "plain", 1, 50),
        ("csv", "ordered", 1, 50),
        ("none", "plain", 1, 30),
        ("parquet", "plain", 4, 12),
    ],
)
def test_a_run_survives_sigkill_at_every_call(
    tmp_path: Path, output_format: str, order: str, step: int, kills: int
) -> None:
    script = TESTS / "kill_points.py"
    command = [sys.executable, script, tmp_path, output_format, order, str(step)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=TESTS)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > kills


# Errors of the system, after which the process lives on


@contextmanager
def refusing(at: int, *, halfway: bool) -> Iterator[list[str]]:
    """Fail at the `at`-th call that changes something on the disk; gives the calls."""
    calls: list[str] = []

    def failing(name: str) -> Any:
        function = getattr(os, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            if len(calls) == at:
                if halfway and name == "write":
                    function(args[0], bytes(args[1])[: len(args[1]) // 2])
                raise OSError(28, "No space left on device")
            return function(*args, **kwargs)

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        for name in ("write", "fsync", "replace", "ftruncate", "mkdir"):
            patch.setattr(os, name, failing(name))
        yield calls


def expected_of(path: Path, output_format: str | None) -> object:
    folder = OutputFolder(path)
    folder.make()
    run(folder, output_format)
    return content(folder, output_format)


@pytest.mark.parametrize("halfway", [False, True])
@pytest.mark.parametrize("output_format", FORMATS)
def test_an_error_of_the_disk_ends_the_run_and_the_next_one_goes_on(
    tmp_path: Path, output_format: str | None, halfway: bool
) -> None:
    expected = expected_of(tmp_path / "whole", output_format)
    at = 0
    calls: list[str] = []
    while len(calls) >= at:
        at += 1
        folder = OutputFolder(tmp_path / f"out-{at}")
        folder.make()
        message = None
        with refusing(at, halfway=halfway) as calls:
            try:
                run(folder, output_format)
            except (OutputError, WriteFailedError) as error:
                message = str(error)
        assert message is None or "No space left" in message
        assert content(folder, output_format) == (expected if message is None else None)
        run(folder, output_format)
        assert content(folder, output_format) == expected
    assert at > 15


@pytest.mark.parametrize("halfway", [False, True])
@pytest.mark.parametrize("output_format", ["text", "csv", "parquet"])
def test_a_flush_or_publish_that_failed_can_be_tried_again(
    tmp_path: Path, output_format: str, halfway: bool
) -> None:
    expected = expected_of(tmp_path / "whole", output_format)
    at, failed = 0, True
    while failed:
        at, failed = at + 1, False
        folder = OutputFolder(tmp_path / f"out-{at}")
        folder.make()
        store = start(folder, output_format)
        with refusing(at, halfway=halfway):
            for index, result in enumerate(PLAN):
                store.add(outcome(index, result, output_format))
                if index % 2:
                    failed = not works(store.flush) or failed
            published = works(lambda store=store: store.publish(None, ENDED))
        if not published:
            store.flush()
            store.publish(None, ENDED)
        failed = failed or not published
        store.close()
        assert content(folder, output_format) == expected
        loaded = open_store(folder, NAME, output_format).load()
        assert loaded is not None
        assert (loaded.finished, len(loaded.records)) == (ENDED, len(PLAN))
    assert at > 10


def works(action: Any) -> bool:
    try:
        action()
    except WriteFailedError:
        return False
    return True


def test_rows_of_a_failed_flush_are_not_shown(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    folder.make()
    store = start(folder, "parquet")
    store.add(outcome(0, [{"a": 1}], "parquet"))
    store.flush()
    store.add(outcome(1, [{"a": 2}], "parquet"))
    with refusing(2, halfway=False), pytest.raises(WriteFailedError):
        store.flush()
    store.show_partial()
    store.close()
    assert content(folder, "parquet", f"{NAME}.partial") == [{"a": 1}]


FULL_DISK = """
    import resource, sys
    sys.path.insert(0, sys.argv[1])
    from output_runs import NAME, outcome, start
    from daskprs.exceptions import WriteFailedError
    from daskprs.output_folder import OutputFolder

    folder = OutputFolder(sys.argv[2])
    folder.make()
    store = start(folder, "text")
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    added = 0
    try:
        while True:
            store.add(outcome(added, [f"row {added}"] * 10, "text"))
            store.flush()
            added += 1
    except WriteFailedError as error:
        assert "when there is room" in str(error), error
    try:
        store.flush()
        raise SystemExit("a flush cannot work where there is no room")
    except WriteFailedError:
        store.show_partial()
        store.close()
    print(added)
"""


def test_when_there_is_room_again_the_run_goes_on(tmp_path: Path) -> None:
    # A limit of the size of a file stands for the full disk: the kernel refuses in the middle.
    code = textwrap.dedent(FULL_DISK)
    command = [sys.executable, "-c", code, str(TESTS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    added = int(done.stdout)
    folder = OutputFolder(tmp_path)
    assert (folder.size(f"{NAME}.partial") or 0) > len(rows_up_to(added))  # half a mini-batch
    run(folder, "text", plan=[[f"row {index}"] * 10 for index in range(added + 5)])
    assert folder.read(NAME) == rows_up_to(added + 5)


def rows_up_to(count: int) -> bytes:
    return "".join(f"row {index}\n" * 10 for index in range(count)).encode()


# Folders that cannot be used


def test_a_file_in_the_way_of_the_journal_is_reported(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).mkdir(parents=True)
    store = open_store(OutputFolder(tmp_path), NAME, "text")
    with pytest.raises(OutputError, match=r"cannot be read.*IsADirectoryError"):
        store.load()


def test_a_folder_in_the_way_of_the_rows_is_reported(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    folder.make()
    store = start(folder, "text")
    store.add(outcome(0, ["x"], "text"))
    (tmp_path / NAME / "full").mkdir(parents=True)
    (tmp_path / f"{NAME}.previous" / "full").mkdir(parents=True)
    with pytest.raises(WriteFailedError, match="not empty"):
        store.publish(None, ENDED)
    store.close()
    with pytest.raises(OutputError, match=r"cannot be written to.*not empty"):
        start(folder, "text")


def test_a_folder_that_vanishes_is_reported(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "out")
    folder.make()
    store = start(folder, "text")
    store.add(outcome(0, ["x"], "text"))
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    with pytest.raises(WriteFailedError, match="FileNotFoundError"):
        store.publish(None, ENDED)
    store.close()


def open_files() -> int:
    gc.collect()
    return len(os.listdir("/dev/fd"))


def write_in_all_formats(place: Path) -> int:
    for output_format in FORMATS:
        folder = OutputFolder(place / str(output_format))
        folder.make()
        for _ in range(2):
            store = start(folder, output_format)
            store.add(outcome(2, PLAN[2], output_format))
            store.flush()
            store.show_partial()
            store.close()
        run(folder, output_format)
    return open_files()


def test_a_run_leaves_no_file_open(tmp_path: Path) -> None:
    """In a process that nothing else runs in: threads of other tests may open files."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        before, after = pool.map(write_in_all_formats, [tmp_path / "once", tmp_path / "again"])
    assert before == after
