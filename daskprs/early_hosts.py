"""Entry processes of this machine that start before there is a cluster.

Both take a second or more, and neither needs the other. The workers of a local cluster are
threads of this process: so each finds its host here when the script has reached it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

from daskprs.scratch import scratch_folder
from daskprs.script_host import ScriptHost, ScriptPackage

__all__ = ["early_hosts", "take_early_host"]

_Made = Future[ScriptHost]
_made: dict[tuple[str, str], _Made] = {}


@contextlib.contextmanager
def early_hosts(
    package: ScriptPackage, node_count: int, threads: int, most: int
) -> Iterator[dict[str, _Made]]:
    """Make the hosts of all nodes; at the end none is left.

    Parameters
    ----------
    package : ScriptPackage
    node_count, threads : int
        Nodes, and processes of each.
    most : int
        Start so many processes now, shared by all nodes.

    Raises
    ------
    OSError
        There is no room for their files.
    """
    wanted = min(most, node_count * threads)
    futures: dict[str, _Made] = {}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        try:
            for number in range(node_count):
                node, share = f"node{number}", wanted // node_count + (number < wanted % node_count)
                future: _Made = Future()
                given = (future, package, node, threads, share, folder)
                _start_thread(_make, given)
                _made[package.token, node] = futures[node] = future
            yield futures
        finally:
            for key in [key for key in _made if key[0] == package.token]:
                _made.pop(key, None)
            for future in futures.values():
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


def _start_thread(target: Callable[..., None], given: tuple[Any, ...]) -> None:
    try:
        threading.Thread(target=target, args=given, name="daskprs-early").start()
    except RuntimeError as error:  # the system has no more of them
        raise OSError(str(error)) from error


def _make(
    future: _Made, package: ScriptPackage, node: str, threads: int, count: int, folder: str
) -> None:
    try:
        host = ScriptHost(package, node=node, ip="127.0.0.1", threads=threads, folder=folder)
        try:
            host.start_early(count)
        except BaseException:
            host.close()
            raise
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(host)
