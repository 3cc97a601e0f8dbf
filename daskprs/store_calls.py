"""Calls to a store that end in time, whatever its package does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from daskprs.targets import within

__all__ = ["StoreCallError", "StoreCalls", "one_line"]

_BRIEF_SECONDS = 30.0
_Result = TypeVar("_Result")


class StoreCallError(OSError):
    """What a store's package raised that is no OSError, as its `__cause__`."""


class StoreCalls:
    """Calls functions of a file system of fsspec; each ends, and fails with an OSError.

    The packages of some stores give an upload no limit at all: a connection that is open and
    passes nothing on would be waited for until the end of time.

    Parameters
    ----------
    seconds : float
        What one call may take.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end: float | None = None

    def __call__(
        self, function: Callable[..., _Result], *arguments: Any, **options: Any
    ) -> _Result:
        """Call a function.

        Raises
        ------
        TimeoutError
            There was no answer in time. The call may go on in its thread.
        OSError
            Whatever went wrong.
        """
        has_ended = False

        def call() -> _Result:
            nonlocal has_ended
            try:
                return function(*arguments, **options)
            finally:
                has_ended = True

        seconds = self.seconds
        if self._end is not None:
            seconds = max(0.0, min(seconds, self._end - time.monotonic()))
        try:
            return within(seconds, call)
        except TimeoutError as error:
            if has_ended:
                raise StoreCallError(one_line(error)) from error
            raise TimeoutError(
                f"the store has not answered for {seconds:g} s (progress_update_timeout)"
            ) from None
        except OSError:
            raise
        except Exception as error:
            raise StoreCallError(one_line(error)) from error

    def be_brief(self) -> None:
        """Wait little for all that comes: the store has failed, and this is only a farewell."""
        if self._end is None:
            self._end = time.monotonic() + min(self.seconds, _BRIEF_SECONDS)


def one_line(error: BaseException) -> str:
    """Tell what an error is: those of Azure have the whole answer of the server in them."""
    text = str(error).strip()
    first = text.splitlines()[0] if text else ""
    if isinstance(error, StoreCallError):
        return first
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
