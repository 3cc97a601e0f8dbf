"""Secrets: what must never be written or shown, and taking it out of texts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

from daskprs.exceptions import DaskprsError
from daskprs.outcomes import Attempt, Outcome

__all__ = ["Secrets", "has_secret", "is_telling"]

_TELLING = re.compile(
    r"key|secret|token|passw|passphrase|pwd|credential|connection|sas|signature|\bsig\b|auth",
    re.IGNORECASE,
)
# Words with such a name that are no secrets, and would blacken whole texts.
_PLAIN = re.compile(r"true|false|none|null|yes|no|auto|anon|default|\d{1,5}|.{0,3}", re.IGNORECASE)
_MASK = "***"


def is_telling(name: str) -> bool:
    """Say whether the name of an option says that its value is a secret."""
    return _TELLING.search(name) is not None


def has_secret(url: str) -> bool:
    """Say whether a url holds a password or a signature."""
    return any(_in_url(url))


class Secrets:
    """Texts to keep out of logs, reports, messages and reprs.

    Parameters
    ----------
    options : iterable of mapping
        Storage options: the values under telling names are secrets.
    urls : iterable of str
        Passwords and signatures in them are secrets.
    environment : mapping
        Environment variables: the values of telling names are secrets.
    """

    def __init__(
        self,
        options: Iterable[Mapping[str, Any]] = (),
        urls: Iterable[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        found: set[str] = set()
        for option in options:
            found.update(_in_options(option))
        for url in urls:
            found.update(_in_url(url))
        for name, value in {**os.environ, **(environment or {})}.items():
            if _TELLING.search(name) and len(value) >= 8 and not value.startswith(os.sep):
                found.add(value)
        variants = {form for text in found for form in _forms(text) if not _PLAIN.fullmatch(form)}
        # The longest first: one secret may be a part of another.
        longest_first = sorted(variants, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if variants else None

    def __bool__(self) -> bool:
        return self._pattern is not None

    def __repr__(self) -> str:
        return "Secrets(...)"

    def hide(self, text: str) -> str:
        """Return the text without any secret."""
        return text if self._pattern is None else self._pattern.sub(_MASK, text)

    def hide_bytes(self, data: bytes) -> bytes:
        """Do the same for text in UTF-8."""
        if self._pattern is None:
            return data
        return self.hide(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

    def hide_in(self, value: Any) -> Any:
        """Return a value of plain types with no secret in any of its texts."""
        if self._pattern is None:
            return value
        if isinstance(value, str):
            return self.hide(value)
        if isinstance(value, Mapping):
            return {self.hide_in(key): self.hide_in(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.hide_in(item) for item in value)
        return value

    def hide_in_error(self, error: BaseException) -> BaseException:
        """Return the error as one of the same kind without secrets, if it is ours."""
        if self._pattern is None or not isinstance(error, DaskprsError):
            return error
        return type(error)(self.hide(error.message), **self.hide_in(error.facts))

    def hide_in_outcome(self, outcome: Outcome) -> Outcome:
        """Return the outcome without secrets in what is told of it; its rows are the user's."""
        if self._pattern is None:
            return outcome
        return outcome._replace(
            label=self.hide(outcome.label),
            error=self.hide(outcome.error),
            traceback=self.hide(outcome.traceback),
            items=self.hide_in(outcome.items),
            attempts=tuple(map(self._hide_in_attempt, outcome.attempts)),
        )

    def _hide_in_attempt(self, attempt: Attempt) -> Attempt:
        error, traceback = self.hide(attempt.error), self.hide(attempt.traceback)
        return attempt._replace(error=error, traceback=traceback)


def _in_options(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _in_options(value)
        elif isinstance(value, str) and _TELLING.search(str(name)):
            yield value
            # A connection string holds its key among words that are none.
            for part in value.split(";"):
                word, mark, text = part.partition("=")
                if mark and _TELLING.search(word):
                    yield text
            yield from _in_query(value.lstrip("?"))
        elif isinstance(value, str) and "://" in value:
            yield from _in_url(value)


def _in_url(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        if parts.password:
            yield parts.password
        yield from _in_query(parts.query)
    except ValueError:
        return


def _in_query(query: str) -> Iterator[str]:
    # Not parse_qsl, which takes a plus sign for a blank.
    for part in query.split("&"):
        name, mark, value = part.partition("=")
        if mark and _TELLING.search(name):
            yield value


def _forms(text: str) -> set[str]:
    plain = unquote(text)
    return {text, plain, quote(plain), quote(plain, safe=""), quote_plus(plain)}
