"""``python -m daskprs.azureml driver.py``: run a driver script of Azure ML on daskprs."""

from __future__ import annotations

import os
import runpy
import sys

from daskprs.azureml.door import install
from daskprs.exceptions import DaskprsError

_WRONG_USAGE = 2
_USAGE = "usage: python -m daskprs.azureml DRIVER.py [ARGS...]\n"


def main() -> None:
    """Run the script with the rest of the words as its arguments."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.stderr.write(_USAGE)
        sys.exit(0 if sys.argv[1:] in (["-h"], ["--help"]) else _WRONG_USAGE)
    del sys.argv[0]
    if not os.path.isfile(sys.argv[0]):
        sys.stderr.write(f"Error: there is no file {sys.argv[0]!r}.\n{_USAGE}")
        sys.exit(_WRONG_USAGE)
    install(replace=True)
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except DaskprsError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
