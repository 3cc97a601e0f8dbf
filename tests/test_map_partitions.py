"""Tests of an entry script as a lazy step: what it gets, returns and how often it is called."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import dask
import pandas as pd
import pytest
from conftest import Workplace
from lazy_steps import COUNTING, EXPECTED, FRAME, META, frame_of

from daskprs import map_partitions, shared_hosts
from daskprs.datasets import TabularDataset
from daskprs.exceptions import (
    InitFailedError,
    MiniBatchFailedError,
)
from daskprs.shared_hosts import close_hosts


@pytest.fixture(scope="module", autouse=True)
def resource_tracker() -> None:
    """Start Python's own helper of multiprocessing, which lives as long as this process."""
    from multiprocessing.resource_tracker import ensure_running

    ensure_running()


@pytest.fixture(autouse=True)
def closed_hosts() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield
    close_hosts()


# --- Calls ------------------------------------------------------------------------------------


def test_nothing_runs_before_it_computes(workplace: Workplace) -> None:
    """Defining the step neither imports the script nor calls it, nor does more of the graph."""
    scored = map_partitions(frame_of(), workplace.script(COUNTING), meta=META)
    lazy = scored[scored.y > 1].y.sum()
    assert scored.npartitions == 4
    assert scored.dtypes.astype(str).to_dict() == META
    assert not list(workplace.calls.iterdir())
    assert lazy.compute() == EXPECTED[EXPECTED.y > 1].y.sum()
    assert workplace.count("run") == 4


@pytest.mark.parametrize(("scheduler", "most"), [("synchronous", 1), ("threads", 2)])
def test_one_call_for_each_partition(workplace: Workplace, scheduler: str, most: int) -> None:
    """run() is called once for each partition, init() once for each process that was needed."""
    scored = map_partitions(frame_of(), workplace.script(COUNTING), meta=META)
    with dask.config.set(scheduler=scheduler, num_workers=2):
        pd.testing.assert_frame_equal(scored.compute(), EXPECTED)
        pd.testing.assert_frame_equal(scored.compute(), EXPECTED)
    assert workplace.count("run") == 8
    assert [workplace.count(f"run of {number}") for number in range(4)] == [2] * 4
    assert 1 <= workplace.count("init") == workplace.count("import") <= most
    close_hosts()
    assert workplace.count("shutdown") == workplace.count("init")


