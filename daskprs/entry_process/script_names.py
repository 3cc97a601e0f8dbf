"""Which names a script binds at module level, as far as its text tells."""

from __future__ import annotations

import ast
from collections.abc import Iterator

__all__ = ["bindings", "is_dynamic"]

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SCOPES = (*_FUNCTIONS, ast.ClassDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_DYNAMIC = {"exec", "globals", "locals", "vars", "setattr"}


def bindings(tree: ast.Module, name: str) -> list[ast.AST]:
    """Return the nodes at module level that give `name` a value, also within if, try, with."""
    return [node for node in _module_level(tree) if _binds(node, name)]


def is_dynamic(tree: ast.Module, name: str) -> bool:
    """Say whether only running the script can show if it has `name`."""
    if any(isinstance(node, ast.Global) and name in node.names for node in ast.walk(tree)):
        return True
    return any(
        (isinstance(node, ast.alias) and node.name == "*")
        or (isinstance(node, ast.Name) and node.id in _DYNAMIC)
        or (isinstance(node, _FUNCTIONS) and node.name == "__getattr__")
        for node in _module_level(tree)
    )


def _module_level(tree: ast.Module) -> Iterator[ast.AST]:
    """Walk through what is done when the module is imported."""
    left: list[ast.AST] = list(reversed(tree.body))
    while left:
        node = left.pop()
        yield node
        if isinstance(node, _COMPREHENSIONS):
            # Their variables are their own; what they call is not.
            inside = (
                n for n in ast.walk(node) if not isinstance(getattr(n, "ctx", None), ast.Store)
            )
            yield from inside
        elif not isinstance(node, _SCOPES):
            left += reversed(list(ast.iter_child_nodes(node)))


def _binds(node: ast.AST, name: str) -> bool:
    if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
        return node.name == name
    if isinstance(node, ast.alias):
        return (node.asname or node.name.partition(".")[0]) == name
    if isinstance(node, ast.MatchAs | ast.MatchStar):
        return node.name == name
    return isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store)
