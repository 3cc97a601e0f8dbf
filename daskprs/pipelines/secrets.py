"""Secrets of datastores: what stands in the workspace in their place."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from daskprs.exceptions import ConfigError, UsageError
from daskprs.redaction import is_telling

__all__ = ["EnvironmentSecret", "from_record", "kept_variables", "to_record"]

_LEAST = 8  # a shorter value of an environment variable may be the same by chance
_MARK = "$env"

# Values that were given in this process and are not written: (workspace, datastore, option).
_kept: dict[tuple[str, str, str], Any] = {}


@dataclass(frozen=True)
class EnvironmentSecret:
    """A secret by reference: the value of an environment variable, read when it is needed.

    Parameters
    ----------
    variable : str

    Examples
    --------
    >>> from daskprs.pipelines import EnvironmentSecret
    >>> EnvironmentSecret("STORE_KEY")
    EnvironmentSecret(variable='STORE_KEY')
    """

    variable: str


def to_record(
    options: Mapping[str, Any], *, workspace: str, datastore: str, write_secrets: bool
) -> dict[str, Any]:
    """Make storage options ready to be written, with references in the place of secrets.

    Raises
    ------
    ConfigError
        A value that is neither a secret nor JSON.
    """
    record: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, EnvironmentSecret):
            record[name] = {_MARK: value.variable}
        elif is_telling(name) and value is not None and not (write_secrets and _is_plain(value)):
            variable = _variable_with(value) or _own_variable(datastore, name)
            _kept[workspace, datastore, name] = value
            record[name] = {_MARK: variable}
        elif _is_plain(value):
            record[name] = value
        else:
            kind = type(value).__name__
            raise ConfigError.of(
                "storage_options", {name: f"a {kind}"}, "JSON, or an EnvironmentSecret"
            )
    return record


def from_record(record: Mapping[str, Any], *, workspace: str, datastore: str) -> dict[str, Any]:
    """Put the secrets in the place of the references.

    Raises
    ------
    UsageError
        A secret was given in another process, and is not in the environment of this one.
    """
    return {
        name: _secret(value[_MARK], workspace, datastore, name)
        if isinstance(value, Mapping) and _MARK in value
        else value
        for name, value in record.items()
    }


def kept_variables(workspace: str) -> dict[str, str]:
    """Return the secrets that only this process knows, as environment variables for another."""
    return {
        _own_variable(datastore, option): value
        for (place, datastore, option), value in _kept.items()
        if place == workspace and isinstance(value, str)
    }


def _secret(variable: str, workspace: str, datastore: str, option: str) -> Any:
    kept = _kept.get((workspace, datastore, option))
    value = kept if kept is not None else os.environ.get(variable)
    if value is None:
        raise UsageError(
            f"the datastore {datastore!r} needs its {option}, which is not written into the "
            f"workspace: set the environment variable {variable}, or register the datastore again."
        )
    return value


def _is_plain(value: object) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _variable_with(value: object) -> str | None:
    """Find the environment variable that a secret was read from."""
    if not isinstance(value, str) or len(value) < _LEAST:
        return None
    return next((name for name, text in sorted(os.environ.items()) if text == value), None)


def _own_variable(datastore: str, option: str) -> str:
    return re.sub(r"\W", "_", f"DASKPRS_{datastore}_{option}").upper()
