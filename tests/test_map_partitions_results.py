"""Tests of an entry script as a lazy step: what comes in, what comes out, and what is refused."""

from __future__ import annotations

import logging
import pickle
import shutil
from collections.abc import Iterator
from typing import Any

import cloudpickle
import dask
import dask.bag as db
import numpy as np
import pandas as pd
import pytest
from conftest import Workplace
from dask.base import compute
from lazy_steps import COUNTING, EXPECTED, FRAME, META, frame_of

from daskprs import map_partitions
from daskprs.datasets import FileDataset, TabularDataset
from daskprs.exceptions import ConfigError, EntryScriptNotUsableError, MiniBatchFailedError
from daskprs.shared_hosts import close_hosts


@pytest.fixture(autouse=True)
def closed_hosts() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield
    close_hosts()


# --- What comes in and out --------------------------------------------------------------------


def test_results_become_like_meta(workplace: Workplace) -> None:
    """Lists and frames get the columns, order, types and index that they should have."""
    script = workplace.script("""
        def run(m):
            return m[["t", "x"]] if m.x.iloc[0] else [{"t": t, "x": x} for t, x in zip(m.t, m.x)]
        """)
    scored = map_partitions(frame_of(3), script, meta={"x": "float64", "t": "str"})
    pd.testing.assert_frame_equal(scored.compute(), FRAME.astype({"x": "float64"}))


def test_result_that_is_not_like_meta(workplace: Workplace) -> None:
    """The error names the difference; the script is not run again for it."""
    script = workplace.script("def run(m):\n    mark('run')\n    return m[['x']]\n")
    with pytest.raises(MiniBatchFailedError, match=r"partition 0.*'y' is missing"):
        map_partitions(frame_of(1), script, meta=META).compute()
    assert workplace.count("run") == 1


def test_short_list_has_row_numbers(workplace: Workplace) -> None:
    """Fewer results than rows are no error here, and nobody knows which rows they are of."""
    script = workplace.script("def run(m): return m.x.tolist()[1:]\n")
    result = map_partitions(frame_of(2), script, meta={"x": "int64"}).compute()
    assert result["x"].tolist() == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11]
    assert result.index.tolist() == [0, 1, 2, 3, 4] * 2


def test_class_that_only_the_script_knows(workplace: Workplace) -> None:
    """Objects of the script's own classes cannot come out: the error says what can."""
    script = workplace.script("class A: pass\ndef run(m): return [A() for _ in m]\n")
    bag = db.from_sequence([1, 2], npartitions=1)
    with pytest.raises(MiniBatchFailedError, match="plain values"):
        map_partitions(bag, script).compute()


def test_arguments_environment_and_source(workplace: Workplace) -> None:
    """The script finds its arguments, variables and the modules and files beside it."""
    script = workplace.script(
        """
        import sys
        from helper import HELP
        def run(mini_batch):
            with open(sys.argv[2]) as stream:
                return [f"{HELP} {sys.argv[1:2]} {stream.read()} {os.environ['COLOR']}"]
        """,
        name="source/deep/score.py",
    )
    (workplace.folder / "source/helper.py").write_text("HELP = 'help'\n")
    (workplace.folder / "source/words.txt").write_text("words")
    bag = map_partitions(
        db.from_sequence([1], npartitions=1),
        "deep/score.py",
        source_directory=script.parents[1],
        arguments=["--n=5", "words.txt"],
        environment_variables={"COLOR": "red"},
    )
    shutil.rmtree(workplace.folder / "source")
    assert bag.compute() == ["help ['--n=5'] words red"]


def test_output_of_the_script_is_logged(
    workplace: Workplace, caplog: pytest.LogCaptureFixture
) -> None:
    """What the script prints goes to a logger, and nowhere else."""
    script = workplace.script("def run(m):\n    print('hello from run')\n    return m[['x']]\n")
    with caplog.at_level(logging.INFO, logger="daskprs.script"):
        map_partitions(frame_of(1), script, meta={"x": "int64"}).compute()
    assert any("stdout: hello from run" in message for message in caplog.messages)


def test_script_travels_once(workplace: Workplace) -> None:
    """The script's folder is in the graph once, however many partitions there are."""
    script = workplace.script(COUNTING)
    (script.parent / "model.bin").write_bytes(np.random.default_rng(0).bytes(500_000))
    scored = map_partitions(frame_of(12), script, meta=META)
    assert scored.npartitions == 12
    assert len(cloudpickle.dumps(scored.__dask_graph__())) < 600_000
    assert scored._name == map_partitions(frame_of(12), script, meta=META)._name


# --- Bags -------------------------------------------------------------------------------------


