"""Compares daskprs with its peers: ``python -m benchmarks.run [--small] [--only J1,J2]``.

The peers take turns, so that what else the machine does falls on all of them. Every result is
compared with the rows of a plain loop; the time of one that is wrong does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.check import difference
from benchmarks.environments import ROOT, NotAvailableError, environment, versions
from benchmarks.jobs import OF_DASKPRS, PROGRAMS, VARIABLES, Case, cases
from benchmarks.measure import PROGRAMS as PROGRAM_FOLDER
from benchmarks.measure import Measured, measure
from benchmarks.plots import plot
from benchmarks.tables import as_markdown

__all__ = ["Bench", "main"]


class Bench:
    """Runs cases and keeps what was measured.

    Parameters
    ----------
    folder : Path
        For data, results and what programs write.
    processes : int
        What every peer may use.
    python_of : callable
        From the name of an environment to its interpreter; raises NotAvailableError.
    """

    def __init__(self, folder: Path, processes: int, python_of: Callable[[str], Path]) -> None:
        self.folder, self.processes, self._python_of = folder, processes, python_of
        self.skipped: dict[str, str] = {}

    def run(self, case: Case, peers: Sequence[str], runs: int, warm_up: bool) -> dict[str, Any]:
        """Run a case, all peers in turn, `runs` times; return its figures."""
        data = case.data(self.folder / "data")
        expected = self.expected(case, data) if case.is_checked else None
        able = [peer for peer in peers if self._is_able(peer)]
        measured: dict[str, list[Measured]] = {peer: [] for peer in able}
        for number in range(-1 if warm_up and runs > 1 else 0, runs):
            # Not always in the same order: the one before may have left the disk busy.
            turn = number % len(able) if able else 0
            for peer in (*able[turn:], *able[:turn]):
                if any(one.problem for one in measured[peer]):
                    continue  # it will not get better
                one = self.once(case, peer, data, expected)
                if number >= 0 or one.problem:
                    measured[peer].append(one)
                print(f"{case.name:22} {peer:14} {_told(one)}", flush=True)
        return self._figures(case, measured)

    def _is_able(self, peer: str) -> bool:
        try:
            self._python(peer)
        except NotAvailableError as error:
            self.skipped[peer] = str(error)
        return peer not in self.skipped

    def _python(self, peer: str) -> Path:
        return self._python_of("daskprs" if peer in OF_DASKPRS else peer)

    def expected(self, case: Case, data: Path) -> Path:
        """Return the rows of a plain loop; made once for each input, script and size."""
        place = self.folder / "expected" / f"{data.parent.name}-{data.name}-{case.script}"
        result = place / "result"
        if not result.is_file():
            shutil.rmtree(place, ignore_errors=True)
            one = self._program(case, self._python_of("pool"), "plain", data, place, {})
            if one.problem:
                raise SystemExit(f"the plain loop of {case.name} failed: {one.problem}")
        return result

    def once(self, case: Case, peer: str, data: Path, expected: Path | None) -> Measured:
        """Run one peer once, and compare its rows."""
        # Two of these can run at the same time, though it says little then.
        out = self.folder / "runs" / f"{os.getpid()}" / f"{case.name.replace(' ', '-')}-{peer}"
        shutil.rmtree(out, ignore_errors=True)
        variables = VARIABLES.get(peer, {})
        one = self._program(case, self._python(peer), PROGRAMS[peer], data, out, variables)
        result = out / "rows" / "result" if peer == "command" else out / "result"
        if not one.problem and expected is not None:
            one.problem = difference(case.kind, result, expected)
        one.facts = facts_of(out, one)
        if not one.problem:
            shutil.rmtree(out, ignore_errors=True)  # else somebody wants to see why
        return one

    def _program(
        self,
        case: Case,
        python: Path,
        program: str,
        data: Path,
        out: Path,
        variables: dict[str, str],
    ) -> Measured:
        out.mkdir(parents=True)
        (out / "job.json").write_text(json.dumps(case.facts(data, out, self.processes)))
        command = [str(python), str(PROGRAM_FOLDER / f"{program}.py")]
        command += [str(out / "job.json"), str(data), str(out)]
        return measure(
            command, out, limit=case.limit, environment=variables,
            stop_at_first=case.stop_at_first, may_fail=case.may_fail,
        )  # fmt: skip

    def _figures(self, case: Case, measured: dict[str, list[Measured]]) -> dict[str, Any]:
        medians = {}
        for peer, ones in measured.items():
            problem = next((one.problem for one in ones if one.problem), "")
            if problem:
                self.skipped[f"{case.name}, {peer}"] = problem
            elif ones:
                medians[peer] = median(ones)
        found, is_met = "not measured", None
        try:
            verdict = case.judge(medians, case)
            found, is_met = verdict.found, verdict.is_met
        except (KeyError, TypeError) as error:
            found = f"not measured ({error!r})"
        return {
            "name": case.name,
            "what": case.what,
            "target": case.target,
            "found": found,
            "is_met": is_met,
            "medians": medians,
            "runs": {peer: [one.to_dict() for one in ones] for peer, ones in measured.items()},
        }


def median(ones: Sequence[Measured]) -> dict[str, Any]:
    """Return the median of each figure; facts are those of the run with the median time."""
    by_wall = sorted(ones, key=lambda one: one.wall)
    figures: dict[str, Any] = {"facts": by_wall[(len(ones) - 1) // 2].facts}
    for name in ("wall", "ready", "work", "first", "memory"):
        values = [value for one in ones if (value := getattr(one, name)) is not None]
        figures[name] = statistics.median(values) if values else None
    return figures


def facts_of(out: Path, one: Measured) -> dict[str, Any]:
    """Read what a program, or its entry script, has noted besides."""
    facts: dict[str, Any] = {}
    if (out / "facts.json").is_file():
        facts |= json.loads((out / "facts.json").read_text("utf-8"))
    if (out / "failed").is_file():
        facts["after_failure"] = one.ended - float((out / "failed").read_text())
    begun = sorted(float(path.read_text()) for path in out.glob("init-*"))
    if begun:
        marks = dict(line.split() for line in (out / "marks").read_text().splitlines())
        facts["inits"], facts["inits_apart"] = len(begun), begun[-1] - begun[0]
        if "end" in marks:
            facts["since_init"] = float(marks["end"]) - begun[0]
    if (out / "memory.jsonl").is_file():
        curve = [json.loads(line) for line in (out / "memory.jsonl").read_text().splitlines()]
        facts |= {"driver_curve": thinned(curve), **driver_memory(curve), **pace(curve)}
    return facts


def thinned(curve: list[dict[str, Any]], most: int = 200) -> list[dict[str, Any]]:
    return curve[:: -(-len(curve) // most)] if curve else curve


def driver_memory(curve: list[dict[str, Any]]) -> dict[str, float]:
    """Return the most that the driver had above idle, and how much of it came in its 2nd half.

    Halves are of the mini-batches done.
    """
    if not curve:
        return {"driver_mb": 0.0, "driver_growth": 0.0}
    used = [point["bytes"] / 1e6 for point in curve]
    half = curve[-1]["done"] / 2
    middle = next(at for at, point in enumerate(curve) if point["done"] >= half)
    return {"driver_mb": max(used), "driver_growth": max(used) - max(used[: middle + 1])}


def pace(curve: list[dict[str, Any]], fewest: int = 20) -> dict[str, float]:
    """Return how much longer a mini-batch took in the 2nd half of the mini-batches than in the 1st.

    Nothing where there are too few points to tell.
    """
    at_work = [point for point in curve if point["done"]]
    if len(at_work) < fewest:
        return {}
    first, last = at_work[0], at_work[-1]
    half = (first["done"] + last["done"]) / 2
    middle = next(point for point in at_work if point["done"] >= half)
    before, after = (
        (b["seconds"] - a["seconds"]) / max(1, b["done"] - a["done"])
        for a, b in ((first, middle), (middle, last))
    )
    return {"slower": after / before}


def _told(one: Measured) -> str:
    if one.problem:
        return f"does not count: {one.problem}"
    work = "" if one.work is None else f", {one.work:.2f} s of it at work"
    first = "" if one.first is None else f", first row after {one.first:.2f} s"
    memory = "" if one.memory is None else f", {one.memory / 1e6:.0f} MB"
    return f"{one.wall:.2f} s{work}{first}{memory}"


def machine() -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "load": os.getloadavg(),
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _chosen(every: list[Case], only: str | None) -> list[Case]:
    if only is None:
        return every
    words = [word.strip() for word in only.split(",")]
    return [case for case in every if any(f"{case.name} ".startswith(f"{word} ") for word in words)]


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--small", action="store_true", help="small inputs: some minutes")
    parser.add_argument("--only", help="cases whose names begin so: J1,J2")
    parser.add_argument("--peers", help="of these only: daskprs,pool,dask,ray,daft,spark")
    parser.add_argument("--runs", type=int, default=3, help="of each peer [3]")
    parser.add_argument("--processes", type=int, default=2, help="of each peer [2]")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "bench")
    args = parser.parse_args(words)
    # So that the program that is being measured ends with this one.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    folder = args.folder.resolve()
    bench = Bench(folder, args.processes, lambda peer: environment(peer, folder / "environments"))
    results: dict[str, Any] = {"small": args.small, "machine": machine(), "cases": []}
    results |= {"versions": {}, "skipped": bench.skipped}
    name = f"{'small' if args.small else 'full'}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    chosen = _chosen(cases(args.small, args.processes), args.only)
    wanted = set(args.peers.split(",")) if args.peers else None
    for case in chosen:
        peers = [p for p in case.peers if wanted is None or _environment_of(p) in wanted]
        if not peers:
            continue
        # In full, a first run fills the caches of the machine, and is checked, but not counted.
        results["cases"].append(bench.run(case, peers, args.runs, warm_up=not args.small))
        used = {_environment_of(peer) for peer in peers if peer not in bench.skipped}
        for peer in sorted(used - results["versions"].keys()):
            python = environment(peer, folder / "environments")
            results["versions"][peer] = versions(peer, python)
        # After each case: whoever stops it has what was measured.
        _write(folder / "results", name, results)
    print(f"\n{as_markdown(results)}\nIn {folder / 'results'}: {name}.json, .md and .png")
    return 0


def _environment_of(peer: str) -> str:
    return "daskprs" if peer in OF_DASKPRS else peer


def _write(folder: Path, name: str, results: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(results, indent=1))
    (folder / f"{name}.md").write_text(as_markdown(results), "utf-8")
    plot(results, folder / f"{name}.png")


if __name__ == "__main__":
    sys.exit(main())
