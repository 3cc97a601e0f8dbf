"""Import the user's script as the user expects: sys.path, relative imports, run()'s signature."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import Any

__all__ = ["ROOT_PACKAGE", "import_script", "wants_context"]

# Package of a script that uses relative imports, or has the name of another module; its path
# is the source directory.
ROOT_PACKAGE = "entry_script_source"


def import_script(script: Path, source_directory: Path) -> types.ModuleType:
    """Import `script`; the source directory and its own folder stand first on sys.path.

    Relative imports work from the script's folder up to the source directory, whether or not
    the folders have an ``__init__.py``.
    """
    for folder in (source_directory, script.parent):
        path = str(folder)
        if path in sys.path:
            sys.path.remove(path)
        sys.path.insert(0, path)
    name = script.stem
    taken = name in sys.modules or name in sys.stdlib_module_names or not name.isidentifier()
    if taken or _uses_relative_imports(script):
        inside = script.parent.relative_to(source_directory).parts
        name = f"{_make_packages(source_directory, inside)}.{name}"
    loader = _Source(name, str(script))  # named, so that any suffix will do
    spec = importlib.util.spec_from_file_location(name, script, loader=loader)
    if spec is None:
        raise ImportError(f"{script} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    return module


class _Source(SourceFileLoader):
    """The script as it is now: cached bytecode misses an edit of equal size in the same second."""

    def get_code(self, fullname: str) -> types.CodeType:
        """Compile the file, whatever ``__pycache__`` holds."""
        path = self.get_filename(fullname)
        code: types.CodeType = self.source_to_code(self.get_data(path), path)
        return code


def _uses_relative_imports(script: Path) -> bool:
    tree = ast.parse(script.read_bytes(), str(script))
    return any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree))


def _make_packages(source_directory: Path, inside: tuple[str, ...]) -> str:
    """Make the packages that lead to the script's folder, and return the innermost name."""
    name, folder = ROOT_PACKAGE, source_directory
    _make_package(name, folder)
    for part in inside:
        name, folder = f"{name}.{part}", folder / part
        _make_package(name, folder)
    return name


def _make_package(name: str, folder: Path) -> None:
    init = folder / "__init__.py"
    if init.is_file():
        spec = importlib.util.spec_from_file_location(
            name, init, submodule_search_locations=[str(folder)]
        )
    else:
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
    if spec is None:
        raise ImportError(f"{folder} is not a package")
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    if spec.loader is not None:
        spec.loader.exec_module(package)


def wants_context(run: Callable[..., Any]) -> bool:
    """Say whether run() takes a second positional parameter, of whatever name.

    One with a default other than None is the user's own and is left alone.
    """
    try:
        parameters = list(inspect.signature(run).parameters.values())
    except (TypeError, ValueError):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) >= 2 and positional[1].default in (inspect.Parameter.empty, None)
