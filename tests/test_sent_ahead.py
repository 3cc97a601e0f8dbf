"""Mini-batches that are sent to an entry process ahead of time: nothing is lost, doubled, moved."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from entry_hosts import Hosted, hosted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daskprs.attempts import Limits, try_mini_batches
from daskprs.entry_process import conversation
from daskprs.entry_process.conversation import Conversation
from daskprs.mini_batches import FilePaths, MiniBatch
from daskprs.outcomes import Outcome

# A mini-batch is named "7-what", or "7-what:1" where it does that in its first try only.
SCRIPT = """
import os, threading, time
from calls import count

ORDER = os.path.join(os.environ["CALLS"], "order")

def init():
    count("init")

def leave_soon():
    time.sleep(0.05)
    os._exit(5)

def run(mini_batch):
    name = mini_batch[0]
    what, _, times = name.partition("-")[2].partition(":")
    with open(ORDER, "a") as stream:
        stream.write(name + "\\n")
    if count(name) > int(times or 1000):
        return mini_batch
    if what == "raise": raise ValueError(name)
    if what == "die": os._exit(3)
    if what == "hang": time.sleep(1000)
    if what == "slow": time.sleep(0.15)
    if what == "nap": time.sleep(0.001)
    if what == "large":
        time.sleep(0.005)
        return ["x" * 500_000]
    if what == "short": return []
    if what == "leave": threading.Thread(target=leave_soon, daemon=True).start()
    if what == "pause": time.sleep(0.2)
    return mini_batch
"""


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """The host lives longer than a test; `hosted` itself looks for what is left behind."""


@pytest.fixture(scope="module")
def shared() -> Iterator[Hosted]:
    with hosted(SCRIPT) as made:
        yield made


class Group:
    """Runs one group, and tells which calls of run() it made."""

    def __init__(self, host: Hosted) -> None:
        self.host = host
        self.order = host.folder / "calls" / "order"
        self.warm_up()

    def warm_up(self) -> None:
        """Let the process run something quick, so that it is sent mini-batches ahead."""
        self.run(["w-ok", "w-ok"])

    def run(
        self, names: Sequence[str], *, tries: int = 2, stop: bool = False, budget: float = 100
    ) -> list[Outcome]:
        for path in (self.host.folder / "calls").iterdir():
            path.unlink()
        mini_batches = [batch(index, name) for index, name in enumerate(names)]
        with self.host.host.slot(5) as slot:
            limits = Limits(tries, 0.4, 30)
            host = self.host.host
            found = list(try_mini_batches(host, slot, mini_batches, limits, stop, budget))
            assert not slot.is_ahead
            return found

    @property
    def calls(self) -> list[str]:
        return self.order.read_text().split() if self.order.exists() else []


def batch(index: int, name: str) -> MiniBatch:
    return MiniBatch(index, f"{index:016x}", FilePaths((name,)), 1, None)


def rows(outcomes: Sequence[Outcome]) -> list[str]:
    return [o.rows.payload.decode().strip() if o.rows else "" for o in outcomes]


def statuses(outcomes: Sequence[Outcome]) -> list[str]:
    return [",".join(a.status for a in o.attempts) for o in outcomes]


def test_quick_mini_batches_are_sent_ahead_and_answered_in_order(shared: Hosted) -> None:
    group = Group(shared)
    names = [f"{n}-ok" for n in range(200)]
    assert rows(group.run(names)) == names
    assert group.calls == names


BAD = {
    "raise:1": ("RUN_EXCEPTION,RUN_DONE", 0),
    "raise": ("RUN_EXCEPTION,RUN_EXCEPTION", 0),
    "die:1": ("PROCESS_DIED,RUN_DONE", 1),
    "die": ("PROCESS_DIED,PROCESS_DIED", 2),
    "hang:1": ("RUN_TIMEOUT,RUN_DONE", 1),
    "short": ("RUN_DONE", 0),
    "slow": ("RUN_DONE", 0),
}


def test_answers_of_a_quick_process_are_taken_together(
    shared: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker does not wait for each answer, and never for longer than a moment."""
    group = Group(shared)
    pauses = pauses_of(monkeypatch)
    outcomes = group.run([f"{n}-nap" for n in range(200)])
    assert [outcome.failed for outcome in outcomes] == [False] * 200
    assert 0 < len(pauses) < 150
    assert all(0.001 <= pause <= 0.016 for pause in pauses)


