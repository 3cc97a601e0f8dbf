"""PipelineParameter: a value that is given when a pipeline is submitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daskprs.exceptions import ConfigError
from daskprs.pipelines.records import check_name

__all__ = ["PipelineParameter", "value_of"]


class PipelineParameter:
    """A value that is given when a pipeline is submitted.

    Parameters
    ----------
    name : str
    default_value
        Text, a number, or data.

    Examples
    --------
    >>> from daskprs.pipelines import PipelineParameter
    >>> PipelineParameter("size", "10MB")
    PipelineParameter('size', '10MB')
    """

    def __init__(self, name: str, default_value: Any) -> None:
        self.name = check_name("name", name)
        if default_value is None:
            raise ConfigError.of("default_value", None, "a value, such as 10")
        self.default_value = default_value

    def __repr__(self) -> str:
        return f"PipelineParameter({self.name!r}, {self.default_value!r})"


def value_of(thing: Any, values: Mapping[str, Any]) -> Any:
    """Put the value in the place of a parameter."""
    if isinstance(thing, PipelineParameter):
        return values.get(thing.name, thing.default_value)
    return thing
