"""``import tensorflow`` gives the interface of TensorFlow 1 where the environment asks for it."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from daskprs.entry_process.entry_script_api import read_variable

__all__ = ["install", "is_tensorflow_1"]

logger = logging.getLogger("daskprs")

_TENSORFLOW = re.compile(r"tensorflow([-_](gpu|cpu|mkl))?\s*(\[.*\])?\s*\(?(?P<wanted>[=<>~!].*)")
# One of these is enough: a version 1, or less than 2. Conda has one = where pip has two.
_FIRST = re.compile(r"(={1,3}|~=|<=)\s*1(\..*)?|<\s*(1(\..*)?|2(\.0)*\.?((a|b|rc|dev)\d*)?)")


def is_tensorflow_1(requirement: str) -> bool:
    """Say whether a requirement, of pip or conda, can only be met by a TensorFlow 1.

    Examples
    --------
    >>> from daskprs.azureml.entry.tensorflow1 import is_tensorflow_1
    >>> [is_tensorflow_1(text) for text in ("tensorflow-gpu==1.13.1", "tensorflow>=1.13")]
    [True, False]
    """
    match = _TENSORFLOW.fullmatch(requirement.partition(";")[0].strip().lower())
    if match is None:
        return False
    clauses = match["wanted"].rstrip(") ").split(",")
    return any(_FIRST.fullmatch(clause.strip()) for clause in clauses)


def install() -> None:
    """Let the first import of tensorflow give version 1, if the run's environment asks for it."""
    asked = map(str, read_variable("DASKPRS_ENVIRONMENT", []))
    wanted = next(filter(is_tensorflow_1, asked), None)
    if wanted is not None:
        sys.meta_path.insert(0, _Finder(wanted))


class _Finder(MetaPathFinder):
    """Finds tensorflow as the others do, and changes what its import gives."""

    def __init__(self, wanted: str) -> None:
        self._wanted = wanted

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._wanted)
        return spec


class _Loader(Loader):
    def __init__(self, loader: Loader, wanted: str) -> None:
        self._loader, self._wanted = loader, wanted

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        if importlib.util.find_spec("tf_keras") is not None:  # Keras 3 needs eager execution
            os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
        self._loader.exec_module(module)
        version = str(getattr(module, "__version__", ""))
        if version.startswith("1."):
            return
        first = importlib.import_module("tensorflow.compat.v1")
        first.disable_v2_behavior()
        sys.modules["tensorflow"] = _FirstVersion(module, first)
        logger.warning(
            "The environment asks for %s, and TensorFlow %s is installed: "
            "'import tensorflow' gives tensorflow.compat.v1, with eager execution and the rest "
            "of the behaviour of TensorFlow 2 switched off.",
            self._wanted,
            version,
        )


class _FirstVersion(ModuleType):
    """Names of ``tensorflow.compat.v1``; submodules are those of the package itself."""

    def __init__(self, package: ModuleType, first: ModuleType) -> None:
        super().__init__("tensorflow", first.__doc__)
        about = ("__file__", "__path__", "__spec__", "__loader__", "__package__", "__version__")
        self.__dict__.update({name: getattr(package, name, None) for name in about})
        self._first = first

    def __getattr__(self, name: str) -> Any:
        return getattr(self._first, name)

    def __dir__(self) -> list[str]:
        return dir(self._first)
