"""Base of classes of which a part is here: the rest is refused by its name.

Entry processes have it, too: it imports nothing of the package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Partial", "refuse"]

_NOTHING = "see docs/migrating-from-azureml.md for what is there"
_PUBLISH = (
    "keep the script that makes the pipeline, and start it from cron or the like; in one process, "
    "the same pipeline can be submitted again, also with other pipeline_parameters"
)
_INSTEAD = {
    "as_hdfs": "take as_mount() or as_download()",
    "drop_columns": "take keep_columns with the others",
    "filter": "filter the rows in run()",
    "from_sql_query": "read the table with dask.dataframe.read_sql_table, as an input of daskprs",
    "get_authentication_header": "there is nothing to log in to: a workspace is a folder",
    "get_default_keyvault": "set an environment variable, and read os.environ",
    "get_metrics": "read logs/user/metrics of the run's logs",
    "publish": _PUBLISH,
    "publish_pipeline": _PUBLISH,
    "random_split": "choose the files or rows in a script of your own",
    "take_sample": "choose the files or rows in a script of your own",
    "to_csv_files": "write them with dask.dataframe, or by a step with output_format='csv'",
    "to_parquet_files": "write them with dask.dataframe, or by a step",
    "to_spark_dataframe": "take to_dask_dataframe()",
}


def _told(name: str) -> str:
    instead = _INSTEAD.get(name.rpartition(".")[2], _NOTHING)
    return f"{name} is not supported by daskprs: {instead}."


class _PartialType(type):
    _told: Callable[[str], str]

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(cls._told(f"{cls.__name__}.{name}"))


class Partial(metaclass=_PartialType):
    """Base of classes of which a part is here; the others say so when they are asked for.

    Attributes
    ----------
    _told : callable
        Says that a name is not here, and what to use in its place.
    """

    _told = staticmethod(_told)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(self._told(f"{type(self).__name__}.{name}"))


def refuse(**given: tuple[object, str]) -> None:
    """Refuse arguments that would mean something, each with what to do instead.

    Raises
    ------
    TypeError
    """
    for name, (value, instead) in given.items():
        if value:
            raise TypeError(f"{name}={value!r} is not supported by daskprs: {instead}.")
