"""Numbers in messages, as people say them."""

from __future__ import annotations

from typing import Any

import pytest

from daskprs.config import ParallelRunConfig
from daskprs.outcomes import Counts, Tally, threshold_exceeded
from daskprs.report import Failure, RunReport, say_completed
from daskprs.wording import counted


@pytest.mark.parametrize(
    ("count", "words", "said"),
    [
        (0, ("item",), "0 items"),
        (1, ("item",), "1 item"),
        (2, ("item",), "2 items"),
        (1, ("mini-batch",), "1 mini-batch"),
        (1797, ("mini-batch",), "1,797 mini-batches"),
        (1, ("worker has", "workers have"), "1 worker has"),
        (3, ("worker has", "workers have"), "3 workers have"),
    ],
)
def test_one_is_not_told_as_several(count: int, words: tuple[str, ...], said: str) -> None:
    assert counted(count, *words) == said


def test_a_completed_run_of_one_mini_batch_is_told_as_one() -> None:
    tally = Tally(Counts(1, 0, 1), Counts(1, 0, 1))
    assert say_completed(tally) == ("1 mini-batch is done, 1 of them failed, 1 of 1 item failed.")
    assert say_completed(Tally(Counts(2, 2, 0))) == "2 mini-batches are done."


def test_a_report_of_one_failed_item_and_one_kept_mini_batch_is_told_as_one() -> None:
    failure = Failure(mini_batch=0, items=1, error="ValueError: bad\nmore", tries=3, input="a.txt")
    report = RunReport("one", status="Completed", kept=1, failures=[failure])
    assert "Kept          1 mini-batch that was done before" in str(report)
    assert "  failed      1 item of a.txt: ValueError: bad" in str(report)
    assert "1 item of a.txt" in report._repr_html_()


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"error_threshold": 0}, "1 failed item exceeds error_threshold=0"),
        ({"allowed_failed_count": 0}, "1 failed mini-batch exceeds allowed_failed_count=0"),
        ({"allowed_failed_percent": 50}, "1 of 1 mini-batch failed, 100 percent, which exceeds"),
    ],
)
def test_one_failure_exceeds_a_limit(tmp_path: Any, limits: dict[str, Any], said: str) -> None:
    script = tmp_path / "score.py"
    script.write_text("def run(mini_batch): return mini_batch")
    config = ParallelRunConfig(entry_script=script, **limits)
    why = threshold_exceeded(config, Tally(Counts(1, 0, 1), Counts(1, 0, 1)), planned=1)
    assert why is not None
    assert why.startswith(said)
