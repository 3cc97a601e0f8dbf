"""A private folder where the workers of Dask have theirs, which is removed also after a kill."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator

import dask

__all__ = ["scratch_folder"]


@contextlib.contextmanager
def scratch_folder() -> Iterator[str]:
    """Make a folder in Dask's scratch space; where a killed run has left it, Dask removes it.

    Each cluster that starts there looks for folders beside which a lock stands that nobody holds.

    Raises
    ------
    OSError
    """
    folder = tempfile.mkdtemp(prefix="daskprs-", dir=_space())
    lock = None
    try:
        lock = _locked(f"{folder}.dirlock")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            with contextlib.suppress(OSError):
                os.unlink(f"{folder}.dirlock")
            os.close(lock)


def _space() -> str:
    """Return the folder that Dask takes too."""
    place = dask.config.get("temporary-directory") or tempfile.gettempdir()
    space = os.path.join(os.path.abspath(os.path.expanduser(place)), "dask-scratch-space")
    for path in (space, f"{space}-{os.getuid()}"):  # the first may be another user's
        os.makedirs(path, exist_ok=True)
        if os.access(path, os.W_OK | os.X_OK):
            break
    return path


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
