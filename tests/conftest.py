"""Shared parts of the tests: scripts, inputs, runs, and a look at what is left behind."""

from __future__ import annotations

import os
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import psutil
import pytest
from object_stores import KINDS, Bucket, Server, new_bucket, serve

# Files that take longest, in this order: one that begins last keeps one processor waiting.
LONGEST = (
    *("docs", "object_stores", "retry_failed", "partitioning", "cli", "resume", "worker_loss"),
    *("map_partitions", "object_store_faults", "benchmarks", "cluster", "kills", "run_faults"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {f"test_{name}.py": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


class Workplace:
    """A folder with an entry script and its input, and ways to run it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        self.calls.mkdir()

    def script(self, text: str, name: str = "scripts/score.py") -> Path:
        """Write an entry script; in its text, CALLS is the folder for marks."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        head = f"import os\nCALLS = {str(self.calls)!r}\n" + textwrap.dedent(
            """
            def mark(name):
                with open(os.path.join(CALLS, name.replace("/", "_")), "ab") as stream:
                    stream.write(b".")

            def marks(name):
                path = os.path.join(CALLS, name.replace("/", "_"))
                return os.path.getsize(path) if os.path.exists(path) else 0
            """
        )
        path.write_text(head + textwrap.dedent(text))
        return path

    def files(self, count: int, folder: str = "input", size: int = 10) -> Path:
        """Write files f00000.bin, f00001.bin, ..."""
        place = self.folder / folder
        place.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (place / f"f{number:05d}.bin").write_bytes(b"x" * size)
        return place

    def count(self, name: str) -> int:
        """How often the script has called ``mark(name)``."""
        path = self.calls / name.replace("/", "_")
        return path.stat().st_size if path.exists() else 0

    @property
    def output(self) -> Path:
        return self.folder / "out"

    def rows(self, name: str = "parallel_run_step.txt") -> list[str]:
        return (self.output / name).read_text("utf-8", "surrogateescape").splitlines()

    def row_counts(self, name: str = "parallel_run_step.txt") -> Counter[str]:
        return Counter(self.rows(name))


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


def _children() -> set[int]:
    if _told_children() <= {resource_tracker._resource_tracker._pid}:  # type: ignore[attr-defined]
        return set()
    children = psutil.Process().children(recursive=True)
    return {child.pid for child in children if not _is_pythons_own(child)}


def _told_children() -> set[int]:
    """Children of this process, as Linux tells them; psutil reads of all processes of the system.

    Where nobody tells them there is one that nobody has.
    """
    try:
        told = [path.read_text() for path in Path("/proc/self/task").glob("*/children")]
    except OSError:  # a thread has just ended
        told = []
    return {int(pid) for text in told for pid in text.split()} if told else {-1}


def _is_pythons_own(process: psutil.Process) -> bool:
    """Python's resource tracker stays for as long as the process that started it."""
    try:
        return "resource_tracker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Every test ends with the processes that were there when it began."""
    before = _children()
    yield
    deadline = time.monotonic() + 10
    while left := _children() - before:
        if time.monotonic() > deadline:
            names = []
            for pid in left:
                try:
                    names.append(" ".join(psutil.Process(pid).cmdline())[:200])
                except psutil.Error:
                    continue
            if not names:
                return
            raise AssertionError(f"processes were left behind: {names}")
        time.sleep(0.05)


@pytest.fixture
def no_daskprs_threads() -> Iterator[None]:
    """A run ends with all its threads (those of tests that gave up a store may still be there)."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 5
    while names := [
        thread.name
        for thread in set(threading.enumerate()) - before
        if thread.name.startswith("daskprs-")
    ]:
        assert time.monotonic() < deadline, f"threads were left behind: {names}"
        time.sleep(0.05)


@pytest.fixture(scope="session", params=KINDS)
def object_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A real server of each kind of object store."""
    with serve(request.param, tmp_path_factory.mktemp(request.param)) as server:
        yield server


@pytest.fixture
def bucket(object_server: Server, tmp_path: Path) -> Iterator[Bucket]:
    """An empty bucket; at the end no object, and no file of the test, tells the server's key."""
    with new_bucket(object_server) as bucket:
        yield bucket
        bucket.assert_nothing_tells_the_secret(folder=tmp_path)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data that stands beside the project on some machines."""
    path = Path(__file__).parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the folder shared/data does not stand beside the project")
    return path


os.environ.setdefault("DASK_DISTRIBUTED__LOGGING__DISTRIBUTED", "error")
