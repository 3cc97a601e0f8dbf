"""A private folder where the workers of Dask have theirs, which is removed also after a kill."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import site
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from daskprs.dask_imports import DASK_IMPORTS

__all__ = ["scratch_folder"]

_LOCK = ".dirlock"
_SETTING = re.compile(r"temporary[-_]directory\W*:", re.IGNORECASE)


@contextlib.contextmanager
def scratch_folder() -> Iterator[str]:
    """Make a folder in Dask's scratch space, and remove what was left there by those killed.

    These are folders beside which a lock stands that nobody holds: each cluster that starts there
    looks for them, too.

    Raises
    ------
    OSError
    """
    space = _space()
    _remove_what_is_left(space)
    folder = os.path.join(space, f"daskprs-{uuid.uuid4().hex[:12]}")
    lock = _locked(f"{folder}{_LOCK}")  # first: what is killed now leaves nothing without one
    try:
        os.mkdir(folder, 0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.unlink(f"{folder}{_LOCK}")
        os.close(lock)


def _space() -> str:
    """Return the folder that Dask takes too."""
    place = _configured() or tempfile.gettempdir()
    space = os.path.join(os.path.abspath(os.path.expanduser(place)), "dask-scratch-space")
    for path in (space, f"{space}-{os.getuid()}"):  # the first may be another user's
        os.makedirs(path, exist_ok=True)
        if os.access(path, os.W_OK | os.X_OK):
            break
    return path


def _configured() -> str | None:
    """Return Dask's temporary-directory; Dask is imported only where something may set it."""
    if "dask" not in sys.modules and not _may_be_configured():
        return None
    with contextlib.suppress(Exception), DASK_IMPORTS:  # which a cluster would tell
        import dask

        folder = dask.config.get("temporary-directory")
        return folder if isinstance(folder, str) else None
    return None


def _may_be_configured() -> bool:
    if any(name.startswith("DASK_") for name in os.environ):
        return True
    # Where Dask looks for its configuration when none of its variables is set.
    roots = ["/etc", *(os.path.join(prefix, "etc") for prefix in (sys.prefix, *site.PREFIXES))]
    for folder in (*roots, os.path.expanduser("~/.config")):
        for file in Path(folder, "dask").glob("*"):
            with contextlib.suppress(OSError):  # a folder; or one that we may not read
                if _SETTING.search(file.read_text("utf-8", "replace")):
                    return True
    return False


def _remove_what_is_left(space: str) -> None:
    for lock in Path(space).glob(f"*{_LOCK}"):
        with contextlib.suppress(OSError):
            descriptor = os.open(lock, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails: its run is alive
                shutil.rmtree(str(lock).removesuffix(_LOCK), ignore_errors=True)
                lock.unlink()
            finally:
                os.close(descriptor)


def _locked(path: str) -> int:
    """Make a file that is locked from the moment when it has its name."""
    lock = os.open(f"{path}.new", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.rename(f"{path}.new", path)
    except BaseException:
        os.close(lock)
        with contextlib.suppress(OSError):
            os.unlink(f"{path}.new")
        raise
    return lock
