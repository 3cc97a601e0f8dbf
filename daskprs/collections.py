"""Lazy collections: inputs as Dask dataframes and bags, and an entry script as one step of them.

Nothing runs here: `map_partitions` makes a graph in which each partition is one mini-batch, and
the entry script runs in entry processes beside whatever computes the graph.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dask.base import normalize_token, tokenize

from daskprs.attempts import Limits
from daskprs.config import ParallelRunConfig
from daskprs.datasets import FileDataset, TabularDataset
from daskprs.exceptions import ConfigError, InputNotFoundError
from daskprs.lazy_step import LazyStep, over_bag, over_dataframe, ship
from daskprs.lazy_tables import SliceReader, find_cuts_of, sample_of, typed
from daskprs.mini_batches import bytes_of, count_of, groups_of, slices_of
from daskprs.pieces import FilePaths, TableSlice

if TYPE_CHECKING:
    import dask.bag
    import dask.dataframe

__all__ = ["map_partitions", "to_dask_bag", "to_dask_dataframe"]

_LOAD_TIMEOUT = 1800.0


class _Graph(dict[Any, Any]):
    """A graph that Dask knows by its name, without a look at all that is in it."""

    def __init__(self, name: str, tasks: Mapping[Any, Any]) -> None:
        super().__init__(tasks)
        self.name = name

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, dict(self))


@normalize_token.register(_Graph)  # type: ignore[untyped-decorator]
def _name_of(graph: _Graph) -> str:
    return graph.name


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
    readers = {id(piece.reader): piece.reader for piece in pieces}
    readers = {known: typed(reader, sample) for known, reader in readers.items()}
    for number, piece in enumerate(pieces):
        piece = replace(piece, reader=readers[id(piece.reader)])
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
        What ``run()`` returns. A list with one element for each row gets the index of the rows;
        a Series always has one value for each row, and can become a column of `collection`.

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
        return over_dataframe(collection, LazyStep(limits, checked), ship(config, arguments))
    if isinstance(collection, Bag):
        if meta is not None:
            raise ConfigError.of("meta", meta, "left out: only dataframes have one")
        return over_bag(collection, LazyStep(limits, None), ship(config, arguments))
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