def test_scheduler_of_processes(workplace: Workplace) -> None:
    """Processes of Dask have entry processes of their own, which end with them."""
    scored = map_partitions(frame_of(), workplace.script(COUNTING), meta=META)
    with dask.config.set(scheduler="processes", num_workers=2):
        pd.testing.assert_frame_equal(scored.compute(), EXPECTED)
    assert workplace.count("run") == 4
    assert 1 <= workplace.count("init") <= 2
    deadline = time.monotonic() + 10
    while workplace.count("shutdown") < workplace.count("init"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_number_of_processes_can_be_limited(workplace: Workplace) -> None:
    """With one process, threads of Dask wait for it."""
    script = workplace.script(COUNTING)
    scored = map_partitions(frame_of(), script, meta=META, process_count_per_node=1)
    with dask.config.set(scheduler="threads", num_workers=3):
        pd.testing.assert_frame_equal(scored.compute(), EXPECTED)
    assert workplace.count("init") == 1


def test_same_script_shares_its_processes(workplace: Workplace) -> None:
    """Two steps with the same script, also written anew, use the same processes."""
    for _ in range(2):
        map_partitions(frame_of(1), workplace.script(COUNTING), meta=META).compute()
        script = workplace.folder / "scripts/score.py"
        os.utime(script, ns=(1, 1))
    assert workplace.count("init") == 1
    workplace.script(COUNTING + "    # changed\n")
    map_partitions(frame_of(1), script, meta=META).compute()
    assert workplace.count("init") == 2


def test_empty_partitions_are_not_run(workplace: Workplace) -> None:
    """A partition without rows has the columns of meta, and the script is not bothered."""
    frame = frame_of(4)
    scored = map_partitions(frame[frame.x >= 9], workplace.script(COUNTING), meta=META)
    pd.testing.assert_frame_equal(scored.compute(), EXPECTED.iloc[9:])
    assert workplace.count("run") == 1


def test_idle_processes_end(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    """When no partition has come for a while, shutdown() is called and the processes end."""
    monkeypatch.setattr(shared_hosts, "_IDLE_SECONDS", 0.2)
    scored = map_partitions(frame_of(), workplace.script(COUNTING), meta=META)
    scored.compute()
    deadline = time.monotonic() + 10
    while workplace.count("shutdown") < 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    pd.testing.assert_frame_equal(scored.compute(), EXPECTED)
    assert workplace.count("init") == 2


def test_nothing_is_left_when_the_program_ends(workplace: Workplace) -> None:
    """At the end of a program the entry processes are shut down and their folders removed."""
    script = workplace.script(COUNTING)
    temporary = workplace.folder / "tmp"
    temporary.mkdir()
    program = f"""
        import dask.dataframe as dd, pandas as pd
        from daskprs import map_partitions
        frame = dd.from_pandas(pd.DataFrame({{"x": range(4)}}), npartitions=2)
        scored = map_partitions(frame, {str(script)!r}, meta={META!r})
        print(scored.y.sum().compute(scheduler="threads"))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "3.0", done.stderr
    assert done.stderr == ""
    assert workplace.count("shutdown") == workplace.count("init") >= 1
    assert list(temporary.iterdir()) == []


# --- Clusters ---------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["nannies", "threads"])
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=request.param == "nannies",
            dashboard_address=":0",
            worker_dashboard_address=":0",
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def on_cluster(client: Any) -> Iterator[Any]:
    with client.as_current(), dask.config.set(scheduler=client.get):
        yield client
    client.run(close_hosts)


def test_cluster(workplace: Workplace, on_cluster: Any) -> None:
    """On a cluster every worker has its own process, and no need of the script's folder."""
    script = workplace.script(COUNTING)
    scored = map_partitions(frame_of(6), script, meta=META)
    shutil.rmtree(script.parent)
    pd.testing.assert_frame_equal(scored.compute(), EXPECTED)
    assert workplace.count("run") == 6
    assert 1 <= workplace.count("init") <= 2
    persisted = scored.persist()
    assert persisted.y.sum().compute() == EXPECTED.y.sum()
    assert persisted.x.sum().compute() == EXPECTED.x.sum()
    assert workplace.count("run") == 12


def test_tables_on_a_cluster(workplace: Workplace, on_cluster: Any) -> None:
    """Parts of a large file, and where it is cut, are read by the workers."""
    path = workplace.folder / "in.csv"
    FRAME.to_csv(path, index=False)
    ddf = TabularDataset(path).to_dask_dataframe(10)
    assert ddf.npartitions > 3
    pd.testing.assert_frame_equal(
        ddf.compute().reset_index(drop=True), FRAME.reset_index(drop=True)
    )


def test_errors_come_through_a_cluster(workplace: Workplace, on_cluster: Any) -> None:
    """The error that the client gets is that of the script."""
    script = workplace.script("def run(mini_batch):\n    mark('run')\n    raise KeyError('lost')\n")
    scored = map_partitions(frame_of(1), script, meta=META, run_max_try=2)
    with pytest.raises(MiniBatchFailedError, match="KeyError: 'lost'"):
        scored.compute()
    assert workplace.count("run") == 2


# --- Failures ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "options", "calls", "says"),
    [
        ("raise ValueError('no')", {}, 3, "ValueError: no"),
        ("raise ValueError('no')", {"run_max_try": 1}, 1, "try 1 of 1"),
        ("os._exit(3)", {"run_max_try": 2}, 2, "exit code 3"),
        ("import time; time.sleep(60)",
         {"run_max_try": 2, "run_invocation_timeout": 0.3}, 2, "run_invocation_timeout=0.3"),
        ("return None", {"run_max_try": 2}, 2, "run() returned None"),
        ("return 'text'", {"run_max_try": 1}, 1, "type str"),
        ("return [lambda: 1]", {"run_max_try": 1}, 1, "cannot leave its process"),
    ],
)  # fmt: skip
def test_failing_run(
    workplace: Workplace, body: str, options: dict[str, Any], calls: int, says: str
) -> None:
    """A mini-batch that fails is tried so often, then its error is raised, traceback first."""
    script = workplace.script(f"def run(mini_batch):\n    mark('run')\n    {body}\n")
    scored = map_partitions(frame_of(1), script, meta=META, **options)
    with pytest.raises(MiniBatchFailedError) as caught:
        scored.compute()
    assert workplace.count("run") == calls
    assert says in str(caught.value)
    assert "partition 0" in str(caught.value)
    if "ValueError" in says:
        assert str(caught.value).startswith("Traceback (most recent call last):")
        assert caught.value.script_traceback.rstrip().endswith("ValueError: no")


def test_failed_try_is_made_good(workplace: Workplace) -> None:
    """What fails now and then succeeds in a later try, and comes once."""
    script = workplace.script("""
        def run(mini_batch, context):
            mark(f"run {context.minibatch_index}")
            if marks(f"run {context.minibatch_index}") < 3:
                raise OSError("busy")
            return mini_batch[["x"]].assign(y=mini_batch.x / 2)
        """)
    scored = map_partitions(frame_of(2), script, meta=META)
    pd.testing.assert_frame_equal(scored.compute(), EXPECTED)
    assert [workplace.count(f"run {number}") for number in (0, 1)] == [3, 3]


@pytest.mark.parametrize(
    ("text", "calls", "says"),
    [
        ("def init():\n    mark('init')\n    raise OSError('no model')\ndef run(m): return m\n",
         3, "OSError: no model"),
        ("mark('init')\nimport no_such_module\ndef run(m): return m\n", 3, "no_such_module"),
        ("import time\ndef init():\n    mark('init')\n    time.sleep(60)\ndef run(m): return m\n",
         3, "init_timeout=0.5"),
    ],
)  # fmt: skip
def test_failing_init(workplace: Workplace, text: str, calls: int, says: str) -> None:
    """A script that cannot be started in three processes is an error with its traceback."""
    scored = map_partitions(frame_of(1), workplace.script(text), meta=META, init_timeout=0.5)
    with pytest.raises(InitFailedError) as caught:
        scored.compute()
    assert workplace.count("init") == calls
    assert says in str(caught.value)
    assert "score.py" in str(caught.value)
