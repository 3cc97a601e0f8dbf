"""What went wrong in the user's code, as text of limited length."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

from daskprs.entry_process.results import BadResultError

__all__ = ["MOST_ERROR", "MOST_TRACEBACK", "describe", "shorten"]

# Every failed try sends both to the driver, which keeps some and writes all to the logs.
MOST_ERROR = 2_000
MOST_TRACEBACK = 20_000

_OURS = (
    str(Path(__file__).parent) + os.sep,
    str(Path(__file__).parents[1] / "azureml") + os.sep,
    "<frozen importlib",
)


def describe(error: BaseException) -> tuple[str, str]:
    """Return the error itself, and its traceback with the user's frames only."""
    try:
        whole = traceback.TracebackException.from_exception(error)
        last = "".join(whole.format_exception_only()).strip()
        _drop_our_frames(whole)
        text = "".join(whole.format())
        if isinstance(error, BadResultError):
            last = text = str(error)  # ours to tell, there is no code of the user's in it
    except Exception:  # out of memory, or an exception that is made to misbehave
        last = text = type(error).__name__
    return shorten(last, MOST_ERROR), shorten(text, MOST_TRACEBACK)


def _drop_our_frames(whole: traceback.TracebackException) -> None:
    left = [whole]
    while left:
        told = left.pop()
        frames = [frame for frame in told.stack or () if not frame.filename.startswith(_OURS)]
        # Without a stack there is no heading for it either.
        told.stack = traceback.StackSummary.from_list(frames) if frames else None  # type: ignore[assignment]
        others = (told.__cause__, told.__context__, *(getattr(told, "exceptions", None) or ()))
        left += [other for other in others if other is not None]


def shorten(text: str, most: int) -> str:
    """Cut out of the middle what is more than `most` characters, and keep what UTF-8 can hold."""
    if len(text) > most:
        tail = most // 3
        left_out = f"\n... [{len(text) - most} characters left out] ...\n"
        text = text[: most - tail] + left_out + text[-tail:]
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