def test_bag_of_paths(workplace: Workplace) -> None:
    """A bag of files gives run() the lists of paths that a run would."""
    folder = workplace.files(5, size=3)
    script = workplace.script("""
        def run(mini_batch):
            mark("run")
            return [(os.path.basename(path), os.path.getsize(path)) for path in mini_batch]
        """)
    bag = map_partitions(FileDataset(folder).to_dask_bag(2), script)
    assert bag.npartitions == 3
    assert not workplace.count("run")
    assert bag.compute() == [(f"f{number:05d}.bin", 3) for number in range(5)]
    assert workplace.count("run") == 3


def test_bag_of_anything(workplace: Workplace) -> None:
    """Other elements come as a list, also from steps before that are lazy themselves."""
    script = workplace.script("def run(m):\n    mark('run')\n    return [v['n'] * 10 for v in m]\n")
    bag = db.from_sequence(range(6), npartitions=3).map(lambda n: {"n": n}).filter(lambda v: v["n"])
    scored = map_partitions(bag, script)
    assert scored.sum().compute() == 150
    assert scored.map(str).compute() == ["10", "20", "30", "40", "50"]
    assert workplace.count("run") == 6


def test_bag_of_a_frame(workplace: Workplace) -> None:
    """Rows of a DataFrame come out of a bag as dicts."""
    script = workplace.script(
        "import pandas as pd\ndef run(m): return pd.DataFrame({'p': m, 'n': 1})\n"
    )
    bag = map_partitions(db.from_sequence([3, 4], npartitions=1), script)
    assert bag.compute() == [{"p": 3, "n": 1}, {"p": 4, "n": 1}]


def test_files_of_memory_are_fetched(workplace: Workplace) -> None:
    """Urls of other stores become local paths for the script."""
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.pipe("/mapped/a.txt", b"A")
    try:
        script = workplace.script("def run(m): return [open(path).read() for path in m]\n")
        bag = FileDataset("memory://mapped").to_dask_bag()
        assert map_partitions(bag, script).compute() == ["A"]
    finally:
        fs.rm("/mapped", recursive=True)


# --- With other steps -------------------------------------------------------------------------


def test_tables_to_scores_and_back(workplace: Workplace) -> None:
    """A table, the script and more steps of Dask make one lazy computation."""
    path = workplace.folder / "in.csv"
    FRAME.to_csv(path, index=False)
    ddf = TabularDataset(path).to_dask_dataframe(10)
    script = workplace.script(COUNTING)
    scored = map_partitions(ddf, script, meta=META)
    total, count = compute(scored.y.sum(), scored.x.count())
    assert (total, count) == (EXPECTED.y.sum(), 12)
    assert workplace.count("run") < 2 * ddf.npartitions
    scored.to_parquet(workplace.folder / "out")
    assert pd.read_parquet(workplace.folder / "out").y.sum() == total
    assert pickle.loads(pickle.dumps(scored)).npartitions == scored.npartitions


def test_series_goes_beside_its_rows(workplace: Workplace) -> None:
    """A Series that the script returns can become a column of its input."""
    script = workplace.script("def run(m): return m.x * 2\n")
    ddf = frame_of(3)
    twice = map_partitions(ddf, script, meta=("twice", "int64"))
    assert twice.divisions == ddf.divisions
    both = ddf.assign(twice=twice)
    pd.testing.assert_series_equal(both.compute()["twice"], (FRAME.x * 2).rename("twice"))


# --- Wrong arguments --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"meta": None}, "meta"),
        ({"meta": "int64"}, "meta"),
        ({"meta": 3}, "meta"),
        ({"meta": {"x": "no such type"}}, "meta"),
        ({"run_max_try": 0}, "run_max_try"),
        ({"run_invocation_timeout": 0}, "run_invocation_timeout"),
        ({"init_timeout": True}, "init_timeout"),
        ({"environment_variables": {"A": 1}}, "environment_variables"),
        ({"process_count_per_node": 0}, "process_count_per_node"),
        ({"arguments": "--a"}, "arguments"),
        ({"source_directory": "/no/such/folder"}, "source_directory"),
    ],
)
def test_wrong_arguments(workplace: Workplace, options: dict[str, Any], field: str) -> None:
    """What is wrong with the arguments is said at once."""
    script = workplace.script(COUNTING)
    with pytest.raises(ConfigError) as caught:
        map_partitions(frame_of(), script, **{"meta": META, **options})
    assert caught.value.field == field


def test_wrong_collections_and_scripts(workplace: Workplace) -> None:
    """Other collections, meta for a bag, and a script without run() are refused at once."""
    script = workplace.script(COUNTING)
    for collection in (FRAME, [1], frame_of().x):
        with pytest.raises(ConfigError, match="collection"):
            map_partitions(collection, script, meta=META)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="meta"):
        map_partitions(db.from_sequence([1]), script, meta=META)
    with pytest.raises(ConfigError, match="entry_script"):
        map_partitions(frame_of(), "none.py", meta=META)
    workplace.script("x = 1\n")
    with pytest.raises(EntryScriptNotUsableError, match="no function run"):
        map_partitions(frame_of(), script, meta=META)
