"""What happens in a run, as a stream of events; logs, progress and report only listen to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from daskprs.outcomes import Outcome
from daskprs.redaction import Secrets
from daskprs.script_host import LogChunk
from daskprs.worker_results import InitRecord, Sample

__all__ = [
    "ClusterReady",
    "Event",
    "InitTried",
    "Listener",
    "LogArrived",
    "MiniBatchDone",
    "Noticed",
    "RunEnded",
    "RunStarted",
    "Sampled",
    "without_secrets",
]


@dataclass(frozen=True)
class RunStarted:
    """The run begins; `kept` mini-batches are done already, by an earlier start of the same run."""

    kept: int = 0


@dataclass(frozen=True)
class ClusterReady:
    """There is a place for the work; `processes` is how many mini-batches can run at a time.

    A run on this machine that gets a cluster later tells it again.
    """

    workers: int
    processes: int
    dashboard_link: str | None


@dataclass(frozen=True)
class InitTried:
    """An entry process was started, whether init() succeeded or not."""

    record: InitRecord


@dataclass(frozen=True)
class MiniBatchDone:
    """A mini-batch is done or has failed for good; its rows are taken."""

    outcome: Outcome


@dataclass(frozen=True)
class LogArrived:
    """Some bytes that the script has written."""

    chunk: LogChunk


@dataclass(frozen=True)
class Sampled:
    """How much a node and an entry process use."""

    sample: Sample


@dataclass(frozen=True)
class Noticed:
    """Something that a person should know, though the run goes on."""

    text: str


@dataclass(frozen=True)
class RunEnded:
    """Nothing more will happen."""

    status: str
    message: str


Event = (
    RunStarted
    | ClusterReady
    | InitTried
    | MiniBatchDone
    | LogArrived
    | Sampled
    | Noticed
    | RunEnded
)
Listener = Callable[[Event], None]


def without_secrets(event: Event, secrets: Secrets) -> Event:
    """Return the event as it may be told; outcomes are rid of secrets where they are taken."""
    if isinstance(event, LogArrived):
        return LogArrived(replace(event.chunk, data=secrets.hide_bytes(event.chunk.data)))
    if isinstance(event, InitTried):
        reply = event.record.reply
        error, traceback = secrets.hide(reply.error), secrets.hide(reply.traceback)
        reply = reply._replace(error=error, traceback=traceback)
        return InitTried(replace(event.record, reply=reply))
    return Noticed(secrets.hide(event.text)) if isinstance(event, Noticed) else event
