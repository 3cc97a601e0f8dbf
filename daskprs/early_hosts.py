"""Entry processes of a local cluster that start while the cluster does.

Both take a second or more, and neither needs the other. The workers of a local cluster are
threads of this process: so each finds its host here when the script has reached it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING

from daskprs.scratch import scratch_folder
from daskprs.script_host import ScriptHost, ScriptPackage
from daskprs.targets import open_target, processes_per_node

if TYPE_CHECKING:
    from daskprs.events import Event
    from daskprs.job import Job
    from daskprs.session import Session

__all__ = ["LocalStart", "early_hosts", "take_early_host"]

_Made = Future[ScriptHost]
_made: dict[tuple[str, str], _Made] = {}


class LocalStart:
    """Starts what a run needs on this machine: first the processes, then the cluster.

    Parameters
    ----------
    job : Job
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._has_processes = False

    def start_processes(self, stack: contextlib.ExitStack, most: int) -> None:
        """Start processes, at most so many; again does nothing."""
        if not self._has_processes:
            self._has_processes = True
            package = self._job.package(in_place=True)
            stack.enter_context(early_hosts(package, self._job.config.node_count, most))

    def session(
        self, stack: contextlib.ExitStack, wake: threading.Event, emit: Callable[[Event], None]
    ) -> Session:
        """Start a cluster.

        Raises
        ------
        TargetError
        """
        from daskprs.session import Session  # Dask is imported while the processes start

        target = stack.enter_context(open_target(None, self._job.config))
        return stack.enter_context(Session(self._job, target, wake, emit))


@contextlib.contextmanager
def early_hosts(package: ScriptPackage, node_count: int, most: int) -> Iterator[None]:
    """Start the processes of all nodes, but not more than `most`; at the end none is left."""
    threads = processes_per_node(package.process_count)
    wanted = min(most, node_count * threads)
    futures: list[_Made] = []
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(scratch_folder())
        except OSError:  # the cluster will say so, or do without
            wanted = 0
        for number in range(node_count):
            node, share = f"node{number}", wanted // node_count + (number < wanted % node_count)
            if share:
                future = _made[package.token, node] = Future()
                futures.append(future)
                given = (future, package, node, threads, share, folder)
                threading.Thread(target=_make, args=given, name="daskprs-early").start()
        try:
            yield
        finally:
            for key in [key for key in _made if key[0] == package.token]:
                _made.pop(key, None)
            for future in futures:
                with contextlib.suppress(Exception):
                    future.result().close()  # for the second time, where a worker took it


def take_early_host(package: ScriptPackage, node: str) -> ScriptHost | None:
    """Return the host that was made for this node, if there is one; once.

    Raises
    ------
    Exception
        The script cannot be unpacked here.
    """
    future = _made.pop((package.token, node), None)
    return None if future is None else future.result()


def _make(
    future: _Made, package: ScriptPackage, node: str, threads: int, count: int, folder: str
) -> None:
    try:
        host = ScriptHost(package, node=node, ip="127.0.0.1", threads=threads, folder=folder)
        host.start_early(count)
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(host)
