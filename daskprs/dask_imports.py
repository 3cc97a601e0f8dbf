"""Dask is imported late, by whichever thread needs it: one at a time, and again if need be.

Where two threads import a package and a part of it, Python ends their waiting for one another by
giving one of them a module that is half made.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daskprs.session import Session

__all__ = ["DASK_IMPORTS", "import_session"]

# Held by us while we import; of what the user's threads import it knows nothing.
DASK_IMPORTS = threading.RLock()
_TRIES = 3
_PAUSE = 0.5


def import_session() -> type[Session]:
    """Import what a run needs of Dask's scheduler.

    Raises
    ------
    Exception
        It cannot be imported, also not a moment later.
    """
    for left in reversed(range(_TRIES)):
        try:
            with DASK_IMPORTS:
                from daskprs.session import Session

                return Session
        except Exception:  # an import of the user's has come in between
            if not left:
                raise
            time.sleep(_PAUSE)
    raise AssertionError
