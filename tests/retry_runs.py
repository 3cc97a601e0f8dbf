"""Helpers of the tests of retries: runs without a cluster, in which some items fail.

A program, too, since it forks: ``python retry_runs.py FOLDER FORMAT ORDER STEP`` kills retries at
every `STEP`-th of their calls to the system, and prints how many kills were survived.
"""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kill_points import die_at, in_fork
from output_runs import ENDED, NAME, content, key_of

from daskprs.attempts import joined
from daskprs.earlier import Earlier, only_what_failed
from daskprs.entry_process.results import to_rows
from daskprs.journal import Journal
from daskprs.mini_batches import MiniBatch
from daskprs.outcomes import Outcome, Stretch
from daskprs.output import open_store
from daskprs.output_folder import OutputFolder
from daskprs.pieces import ListItems
from daskprs.reuse import tally_of

# The rows of each mini-batch, one for each item.
ITEMS: tuple[list[dict[str, Any]], ...] = (
    [{"a": 1, "b": "x,\n"}, {"a": 2, "b": "ü"}, {"a": 3, "b": ""}],
    [{"a": 4, "b": "y"}],
    [{"a": 5, "b": "z"}, {"a": 6, "b": "z"}],
    [{"a": 7, "b": "w"}, {"a": 8, "b": "w"}, {"a": 9, "b": "w"}, {"a": 10, "b": "w"}],
    [{"a": 11, "b": "v"}, {"a": 12, "b": "v"}],
)
SHORT = "short"  # run() returned the row of the last item only, and did not say so
BAD: Mapping[int, Any] = {0: {1}, 2: {0, 1}, 3: {0, 2, 3}, 4: SHORT}
BAD_ITEMS = 7
Bad = Mapping[int, Any]


def mini_batch(index: int) -> MiniBatch:
    items = ITEMS[index]
    return MiniBatch(index, key_of(index), ListItems(items), len(items), None)


def outcome(batch: MiniBatch, bad: Any, output_format: str | None) -> Outcome:
    """Tell what became of what is to run of a mini-batch: bad items stand alone."""
    items = ITEMS[batch.index]
    ranges = batch.only or ((0, len(items)),)
    told = Outcome(
        index=batch.index, key=batch.key, label="", total=len(items), returned=len(items),
        failed=False, rows=_rows(items, output_format), attempts=(), again=batch.again,
    )  # fmt: skip
    if bad == SHORT:
        return told._replace(returned=1, rows=_rows(items[-1:], output_format))
    wanted = [at for start, stop in ranges for at in range(start, stop)]
    good = [at for at in wanted if at not in bad]
    told = told._replace(total=len(wanted), returned=len(good))
    if not good:
        return told._replace(failed=True, rows=None)
    if good == wanted and batch.only is None:
        return told
    stretches = []
    for at in wanted:
        rows = None if at in bad else _rows(items[at : at + 1], output_format)
        stretches.append(Stretch(at, at + 1, int(at in bad), rows))
    return told._replace(rows=None, stretches=tuple(stretches))


def _rows(items: list[dict[str, Any]], output_format: str | None) -> Any:
    if output_format is None:
        return None
    return joined([to_rows(items, output_format, {})], output_format)


def run(
    folder: OutputFolder,
    output_format: str | None,
    bad: Bad,
    *,
    retry: bool = False,
    ordered: bool = False,
    ran: Callable[[int, Any], None] = lambda index, only: None,
    step: Callable[[], None] = lambda: None,
) -> Journal:
    """Run what is left to its end; items in `bad` fail."""
    store = open_store(folder, NAME, output_format)
    try:
        journal = store.load()
        has_finished = journal is not None and journal.finished is not None
        if journal is not None and has_finished and not (retry and _has_failures(journal)):
            return journal
        if journal is None:
            store.begin({"run": "first"})
        elif retry:
            store.retry({"run": "again"})
        else:
            store.resume()
        journal = store.journal
        assert journal is not None
        earlier = Earlier(journal.records, journal.retried)
        for index in (2, 0, 4, 1, 3):
            batch = mini_batch(index)
            record = earlier.take(batch)
            if record is not None:
                if not earlier.runs_again(batch):
                    continue
                batch = only_what_failed(batch, record)
            ran(index, batch.only)
            step()
            store.add(outcome(batch, bad.get(index, set()), output_format))
            if index % 2 == 0:
                store.flush()
        order = earlier.order_of(journal.records, ordered)
        store.publish(order, ENDED, keep=_has_failures(journal))
        return journal
    finally:
        store.close()


def _has_failures(journal: Journal) -> bool:
    return tally_of(journal.records).items.failed > 0


@dataclass
class Killed:
    """A retry that is killed; the output is that of the run before, or that of the retry."""

    folder: OutputFolder
    output_format: str | None
    ordered: bool
    call: int
    halfway: bool

    def __call__(self) -> None:
        die_at(self.call, halfway=self.halfway)
        run(self.folder, self.output_format, {}, retry=True, ordered=self.ordered)


@dataclass
class Checked:
    """The run after it, whether it is told to retry or not."""

    folder: OutputFolder
    output_format: str | None
    ordered: bool
    before: Any
    expected: Any

    def __call__(self) -> None:
        found = content(self.folder, self.output_format)
        assert found in (self.before, self.expected), found
        for retry in (False, True):
            run(self.folder, self.output_format, {}, retry=retry, ordered=self.ordered)
        found = content(self.folder, self.output_format)
        if not self.ordered and self.output_format is not None:
            found, expected = (sorted(map(str, _lines(x))) for x in (found, self.expected))
            assert found == expected
        else:
            assert found == self.expected
        assert self.folder.size(f"{NAME}.partial") is None
        assert self.folder.size(".daskprs/rows") is None


def _lines(found: Any) -> list[Any]:
    return found if isinstance(found, list) else list(found.splitlines())


def main(base: Path, output_format: str | None, ordered: bool, step: int) -> None:
    first, whole = OutputFolder(base / "first"), OutputFolder(base / "whole")
    for folder in (first, whole):
        folder.make()
    run(first, output_format, BAD, ordered=ordered)
    shutil.copytree(base / "first", base / "whole", dirs_exist_ok=True)
    run(whole, output_format, {}, retry=True, ordered=ordered)
    before, expected = (content(folder, output_format) for folder in (first, whole))
    kills = 0
    for halfway in (False, True):
        for call in range(1, 1000, step):
            folder = OutputFolder(shutil.copytree(base / "first", base / f"{halfway}-{call}"))
            code = in_fork(Killed(folder, output_format, ordered, call, halfway))
            if code == 0:
                break
            assert code == -signal.SIGKILL, code
            check = Checked(folder, output_format, ordered, before, expected)
            assert in_fork(check) == 0, folder.url
            kills += 1
    print(kills)


if __name__ == "__main__":
    name = sys.argv[2]
    main(
        Path(sys.argv[1]),
        None if name == "none" else name,
        sys.argv[3] == "ordered",
        int(sys.argv[4]),
    )
