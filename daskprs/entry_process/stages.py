"""What an entry process may be doing when it hangs or dies, and how that is told."""

from __future__ import annotations

import signal
from dataclasses import dataclass

__all__ = ["INIT", "LOAD", "RESULT", "RUN", "SHUTDOWN", "Stage", "how_it_ended"]


@dataclass(frozen=True, eq=False)
class Stage:
    """What an entry process is doing while it is waited for, and how its end there is told."""

    where: str
    timed_out: str  # status
    too_long: str  # message, with the {limit}
    died: str  # status


INIT = Stage(
    "while importing the script or in init()",
    "INIT_TIMEOUT",
    "the script's import and init() did not end within init_timeout={limit:g} s; "
    "their process was stopped.",
    "INIT_DIED",
)
LOAD = Stage(
    "while loading the mini-batch",
    "LOAD_TIMEOUT",
    "the mini-batch could not be loaded within {limit:g} s; its process was stopped.",
    "PROCESS_DIED",
)
RUN = Stage(
    "in run()",
    "RUN_TIMEOUT",
    "run() did not return within run_invocation_timeout={limit:g} s; its process was stopped.",
    "PROCESS_DIED",
)
RESULT = Stage(
    "while the result of run() was made into rows",
    "RUN_TIMEOUT",
    "the result of run() could not be made into rows within {limit:g} s (the larger of "
    "run_invocation_timeout and progress_update_timeout); its process was stopped.",
    "PROCESS_DIED",
)
SHUTDOWN = Stage(
    "in shutdown()",
    "SHUTDOWN_TIMEOUT",
    "shutdown() did not return within {limit:g} s; its process was stopped.",
    "SHUTDOWN_DIED",
)


def how_it_ended(code: int | None) -> str:
    if code is None:
        return "closed its connection"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    often = " (often: the machine was out of memory)" if -code == signal.SIGKILL else ""
    return f"was killed by {name}{often}"
