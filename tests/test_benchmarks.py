"""The benchmarks: a result is measured and compared, and a wrong one does not count."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from benchmarks import jobs
from benchmarks import measure as module
from benchmarks.check import difference
from benchmarks.data import empty_files, pictures, tables
from benchmarks.jobs import Case, Verdict, cases
from benchmarks.measure import measure
from benchmarks.run import Bench, median, pace
from benchmarks.tables import _peers, as_markdown


def smallest(name: str) -> Case:
    case = next(case for case in cases(is_small=True, processes=1) if case.name == name)
    data = {
        "J1 tables": lambda folder: tables(folder, 0.2, 2),
        "J2 files 10": lambda folder: pictures(folder, 25) / "files",
        "J4 start": lambda folder: empty_files(folder, 3) / "files",
    }
    return replace(case, data=data[name], limit=60)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, 1, lambda peer: Path(sys.executable))


@pytest.mark.parametrize(
    ("name", "peers"),
    [
        ("J1 tables", ["daskprs", "pool"]),
        ("J2 files 10", ["daskprs", "pool"]),
        ("J4 start", ["command", "pool"]),
    ],
)
def test_a_small_job_is_measured(bench: Bench, name: str, peers: list[str]) -> None:
    figures = bench.run(smallest(name), peers, runs=1, warm_up=False)
    assert bench.skipped == {}
    assert list(figures["medians"]) == peers
    for measured in figures["medians"].values():
        assert 0 < measured["first"] <= measured["wall"]


def test_a_wrong_result_does_not_count(bench: Bench) -> None:
    case = smallest("J4 start")
    data = case.data(bench.folder / "data")
    expected = bench.expected(case, data)
    expected.write_text(expected.read_text() + "one more\n")
    figures = bench.run(case, ["pool"], runs=1, warm_up=False)
    assert figures["medians"] == {}
    assert bench.skipped == {"J4 start, pool": "3 rows instead of 4"}


@pytest.mark.parametrize(
    ("kind", "one", "other", "said"),
    [
        ("files", "a\nb\nb\n", "b\na\nb\n", ""),
        ("files", "a\nb\nb\n", "a\na\nb\n", "a row b'b' instead of b'a'"),
        ("files", "a\n", "a\nb\n", "1 rows instead of 2"),
        ("tables", "x,y\n2,0.5\n1,1.0\n", "x,y\n1,1\n2,0.5\n", ""),
        ("tables", "x,y\n1,1\n2,0.6\n", "x,y\n1,1\n2,0.5\n", "other values in the column y"),
        ("tables", "x,z\n1,1\n", "x,y\n1,1\n", "the columns ['x', 'z'] instead of ['x', 'y']"),
    ],
)
def test_results_are_compared_as_multisets_of_rows(
    tmp_path: Path, kind: str, one: str, other: str, said: str
) -> None:
    (tmp_path / "one").write_text(one)
    (tmp_path / "other").write_text(other)
    assert difference(kind, tmp_path / "one", tmp_path / "other") == said


def test_a_program_that_takes_too_long_is_ended_with_all_it_has_started(tmp_path: Path) -> None:
    code = (
        "import pathlib, subprocess, time\n"
        "child = subprocess.Popen(['sleep', '100'], start_new_session=True)\n"
        "pathlib.Path('pid').write_text(str(child.pid))\n"
        "time.sleep(100)\n"
    )
    measured = measure([sys.executable, "-c", code], tmp_path, limit=3)
    assert measured.problem == "it took over 3 s"
    pid = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_memory_is_that_of_all_processes(tmp_path: Path) -> None:
    hold = "import time; held = b'x' * 50_000_000; time.sleep(2)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {hold!r}]); {hold}"
    memory = measure([sys.executable, "-c", code], tmp_path, limit=30).memory
    assert memory is not None
    assert 100e6 < memory < 150e6


def test_a_program_that_had_ended_before_its_memory_was_looked_at_has_none_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "tree_memory", lambda pid: 0)
    figures = median([measure([sys.executable, "-c", "pass"], tmp_path, limit=30)])
    assert figures["memory"] is None
    assert _peers({"medians": {"pool": figures}})[-1].endswith("|  |")


def test_the_table_names_each_target_and_whether_it_is_met() -> None:
    case = replace(smallest("J4 start"), judge=lambda medians, case: Verdict("4.00 s", False))
    figures = {"wall": 4.0, "ready": None, "work": None, "first": 3.0, "memory": 2_000_000}
    told = {
        "small": True,
        "machine": {"cores": 2, "memory": 8e9, "system": "Linux", "python": "3.11",
                    "load": (0.1, 0, 0), "when": "2026"},
        "cases": [{"name": case.name, "what": case.what, "target": case.target,
                   "found": "4.00 s", "is_met": False,
                   "medians": {"command": figures, "pool": {**figures, "wall": 1.0}}}],
        "versions": {"pool": {"pandas": "3"}},
        "skipped": {"spark": "there is no Java here"},
    }  # fmt: skip
    text = as_markdown(told)
    assert f"| J4 start | {case.what} | {case.target} | 4.00 s | **no** |" in text
    assert "| pool | 1.00 | 0.25 |  |  | 3.00 | 2 |" in text
    assert "* not measured: spark: there is no Java here" in text


def test_every_program_of_a_job_is_there() -> None:
    folder = Path(jobs.__file__).parent
    for case in cases(is_small=False, processes=2):
        assert (folder / "scripts" / case.script).is_file()
        for peer in case.peers:
            assert (folder / "programs" / f"{jobs.PROGRAMS[peer]}.py").is_file()


LISTING = [(0.5 * n, 0) for n in range(10)]
EVEN = [(5 + 0.5 * n, 100 * n) for n in range(1, 41)]
SLOWER = [*EVEN[:20], *((15 + 1.5 * n, 2000 + 100 * n) for n in range(1, 21))]


@pytest.mark.parametrize(
    ("points", "slower"),
    [(LISTING + EVEN, 1.0), (LISTING + SLOWER, 3.0), (LISTING + EVEN[:5], None)],
    ids=["even", "three times as long", "too short to tell"],
)
def test_the_pace_of_both_halves_is_compared(
    points: list[tuple[float, int]], slower: float | None
) -> None:
    """By the mini-batches done at each moment; what came before the first does not count."""
    curve = [{"seconds": seconds, "done": done, "bytes": 0} for seconds, done in points]
    found = pace(curve).get("slower")
    assert found == (None if slower is None else pytest.approx(slower, rel=0.1))
