"""The list of failed items: what is certain, and what nobody can know."""

from __future__ import annotations

import json
from typing import Any

import pytest
from test_retry_failed import COUNT, completed, make_step, numbers


def doubts(workplace: Any) -> dict[int, Any]:
    """Tell of each item in the list of failed ones whether it is certain, or how many failed."""
    lines = (workplace.output / "logs/failed_items.jsonl").read_text().splitlines()
    items = [json.loads(line) for line in lines]
    assert all(("failed" in item) == ("of" in item) == (not item["certain"]) for item in items)
    return {
        int(item["path"][-9:-4]): item["certain"] or (item["failed"], item["of"]) for item in items
    }


def test_the_list_of_failed_items_says_where_nobody_knows_which(workplace: Any) -> None:
    """After too few results: 2 of 4 of one call; after none, or a failure, all have failed."""
    bad = {0: "short", 3: "short", **dict.fromkeys(range(4, 8), "short"), 8: "raise"}
    completed(make_step(workplace, bad, output_format="text"))
    certain = dict.fromkeys(range(4, 12), True)
    assert doubts(workplace) == {**dict.fromkeys(range(4), (2, 4)), **certain}


@pytest.mark.parametrize("fault", ["short", "raise"])
def test_a_retry_in_which_more_fail_tells_what_has_failed_of_the_rows_that_stay(
    workplace: Any, fault: str
) -> None:
    first = completed(make_step(workplace, {0: "short"}))
    worse = completed(make_step(workplace, dict.fromkeys(range(1, 4), fault)), retry=True)
    assert numbers(first) == numbers(worse) == list(range(1, COUNT))
    assert worse.report.failures[0].items == worse.report.items.failed == 1
    assert doubts(workplace) == dict.fromkeys(range(4), (1, 4))


def test_a_failure_of_a_kept_mini_batch_is_told_as_before(workplace: Any) -> None:
    """Also after another start of the run, which has the rest to do."""
    bad = {1: "short", 5: "raise", 6: "short"}
    config = {"split_failed_mini_batches": True, "error_threshold": 0}
    first = make_step(workplace, bad, **config).submit()
    assert first.wait_for_completion(raise_on_error=False) == "Failed"
    told = [str(failure) for failure in first.report.failures]
    assert told[0].endswith("f00000.bin and 3 more: run() returned 3 of 4 results.")
    config["error_threshold"] = -1
    # What has not failed as a whole is kept, with what had failed of it.
    last = completed(make_step(workplace, bad, **config))
    assert last.report.kept == len(told)
    assert [str(failure) for failure in last.report.failures][: len(told)] == told


def test_parts_of_a_mini_batch_have_doubts_of_their_own(workplace: Any) -> None:
    config = {"split_failed_mini_batches": True}
    completed(make_step(workplace, {4: "raise", 6: "short"}, **config))
    assert doubts(workplace) == {4: True, 6: (1, 2), 7: (1, 2)}
    lines = (workplace.output / "logs/failed_items.jsonl").read_text().splitlines()
    completed(make_step(workplace, {4: "raise", 6: "raise", 7: "raise"}, **config), retry=True)
    assert doubts(workplace) == {4: True, 6: (1, 2), 7: (1, 2)}
    again = (workplace.output / "logs/failed_items.jsonl").read_text().splitlines()
    whys = [[json.loads(line)["error"].splitlines()[0] for line in told] for told in (lines, again)]
    assert whys[0] == ["ValueError: item 4", *["run() returned 1 of 2 results."] * 2]
    assert whys[1] == ["ValueError: item 4", *["ValueError: item 6"] * 2]
