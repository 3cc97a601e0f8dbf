"""The wildcards of a url, as a state machine over the names of folders."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

__all__ = ["HTTP_MAGIC", "MAGIC", "Pattern", "Segment"]

MAGIC = re.compile(r"[*?\[]")
# A question mark begins the query of an http url, so it is no wildcard there.
HTTP_MAGIC = re.compile(r"[*\[]")


class Segment:
    """What a glob has between two slashes."""

    __slots__ = ("_match", "is_literal", "is_recursive", "text")

    def __init__(self, text: str, magic: re.Pattern[str]) -> None:
        self.text = text
        self.is_recursive = text == "**"
        self.is_literal = not magic.search(text)
        if magic is HTTP_MAGIC:
            text = text.replace("?", "[?]")
        self._match = re.compile(fnmatch.translate(text)).match

    def matches(self, name: str, hidden: tuple[str, ...]) -> bool:
        if self.is_literal:
            return name == self.text
        if name.startswith(hidden) and not self.text.startswith(name[0]):
            return False
        return self._match(name) is not None


class Pattern:
    """The part of a url from its first wildcard on, as a state machine over names of folders.

    A state is the number of segments that are already matched. All segments are matched within
    a folder that is taken as a whole.
    """

    def __init__(
        self, segments: Sequence[Segment], *, folders_only: bool, hidden: tuple[str, ...]
    ) -> None:
        self._segments: list[Segment] = []
        for segment in segments:
            if not (segment.is_recursive and self._segments and self._segments[-1].is_recursive):
                self._segments.append(segment)
        self._count = len(self._segments)
        self._folders_only = folders_only
        self._hidden = hidden

    def start(self) -> frozenset[int]:
        return self._with_none_for_recursive({0})

    def _with_none_for_recursive(self, states: set[int]) -> frozenset[int]:
        skipped = (state + 1 for state in states if self._is_recursive(state))
        return frozenset(states.union(skipped))

    def _is_recursive(self, state: int) -> bool:
        return state < self._count and self._segments[state].is_recursive

    def takes_file(self, states: frozenset[int], name: str) -> bool:
        """Tell whether a file matches, within a folder reached in `states`."""
        if self._count in states and not name.startswith(self._hidden):
            return True
        if self._folders_only or self._count - 1 not in states:
            return False
        last = self._segments[-1]
        return not last.is_recursive and last.matches(name, self._hidden)

    def enter(self, states: frozenset[int], name: str) -> frozenset[int]:
        """Give the states of a subfolder; none if nothing in it can match."""
        is_hidden = name.startswith(self._hidden)
        reached = set()
        for state in states:
            if state == self._count or self._segments[state].is_recursive:
                if not is_hidden:
                    reached.add(state)
            elif self._segments[state].matches(name, self._hidden):
                reached.add(state + 1)
        return self._with_none_for_recursive(reached)

    def literal_names(self, states: frozenset[int]) -> dict[str, bool] | None:
        """Give the only names that can match, and whether as the last ones of the url.

        None if the names are not known in advance.
        """
        names: dict[str, bool] = {}
        for state in sorted(states):
            if state == self._count or not self._segments[state].is_literal:
                return None
            names[self._segments[state].text] = state == self._count - 1
        return names
