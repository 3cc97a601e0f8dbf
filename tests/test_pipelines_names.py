"""The public names of pipelines: sorted, documented, and with examples that are true."""

from __future__ import annotations

import doctest
import inspect

import pytest

from daskprs import pipelines


def test_names_are_sorted() -> None:
    assert list(pipelines.__all__) == sorted(set(pipelines.__all__))


@pytest.mark.parametrize("name", pipelines.__all__)
def test_a_name_has_a_docstring_and_its_examples_are_true(name: str) -> None:
    value = getattr(pipelines, name)
    text = inspect.cleandoc(value.__doc__ or "")
    assert text.partition("\n\n")[0].endswith(".")
    assert not text.startswith(f"{name}("), "only the docstring of a dataclass"
    test = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    told: list[str] = []
    assert doctest.DocTestRunner().run(test, out=told.append).failed == 0, "".join(told)


@pytest.mark.parametrize("name", pipelines.__all__)
def test_public_methods_have_docstrings_or_say_it_all_by_their_names(name: str) -> None:
    """Those without one have at most a parameter."""
    for method, value in vars(getattr(pipelines, name)).items():
        if inspect.isfunction(value) and not method.startswith("_"):
            few = len(inspect.signature(value).parameters) <= 2
            assert value.__doc__ or few, f"{name}.{method} has no docstring"
