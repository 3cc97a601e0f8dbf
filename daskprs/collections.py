"""Lazy collections: inputs as Dask dataframes and bags, and an entry script as one step of them.

Nothing runs here: `map_partitions` makes a graph in which each partition is one mini-batch, and
the entry script runs in entry processes beside whatever computes the graph.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskprs.attempts import Limits, try_mini_batch
from daskprs.config import ParallelRunConfig
from daskprs.conform import DoesNotFitError, fit_result
from daskprs.datasets import FileDataset, TabularDataset
from daskprs.entry_script import EntryScriptSource
from daskprs.exceptions import (
    ConfigError,
    InitFailedError,
    InputNotFoundError,
    MiniBatchFailedError,
    RunCanceledError,
)
from daskprs.lazy_tables import SliceReader, find_cuts_of, sample_of, typed
from daskprs.mini_batches import MiniBatch, bytes_of, count_of, groups_of, slices_of
from daskprs.pieces import FilePaths, FrameRows, ListItems, TableSlice
from daskprs.script_host import InitGaveUpError, ScriptPackage, StoppedError
from daskprs.shared_hosts import lent_slot

if TYPE_CHECKING:
    import dask.bag
    import dask.dataframe

__all__ = ["map_partitions", "to_dask_bag", "to_dask_dataframe"]

_LOAD_TIMEOUT = 1800.0
_SHUTDOWN_TIMEOUT = 10.0


class _Graph(dict[Any, Any]):
    """A graph that Dask knows by its name, without a look at all that is in it."""

    def __init__(self, name: str, tasks: Mapping[Any, Any]) -> None:
        super().__init__(tasks)
        self.name = name

    def __dask_tokenize__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, dict(self))


# Inputs


def to_dask_bag(dataset: FileDataset, mini_batch_size: int | str | None = None) -> dask.bag.Bag:
    """Make the lazy bag whose partitions are the mini-batches of some files.

    Parameters
    ----------
    dataset : FileDataset
    mini_batch_size : int, optional
        Files in a mini-batch; default 10.

    Returns
    -------
    dask.bag.Bag
        Of paths: local ones, or the urls of other stores. Nothing but the listing has been read.

    Raises
    ------
    InputNotFoundError
        No file matches.

    Examples
    --------
    >>> import os, pathlib, tempfile
    >>> from daskprs import FileDataset
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("a.png", "b.png", "c.png"):
    ...     _ = (folder / name).write_bytes(b"...")
    >>> bag = FileDataset(folder / "*.png").to_dask_bag(mini_batch_size=2)
    >>> bag.npartitions
    2
    >>> bag.map(os.path.basename).compute(scheduler="sync")
    ['a.png', 'b.png', 'c.png']
    """
    from dask.bag import Bag
    from dask.base import tokenize

    if not isinstance(dataset, FileDataset):
        raise ConfigError.of("dataset", dataset, "a FileDataset, such as FileDataset('a/*.png')")
    drafts = list(groups_of(dataset, count_of(mini_batch_size)))
    name = f"daskprs-files-{tokenize([draft.identity for draft in drafts])}"
    graph = {(name, number): (_paths_of, draft.piece) for number, draft in enumerate(drafts)}
    return Bag(graph, name, len(drafts))


def _paths_of(piece: FilePaths) -> list[str]:
    return list(piece.paths)


def to_dask_dataframe(
    dataset: TabularDataset, mini_batch_size: int | str | None = None
) -> dask.dataframe.DataFrame:
    """Make the lazy dataframe whose partitions are the mini-batches of some tables.

    The files are listed, and the first rows of the first file give the columns and their types
    for all files. A file that does not fit them is an error when its partition is computed.

    Parameters
    ----------
    dataset : TabularDataset
    mini_batch_size : int or str, optional
        Bytes of source data, such as ``"10MB"``; default ``"1MB"`` (1024-based).

    Returns
    -------
    dask.dataframe.DataFrame
        With the row number in its partition as the index.

    Raises
    ------
    InputNotFoundError
        No file matches, or all are empty.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from daskprs import TabularDataset
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "a.csv").write_text("x,y\\n1,a\\n2,b\\n3,c\\n")
    >>> ddf = TabularDataset(folder / "*.csv").to_dask_dataframe(mini_batch_size=8)
    >>> ddf.npartitions
    2
    >>> int(ddf.x.sum().compute(scheduler="sync"))
    6
    """
    import dask.dataframe as dd
    from dask.base import tokenize

    if not isinstance(dataset, TabularDataset):
        raise ConfigError.of(
            "dataset", dataset, "a TabularDataset, such as TabularDataset('a.csv')"
        )
    size = bytes_of(mini_batch_size)
    drafts = [draft for file in dataset.files() for draft in slices_of(dataset, file, size)]
    pieces = [draft.piece for draft in drafts if isinstance(draft.piece, TableSlice)]
    if not pieces:
        raise InputNotFoundError(f"all files of the input {list(dataset.urls)!r} are empty.")
    sample = sample_of(pieces[0])
    read = SliceReader(sample.iloc[:0], pieces[0].path)
    token = tokenize(
        [draft.identity for draft in drafts],
        (dataset.format, dataset.reader_options, dataset.quoted_newlines),
        read.meta,
    )
    name, cuts = f"daskprs-read-{token}", f"daskprs-cuts-{token}"
    tasks: dict[Any, Any] = {}
    for number, piece in enumerate(pieces):
        piece = replace(piece, reader=typed(piece.reader, sample))
        if piece.needs_survey:
            tasks.setdefault((cuts, piece.path), (find_cuts_of, piece))
            tasks[name, number] = (read, piece, (cuts, piece.path))
        else:
            tasks[name, number] = (read, piece)
    return dd.from_graph(
        _Graph(name, tasks),
        read.meta,
        (None,) * (len(pieces) + 1),
        [(name, number) for number in range(len(pieces))],
        "daskprs-read",
    )


# The script as a step


def map_partitions(
    collection: dask.dataframe.DataFrame | dask.bag.Bag,
    script: str | os.PathLike[str],
    *,
    meta: Any = None,
    source_directory: str | os.PathLike[str] | None = None,
    arguments: Sequence[Any] = (),
    run_max_try: int = 3,
    run_invocation_timeout: float = 60,
    init_timeout: float = 600,
    environment_variables: Mapping[str, str] | None = None,
    process_count_per_node: int | None = None,
) -> Any:
    """Run an entry script over the partitions of a lazy collection, as one more lazy step of it.

    Each partition is one mini-batch. ``init()`` is called once in each entry process; these are
    kept for the next partitions, and end when none has come for a minute, after ``shutdown()``.
    What the script prints goes to the logger ``daskprs.script``.

    Parameters
    ----------
    collection : dask.dataframe.DataFrame or dask.bag.Bag
        A bag of paths gives ``run()`` local paths (files of other stores are fetched); any other
        bag gives it the list of the elements.
    script : str or PathLike
        The entry script; relative to `source_directory` where that is given.
    meta : DataFrame, Series, dict or tuple
        Of a dataframe: columns and types of the result, as Dask takes it, such as
        ``{"id": "int64", "score": "float64"}``, or ``("score", "float64")`` for a Series.
    source_directory : str or PathLike, optional
        Its whole content reaches every worker. Default: the folder of the script.
    arguments : sequence, optional
        For the script's ``sys.argv``.
    run_max_try : int
        How often a mini-batch is tried before it has failed.
    run_invocation_timeout, init_timeout : float
        Seconds that one call of ``run()``, and the import with ``init()``, may take.
    environment_variables : mapping of str to str, optional
        Set in the entry processes before the script is imported.
    process_count_per_node : int, optional
        Most entry processes at once for each Dask worker. Default: one for each of its threads.

    Returns
    -------
    dask.dataframe.DataFrame, dask.dataframe.Series or dask.bag.Bag
        What ``run()`` returns. A list with one element for each row gets the index of the rows.

    Raises
    ------
    ConfigError, EntryScriptNotUsableError
        Here, at once.
    InitFailedError, MiniBatchFailedError
        When the result is computed: the script failed in every try, or returned what does not
        fit `meta`.

    Examples
    --------
    >>> import dask.dataframe as dd, pandas as pd, pathlib, tempfile
    >>> from daskprs import map_partitions
    >>> script = pathlib.Path(tempfile.mkdtemp(), "score.py")
    >>> _ = script.write_text('''
    ... def init():
    ...     global factor
    ...     factor = 10
    ... def run(mini_batch):
    ...     return mini_batch.assign(score=mini_batch.x * factor)
    ... ''')
    >>> ddf = dd.from_pandas(pd.DataFrame({"x": [1, 2, 3]}), npartitions=2)
    >>> scored = map_partitions(ddf, script, meta={"x": "int64", "score": "int64"})
    >>> scored.score.sum().compute(scheduler="sync")
    np.int64(60)
    """
    from dask.bag import Bag

    config = ParallelRunConfig(
        entry_script=script,
        source_directory=source_directory,
        run_max_try=run_max_try,
        run_invocation_timeout=run_invocation_timeout,
        init_timeout=init_timeout,
        environment_variables=environment_variables or {},
        process_count_per_node=process_count_per_node,
    )
    limits = Limits(config.run_max_try, config.run_invocation_timeout, _LOAD_TIMEOUT)
    if _is_dask_dataframe(collection):
        checked = _checked_meta(meta)
        return _over_dataframe(collection, _Step(limits, checked), _package(config, arguments))
    if isinstance(collection, Bag):
        if meta is not None:
            raise ConfigError.of("meta", meta, "left out: only dataframes have one")
        return _over_bag(collection, _Step(limits, None), _package(config, arguments))
    raise ConfigError.of(
        "collection", type(collection), "a Dask dataframe or bag, such as dataset.to_dask_bag()"
    )


def _is_dask_dataframe(collection: object) -> bool:
    import dask.dataframe as dd

    return isinstance(collection, dd.DataFrame)


def _checked_meta(meta: Any) -> Any:
    accepted = "a dict, tuple, DataFrame or Series of the result's types, such as {'score': 'f8'}"
    if meta is None or isinstance(meta, str | bytes):
        raise ConfigError.of("meta", meta, accepted)
    from dask.dataframe.utils import make_meta

    try:
        made = make_meta(meta)
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError.of("meta", meta, f"{accepted} ({error})") from error
    if getattr(made, "ndim", 0) not in (1, 2) or not hasattr(made, "iloc"):
        raise ConfigError.of("meta", meta, accepted)
    return made


@dataclass(frozen=True)
class _Shipped:
    """The script in the graph: once, and the same for Dask as long as its content is."""

    package: ScriptPackage

    def __dask_tokenize__(self) -> str:
        return self.package.token


def _unwrap(shipped: _Shipped) -> ScriptPackage:
    return shipped.package


def _package(config: ParallelRunConfig, arguments: Sequence[Any]) -> _Shipped:
    from dask.base import tokenize

    from daskprs.step import _argument, _check_arguments

    source = EntryScriptSource.of(config.script_path, config.source_path)
    given = tuple(_argument(str(argument), source) for argument in _check_arguments(arguments))
    facts = [source.relative, source.code_token(), source.data_files(), given]
    settings = [config.environment_variables, config.init_timeout, config.process_count_per_node]
    return _Shipped(
        ScriptPackage(
            token=str(tokenize(facts, settings)),
            script=source.relative,
            folder="",
            archive=source.archive(),
            arguments=given,
            output_format="pickle",
            environment=config.environment_variables,
            init_timeout=config.init_timeout,
            process_count=config.process_count_per_node,
            shutdown_timeout=_SHUTDOWN_TIMEOUT,
        )
    )


def _over_dataframe(collection: Any, step: _Step, shipped: _Shipped) -> Any:
    import dask.dataframe as dd
    from dask.base import tokenize

    # Its partitions are final only when it is optimised: some readers then join small ones.
    frame = collection.optimize()
    token = tokenize(frame._name, step, shipped)
    keys = frame.__dask_keys__()
    name, script = f"daskprs-run-{token}", f"daskprs-script-{token}"
    tasks = {**frame.__dask_graph__(), script: (_unwrap, shipped)}
    for number, key in enumerate(keys):
        tasks[name, number] = (step, key, script, number)
    return dd.from_graph(
        _Graph(name, tasks),
        step.meta,
        (None,) * (len(keys) + 1),
        [(name, number) for number in range(len(keys))],
        "daskprs-run",
    )


def _over_bag(collection: dask.bag.Bag, step: _Step, shipped: _Shipped) -> dask.bag.Bag:
    from dask.bag import Bag
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph

    token = tokenize(collection.name, step, shipped)
    name, script = f"daskprs-run-{token}", f"daskprs-script-{token}"
    tasks: dict[Any, Any] = {script: (_unwrap, shipped)}
    for number in range(collection.npartitions):
        tasks[name, number] = (step, (collection.name, number), script, number)
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=[collection])
    return Bag(graph, name, collection.npartitions)


@dataclass(frozen=True)
class _Step:
    """Runs the script over one partition, in the process that computes the graph.

    Attributes
    ----------
    meta : DataFrame, Series or None
        None for bags.
    """

    limits: Limits
    meta: Any

    def __call__(self, rows: Any, package: ScriptPackage, number: int) -> Any:
        """Return the result for the partition `rows`, which has this `number`.

        Raises
        ------
        InitFailedError, MiniBatchFailedError
        """
        piece = _piece(rows if self.meta is not None else list(rows), number)
        mini_batch = MiniBatch(number, f"{number:016x}", piece, piece.count_items(), None)
        outcome = _outcome(package, mini_batch, self.limits)
        if outcome.failed:
            raise MiniBatchFailedError(outcome.error, script_traceback=outcome.traceback)
        payload = outcome.rows.payload if outcome.rows is not None else b""
        try:
            result = pickle.loads(payload) if payload else []
            if self.meta is not None:
                return fit_result(result, self.meta, rows.index)
        except DoesNotFitError as error:
            raise MiniBatchFailedError(
                f"what run() returned for {piece} does not fit: {error}.", script_traceback=""
            ) from None
        except (ImportError, AttributeError) as error:
            raise MiniBatchFailedError(
                f"run() returned objects of a class that only the script knows ({error}): return "
                "a DataFrame, or a list of plain values, dicts or arrays."
            ) from error
        return result.to_dict("records") if hasattr(result, "to_dict") else list(result)


def _piece(rows: Any, number: int) -> FrameRows | FilePaths | ListItems:
    if not isinstance(rows, list):
        return FrameRows(rows, 0, f"partition {number}")
    if rows and all(isinstance(element, str) for element in rows):
        return FilePaths(tuple(rows)).portable()
    return ListItems(rows, f"partition {number}")


def _outcome(package: ScriptPackage, mini_batch: MiniBatch, limits: Limits) -> Any:
    try:
        with lent_slot(package) as (host, slot):
            return try_mini_batch(host, slot, mini_batch, limits)
    except InitGaveUpError as error:
        raise InitFailedError(
            f"{Path(package.script).name} could not be started in any try: {error.reply.error}",
            script_traceback=error.reply.traceback,
        ) from None
    except StoppedError:
        raise RunCanceledError("this process is ending: the script was stopped.") from None
