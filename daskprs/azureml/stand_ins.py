"""What stands for names of Azure ML that are not here: importing one is no error, using it is.

Published scripts import more than they use. Entry processes have it, too: it imports nothing of the
package.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

__all__ = ["StandInLoader", "is_stand_in", "stand_in"]


class _StandInType(type):
    _told: Callable[[str], str]
    _error: type[Exception]

    def __call__(cls, *args: object, **kwargs: object) -> NoReturn:
        raise cls._error(cls._told(cls.__name__))

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(cls._told(cls.__name__))

    def __repr__(cls) -> str:
        return f"<{cls.__name__}, which is not supported by daskprs>"


def stand_in(name: str, told: Callable[[str], str], error: type[Exception]) -> type:
    """Make what stands for a class, a function or a module.

    Parameters
    ----------
    name : str
        With its module.
    told : callable
        Gets the name; says that it is not here, and what to use in its place.
    error : type
        Of what is raised by a call.
    """
    # An except clause takes exceptions alone.
    base = Exception if name.endswith(("Error", "Exception")) else object
    content = {"_told": staticmethod(told), "_error": error, "__module__": __name__}
    as_module = {"__path__": [], "__spec__": ModuleSpec(name, None, is_package=True)}
    return _StandInType(name, (base,), content | as_module)


def is_stand_in(thing: object) -> bool:
    return isinstance(thing, _StandInType)


class StandInLoader:  # of no base: importing that takes longer than all of this
    """Puts what stands for a name where a module of that name is looked for."""

    def __init__(self, told: Callable[[str], str], error: type[Exception]) -> None:
        self._told, self._error = told, error

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        made: Any = stand_in(module.__name__, self._told, self._error)
        sys.modules[module.__name__] = made
