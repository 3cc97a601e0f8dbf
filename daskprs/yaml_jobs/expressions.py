"""Expressions: ``${{inputs.x}}``, and what they stand for."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

__all__ = ["Reference", "parts", "references", "substitute", "whole", "without_missing"]

_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_OPTIONAL = re.compile(r"\$\[\[(.*?)\]\]", re.DOTALL)
_FORMS = {
    "inputs": ("inputs", 1),
    "outputs": ("outputs", 1),
    "parent.inputs": ("parent.inputs", 1),
    "parent.outputs": ("parent.outputs", 1),
    "parent.jobs": ("parent.jobs", 3),
}


@dataclass(frozen=True)
class Reference:
    """An expression.

    Attributes
    ----------
    scope : str
        inputs, outputs, parent.inputs, parent.outputs, parent.jobs; empty where it is none of
        these.
    names : tuple of str
        One; after parent.jobs the job and its output.
    text : str
        As it is written.
    """

    scope: str
    names: tuple[str, ...]
    text: str

    @classmethod
    def of(cls, inner: str, text: str) -> Reference:
        words = [word.strip() for word in inner.split(".")]
        for prefix, (scope, count) in _FORMS.items():
            head = prefix.split(".")
            names = words[len(head) :]
            if words[: len(head)] != head or len(names) != count or not all(names):
                continue
            if scope == "parent.jobs":
                if names[1] != "outputs":
                    continue
                names = [names[0], names[2]]
            return cls(scope, tuple(names), text)
        return cls("", (), text)


def parts(text: str) -> Iterator[str | Reference]:
    """Take text apart into plain text and expressions."""
    end = 0
    for match in _EXPRESSION.finditer(text):
        if match.start() > end:
            yield text[end : match.start()]
        yield Reference.of(match[1], match[0])
        end = match.end()
    if end < len(text):
        yield text[end:]


def references(text: str) -> list[Reference]:
    """Return the expressions in a text.

    Raises
    ------
    ValueError
        One is not closed.
    """
    found = list(parts(text))
    for part in found:
        if isinstance(part, str) and "${{" in part:
            raise ValueError("an expression has no }}")
    return [part for part in found if isinstance(part, Reference)]


def whole(text: object) -> Reference | None:
    """Return the expression that a text consists of, where it does."""
    if not isinstance(text, str):
        return None
    found = list(parts(text.strip()))
    return found[0] if len(found) == 1 and isinstance(found[0], Reference) else None


def substitute(text: str, find: Callable[[Reference], str]) -> str:
    """Put values in the place of expressions."""
    return "".join(find(part) if isinstance(part, Reference) else part for part in parts(text))


def without_missing(text: str, missing: Collection[str]) -> str:
    """Leave out each ``$[[...]]`` that names an optional input which is not given."""

    def choose(match: re.Match[str]) -> str:
        named = [ref for ref in parts(match[1]) if isinstance(ref, Reference)]
        is_missing = any(ref.scope == "inputs" and ref.names[0] in missing for ref in named)
        return "" if is_missing else match[1]

    return _OPTIONAL.sub(choose, text)
