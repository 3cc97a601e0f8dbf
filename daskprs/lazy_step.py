"""An entry script as one step of a Dask graph: each partition is one mini-batch."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskprs.arguments import as_argument, check_arguments
from daskprs.attempts import Limits, try_mini_batch
from daskprs.config import ParallelRunConfig
from daskprs.conform import DoesNotFitError, fit_result
from daskprs.entry_script import EntryScriptSource
from daskprs.exceptions import InitFailedError, MiniBatchFailedError, RunCanceledError
from daskprs.mini_batches import MiniBatch
from daskprs.outcomes import Outcome
from daskprs.pieces import FilePaths, FrameRows, ListItems
from daskprs.script_host import InitGaveUpError, ScriptPackage, StoppedError
from daskprs.shared_hosts import lent_slot

if TYPE_CHECKING:
    import dask.bag

__all__ = ["LazyStep", "ShippedScript", "over_bag", "over_dataframe", "ship"]

_SHUTDOWN_TIMEOUT = 10.0


@dataclass(frozen=True)
class ShippedScript:
    """The script in the graph: once, and the same for Dask as long as its content is."""

    package: ScriptPackage

    def __dask_tokenize__(self) -> str:
        return self.package.token


def _unwrap(shipped: ShippedScript) -> ScriptPackage:
    return shipped.package


def ship(config: ParallelRunConfig, arguments: Sequence[Any]) -> ShippedScript:
    """Pack the script with its folder, under a token of their content.

    Raises
    ------
    ConfigError, EntryScriptNotUsableError
    """
    from dask.base import tokenize

    source = EntryScriptSource.of(config.script_path, config.source_path)
    given = tuple(as_argument(str(argument), source) for argument in check_arguments(arguments))
    facts = [source.relative, source.code_token(), source.data_files(), given]
    settings = [config.environment_variables, config.init_timeout, config.process_count_per_node]
    return ShippedScript(
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


def over_dataframe(collection: Any, step: LazyStep, shipped: ShippedScript) -> Any:
    """Make the step of a dataframe."""
    from dask.delayed import delayed

    package = delayed(_unwrap)(shipped, dask_key_name=f"daskprs-script-{shipped.package.token}")
    # A Series keeps the index of its rows; nobody knows what a table has.
    is_table = step.meta.ndim == 2
    return collection.map_partitions(
        step,
        package,
        meta=step.meta,
        enforce_metadata=False,
        clear_divisions=is_table,
        token="daskprs-run",  # noqa: S106  (a name, not a secret)
    )


def over_bag(collection: dask.bag.Bag, step: LazyStep, shipped: ShippedScript) -> dask.bag.Bag:
    """Make the step of a bag."""
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
class LazyStep:
    """Runs the script over one partition, in the process that computes the graph.

    Attributes
    ----------
    meta : DataFrame, Series or None
        None for bags.
    """

    limits: Limits
    meta: Any

    def __call__(
        self,
        rows: Any,
        package: ScriptPackage,
        number: int = 0,
        partition_info: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the result for the partition `rows`, which has this `number`.

        Raises
        ------
        InitFailedError, MiniBatchFailedError
        """
        if partition_info is not None:  # from Dask, of dataframes
            number = partition_info["number"]
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


def _outcome(package: ScriptPackage, mini_batch: MiniBatch, limits: Limits) -> Outcome:
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
