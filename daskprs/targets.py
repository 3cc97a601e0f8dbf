"""Compute targets: where the mini-batches run."""

from __future__ import annotations

import contextlib
import logging
import queue
import re
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, TypeVar, cast

from daskprs._version import __version__
from daskprs.config import ParallelRunConfig
from daskprs.dask_imports import DASK_IMPORTS
from daskprs.exceptions import ConfigError, TargetError
from daskprs.gpus import visible_gpus

if TYPE_CHECKING:
    from distributed import Client

__all__ = [
    "Target",
    "check_software",
    "check_target",
    "open_target",
    "processes_per_node",
    "within",
]

T = TypeVar("T")

CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 60.0
_VERSION = "daskprs.worker:__version__"
LEASE_SECONDS = 60.0
_DASHBOARD_PORT = 8787
# Dask keeps so many messages of each connection for debugging, with the mini-batches in them.
_FEW_MESSAGES = {"distributed.admin.low-level-log-length": 10}
# Settings and warnings are those of the whole process, and are put back in the end.
_STARTING = threading.Lock()
_PROTOCOLS = "tcp|tls|ws|wss|ucx|ucxx"
_ADDRESS = re.compile(rf"({_PROTOCOLS})://[^\s]+:\d+(/.*)?|inproc://.+|[^\s:/]+:\d+")


@dataclass(frozen=True)
class Target:
    """A cluster that can be used.

    Attributes
    ----------
    is_local : bool
        Made for this run on this machine: workers see the files that the driver sees.
    lease : float or None
        Seconds after which a worker that has not heard of the driver cleans up by itself.
    """

    client: Client
    is_local: bool
    lease: float | None
    dashboard_link: str | None


@contextlib.contextmanager
def open_target(value: object, config: ParallelRunConfig) -> Iterator[Target]:
    """Connect to a given cluster, or start one on this machine; what was made here ends here.

    Parameters
    ----------
    value : None, distributed.Client, Dask cluster object, or str
        A string is the address of a scheduler.

    Raises
    ------
    ConfigError
        `value` is none of these.
    TargetError
        The cluster cannot be reached.
    """
    if value is None:
        with _local_cluster(config) as (client, dashboard):
            yield Target(client, is_local=True, lease=None, dashboard_link=dashboard)
        return
    with contextlib.ExitStack() as stack:
        client = _client_of(value, stack)
        yield Target(client, False, LEASE_SECONDS, _dashboard_link(client))