def test_a_process_does_not_wait_until_its_large_answers_are_taken(
    shared: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket holds little: what does not fit in keeps the process from its next mini-batch."""
    group = Group(shared)
    group.run([f"{n}-large" for n in range(2)])
    pauses = pauses_of(monkeypatch)
    outcomes = group.run([f"{n}-large" for n in range(30)])
    assert [outcome.failed for outcome in outcomes] == [False] * 30
    assert pauses == []


def pauses_of(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        time.sleep(seconds)

    clock = SimpleNamespace(monotonic=time.monotonic, sleep=sleep)
    monkeypatch.setattr(conversation, "time", clock)
    return pauses


@pytest.mark.parametrize("what", BAD)
def test_a_bad_one_in_the_middle_is_tried_at_once_and_the_others_once(
    shared: Hosted, what: str
) -> None:
    """What was sent ahead of it is not begun before its tries are over, and costs no try."""
    group = Group(shared)
    names = [f"{n}-ok" for n in range(20)]
    names[7] = f"7-{what}"
    found = group.run(names)
    expected, processes = BAD[what]
    assert statuses(found) == ["RUN_DONE"] * 7 + [expected] + ["RUN_DONE"] * 12
    tries = len(expected.split(","))
    assert group.calls == names[:7] + [names[7]] * tries + names[8:]
    assert shared.calls("init") == processes


def test_after_a_slow_one_nothing_is_sent_ahead_until_one_is_quick(shared: Hosted) -> None:
    """What the process would only throw away again is not packed."""
    Group(shared)
    whats = ("slow", "slow", "ok", "ok", "ok")
    mini_batches = [batch(index, f"{index}-{what}") for index, what in enumerate(whats)]
    with shared.host.slot(5) as slot:
        was_ahead = [
            slot.is_ahead
            for _ in try_mini_batches(shared.host, slot, mini_batches, Limits(2, 5, 30), False, 100)
        ]
    # The third is the first that is quick: with the fourth goes the last.
    assert was_ahead == [False, False, False, True, False]


def test_a_death_that_comes_before_its_turn_costs_a_try(shared: Hosted) -> None:
    """The worker is slow, and asks for a mini-batch that has killed the process long ago."""
    group = Group(shared)
    mini_batches = [batch(0, "0-ok"), batch(1, "1-die"), batch(2, "2-ok")]
    with shared.host.slot(5) as slot:
        tried = try_mini_batches(shared.host, slot, mini_batches, Limits(2, 5, 30), False, 100)
        found = [next(tried)]
        time.sleep(0.3)
        found += tried
    assert statuses(found) == ["RUN_DONE", "PROCESS_DIED,PROCESS_DIED", "RUN_DONE"]
    assert group.calls[2:] == ["0-ok", "1-die", "1-die", "2-ok"]


def test_what_was_answered_before_a_death_counts_also_to_a_slow_worker(
    shared: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sending to a process that is gone fails while its last answers wait to be read."""
    send_ahead = Conversation.send_ahead

    def slowly(*given: Any) -> None:
        time.sleep(0.005)
        send_ahead(*given)

    monkeypatch.setattr(Conversation, "send_ahead", slowly)
    group = Group(shared)
    names = [f"{n}-ok" for n in range(300)]
    for number in (70, 103, 104, 200):
        names[number] = f"{number}-die"
    found = group.run(names, tries=1)
    assert group.calls == names
    died = [names[o.index] for o in found if o.failed]
    assert died == [name for name in names if name.endswith("die")]


@pytest.mark.parametrize("what", ["raise", "short", "die"])
def test_nothing_is_begun_after_a_failure_that_thresholds_have_to_know_of(
    shared: Hosted, what: str
) -> None:
    group = Group(shared)
    names = [f"{n}-ok" for n in range(20)]
    names[7] = f"7-{what}"
    found = group.run(names, tries=1, stop=True)
    time.sleep(0.1)
    assert len(found) == 8
    assert group.calls == names[:8]
    assert rows(group.run(["8-ok", "9-ok"], stop=True)) == ["8-ok", "9-ok"]


def test_after_a_slow_one_the_others_can_go_elsewhere(shared: Hosted) -> None:
    """The budget of the group is used up by one that nobody expected to take so long."""
    group = Group(shared)
    names = ["0-ok", "1-ok", "2-slow", "3-ok", "4-ok"]
    found = group.run(names, budget=0.1)
    time.sleep(0.1)
    assert rows(found) == names[:3]
    assert group.calls == names[:3]


def test_a_process_that_dies_between_two_mini_batches_costs_no_try(shared: Hosted) -> None:
    """A thread of the script ends it while others have been sent ahead already."""
    group = Group(shared)
    names = [f"{n}-leave" if n == 3 else f"{n}-ok" for n in range(2000)]
    found = group.run(names, tries=1)
    told = statuses(found)
    # Only the one that it was at can have failed by it.
    assert told.count("RUN_DONE") >= len(names) - 1
    assert set(told) <= {"RUN_DONE", "PROCESS_DIED"}
    lost = [name for name, status in zip(names, told, strict=True) if status != "RUN_DONE"]
    assert group.calls in (names, [name for name in names if name not in lost])  # in loading
    assert shared.calls("init") == 1


class Unreadable(FilePaths):
    """Arrives, but cannot be unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("not a number",)


def test_a_piece_that_cannot_be_read_ahead_fails_alone(shared: Hosted) -> None:
    group = Group(shared)
    mini_batches = [batch(index, f"{index}-ok") for index in range(20)]
    for index in (5, 6):
        piece = Unreadable(("unreadable",))
        mini_batches[index] = MiniBatch(index, f"{index:016x}", piece, 1, None)
    with shared.host.slot(5) as slot:
        found = list(
            try_mini_batches(shared.host, slot, mini_batches, Limits(2, 5, 30), False, 100)
        )
    failed = "LOAD_EXCEPTION,LOAD_EXCEPTION"
    assert statuses(found) == ["RUN_DONE"] * 5 + [failed] * 2 + ["RUN_DONE"] * 13
    assert group.calls[2:] == [f"{index}-ok" for index in range(20) if index not in (5, 6)]


def test_a_group_that_ends_early_leaves_nothing_in_the_process(shared: Hosted) -> None:
    """Whoever stops asking, such as after an error, must not leave answers for the next group."""
    group = Group(shared)
    mini_batches = [batch(index, f"{index}-ok") for index in range(20)]
    with shared.host.slot(5) as slot:
        tried = try_mini_batches(shared.host, slot, mini_batches, Limits(2, 5, 30), False, 100)
        assert next(tried).index == 0
        assert slot.is_ahead
        tried.close()
    assert rows(group.run(["a-ok", "b-ok"])) == ["a-ok", "b-ok"]


WHAT = st.sampled_from(["ok"] * 8 + ["raise", "raise:1", "die", "die:1", "slow", "short"])


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(WHAT, min_size=1, max_size=40), st.integers(1, 2))
def test_whatever_happens_calls_are_those_of_one_mini_batch_after_the_other(
    shared: Hosted, whats: list[str], tries: int
) -> None:
    names = [f"{index}-{what}" for index, what in enumerate(whats)]
    group = Group(shared)
    found = group.run(names, tries=tries)
    calls, told = [], []
    for name, what in zip(names, whats, strict=True):
        bad = what in ("raise", "die") or (what in ("raise:1", "die:1") and tries == 1)
        calls += [name] * (tries if what in ("raise", "die") else 1 + (":1" in what and tries > 1))
        told.append("" if bad or what == "short" else name)
    assert group.calls == calls
    assert rows(found) == told
