"""Progress of a run: a bar in a terminal or a notebook, lines where neither is there."""

from __future__ import annotations

import contextlib
import html
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from daskprs.logs import overview_line

if TYPE_CHECKING:
    from daskprs.run import ParallelRun

__all__ = ["Progress", "watch"]

_LINE_SECONDS = 10.0


@dataclass(frozen=True)
class Progress:
    """How far a run is. `total` is None while the input is still being listed."""

    done: int
    total: int | None
    kept: int
    failed: int
    items: int
    failed_items: int
    seconds: float

    @property
    def line(self) -> str:
        return overview_line(self.done, self.total, self.seconds, self.done - self.kept)


class _View(Protocol):
    every: float

    def show(self, run: ParallelRun) -> None: ...
    def close(self, run: ParallelRun) -> None: ...


@contextlib.contextmanager
def watch(run: ParallelRun) -> Iterator[None]:
    """Show the progress of a run on stderr, or in the notebook's cell, while waiting for it."""
    view = _view()
    stop = threading.Event()

    def draw() -> None:
        while not stop.wait(view.every):
            view.show(run)

    view.show(run)
    thread = threading.Thread(target=draw, name="daskprs-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(5)
        view.show(run)
        view.close(run)


def _view() -> _View:
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    instance = None if get_shell is None else get_shell()
    if instance is not None and hasattr(instance, "kernel"):
        return _NotebookView()
    if sys.stderr.isatty():
        return _TerminalView()
    return _LineView()


class _TerminalView:
    """A bar that is drawn again and again."""

    every = 0.2

    def __init__(self) -> None:
        from tqdm import tqdm

        class Bar(tqdm):  # type: ignore[type-arg]
            monitor_interval = 0  # it is drawn often enough without a thread of its own

        Bar.set_lock(threading.RLock())
        # A terminal that does not tell its size would have no bar.
        self._bar = Bar(unit=" mini-batches", file=sys.stderr, ncols=80, nrows=20)
        self._said = 0
        self._dashboard_said = False

    def show(self, run: ParallelRun) -> None:
        if run.dashboard_link and not self._dashboard_said:
            self._dashboard_said = True
            self._bar.write(f"Dask dashboard: {run.dashboard_link}", file=sys.stderr)
        for text in run.notices[self._said :]:
            self._bar.write(f"Note: {text}", file=sys.stderr)
        self._said = len(run.notices)
        now, bar = run.progress, self._bar
        bar.initial, bar.n, bar.total = now.kept, now.done, now.total
        bar.ncols = shutil.get_terminal_size().columns
        bar.set_description(run.name, refresh=False)
        if now.failed:
            bar.set_postfix_str(f"{now.failed} failed", refresh=False)
        bar.refresh()

    def close(self, run: ParallelRun) -> None:
        self._bar.close()


class _NotebookView:
    """HTML that is replaced in place; needs no widgets."""

    every = 0.5

    def __init__(self) -> None:
        from IPython.display import HTML, display

        self._html = HTML
        self._handle: Any = display(HTML(""), display_id=True)

    def show(self, run: ParallelRun) -> None:
        now = run.progress
        total = now.total if now.total is not None else 0
        bar = f"<progress value='{now.done}' max='{total or 1}' style='width:60%'></progress>"
        link = ""
        if run.dashboard_link:
            url = html.escape(run.dashboard_link, quote=True)
            link = f" <a href='{url}' target='_blank'>Dask dashboard</a>"
        failed = f" {now.failed} failed." if now.failed else ""
        notes = "".join(f"<br>Note: {html.escape(text)}" for text in run.notices[-3:])
        text = f"{html.escape(run.name)}: {html.escape(run.status)}. {html.escape(now.line)}"
        self._handle.update(self._html(f"{bar}<br>{text}{failed}{link}{notes}"))

    def close(self, run: ParallelRun) -> None:
        pass


class _LineView:
    """A line now and then, for log files."""

    every = _LINE_SECONDS

    def __init__(self) -> None:
        self._said = ""
        self._notices = 0

    def show(self, run: ParallelRun) -> None:
        for text in run.notices[self._notices :]:
            sys.stderr.write(f"Note: {text}\n")
        self._notices = len(run.notices)
        line = f"{run.name}: {run.progress.line}"
        if run.progress.done and line != self._said:
            self._said = line
            sys.stderr.write(line + "\n")

    def close(self, run: ParallelRun) -> None:
        sys.stderr.flush()
