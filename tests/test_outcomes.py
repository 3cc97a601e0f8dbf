"""How items are counted, and when failures are too many, against the rules said plainly."""

from __future__ import annotations

import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daskprs.config import ParallelRunConfig
from daskprs.outcomes import Counts, Outcome, Tally, distinct, located, threshold_exceeded

COUNTS = st.integers(0, 1000)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "score.py"
    path.write_text("def run(mini_batch): return mini_batch")
    return path


def outcome(total: int, returned: int, failed: bool = False) -> Outcome:
    return Outcome(
        index=0, key="k", label="l", total=total, returned=returned, failed=failed, rows=None,
        attempts=(),
    )  # fmt: skip


@given(COUNTS, COUNTS)
def test_succeeded_is_the_lesser_of_results_and_items(total: int, returned: int) -> None:
    """More results than items are legal; the items that are missing have failed."""
    counted = outcome(total, returned)
    assert counted.succeeded_items == (returned if returned < total else total)
    assert counted.failed_items == total - counted.succeeded_items
    assert counted.failed_items >= 0


@given(COUNTS)
def test_all_items_of_a_failed_mini_batch_have_failed(total: int) -> None:
    assert outcome(total, 0, failed=True).failed_items == total


@given(st.lists(st.tuples(COUNTS, COUNTS, st.booleans()), max_size=20), st.integers(0, 20))
def test_a_tally_counts_mini_batches_and_items_in_any_order_and_in_parts(
    batches: list[tuple[int, int, bool]], cut: int
) -> None:
    outcomes = [outcome(total, 0 if failed else got, failed) for total, got, failed in batches]
    parts = [outcomes[:cut], outcomes[cut:]]
    tallies = []
    for part in parts:
        tally = Tally()
        for one in part:
            tally.add(total=one.total, succeeded=one.succeeded_items, failed=one.failed)
        tallies.append(tally)
    failed = sum(one.failed for one in outcomes)
    failed_items = sum(one.failed_items for one in outcomes)
    items = sum(one.total for one in outcomes)
    assert tallies[0] + tallies[1] == Tally(
        mini_batches=Counts(len(outcomes), len(outcomes) - failed, failed),
        items=Counts(items, items - failed_items, failed_items),
    )
    assert tallies[0] + tallies[1] == tallies[1] + tallies[0]


def tally_of(failed_items: int, failed_batches: int) -> Tally:
    batches = Counts(failed_batches + 7, 7, failed_batches)
    return Tally(batches, Counts(failed_items + 9, 9, failed_items))


def exceeded_as_specified(config: ParallelRunConfig, tally: Tally, planned: int | None) -> bool:
    """Exceeding any one of the thresholds aborts; strictly more, and -1 never."""
    items, batches = tally.items.failed, tally.mini_batches.failed
    too_many_items = config.error_threshold != -1 and items > config.error_threshold
    count = config.allowed_failed_count
    too_many_batches = count is not None and count != -1 and batches > count
    percent = config.allowed_failed_percent
    too_large_a_part = (
        percent is not None
        and planned is not None  # every mini-batch has been scheduled
        and planned > 0
        and Fraction(100 * batches, planned) > Fraction(str(percent))
    )
    return too_many_items or too_many_batches or too_large_a_part


@given(
    error_threshold=st.integers(-1, 5),
    count=st.none() | st.integers(-1, 5),
    percent=st.none() | st.integers(0, 100) | st.decimals(0, 100, places=2).map(float),
    failed_items=st.integers(0, 7),
    failed_batches=st.integers(0, 7),
    more=st.none() | st.integers(0, 2000),
)
@example(-1, None, 32.3, 0, 323, 677)
@example(-1, None, 0, 0, 1, 10**9)
@example(-1, None, 100, 0, 5, 0)
def test_thresholds_are_exceeded_as_specified(
    script: Path,
    error_threshold: int,
    count: int | None,
    percent: float | None,
    failed_items: int,
    failed_batches: int,
    more: int | None,
) -> None:
    config = ParallelRunConfig(
        entry_script=script,
        error_threshold=error_threshold,
        allowed_failed_count=count,
        allowed_failed_percent=percent,
    )
    tally = tally_of(failed_items, failed_batches)
    planned = None if more is None else failed_batches + more
    why = threshold_exceeded(config, tally, planned=planned)
    assert (why is not None) == exceeded_as_specified(config, tally, planned)


LIMITS: list[tuple[dict[str, Any], tuple[int, int], int | None, str | None]] = [
    ({"error_threshold": 2}, (2, 9), None, None),
    ({"error_threshold": 2}, (3, 0), None, "3 failed items exceed error_threshold=2"),
    ({"error_threshold": 0}, (0, 0), None, None),
    ({"error_threshold": 0}, (1, 0), None, "1 failed item exceeds error_threshold=0"),
    ({"error_threshold": -1}, (10**9, 10**9), 10**9, None),
    ({"allowed_failed_count": 1}, (9, 1), None, None),
    ({"allowed_failed_count": 1}, (9, 2), None, "2 failed mini-batches exceed allowed_failed_co"),
    ({"allowed_failed_count": -1}, (9, 9), None, None),
    ({"allowed_failed_percent": 10}, (9, 9), None, None),
    ({"allowed_failed_percent": 10}, (9, 9), 90, None),
    ({"allowed_failed_percent": 10}, (9, 9), 89, "9 of 89 mini-batches failed, 10.11 percent"),
]


@pytest.mark.parametrize(("fields", "failed", "planned", "message"), LIMITS)
def test_a_threshold_is_exceeded_strictly_and_named_with_the_count(
    script: Path,
    fields: dict[str, Any],
    failed: tuple[int, int],
    planned: int | None,
    message: str | None,
) -> None:
    config = ParallelRunConfig(entry_script=script, **fields)
    why = threshold_exceeded(config, tally_of(*failed), planned=planned)
    assert why is None if message is None else (why is not None and message in why)


def test_the_percentage_is_not_looked_at_before_all_is_scheduled(script: Path) -> None:
    """One failure among the first few would abort a run that ends far below the limit."""
    config = ParallelRunConfig(entry_script=script, allowed_failed_percent=50)
    tally = Tally(Counts(1, 0, 1), Counts(10, 0, 10))
    assert threshold_exceeded(config, tally, planned=None) is None
    assert threshold_exceeded(config, tally, planned=1) is not None
    assert threshold_exceeded(config, tally, planned=0) is None


def test_the_first_failures_of_different_text_are_told_in_their_order() -> None:
    errors = [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4"), ("d", "5")]
    assert distinct(errors) == [("a", "1"), ("b", "2"), ("c", "4")]
    assert distinct(errors, most=1) == [("a", "1")]
    assert distinct([]) == []


def test_the_same_failure_in_another_place_is_told_once() -> None:
    errors = [(located("a\n[b]", f"mini-batch {i}"), "traceback") for i in range(3)]
    assert distinct([*errors, ("a", "2")]) == [errors[0], ("a", "2")]


def test_an_outcome_travels() -> None:
    assert pickle.loads(pickle.dumps(outcome(3, 2))) == outcome(3, 2)
