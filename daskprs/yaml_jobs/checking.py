"""Checks a part of a document by the schema, and says what is wrong in a line."""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from daskprs.exceptions import ConfigError
from daskprs.yaml_jobs.documents import Section

__all__ = ["check", "nearest"]


def check(section: Section, definition: str) -> None:
    """Check a part of a document.

    Parameters
    ----------
    definition : str
        Name of a definition in the schema.

    Raises
    ------
    ConfigError
        Names file, line and key, and what is accepted.
    """
    errors = list(_validator(definition).iter_errors(section.content))
    if errors:
        # A key that is missing may be there, misspelt.
        raise _told(section, min(errors, key=lambda e: e.validator != "additionalProperties"))


def nearest(name: object, known: Iterable[str]) -> str:
    """Say which of the known names a name may have meant."""
    names = list(known)
    found = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    if found:
        return f"did you mean {found[0]!r}?"
    return f"there {'is' if len(names) == 1 else 'are'} {', '.join(map(repr, names)) or 'none'}."


@functools.cache
def _schema() -> dict[str, Any]:
    text = files("daskprs.yaml_jobs").joinpath("schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@functools.cache
def _validator(definition: str) -> Any:
    # It takes a while to import: scripts are run without it.
    import jsonschema

    schema = {**_schema(), "$ref": f"#/$defs/{definition}"}
    return jsonschema.Draft202012Validator(schema)


def _told(section: Section, error: Any) -> ConfigError:
    at, schema, value = tuple(error.absolute_path), error.schema, error.instance
    if error.validator == "additionalProperties":
        key = next(name for name in value if name not in schema["properties"])
        why = schema.get("x-not-here", {}).get(key)
        if why is not None:
            return section.error(f"it is not supported: {why}.", *at, str(key))
        hint = nearest(key, schema["properties"])
        if hint.startswith("there"):
            hint = f"known are {', '.join(sorted(schema['properties']))}."
        return section.error(f"there is no such key; {hint}", *at, str(key))
    if error.validator == "required":
        key = next(name for name in error.validator_value if name not in value)
        return section.error(f"the key {key!r} is missing.", *at)
    accepted = schema.get("description", "something else")
    if error.validator in ("minProperties", "minItems") and not value:
        return section.error(f"it is empty: it must be {accepted}.", *at)
    hint = ""
    if error.validator == "enum" and isinstance(value, str):
        close = difflib.get_close_matches(value, map(str, error.validator_value), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
    shown = value if isinstance(value, str | int | float | None) else type(value).__name__
    return section.error(f"{shown!r} is not accepted: it must be {accepted}.{hint}", *at)
