"""ParallelRunStep on Dask: an entry script over any number of files or rows, one right output."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from daskprs._version import __version__

if TYPE_CHECKING:
    from daskprs.collections import map_partitions
    from daskprs.config import ParallelRunConfig
    from daskprs.datasets import FileDataset, TabularDataset
    from daskprs.exceptions import (
        ClusterLostError,
        ConfigError,
        DaskprsError,
        EntryScriptError,
        EntryScriptNotUsableError,
        InitFailedError,
        InputChangedError,
        InputNotFoundError,
        MiniBatchFailedError,
        NothingSucceededError,
        OutputError,
        RunCanceledError,
        RunFailedError,
        TargetError,
        ThresholdExceededError,
        UsageError,
        WriteFailedError,
    )
    from daskprs.mini_batches import MiniBatch
    from daskprs.plan import Plan
    from daskprs.report import RunReport
    from daskprs.run import ParallelRun
    from daskprs.step import ParallelRunStep

_HOMES = {
    "collections": ("map_partitions",),
    "config": ("ParallelRunConfig",),
    "datasets": ("FileDataset", "TabularDataset"),
    "exceptions": (
        *("ClusterLostError", "ConfigError", "DaskprsError", "EntryScriptError"),
        *("EntryScriptNotUsableError", "InitFailedError", "InputChangedError"),
        *("InputNotFoundError", "MiniBatchFailedError", "NothingSucceededError", "OutputError"),
        *("RunCanceledError", "RunFailedError", "TargetError", "ThresholdExceededError"),
        *("UsageError", "WriteFailedError"),
    ),
    "mini_batches": ("MiniBatch",),
    "plan": ("Plan",),
    "report": ("RunReport",),
    "run": ("ParallelRun",),
    "step": ("ParallelRunStep",),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ClusterLostError",
    "ConfigError",
    "DaskprsError",
    "EntryScriptError",
    "EntryScriptNotUsableError",
    "FileDataset",
    "InitFailedError",
    "InputChangedError",
    "InputNotFoundError",
    "MiniBatch",
    "MiniBatchFailedError",
    "NothingSucceededError",
    "OutputError",
    "ParallelRun",
    "ParallelRunConfig",
    "ParallelRunStep",
    "Plan",
    "RunCanceledError",
    "RunFailedError",
    "RunReport",
    "TabularDataset",
    "TargetError",
    "ThresholdExceededError",
    "UsageError",
    "WriteFailedError",
    "__version__",
    "map_partitions",
]


def __getattr__(name: str) -> Any:
    # Dask and pandas take a second to import: only those who use them wait.
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module 'daskprs' has no attribute {name!r}")
    return getattr(importlib.import_module(f"daskprs.{module}"), name)


def __dir__() -> list[str]:
    return __all__
