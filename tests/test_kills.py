"""Whatever is killed, whenever: after the same command again, each row is in the output once."""

from __future__ import annotations

import pytest
from kills import VICTIMS, run_trials
from object_stores import KINDS


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_sixty_seeded_trials_lose_and_double_no_row() -> None:
    """Driver, entry process, worker, nanny and scheduler; text, csv, jsonl and parquet."""
    table = run_trials(range(1000, 1060))
    assert set(table) == set(VICTIMS)
    assert sum(counts["trials"] for counts in table.values()) == 60
    assert sum(counts["lost"] + counts["doubled"] for counts in table.values()) == 0


@pytest.mark.chaos
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("store", KINDS)
def test_trials_with_the_output_in_a_store_lose_and_double_no_row(store: str) -> None:
    """Twenty: each victim with each format."""
    table = run_trials(range(2000, 2020), store)
    assert set(table) == set(VICTIMS)
    assert sum(counts["lost"] + counts["doubled"] for counts in table.values()) == 0


@pytest.mark.timeout(240)
@pytest.mark.parametrize("number", [0, 7, 10])
def test_a_kill_loses_and_doubles_no_row(number: int) -> None:
    """One trial of each kind; `make chaos` runs hundreds."""
    (counts,) = run_trials(range(number, number + 1)).values()
    assert (counts["lost"], counts["doubled"]) == (0, 0)
