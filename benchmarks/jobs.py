"""The jobs: what is done, on which data, by whom, and what is aimed at."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import data

SCRIPTS = Path(__file__).resolve().parent / "scripts"
ALL = ("daskprs", "pool", "dask", "ray", "daft", "spark")
# Which program and which environment a peer has, where these are not its name.
PROGRAMS = {
    "daskprs": "daskprs_peer", "daskprs-plain": "daskprs_peer", "command": "command",
    "importing": "importing", "scale": "scale", "pool": "pool", "dask": "dask_peer",
    "ray": "ray_peer", "daft": "daft_peer", "spark": "spark_peer",
}  # fmt: skip
OF_DASKPRS = ("daskprs", "daskprs-plain", "command", "importing", "scale")
VARIABLES = {"daskprs-plain": {"DASKPRS_PLAIN": "1"}}

Medians = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Verdict:
    """What came out of a target: the figures as text, and whether they are good enough."""

    found: str
    is_met: bool | None


@dataclass(frozen=True)
class Case:
    """One row of figures.

    Attributes
    ----------
    data : callable
        From the folder of all data to the folder of this input.
    arguments : tuple of str
        Of the entry script; ``{data}`` and ``{out}`` are folders, ``{data}`` that of the input.
    size : int
        Files of a mini-batch, or bytes of it.
    mini_batches : int
        How many there are, where the target is about each.
    best : float
        Seconds that the best possible schedule takes, where the target is about that.
    settings : mapping
        Of daskprs alone.
    limit : float
        Seconds that a program may take.
    is_checked : bool
        Whether the rows are compared with those of a plain loop.
    """

    name: str
    what: str
    target: str
    script: str
    data: Callable[[Path], Path]
    size: int
    peers: tuple[str, ...]
    judge: Callable[[Medians, Case], Verdict]
    kind: str = "files"
    arguments: tuple[str, ...] = ()
    mini_batches: int = 0
    best: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    limit: float = 300.0
    is_checked: bool = True
    stop_at_first: bool = False
    may_fail: bool = False

    def facts(self, data: Path, out: Path, processes: int) -> dict[str, Any]:
        """Return what the programs are told."""
        words = [word.format(data=data.parent, out=out) for word in self.arguments]
        return {
            "kind": self.kind,
            "script": str(SCRIPTS / self.script),
            "arguments": words,
            "size": self.size,
            "processes": processes,
            "lines": max(1, self.size // data_line_bytes()),
            "columns": data_columns(),
            "header": _HEADER,
            "settings": dict(self.settings),
        }


_HEADER = {"id": "int64", "station": "str", "felt": "float64", "kind": "str"}


def data_line_bytes() -> int:
    return data.LINE_BYTES


def data_columns() -> dict[str, str]:
    return data.COLUMNS


# What is aimed at


def _ratios(medians: Medians, most: float) -> Verdict:
    ours, floor = medians["daskprs"], medians.get("pool")
    if floor is None:
        return Verdict("no Pool to compare with", None)
    ratio = ours["wall"] / floor["wall"]
    others = {name: m["wall"] for name, m in medians.items() if name in ("dask", "ray", "daft",
                                                                         "spark")}  # fmt: skip
    faster = [name for name, wall in others.items() if wall < ours["wall"]]
    found = f"{ratio:.2f} x Pool ({_work_ratio(ours, floor)} without start-up)"
    if faster:
        found += f"; slower than {', '.join(faster)}"
    return Verdict(found, ratio <= most and not faster)


def _work_ratio(ours: Mapping[str, Any], floor: Mapping[str, Any]) -> str:
    if not ours["work"] or not floor["work"]:
        return "?"
    return f"{ours['work'] / floor['work']:.2f}"


def _at_most(most: float) -> Callable[[Medians, Case], Verdict]:
    return lambda medians, _: _ratios(medians, most)


def _overhead(medians: Medians, case: Case) -> Verdict:
    ours = medians["daskprs"]
    each = ours["work"] / case.mini_batches * 1000
    megabytes, growth = ours["facts"]["driver_mb"], ours["facts"]["driver_growth"]
    found = f"{each:.3f} ms each; driver {megabytes:.0f} MB above idle"
    found += f", {growth:+.0f} MB in the second half"
    slower = ours["facts"].get("slower")
    if slower is not None:
        found += f", which took {slower:.2f} x as long as the first"
    is_flat = megabytes <= 300 and growth <= 30 and (slower is None or slower <= 1.15)
    return Verdict(found, each <= 0.25 and is_flat)


def _start(medians: Medians, _: Case) -> Verdict:
    wall = medians["command"]["wall"]
    return Verdict(f"{wall:.2f} s", wall < 3)


def _import(medians: Medians, _: Case) -> Verdict:
    facts = medians["importing"]["facts"]
    found = f"{facts['import']:.3f} s, {facts['names']:.3f} s with the names of a step"
    return Verdict(found, facts["import"] < 0.3)


def _first(medians: Medians, _: Case) -> Verdict:
    first = medians["daskprs"]["first"]
    return Verdict("no row" if first is None else f"{first:.2f} s", bool(first and first < 10))


def _abort(medians: Medians, _: Case) -> Verdict:
    seconds = medians["daskprs"]["facts"]["after_failure"]
    return Verdict(f"{seconds:.2f} s", seconds < 1)


def _schedule(most: float, fact: str = "") -> Callable[[Medians, Case], Verdict]:
    def judge(medians: Medians, case: Case) -> Verdict:
        ours = medians["daskprs"]
        seconds = ours["facts"][fact] if fact else ours["work"]
        ratio = seconds / case.best
        return Verdict(f"{ratio:.3f} x {case.best:.2f} s", ratio <= most)

    return judge


def _scale(medians: Medians, _: Case) -> Verdict:
    curve = medians["scale"]["facts"]["curve"]
    rates = [point["per_second"] for point in curve]
    steady = all(after >= 0.9 * before for before, after in itertools.pairwise(rates))
    found = ", ".join(f"{p['processes']}: {p['per_second']:.0f}/s" for p in curve)
    return Verdict(found, steady)


# The jobs themselves


def cases(is_small: bool, processes: int) -> list[Case]:
    """Return all cases, in small or in full."""
    small = is_small
    few = ("daskprs", "pool", "dask")
    mb = 40 if small else 500
    pictures = 4000 if small else 20_000
    million = 50_000 if small else 1_000_000
    model = ("--model", "{data}/model.joblib")
    skewed = data.skewed(600, 1.2) if small else data.skewed(3000, 5.0)
    even, init = ([50.0] * 100, 2.0) if small else ([50.0] * 400, 5.0)
    notes = ("--notes", "{out}")

    def empty(count: int) -> Callable[[Path], Path]:
        return lambda folder: data.empty_files(folder, count) / "files"

    def images(folder: Path) -> Path:
        return data.pictures(folder, pictures) / "files"

    def files(size: int, peers: tuple[str, ...]) -> Case:
        return Case(
            f"J2 files {size}", f"{pictures:,} PNG, a model, {size} a mini-batch",
            "at most 1.15 x Pool, faster than the rest", "digits.py", images, size,
            peers, _at_most(1.15), arguments=model,
        )  # fmt: skip

    def overhead(count: int, peers: tuple[str, ...]) -> Case:
        return Case(
            f"J3 overhead {count}", f"{count:,} no-op mini-batches",
            "at most 0.25 ms each, not growing; driver at most 300 MB above idle, not growing",
            "names.py", empty(count), 1, peers, _overhead, mini_batches=count, limit=900,
        )  # fmt: skip

    best = max(sum(skewed) / processes, max(skewed)) / 1000
    return [
        Case(
            "J1 tables", f"{mb} MB of CSV in 25 files, 1 MB a mini-batch, one CSV out",
            "at most 1.25 x Pool with pyarrow, faster than the rest", "weather.py",
            lambda folder: data.tables(folder, mb, 25), 1 << 20,
            ("daskprs", "daskprs-plain", *ALL[1:]), _at_most(1.25), kind="tables",
        ),
        files(10, ALL),
        files(100, few if small else ALL),
        overhead(10_000, few if small else ALL),
        overhead(million, ("daskprs", "pool")),
        Case(
            "J4 start", "`daskprs run` of one mini-batch, from nothing", "under 3 s",
            "names.py", empty(10), 10, ("command", *(few[1:] if small else ALL[1:])), _start,
        ),
        Case(
            "J4 import", "`import daskprs`", "under 0.3 s", "names.py", empty(10), 10,
            ("importing",), _import, is_checked=False,
        ),
        Case(
            "J5 first result", f"{million:,} files listed: the first row in the output",
            "within 10 s", "names.py", empty(million), 10, few, _first,
            is_checked=False, stop_at_first=True,
        ),
        Case(
            "J6 abort", "the threshold exceeded by the first of 100,000 mini-batches",
            "ended within 1 s of the failure", "fails.py", empty(100_000), 1, ("daskprs",), _abort,
            arguments=notes, is_checked=False, may_fail=True,
            settings={"error_threshold": 0, "run_max_try": 1},
        ),
        Case(
            "J7 skew",
            f"{len(skewed):,} mini-batches of 1 ms to {max(skewed) / 1000:g} s, long ones last",
            "within 1.1 x of the best schedule", "sleeps.py",
            lambda folder: data.timed_files(folder, f"skewed-{len(skewed)}", skewed) / "files",
            1, few, _schedule(1.1), best=best,
        ),
        Case(
            "J8 model load", f"init() of {init:g} s in {processes} processes",
            "once each, in parallel: within 1.05 x of the best", "sleeps.py",
            lambda folder: data.timed_files(folder, f"even-{len(even)}", even) / "files",
            1, few, _schedule(1.05, "since_init"), best=init + sum(even) / processes / 1000,
            arguments=("--init", f"{init}", *notes),
        ),
        Case(
            "J9 scale", "threads that sleep 1 s in place of processes, one scheduler",
            "no step where it collapses", "names.py", empty(10_000), 1, ("scale",), _scale,
            is_checked=False, limit=600,
            settings={
                "steps": [10, 50, 200] if small else [10, 50, 100, 200, 500, 1000],
                "seconds": 1.0, "waves": 4 if small else 8,
            },
        ),
    ]  # fmt: skip
