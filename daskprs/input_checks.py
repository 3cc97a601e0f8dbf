"""What can be known to be wrong with the inputs before any work starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from daskprs.config import ParallelRunConfig
from daskprs.datasets import FrameDataset, TabularDataset
from daskprs.exceptions import ConfigError, DaskprsError, InputNotFoundError, OutputError
from daskprs.listing import ListedFile, list_files, would_list
from daskprs.mini_batches import Dataset, is_shuffled
from daskprs.output_folder import OutputFolder
from daskprs.store_calls import one_line
from daskprs.table_files import TableFile
from daskprs.targets import within

__all__ = ["check_inputs", "first_file"]

# Urls are looked up before any work starts; more than so many when their turn comes.
_MOST_LOOKUPS = 50
_WRITTEN = ("logs/job_result.txt", "logs/report.json", "logs/failed_items.jsonl",
            "logs/sys/job_report/node_summary.csv")  # fmt: skip


def check_inputs(
    inputs: Sequence[Dataset], config: ParallelRunConfig, folder: OutputFolder
) -> None:
    """Look at the first file of each url.

    Raises
    ------
    InputNotFoundError
        A url matches nothing.
    ConfigError
        The partition_keys are no columns; or the reader has no such option.
    OutputError
        What the run writes would be listed as its input the next time.
    """
    for dataset in inputs:
        if isinstance(dataset, FrameDataset):
            if is_shuffled(dataset, config):
                _check_keys(config, list(dataset.frame.columns))
            continue
        skip = isinstance(dataset, TabularDataset)
        for number, url in enumerate(dataset.urls[:_MOST_LOOKUPS]):
            first = first_file(
                url, dataset.storage_options, skip, seconds=config.progress_update_timeout
            )
            _check_output_is_apart(url, dataset.storage_options, skip, config, folder)
            if isinstance(dataset, TabularDataset):
                dataset.reader(first.path)
                if number == 0 and is_shuffled(dataset, config):
                    _check_keys(config, _columns(dataset, first))


def first_file(
    url: str,
    storage_options: Mapping[str, Any],
    skip_underscored: bool = False,
    *,
    seconds: float,
) -> ListedFile:
    """Find a file of a url.

    Parameters
    ----------
    seconds : float
        What the store may take for that: progress_update_timeout.

    Raises
    ------
    InputNotFoundError
        There is none, or the store cannot be listed.
    """
    files = list_files([url], storage_options=storage_options, skip_underscored=skip_underscored)
    try:
        return within(seconds, lambda: next(files))
    except DaskprsError:
        raise
    except Exception as error:
        raise InputNotFoundError(
            f"the input {url!r} cannot be listed ({one_line(error)}): give a path, "
            "or a url of a store whose package is installed, with its storage_options."
        ) from error


def _check_output_is_apart(
    url: str,
    storage_options: Mapping[str, Any],
    skip_underscored: bool,
    config: ParallelRunConfig,
    folder: OutputFolder,
) -> None:
    for name in (config.append_row_file_name, *_WRITTEN):
        file = folder.url_of(name)
        if would_list(
            url, file, storage_options=storage_options, skip_underscored=skip_underscored
        ):
            raise OutputError(
                f"output={folder.url!r} is where the input {url!r} looks for files: the next run "
                f"would take {file} for input. Give an output folder outside of the input, or an "
                "input that leaves it out, such as 'data/*.png'."
            )


def _check_keys(config: ParallelRunConfig, columns: list[Any] | None) -> None:
    keys = config.partition_keys or []
    if columns is not None and not set(keys) <= set(columns):
        raise ConfigError.of("partition_keys", keys, f"a list of columns of the input: {columns}")


def _columns(dataset: TabularDataset, file: ListedFile) -> list[Any] | None:
    """Read the columns where the beginning of a file has all of them; None where it does not."""
    reader = dataset.reader(file.path)
    if reader.format == "jsonl" or not file.size:
        return None
    data = TableFile(file.path, dataset.storage_options)
    try:
        if reader.format == "parquet":
            from pyarrow import parquet

            with data.open() as stream:
                names = reader.options.get("columns") or parquet.read_schema(stream).names
        else:
            with data.open_uncompressed(reader.compression(file.path)) as stream:
                more = {"compression": None} if "compression" in reader.options else {}
                names = reader.read(stream, **{**more, "nrows": 0}).columns
    except Exception:
        return None  # it fails again when it is read, with its reason
    return [*names, *dataset.keys] or None
