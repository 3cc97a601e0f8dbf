"""How many mini-batches ride in one task."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskprs.work import GROUP_SECONDS, MOST_IN_GROUP, TASKS_PER_SECOND, GroupSizer


def grown(each: float, slots: int, tasks: int = 20) -> GroupSizer:
    """Let a sizer see tasks of mini-batches that take `each` seconds."""
    sizer = GroupSizer()
    for _ in range(tasks):
        count = sizer.size(None, slots)
        sizer.saw(count, count * each, slots)
    return sizer


def test_a_group_grows_by_doubling() -> None:
    sizes = [grown(0.001, 2, tasks).size(None, 2) for tasks in range(5)]
    assert sizes == [1, 2, 4, 8, 16]


def test_a_group_makes_about_a_second_of_work_on_a_small_cluster() -> None:
    assert grown(0.01, 8).size(None, 8) == 100
    assert grown(0.6, 8).size(None, 8) == 1
    assert grown(3600.0, 8).size(None, 8) == 1
    assert grown(1e-6, 8).size(None, 8) == MOST_IN_GROUP


def test_a_large_cluster_does_not_get_more_tasks_than_a_scheduler_takes() -> None:
    for slots in (500, 1000, 4000):
        size = grown(1.0, slots).size(None, slots)
        assert slots / (size + 1) < TASKS_PER_SECOND  # rounded down
        assert GroupSizer.seconds(slots) >= size


def test_the_last_mini_batches_are_shared_by_all_processes() -> None:
    sizer = grown(0.001, 2)
    assert [sizer.size(left, 2) for left in (100_000, 400, 40, 4, 1, 0)] == [1000, 100, 10, 1, 1, 1]


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 1e6))),
    st.integers(0, 5000),
    st.one_of(st.none(), st.integers(0, 10**7)),
)
def test_a_group_is_never_empty_and_never_larger_than_allowed(
    seen: list[tuple[int, float]], slots: int, left: int | None
) -> None:
    sizer = GroupSizer()
    for count, seconds in seen:
        sizer.saw(count, seconds, slots)
    assert 1 <= sizer.size(left, slots) <= MOST_IN_GROUP
    assert GroupSizer.seconds(slots) >= GROUP_SECONDS


@pytest.mark.parametrize(("seconds", "is_quick"), [(0.0005, True), (0.0015, False)])
def test_mini_batches_of_less_than_a_millisecond_are_quick(seconds: float, is_quick: bool) -> None:
    sizer = GroupSizer()
    assert not sizer.is_quick, "nothing is known yet"
    for _ in range(10):
        sizer.saw(100, 100 * seconds, 2)
    assert sizer.is_quick == is_quick


@pytest.mark.parametrize(
    ("slots", "left", "size"),
    [(2, 1000, 100), (2, 100, 25), (2, 1, 1), (200, 800, 2), (1000, 8000, 500)],
)
def test_what_is_left_is_shared_out_but_not_in_small_tasks_on_a_large_cluster(
    slots: int, left: int, size: int
) -> None:
    """On 1,000 processes a task takes five seconds, also in the end."""
    assert grown(0.01, slots).size(left, slots) == size
