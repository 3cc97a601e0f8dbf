"""Tests of bringing the rows of each combination of keys together on a cluster."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import fsspec
import numpy as np
import pandas as pd
import pytest
from distributed import Client, Future, LocalCluster

from daskprs.buckets import Bucket
from daskprs.datasets import FrameDataset, TabularDataset
from daskprs.exceptions import (
    ClusterLostError,
    ConfigError,
    InputChangedError,
    RunCanceledError,
    RunFailedError,
)
from daskprs.partitioning import CombinationRows, Partitioned, combinations


def cluster(processes: bool, workers: int = 2) -> LocalCluster:
    return LocalCluster(
        processes=processes,
        n_workers=workers,
        threads_per_worker=1,
        dashboard_address=":0",
        silence_logs=50,
    )


@pytest.fixture(scope="module", autouse=True)
def helper_process() -> None:
    """Start the helper that Python keeps for all processes of multiprocessing."""
    resource_tracker.ensure_running()


@pytest.fixture(scope="module")
def here() -> Iterator[Client]:
    """Workers in this process."""
    with cluster(processes=False) as made, Client(made, set_as_default=False) as client:
        yield client


@pytest.fixture(scope="module")
def nannies() -> Iterator[Client]:
    """Workers in processes of their own."""
    with cluster(processes=True) as made, Client(made, set_as_default=False) as client:
        yield client


@pytest.fixture(scope="module", params=["here", "nannies"])
def client(request: pytest.FixtureRequest) -> Client:
    """Each kind of cluster; never the default client, as a user may have one of their own."""
    return request.getfixturevalue(request.param)


def go_on() -> None:
    """Let the work go on."""


def partition(client: Client, dataset: Any, *keys: str) -> Partitioned:
    return combinations(client, dataset, list(keys), check=go_on)


def frames_of(client: Client, found: Partitioned) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """Load the rows of all combinations, as tasks of the run do it."""
    frames = []
    for combination in found.combinations:
        piece = combination.piece()
        if isinstance(combination.bucket, Future):
            piece = client.submit(piece.bind, combination.bucket, pure=False).result()
        assert piece.count_items() == combination.rows == len(piece.load())
        frames.append((combination.values, piece.load()))
    return frames


def assert_as_pandas_groups(
    client: Client, found: Partitioned, whole: pd.DataFrame, keys: Sequence[str]
) -> None:
    groups = whole.groupby(list(keys), dropna=False, sort=False, observed=True)
    expected = [(group, rows.reset_index(drop=True)) for group, rows in groups]
    frames = frames_of(client, found)
    assert len(frames) == len(expected)
    for (values, frame), (group, rows) in zip(frames, expected, strict=True):
        pd.testing.assert_frame_equal(frame, rows)
        assert list(values) == list(keys)
        for value, wanted in zip(values.values(), group, strict=True):
            assert value is None if pd.isna(wanted) else value == wanted


def sales(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "store": rng.integers(0, 9, rows),
            "brand": rng.choice(["ant", "bee", "cat, dog", None], rows),
            "price": rng.normal(size=rows),
            "note": [f'line {i}\n"quoted", {seed}' for i in range(rows)],
        }
    )


def keys_on_scheduler(client: Client) -> list[str]:
    told: list[str] = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.tasks))
    return told


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# Inputs


@pytest.mark.parametrize("keys", [["store"], ["brand", "store"]], ids=str)
def test_csv_files_whose_types_differ_are_one_table(client, tmp_path, keys):
    """One file has a key as float, one lacks a column, one has no rows, one is empty."""
    tables = [sales(200, seed) for seed in range(5)]
    tables[1]["store"] = tables[1]["store"].where(tables[1]["store"] > 3)
    tables[2] = tables[2].drop(columns="price")[["note", "brand", "store"]]
    tables[3] = tables[3].iloc[:0]
    paths = [tmp_path / f"{number}.csv" for number in range(len(tables))]
    for table, path in zip(tables, paths, strict=True):
        table.to_csv(path, index=False)
    (tmp_path / "9.csv").touch()
    whole = pd.concat([pd.read_csv(paths[n]) for n in (0, 1, 2, 4)], ignore_index=True)
    found = partition(client, TabularDataset(str(tmp_path / "*.csv")), *keys)
    assert_as_pandas_groups(client, found, whole, keys)
    assert found.unreadable == []


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_large_file_reads_as_in_one_piece(here, tmp_path, suffix):
    """Its parts have other types than the whole: a column is empty, or whole, until the end."""
    count = {"csv": 40_000, "jsonl": 25_000, "parquet": 120_000}[suffix]
    table = sales(count, 0)
    table["late"] = np.where(np.arange(count) < count - 1_000, np.nan, 7)
    table["number"] = np.where(np.arange(count) < count - 1_000, 1.0, 0.5)
    path = tmp_path / f"large.{suffix}"
    if suffix == "csv":
        table.to_csv(path, index=False)
        whole = pd.read_csv(path)
    elif suffix == "jsonl":
        table.to_json(path, orient="records", lines=True)
        whole = pd.read_json(path, lines=True)
    else:
        table.to_parquet(path, row_group_size=10_000)
        whole = pd.read_parquet(path)
    assert path.stat().st_size > 2 * 1024**2
    found = partition(here, TabularDataset(path), "store", "brand")
    assert_as_pandas_groups(here, found, whole, ["store", "brand"])


def test_keys_in_the_paths_are_columns_as_others(here, tmp_path):
    tables = []
    for number, day in enumerate(("2024-05-01", "2024-05-02")):
        path = tmp_path / day / "sales.csv"
        path.parent.mkdir()
        sales(50, number).to_csv(path, index=False)
        tables.append(pd.read_csv(path).assign(day=pd.Timestamp(day).to_pydatetime()))
    dataset = TabularDataset(str(tmp_path), partition_format="{day:yyyy-MM-dd}/sales.csv")
    found = partition(here, dataset, "day", "store")
    assert_as_pandas_groups(here, found, pd.concat(tables, ignore_index=True), ["day", "store"])


def test_files_in_the_memory_of_this_process_reach_workers_elsewhere(nannies):
    table = sales(100, 0)
    with fsspec.open("memory://partitioning/sales.csv", "w") as stream:
        table.to_csv(stream, index=False)
    try:
        found = partition(nannies, TabularDataset("memory://partitioning/*.csv"), "store")
    finally:
        fsspec.filesystem("memory").rm("/partitioning", recursive=True)
    assert_as_pandas_groups(nannies, found, table.fillna({"brand": np.nan}), ["store"])


def test_a_dask_dataframe_is_partitioned_on_its_workers(client):
    table = sales(300, 0).astype({"brand": "category"}).set_index("price", drop=False)
    frame = dd.from_pandas(table, npartitions=5, sort=False)
    found = partition(client, FrameDataset(frame), "brand", "store")
    whole = frame.compute().reset_index(drop=True)
    assert whole["brand"].dtype == "category"
    assert_as_pandas_groups(client, found, whole, ["brand", "store"])


def test_a_persisted_dask_dataframe_can_be_partitioned(here):
    frame = here.persist(dd.from_pandas(sales(100, 0), npartitions=3))
    found = partition(here, FrameDataset(frame), "store")
    whole = here.compute(frame).result()
    assert_as_pandas_groups(here, found, whole, ["store"])


def test_rows_of_a_pandas_dataframe_wait_in_this_process(here):
    table = sales(300, 0).astype({"brand": "category"}).set_index("price", drop=False)
    before = set(keys_on_scheduler(here))
    found = partition(here, FrameDataset(table), "brand", "store")
    assert set(keys_on_scheduler(here)) <= before
    assert_as_pandas_groups(here, found, table.reset_index(drop=True), ["brand", "store"])


@pytest.mark.parametrize("lazy", [False, True], ids=["pandas", "dask"])
def test_a_dataframe_without_rows_has_no_combinations(here, lazy):
    table = sales(0, 0)
    frame = dd.from_pandas(table, npartitions=1) if lazy else table
    assert partition(here, FrameDataset(frame), "store").combinations == []


def test_all_rows_may_have_one_combination(here, tmp_path):
    for number in range(3):
        sales(100, number).assign(store=1).to_csv(tmp_path / f"{number}.csv", index=False)
    (only,) = partition(here, TabularDataset(str(tmp_path)), "store").combinations
    assert (only.values, only.rows) == ({"store": 1}, 300)


# Names


def test_the_token_tells_inputs_apart(here, tmp_path):
    path = tmp_path / "sales.csv"
    sales(10, 0).to_csv(path, index=False)
    dataset = TabularDataset(path)
    token = partition(here, dataset, "store").token
    assert partition(here, dataset, "store").token == token
    assert partition(here, dataset, "brand").token != token
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    both = partition(here, TabularDataset(str(tmp_path)), "store")
    assert len(both.unreadable) == 1
    assert both.token != token
    frame = FrameDataset(sales(10, 0))
    assert partition(here, frame, "store").token == partition(here, frame, "store").token


def test_a_combination_names_its_rows_in_the_list_of_failed_items():
    values = {"day": pd.Timestamp("2024-05-01"), "brand": None, "store": 7}
    piece = CombinationRows("sales", values, rows=3, position=0)
    assert str(piece).startswith("sales where day=Timestamp('2024-05-01 00:00:00'), brand=None")
    (item,) = piece.items(3)
    assert json.loads(json.dumps(item)) == {
        "dataset": "sales",
        "partition_key_value": {"day": "2024-05-01 00:00:00", "brand": None, "store": 7},
        "rows": 3,
    }


# What is wrong with the input


@pytest.mark.parametrize("kind", ["csv", "large csv", "dask", "pandas"])
def test_a_key_that_is_no_column_is_refused_with_the_columns_that_exist(here, tmp_path, kind):
    table = sales(80_000 if kind == "large csv" else 10, 0)
    (tmp_path / "0.csv").write_bytes(b'a,"b\n1,2\n')  # cannot be read: the next file tells
    table.to_csv(tmp_path / "1.csv", index=False)
    inputs = {"dask": dd.from_pandas(table, npartitions=2), "pandas": table}
    dataset = (
        FrameDataset(inputs[kind]) if kind in inputs else TabularDataset(str(tmp_path), engine="c")
    )
    with pytest.raises(ConfigError) as caught:
        partition(here, dataset, "store", "brnad")
    message = str(caught.value)
    assert message.startswith("partition_keys=['store', 'brnad'] is not accepted")
    assert "['store', 'brand', 'price', 'note']" in message


@pytest.mark.parametrize("kind", ["jsonl", "dask", "pandas"])
def test_a_key_whose_values_cannot_be_compared_is_refused(here, tmp_path, kind):
    table = pd.DataFrame({"store": [1, 2], "tags": [["a"], ["b"]]})
    table.to_json(tmp_path / "0.jsonl", orient="records", lines=True)
    with dask.config.set({"dataframe.convert-string": False}):
        lazy = dd.from_pandas(table, npartitions=1)
    inputs = {"dask": lazy, "pandas": table}
    dataset = FrameDataset(inputs[kind]) if kind in inputs else TabularDataset(tmp_path / "0.jsonl")
    with pytest.raises(ConfigError, match=r"those of 'tags' cannot \(TypeError: unhashable"):
        partition(here, dataset, "store", "tags")
    wait_until(lambda: keys_on_scheduler(here) == [])


def test_files_that_cannot_be_read_are_told_beside_the_rows_of_the_others(client, tmp_path):
    (tmp_path / "0.parquet").write_bytes(b"no parquet")
    (tmp_path / "1.csv").write_bytes(b"store,price\n" + b'1,2\n"' * 3)
    large = sales(60_000, 0).drop(columns="note").to_csv(index=False).encode()
    middle = large.index(b"\n", len(large) // 2) + 1
    (tmp_path / "2.csv").write_bytes(large[:middle] + b"1,2,3,4,5,6\n" + large[middle:])
    table = sales(10, 0)
    table.to_csv(tmp_path / "3.csv", index=False)
    found = partition(client, TabularDataset(str(tmp_path)), "store")
    told = {Path(part.piece.path).name: part for part in found.unreadable}
    assert set(told) == {"0.parquet", "1.csv", "2.csv"}
    assert told["0.parquet"].items == 1
    assert "ArrowInvalid" in told["0.parquet"].error
    rows = sum(combination.rows for combination in found.combinations)
    assert rows + sum(part.items for part in found.unreadable if part.piece.parts > 1) == 60_011


def test_an_input_that_cannot_be_read_at_all_has_no_combinations(here, tmp_path):
    (tmp_path / "0.parquet").write_bytes(b"no parquet")
    found = partition(here, TabularDataset(str(tmp_path)), "store")
    assert (found.combinations, len(found.unreadable)) == ([], 1)


def raise_error(frame: pd.DataFrame) -> pd.DataFrame:
    raise ZeroDivisionError("in the user's graph")


def test_an_error_in_the_graph_of_a_dask_dataframe_ends_the_work(here):
    frame = dd.from_pandas(sales(10, 0), npartitions=2)
    frame = frame.map_partitions(raise_error, meta=frame._meta)
    with pytest.raises(RunFailedError, match="ZeroDivisionError: in the user's graph"):
        partition(here, FrameDataset(frame), "store")
    wait_until(lambda: keys_on_scheduler(here) == [])


# The end of the work, and what is left of it


def test_the_workers_hold_the_buckets_as_long_as_the_combinations_live(here, tmp_path):
    sales(100, 0).to_csv(tmp_path / "0.csv", index=False)
    found = partition(here, TabularDataset(str(tmp_path)), "store")
    held = {combination.bucket.key for combination in found.combinations}

    def in_memory() -> set[str]:
        found = here.run(lambda dask_worker: list(dask_worker.data))
        return {key for keys in found.values() for key in keys}

    wait_until(lambda: in_memory() == held)
    del found
    wait_until(lambda: keys_on_scheduler(here) == [])


@pytest.mark.parametrize("calls", [1, 2, 3, 5])
def test_what_check_raises_ends_the_work_at_once(here, calls):
    """In each stage of the work; nothing of it is left on the cluster."""
    frame = dd.from_pandas(sales(10, 0), npartitions=2).map_partitions(slowly)
    left = iter(range(calls))

    def check() -> None:
        if next(left, None) is None:
            raise RunCanceledError("the run was canceled")

    with pytest.raises(RunCanceledError) as caught:
        combinations(here, FrameDataset(frame), ["store"], check=check)
    wait_until(lambda: keys_on_scheduler(here) == [])
    assert caught.value.message == "the run was canceled"


def slowly(frame: pd.DataFrame) -> pd.DataFrame:
    time.sleep(0.3)
    return frame


def test_a_client_that_is_closed_ends_the_work():
    with cluster(processes=False) as made, Client(made, set_as_default=False) as client:
        frame = dd.from_pandas(sales(10, 0), npartitions=2).map_partitions(slowly)
        calls = iter(range(3))

        def close() -> None:
            if next(calls, None) == 2:
                client.close()

        with pytest.raises(ClusterLostError, match="the client was closed"):
            combinations(client, FrameDataset(frame), ["store"], check=close)


def test_rows_that_were_read_again_and_differ_are_refused():
    """A bucket is made again when its worker is lost: nobody gets other rows than were listed."""
    table = pd.DataFrame({"store": [1, 1, 2], "price": [1.0, 2.0, 3.0]})
    with cluster(processes=False, workers=1) as made, Client(made, set_as_default=False) as client:
        first, second = partition(client, FrameDataset(table), "store").combinations
    assert isinstance(first.bucket, Bucket)
    assert first.piece().load()["price"].tolist() == [1.0, 2.0]
    for changed in (
        replace(first.piece(), rows=3),
        replace(first.piece(), values={"store": 2}),
        replace(second.piece(), position=2),
    ):
        with pytest.raises(InputChangedError, match="read again after a worker was lost"):
            changed.bind(first.bucket).load()


# Workers that die


STAGES = {
    "reading": "processing ",
    "shuffling": "memory ('shuffle-transfer",
    "grouping": "memory bucket_of",
}


def has_come(client: Client, stage: str) -> bool:
    def tell(dask_scheduler: Any) -> list[str]:
        return [f"{task.state} {key}" for key, task in dask_scheduler.tasks.items()]

    return any(told.startswith(STAGES[stage]) for told in client.run_on_scheduler(tell))


@pytest.mark.chaos
@pytest.mark.parametrize("stage", [*STAGES, "done"])
def test_a_worker_that_dies_costs_no_rows(stage):
    """While parts are read, are shuffled, are grouped, and when all buckets are there."""
    frame = dd.from_pandas(sales(300, 0), npartitions=12)
    whole = frame.compute(scheduler="synchronous")
    killed = []
    with cluster(processes=True, workers=3) as made, Client(made, set_as_default=False) as client:

        def kill_a_worker() -> None:
            pids: dict[str, int] = client.run(os.getpid)
            os.kill(next(iter(pids.values())), signal.SIGKILL)
            killed.append(stage)

        def check() -> None:
            if stage in STAGES and not killed and has_come(client, stage):
                kill_a_worker()

        frame = frame.map_partitions(slowly, meta=frame._meta)
        found = combinations(client, FrameDataset(frame), ["store", "brand"], check=check)
        if stage == "done":
            kill_a_worker()
        assert killed == [stage]
        assert_as_pandas_groups(client, found, whole, ["store", "brand"])