def within(seconds: float, function: Callable[[], T]) -> T:
    """Call something that waits for an answer of the cluster, which may never come.

    Raises
    ------
    TimeoutError
    Exception
        Whatever the function raises.
    """
    answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put((function(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=ask, name="daskprs-question", daemon=True).start()
    try:
        value, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"there was no answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return cast(T, value)


def check_software(client: Client) -> None:
    """Look whether scheduler and workers can load this version of daskprs.

    Raises
    ------
    TargetError
    """

    def ask() -> dict[str, Any]:
        found: dict[str, Any] = client.run(resolve_name, _VERSION, on_error="return")
        try:
            # It takes the graphs of the tasks apart.
            found["the scheduler"] = client.run_on_scheduler(resolve_name, _VERSION)
        except Exception as error:
            found["the scheduler"] = error
        return found

    try:
        answers = within(_ANSWER_SECONDS, ask)
    except Exception as error:
        raise TargetError(
            f"the cluster does not answer ({type(error).__name__}: {error}): look whether all of "
            "its workers are alive."
        ) from error
    for place, answer in answers.items():
        if isinstance(answer, ImportError | AttributeError):
            raise TargetError(
                f"daskprs cannot be loaded by {place} ({answer}): install daskprs {__version__}, "
                "and the packages of the script, on the scheduler and every worker."
            )
        if isinstance(answer, str) and answer != __version__:
            raise TargetError(
                f"daskprs is {__version__} here and {answer} at {place}: install the same version "
                "on the scheduler and every worker."
            )


def check_target(value: object) -> None:
    """Check whether something can be a compute target, without connecting to it.

    Raises
    ------
    ConfigError
    """
    if value is None:
        return
    # Another thread may be just importing it.
    client = getattr(sys.modules.get("distributed"), "Client", None)
    is_client = client is not None and isinstance(value, client)
    is_cluster = hasattr(value, "scheduler_address") and hasattr(value, "scale")
    is_address = isinstance(value, str) and _ADDRESS.fullmatch(value) is not None
    if not (is_client or is_cluster or is_address):
        raise ConfigError.of(
            "compute_target",
            value,
            "None, a distributed.Client, a Dask cluster object, or a scheduler's address such as "
            "'tcp://127.0.0.1:8786'",
        )


def _client_of(value: object, stack: contextlib.ExitStack) -> Client:
    from distributed import Client

    check_target(value)
    if isinstance(value, Client):
        # The public property tells of the calling thread, and this one is ours.
        if getattr(value, "_asynchronous", False):
            raise TargetError(
                "compute_target is an asynchronous Client: give one without asynchronous=True, "
                "or the scheduler's address."
            )
        if value.status != "running":
            raise TargetError(
                f"compute_target is a Client that is {value.status}: make a new Client."
            )
        return value
    address = value if isinstance(value, str) else getattr(value, "scheduler_address", "")
    return _connect(value, str(address), stack)


def _connect(value: Any, address: str, stack: contextlib.ExitStack) -> Client:
    from distributed import Client

    try:
        client = Client(value, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TargetError(
            f"the scheduler {address!r} cannot be reached ({reason}): give the address that "
            "'dask scheduler' prints, such as tcp://127.0.0.1:8786."
        ) from error
    stack.callback(_close, client)
    return client


def _dashboard_link(client: Client) -> str | None:
    link = None
    with contextlib.suppress(Exception):
        link = client.dashboard_link
    return link or None


def _close(client: Client) -> None:
    with contextlib.suppress(Exception):
        client.close(timeout=10)


@contextlib.contextmanager
def _local_cluster(config: ParallelRunConfig) -> Iterator[tuple[Client, str | None]]:
    """Run scheduler and workers in threads of this process: the script has its own processes."""
    import dask
    from distributed import Client, LocalCluster

    from daskprs.dashboard import SCHEDULER_OPTIONS, QuietWorker, add_dashboard, is_available

    def connected(cluster: LocalCluster) -> Client:
        with _STARTING, dask.config.set(_FEW_MESSAGES):
            return Client(cluster, set_as_default=False)

    # Warnings of Dask about a busy driver are no news to the person who runs a script.
    for name in ("distributed.utils_perf", "distributed.shuffle"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with _STARTING, _QUIET, warnings.catch_warnings(), dask.config.set(_FEW_MESSAGES):
        # Somebody may take the dashboard's port in this moment: then it gets another one.
        warnings.filterwarnings("ignore", message=r"\s*Port \d+ is already in use")
        cluster = _started(
            LocalCluster,
            n_workers=config.node_count,
            threads_per_worker=processes_per_node(config.process_count_per_node),
            processes=False,
            memory_limit=0,
            dashboard_address=_dashboard_address(),
            worker_dashboard_address="127.0.0.1:0",
            silence_logs=False,
            scheduler_kwargs=SCHEDULER_OPTIONS if is_available() else None,
            worker_class=QuietWorker if is_available() else None,
        )
    with _QUIET, cluster, connected(cluster) as client:
        dashboard = None
        if is_available():
            add_dashboard(cluster)
            port = cluster.scheduler.services["dashboard"].port
            dashboard = f"http://127.0.0.1:{port}/status"
        yield client, dashboard


def processes_per_node(count: int | None) -> int:
    """Return how many entry processes a node of a local cluster has; `count` is what was set."""
    if known := count or len(visible_gpus()):
        return known
    with DASK_IMPORTS:
        from dask.system import CPU_COUNT

    return int(CPU_COUNT)


def _started(make: Callable[..., T], **options: Any) -> T:
    try:
        return make(**options)
    except (OSError, RuntimeError) as error:
        why = error.__cause__ or error
        raise TargetError(
            f"no cluster can be started on this machine ({type(why).__name__}: {why}): it needs a "
            "temporary folder that can be written to (TMPDIR, or Dask's temporary-directory), and "
            "ports on 127.0.0.1."
        ) from error


class _Quiet:
    """Keeps Dask's log to errors while at least one local cluster is there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._levels = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                from distributed.utils import silence_logging_cmgr

                for root in ("distributed", "bokeh"):
                    self._levels.enter_context(silence_logging_cmgr(logging.ERROR, root))

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._levels.close()


_QUIET = _Quiet()


def _dashboard_address() -> str:
    """Loopback only, Dask's own port where it is free (None would open a port to the world)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", _DASHBOARD_PORT))
        except OSError:
            return "127.0.0.1:0"
    return f"127.0.0.1:{_DASHBOARD_PORT}"
