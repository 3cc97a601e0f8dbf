"""Expressions are found wherever they stand, and nothing else changes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from daskprs.yaml_jobs.expressions import (
    Reference,
    references,
    substitute,
    whole,
    without_missing,
)

names = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,8}", fullmatch=True)
plain = st.text(st.characters(exclude_characters="${}[]"), max_size=12)
blanks = st.sampled_from(["", " ", "  "])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(plain, names, blanks), max_size=5), plain)
def test_each_expression_becomes_its_value(found: list[tuple[str, str, str]], end: str) -> None:
    text = "".join(f"{before}${{{{{gap}inputs.{name}{gap}}}}}" for before, name, gap in found)
    wanted = "".join(f"{before}<{name}>" for before, name, _ in found)
    assert substitute(text + end, lambda reference: f"<{reference.names[0]}>") == wanted + end
    assert [one.names for one in references(text + end)] == [(name,) for _, name, _ in found]


@settings(max_examples=50, deadline=None)
@given(names, names, blanks)
def test_a_text_of_one_expression_is_that(job: str, name: str, gap: str) -> None:
    text = f"{gap}${{{{ parent.jobs.{job}.outputs.{name} }}}}{gap}"
    assert whole(text) == Reference("parent.jobs", (job, name), text.strip())
    assert whole(f"x{text}") is None


def test_a_block_of_a_missing_input_is_left_out() -> None:
    text = "a $[[--b ${{inputs.b}}]] $[[--c ${{inputs.c}}]] d"
    assert without_missing(text, {"b"}) == "a  --c ${{inputs.c}} d"
