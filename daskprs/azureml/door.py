"""The door itself: modules named ``azureml...`` whose names come from this package."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from daskprs.azureml.errors import UserErrorException
from daskprs.azureml.names import MODULES, is_known, is_package, not_supported, public_names
from daskprs.azureml.stand_ins import StandInLoader, is_stand_in, stand_in

__all__ = ["install", "uninstall"]

_ROOT = "azureml"
_MARK = "__daskprs_door__"


class _Loader(Loader):
    """Fills a module with names that are looked up when they are asked for."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        names = MODULES.get(name, {})

        def look_up(attribute: str) -> Any:
            if attribute.startswith("_") and attribute not in names:
                raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
            place = names.get(attribute)
            inner_module = f"{name}.{attribute}"
            if place is None and (inner_module in MODULES or is_package(inner_module)):
                return importlib.import_module(inner_module)
            value: Any
            if place is not None:
                home, _, inner = place.partition(":")
                value = getattr(importlib.import_module(f"daskprs.azureml.{home}"), inner)
            elif is_known(inner_module):
                value = stand_in(inner_module, not_supported, UserErrorException)
            else:
                # Not an AttributeError, of which `from ... import` tells nothing.
                raise ImportError(not_supported(inner_module), name=name)
            setattr(module, attribute, value)
            return value

        setattr(module, _MARK, True)
        module.__doc__ = f"Names of {name}, on daskprs."
        module.__dict__["__all__"] = public_names(name)
        module.__dict__["__getattr__"] = look_up
        module.__dict__["__dir__"] = lambda: public_names(name)


class _Finder(MetaPathFinder):
    """Finds the modules of the door; tells by its name what is not supported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _ROOT and not name.startswith(f"{_ROOT}."):
            return None
        if name in MODULES or is_package(name):
            return ModuleSpec(name, _Loader(), origin="daskprs", is_package=is_package(name))
        parent = sys.modules.get(name.rpartition(".")[0])
        private = name.rpartition(".")[2].startswith("_")
        if not is_stand_in(parent) and (private or not hasattr(parent, _MARK)):
            return None  # of a package that is installed
        if is_known(name):
            loader: Any = StandInLoader(not_supported, UserErrorException)
            return ModuleSpec(name, loader)
        raise ModuleNotFoundError(not_supported(name), name=name)


_finder = _Finder()


def install(*, replace: bool = False) -> None:
    """Let ``import azureml...`` mean what is here.

    Parameters
    ----------
    replace : bool
        Also where the packages of Azure are installed.

    Examples
    --------
    >>> import daskprs.azureml
    >>> daskprs.azureml.install(replace=True)
    >>> from azureml.pipeline.steps import ParallelRunStep
    """
    if replace:
        uninstall()
        _forget(ours=False)
        sys.meta_path.insert(0, _finder)
        return
    if _finder in sys.meta_path:
        return
    if _is_installed():
        warnings.warn(
            "azureml-core is installed, and stays in use: what you submit goes to Azure. For "
            "daskprs, call daskprs.azureml.install(replace=True) before the imports of azureml.",
            stacklevel=3,
        )
        return
    sys.meta_path.append(_finder)


def uninstall() -> None:
    """Let ``import azureml...`` mean again what it meant before."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    _forget(ours=True)


def _forget(*, ours: bool) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == _ROOT]:
        module = sys.modules[name]
        if (hasattr(module, _MARK) or is_stand_in(module)) is ours:
            del sys.modules[name]


def _is_installed() -> bool:
    """Whether azureml.core of Azure can be imported; imports nothing."""
    loaded = sys.modules.get(f"{_ROOT}.core")
    if loaded is not None:
        return not hasattr(loaded, _MARK)
    root = PathFinder.find_spec(_ROOT)
    if root is None or root.submodule_search_locations is None:
        return False
    return PathFinder.find_spec(f"{_ROOT}.core", list(root.submodule_search_locations)) is not None
