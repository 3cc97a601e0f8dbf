"""What comes back from workers and hosts, as plain values; Dask is not needed to know them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from daskprs.entry_process.host import Reply
from daskprs.outcomes import Outcome
from daskprs.script_host import LogChunk

__all__ = ["Finished", "GroupResult", "HostEnd", "InitRecord", "Sample", "SurveyFailure"]


@dataclass
class Finished:
    """A task that ended; `lost` says why there is no value, if there is none.

    `deaths` is how many workers died while it was there, where Dask gave it up for that.
    """

    work: Any
    value: Any = None
    lost: str = ""
    deaths: int = 0


@dataclass(frozen=True)
class InitRecord:
    node: str
    ip: str
    process: str
    started: float
    reply: Reply


@dataclass(frozen=True)
class Sample:
    """Use of a node and of one entry process at one moment. Memory in bytes."""

    time: float
    node: str
    node_cpu_percent: float
    node_memory_used: int
    node_memory_total: int
    process: str
    pid: int
    process_cpu_seconds: float
    process_memory: int


@dataclass(frozen=True)
class GroupResult:
    """What one task gives back; a value in every case.

    Attributes
    ----------
    rest : tuple of int
        Indexes of mini-batches that have not been tried.
    worker : str
        Address of the Dask worker.
    init_failure : Reply or None
        The script could not be started: the run cannot go on.
    host_missing : str
        Why this worker cannot run the script at all, or "".
    """

    outcomes: list[Outcome]
    rest: tuple[int, ...] = ()
    worker: str = ""
    init_failure: Reply | None = None
    host_missing: str = ""
    inits: list[InitRecord] = field(default_factory=list)
    logs: list[LogChunk] = field(default_factory=list)
    sample: Sample | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class HostEnd:
    """What the processes of a host give back at the end of a run."""

    logs: list[LogChunk]
    shutdown_failures: list[tuple[str, str, str]]  # process, error, traceback


@dataclass(frozen=True)
class SurveyFailure:
    """A large table file could not be looked through: all its parts have failed.

    `items` is the number of records of each part, as well as they can be counted.
    """

    error: str
    traceback: str
    items: tuple[int, ...]
