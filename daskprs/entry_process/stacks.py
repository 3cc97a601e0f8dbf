"""Where a process was when it hung or crashed: reads what faulthandler has written."""

from __future__ import annotations

import itertools
import os
import re
import tokenize
from dataclasses import dataclass, field
from pathlib import Path

from daskprs.entry_process.failures import MOST_TRACEBACK, shorten

__all__ = ["format_stacks", "innermost_line"]

_OURS = str(Path(__file__).parent) + os.sep
_THREAD = re.compile(r"(?:Current thread|Thread) 0x([0-9a-fA-F]+)\b")
_FRAME = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+|\?\?\?) in (?P<name>.*)')
_TOLD_FRAME = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+|\?\?\?), in (?P<name>.*)')
_OF_ANOTHER = "Stack of another thread (most recent call last):"
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})|\\u([0-9a-f]{4})|\\U([0-9a-f]{8})")


@dataclass
class _Thread:
    ident: int
    frames: list[str] = field(default_factory=list)  # as in a traceback, the innermost last
    is_ours: bool = True  # no frame of any code but ours, and the standard library's threads


def format_stacks(dump: str, main_thread: int) -> str:
    """Make of a dump what a traceback looks like, with the user's frames only.

    Parameters
    ----------
    dump : str
        Written by faulthandler: no source lines, the innermost frame first, its own escapes.
    main_thread : int
        Identity of the thread that runs the script; it comes first.
    """
    threads = _parse(dump)
    main = [thread for thread in threads if thread.ident == main_thread and thread.frames]
    others = [thread for thread in threads if thread.ident != main_thread and not thread.is_ours]
    parts = [_fatal_error(dump)]
    parts += [_format("Stack (most recent call last):", thread) for thread in main]
    parts += [_format(_OF_ANOTHER, t) for t in others]
    return shorten("\n".join(part for part in parts if part), MOST_TRACEBACK)


def innermost_line(stacks: str, folder: str) -> str:
    """Say in which line of the user's code the main thread was; nothing where it was in none.

    Parameters
    ----------
    stacks : str
        From `format_stacks`.
    folder : str
        Where the user's code is.
    """
    frames = [_TOLD_FRAME.fullmatch(line) for line in stacks.partition(_OF_ANOTHER)[0].splitlines()]
    root = os.path.join(folder, "")
    theirs = [found for found in frames if found is not None and found["file"].startswith(root)]
    if not theirs:
        return ""
    last = theirs[-1]
    return f"{last['file'].removeprefix(root)}:{last['line']}, in {last['name']}"


def _fatal_error(dump: str) -> str:
    return next((line for line in dump.splitlines() if line.startswith("Fatal Python error")), "")


def _parse(dump: str) -> list[_Thread]:
    threads: list[_Thread] = []
    for line in dump.splitlines():
        heading, frame = _THREAD.match(line), _FRAME.fullmatch(line)
        if heading is not None:
            threads.append(_Thread(int(heading[1], 16)))
        elif frame is not None and threads:
            _add(threads[-1], _unescape(frame["file"]), frame["line"], frame["name"])
    return threads


def _add(thread: _Thread, file: str, line: str, name: str) -> None:
    if file.startswith((_OURS, "<frozen importlib")) or (file, name) == ("<string>", "<module>"):
        return
    if os.path.basename(file) != "threading.py":
        thread.is_ours = False
    text = f'  File "{file}", line {line}, in {_unescape(name)}\n'
    source = _source_line(file, line)
    thread.frames.insert(0, text + (f"    {source}\n" if source else ""))


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(next(filter(None, found.groups())), 16)), text)


def _source_line(file: str, line: str) -> str:
    try:
        with tokenize.open(file) as source:
            return next(itertools.islice(source, int(line) - 1, None), "").strip()
    except (OSError, SyntaxError, ValueError):
        return ""


def _format(heading: str, thread: _Thread) -> str:
    return f"{heading}\n{''.join(thread.frames)}"
