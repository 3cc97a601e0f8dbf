"""Tests of the tree of errors: as documented, with facts that survive pickling."""

from __future__ import annotations

import copy
import pickle
import re

import pytest

from daskprs import exceptions
from daskprs.exceptions import (
    ConfigError,
    DaskprsError,
    EntryScriptError,
    RunFailedError,
    UsageError,
)

ERRORS = [getattr(exceptions, name) for name in exceptions.__all__]


def documented_tree() -> dict[str, str]:
    """Read the parent of each class from the drawing in the docstring."""
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (exceptions.__doc__ or "").splitlines():
        match = re.match(r"([ │]*(?:[├└]── )?)(\w+Error)\b", line)
        if match is None:
            continue
        depth, name = len(match[1]), match[2]
        above = [(other, parent) for other, parent in above if other < depth]
        if above:
            parents[name] = above[-1][1]
        above.append((depth, name))
    return parents


def test_docstring_draws_the_classes() -> None:
    """Every class stands in the drawing, below its base class."""
    expected = {kind.__name__: kind.__bases__[0].__name__ for kind in ERRORS}
    del expected["DaskprsError"]
    assert documented_tree() == expected


@pytest.mark.parametrize("kind", ERRORS)
def test_facts_survive_pickling(kind: type[DaskprsError]) -> None:
    """A pickled and a copied error have the message, the facts and the notes of the first."""
    error = kind("what happened", field="x", value=[1], script_traceback="Traceback")
    error.add_note("more")
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(other) is kind
        assert str(other) == str(error)
        assert (other.message, other.field, other.value) == ("what happened", "x", [1])
        assert other.__notes__ == ["more"]


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_says_what_it_is_for(kind: type[DaskprsError]) -> None:
    """Each class has a docstring of its own, and is one of two kinds."""
    assert kind.__doc__
    assert kind is DaskprsError or issubclass(kind, UsageError) != issubclass(kind, RunFailedError)
    assert issubclass(kind, ValueError) == issubclass(kind, UsageError)


def test_message_of_a_field() -> None:
    """All fields share one form of message, and the facts are attributes."""
    error = ConfigError.of("run_max_try", 0, "a whole number of at least 1, such as 3")
    assert str(error) == (
        "run_max_try=0 is not accepted: it must be a whole number of at least 1, such as 3."
    )
    assert (error.field, error.value) == ("run_max_try", 0)


def test_traceback_of_the_script_comes_first() -> None:
    """Users see their own error before what it led to."""
    error = EntryScriptError("the run stopped", script_traceback="Traceback ...\nKeyError: 'x'\n")
    assert str(error) == "Traceback ...\nKeyError: 'x'\n\nthe run stopped"
    assert str(EntryScriptError("the run stopped")) == "the run stopped"
