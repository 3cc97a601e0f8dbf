"""Every error that daskprs raises, as a tree.

::

    DaskprsError
    ├── UsageError                  wrong before any work started (exit code 2); also a ValueError
    │   ├── ConfigError             a field with a wrong value: facts `field`, `value`, `accepted`
    │   ├── InputNotFoundError      an input that matches no file
    │   ├── EntryScriptNotUsableError   no such script, a syntax error, no run()
    │   ├── TargetError             a cluster that cannot be reached or used
    │   └── OutputError             an output folder that cannot be used
    └── RunFailedError              work was started and did not complete (exit code 1)
        ├── EntryScriptError        the user's code failed; fact `script_traceback`
        │   ├── InitFailedError     init(), or the script's module-level code
        │   ├── MiniBatchFailedError    run(), in a lazy collection
        │   ├── ThresholdExceededError  more failures than allowed
        │   └── NothingSucceededError   append_row, and not one item succeeded
        ├── InputChangedError       an input file was changed or removed after it was listed
        ├── ClusterLostError        no workers, no scheduler, no progress
        ├── WriteFailedError        the output could not be written
        └── RunCanceledError        canceled by the user (exit code 130)

Facts are attributes, given by keyword, so that every error survives pickling.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ClusterLostError",
    "ConfigError",
    "DaskprsError",
    "EntryScriptError",
    "EntryScriptNotUsableError",
    "InitFailedError",
    "InputChangedError",
    "InputNotFoundError",
    "MiniBatchFailedError",
    "NothingSucceededError",
    "OutputError",
    "RunCanceledError",
    "RunFailedError",
    "TargetError",
    "ThresholdExceededError",
    "UsageError",
    "WriteFailedError",
]


class DaskprsError(Exception):
    """Base of all errors of daskprs.

    Parameters
    ----------
    message : str
        What was done, what it means, what to do instead.
    **facts
        Kept as attributes of the error.

    Examples
    --------
    >>> from daskprs import DaskprsError, ParallelRunConfig
    >>> try:
    ...     ParallelRunConfig(entry_script="no-such-script.py")
    ... except DaskprsError as error:
    ...     print(type(error).__name__, error.field)
    ConfigError entry_script
    """

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts
        self.__dict__.update(facts)

    def __reduce__(self) -> tuple[Any, ...]:
        # Facts and notes are in the dictionary.
        return type(self), (self.message,), self.__dict__


class UsageError(DaskprsError, ValueError):
    """Something is wrong that could be seen before any work started."""


class ConfigError(UsageError):
    """A field has a value that is not accepted.

    Attributes
    ----------
    field, accepted : str
    value : object
    """

    @classmethod
    def of(cls, field: str, value: object, accepted: str) -> ConfigError:
        """Make the one message form that all fields share."""
        return cls(
            f"{field}={value!r} is not accepted: it must be {accepted}.",
            field=field,
            value=value,
            accepted=accepted,
        )


class InputNotFoundError(UsageError):
    """An input url matches no file, or the tables have no row at all."""


class EntryScriptNotUsableError(UsageError):
    """The entry script is missing, does not parse, or has no run()."""


class TargetError(UsageError):
    """The compute target cannot be reached or used."""


class OutputError(UsageError):
    """The output folder cannot be used."""


class RunFailedError(DaskprsError):
    """Work was started and did not complete; what is written stays, and can be resumed."""


class EntryScriptError(RunFailedError):
    """The user's code failed.

    Attributes
    ----------
    script_traceback : str
        The traceback of the user's code, without frames of daskprs.
    """

    script_traceback: str = ""

    def __str__(self) -> str:
        # The user's own traceback comes first: it is what they have to fix.
        return f"{self.script_traceback.rstrip()}\n\n{self.message}".lstrip()


class InitFailedError(EntryScriptError):
    """init(), or the code at the script's module level, failed in every try."""


class MiniBatchFailedError(EntryScriptError):
    """run() failed in every try, in a lazy collection, where there is no error budget."""


class ThresholdExceededError(EntryScriptError):
    """More items or mini-batches failed than the configuration allows."""


class NothingSucceededError(EntryScriptError):
    """Not one item of the input succeeded."""


class InputChangedError(RunFailedError):
    """An input file was changed or removed after it was listed.

    Attributes
    ----------
    path : str
    """


class ClusterLostError(RunFailedError):
    """The cluster has no workers, or does not answer, or makes no progress."""


class WriteFailedError(RunFailedError):
    """The output could not be written."""


class RunCanceledError(RunFailedError):
    """The run was canceled."""
