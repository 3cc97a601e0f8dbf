"""ParallelRunConfig: how to run an entry script; everything is checked when it is made."""

from __future__ import annotations

import math
import numbers
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from daskprs.exceptions import ConfigError

__all__ = ["DEFAULT_FILES", "DEFAULT_TABLE_BYTES", "ParallelRunConfig"]

DEFAULT_FILES = 10
DEFAULT_TABLE_BYTES = 1024**2
DEFAULT_ROW_FILE = "parallel_run_step.txt"

_UNITS = {"": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}
_SIZE = re.compile(r"\s*([0-9]+)\s*(KB|MB|GB)?\s*", re.IGNORECASE)
_TAKEN_NAMES = ("logs", ".daskprs")
_FORBIDDEN_IN_NAME = set('~"#%&*:<>?/\\{|}') | {chr(c) for c in range(32)}
_SUFFIXES = {"text": ".txt", "csv": ".csv", "jsonl": ".jsonl", "parquet": ".parquet"}

OutputFormat = Literal["text", "csv", "jsonl", "parquet"]


def _whole_number(value: object) -> int | None:
    """Return a whole number of any library as Python's; True and False are none."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    return None


def _integer(name: str, value: object, least: int, example: str) -> int:
    number = _whole_number(value)
    if number is None or number < least:
        raise ConfigError.of(name, value, f"a whole number of at least {least}, such as {example}")
    return number


def _real_number(value: object) -> float | None:
    whole = _whole_number(value)
    if whole is None and isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value) if math.isfinite(value) else None
    return whole


def _seconds(name: str, value: object, example: str) -> float:
    number = _real_number(value)
    if number is None or number <= 0:
        raise ConfigError.of(name, value, f"a number of seconds greater than 0, such as {example}")
    return number


def _choice(name: str, value: object, choices: tuple[str, ...], fold: Callable[[str], str]) -> str:
    if isinstance(value, str) and fold(value) in choices:
        return fold(value)
    raise ConfigError.of(name, value, "one of " + ", ".join(map(repr, choices)))


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError.of(name, value, "True or False")
    return value


def parse_size(name: str, value: object) -> int:
    """Read a size: a whole number, or text such as ``"10MB"`` (1024-based, any case)."""
    accepted = 'a whole number of at least 1, or text such as "10", "100KB", "10MB" or "1GB"'
    size = _whole_number(value)
    if size is None:
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ConfigError.of(name, value, accepted)
        size = int(match[1]) * _UNITS[(match[2] or "").upper()]
    if size < 1:
        raise ConfigError.of(name, value, accepted)
    return size


def check_file_name(name: str, value: object) -> str:
    """Return `value` if it is a bare file name that every store and system accepts."""
    if (
        not isinstance(value, str)
        or not value.strip()
        or value in {".", ".."}
        or set(value) & _FORBIDDEN_IN_NAME
        or value.lower().partition(".previous")[0] in _TAKEN_NAMES
    ):
        raise ConfigError.of(
            name,
            value,
            'a bare file name without any of ~ " # % & * : < > ? / \\ { | }, such as "rows.txt"; '
            "logs and .daskprs are folders beside it",
        )
    return value


@dataclass(frozen=True, kw_only=True)
class ParallelRunConfig:
    """How an entry script is run.

    Parameters
    ----------
    entry_script : str or PathLike
        The script with ``init()`` and ``run(mini_batch)``; relative to `source_directory`
        where that is given.
    source_directory : str or PathLike, optional
        Its whole content reaches every worker. Default: the folder of the entry script.
    mini_batch_size : int or str, optional
        Files: how many (default 10). Tables: bytes of source data, such as ``"10MB"``
        (default ``"1MB"``, 1024-based).
    partition_keys : list of str, optional
        One mini-batch per existing combination of these keys; excludes `mini_batch_size`.
    error_threshold : int
        Abort when more **items** (rows, files) than this have failed; -1 never aborts.
    allowed_failed_count : int, optional
        Abort when more **mini-batches** than this have failed; -1 never aborts.
    allowed_failed_percent : float, optional
        Abort when more than this percentage of the mini-batches have failed; looked at
        once every mini-batch has been scheduled.
    output_action : {"append_row", "summary_only"}
        Whether the rows that run() returns are written to the one output file.
    append_row_file_name : str
        Name of the output file in the output folder. The default gets the suffix of
        `output_format`.
    output_format : {"text", "csv", "jsonl", "parquet"}
        ``text`` is what Azure ML writes: ``str(element)`` a line; a DataFrame with blanks
        between the values and no header.
    ordered : bool
        Write the rows of the mini-batches in input order.
    compute_target : optional
        None (a cluster on this machine), a `distributed.Client`, a Dask cluster object,
        or a scheduler's address such as ``"tcp://host:8786"``.
    node_count, process_count_per_node : int, optional
        Size of the local cluster; `process_count_per_node` also limits the entry processes
        on each worker of a given cluster. Default: 1 node, as many processes as it has GPUs,
        or else CPU cores.
    run_invocation_timeout : float
        Seconds that one call of run() may take; then its process is killed.
    run_max_try : int
        How often a mini-batch is tried before it has failed.
    split_failed_mini_batches : bool
        When all tries have failed, halve the mini-batch until the bad items stand alone: all
        others succeed. At most ``run_max_try + min(2 n - 2, 2000)`` calls of run() for `n`
        items. Not with `partition_keys`.
    memory_limit_per_process : int or str, optional
        Bytes, or text such as ``"2GB"``, that an entry process and its children may use; above,
        it is killed and the try has failed. Default: its share of the Dask worker's limit,
        where that has one.
    init_timeout : float
        Seconds that the script's import and init() may take.
    first_task_creation_timeout, progress_update_timeout : float
        Seconds without any worker, and without any sign of life from the workers or an answer
        from the store of the output, after which the run fails with a message instead of waiting
        for ever.
    logging_level : {"WARNING", "INFO", "DEBUG"}
        Level of the root logger in the process of the script.
    environment : optional
        Kept for the report; the packages are those of the workers.
    environment_variables : mapping of str to str
        Set in the process of the script before it is imported.
    description : str, optional
        Shown in the report.

    Raises
    ------
    ConfigError
        A `ValueError` that names the field, the value and what is accepted.

    Examples
    --------
    >>> from daskprs import ParallelRunConfig
    >>> import tempfile, pathlib
    >>> script = pathlib.Path(tempfile.mkdtemp(), "score.py")
    >>> _ = script.write_text("def run(mini_batch): return mini_batch")
    >>> ParallelRunConfig(entry_script=script, mini_batch_size="10MB").run_max_try
    3
    """

    entry_script: str | os.PathLike[str]
    source_directory: str | os.PathLike[str] | None = None
    mini_batch_size: int | str | None = None
    partition_keys: list[str] | None = None
    error_threshold: int = -1
    allowed_failed_count: int | None = None
    allowed_failed_percent: float | None = None
    output_action: str = "append_row"
    append_row_file_name: str = DEFAULT_ROW_FILE
    output_format: str = "text"
    ordered: bool = False
    compute_target: Any = None
    node_count: int = 1
    process_count_per_node: int | None = None
    run_invocation_timeout: float = 60
    run_max_try: int = 3
    split_failed_mini_batches: bool = False
    memory_limit_per_process: int | str | None = None
    init_timeout: float = 600
    first_task_creation_timeout: float = 600
    progress_update_timeout: float = 1800
    logging_level: str = "INFO"
    environment: Any = field(default=None, repr=False)
    environment_variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    description: str | None = None

    def __post_init__(self) -> None:
        for item in fields(self):
            check = getattr(self, f"_check_{item.name}", None)
            if check is not None:
                object.__setattr__(self, item.name, check(getattr(self, item.name)))
        self._check_script_exists()
        if self.mini_batch_size is not None and self.partition_keys is not None:
            raise ConfigError(
                f"mini_batch_size={self.mini_batch_size!r} and "
                f"partition_keys={self.partition_keys!r} exclude each other: give only one of "
                "them, since with partition_keys every combination of keys is one mini-batch.",
                field="partition_keys",
                value=self.partition_keys,
                accepted="not together with mini_batch_size",
            )
        if self.split_failed_mini_batches and self.partition_keys is not None:
            raise ConfigError(
                "split_failed_mini_batches=True is not accepted together with partition_keys: "
                "all rows of a combination belong into one call of run().",
                field="split_failed_mini_batches",
                value=True,
                accepted="False where there are partition_keys",
            )
        if self.append_row_file_name == DEFAULT_ROW_FILE:
            name = _default_row_file(self.output_format)
            object.__setattr__(self, "append_row_file_name", name)

    # What the script is

    def _check_script_exists(self) -> None:
        for name in ("entry_script", "source_directory"):
            value = getattr(self, name)
            if value is None and name == "source_directory":
                continue
            path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
            if not isinstance(path, str) or not path.strip() or "\0" in path:
                raise ConfigError.of(name, value, "a path, such as 'score.py' or 'scripts'")
        if self.source_directory is not None and not self.source_path.is_dir():
            raise ConfigError.of(
                "source_directory",
                str(self.source_directory),
                "a folder that exists, such as 'scripts'",
            )
        script = self.script_path
        if not script.is_file():
            kind = "a folder" if script.is_dir() else "not there"
            raise ConfigError.of(
                "entry_script",
                str(self.entry_script),
                f"the path of a Python file that exists ({script} is {kind}), such as 'score.py'",
            )
        if not script.is_relative_to(self.source_path):
            raise ConfigError.of(
                "entry_script", str(self.entry_script), f"a path inside {self.source_path}"
            )

    @property
    def script_path(self) -> Path:
        """Absolute path of the entry script."""
        base = Path.cwd() if self.source_directory is None else self.source_path
        return Path(os.path.abspath(base / Path(self.entry_script).expanduser()))

    @property
    def source_path(self) -> Path:
        """Absolute path of the source directory."""
        if self.source_directory is None:
            return self.script_path.parent
        return Path(os.path.abspath(Path(self.source_directory).expanduser()))

    # One check a field, found by its name

    def _check_mini_batch_size(self, value: object) -> object:
        if value is None:
            return None
        size = parse_size("mini_batch_size", value)
        return value if isinstance(value, str) else size

    def _check_partition_keys(self, value: object) -> list[str] | None:
        if value is None:
            return None
        accepted = "a list of different key names, such as ['store', 'brand']"
        if isinstance(value, str) or not isinstance(value, list | tuple) or not value:
            raise ConfigError.of("partition_keys", value, accepted)
        if not all(isinstance(key, str) and key for key in value) or len(set(value)) < len(value):
            raise ConfigError.of("partition_keys", value, accepted)
        return list(value)

    def _check_error_threshold(self, value: object) -> int:
        return _integer("error_threshold", value, -1, "10 (or -1 for no limit)")

    def _check_allowed_failed_count(self, value: object) -> int | None:
        if value is None:
            return None
        return _integer("allowed_failed_count", value, -1, "10 (or -1 for no limit)")

    def _check_allowed_failed_percent(self, value: object) -> float | None:
        if value is None:
            return None
        number = _real_number(value)
        if number is None or not 0 <= number <= 100:
            raise ConfigError.of(
                "allowed_failed_percent", value, "a number from 0 to 100, such as 5"
            )
        return number

    def _check_output_action(self, value: object) -> str:
        return _choice("output_action", value, ("append_row", "summary_only"), str.lower)

    def _check_append_row_file_name(self, value: object) -> str:
        return check_file_name("append_row_file_name", value)

    def _check_output_format(self, value: object) -> str:
        return _choice("output_format", value, tuple(_SUFFIXES), str.lower)

    def _check_ordered(self, value: object) -> bool:
        return _flag("ordered", value)

    def _check_split_failed_mini_batches(self, value: object) -> bool:
        return _flag("split_failed_mini_batches", value)

    def _check_memory_limit_per_process(self, value: object) -> object:
        if value is not None:
            parse_size("memory_limit_per_process", value)
        return value

    def _check_node_count(self, value: object) -> int:
        return _integer("node_count", value, 1, "2")

    def _check_process_count_per_node(self, value: object) -> int | None:
        return None if value is None else _integer("process_count_per_node", value, 1, "4")

    def _check_run_invocation_timeout(self, value: object) -> float:
        return _seconds("run_invocation_timeout", value, "60")

    def _check_init_timeout(self, value: object) -> float:
        return _seconds("init_timeout", value, "600")

    def _check_first_task_creation_timeout(self, value: object) -> float:
        return _seconds("first_task_creation_timeout", value, "600")

    def _check_progress_update_timeout(self, value: object) -> float:
        return _seconds("progress_update_timeout", value, "1800")

    def _check_run_max_try(self, value: object) -> int:
        return _integer("run_max_try", value, 1, "3")

    def _check_logging_level(self, value: object) -> str:
        def fold(text: str) -> str:
            return {"WARN": "WARNING"}.get(text.upper(), text.upper())

        return _choice("logging_level", value, ("WARNING", "INFO", "DEBUG"), fold)

    def _check_environment_variables(self, value: object) -> dict[str, str]:
        if value is None:
            return {}
        accepted = "a dict of text to text, such as {'OMP_NUM_THREADS': '1'}"
        if not isinstance(value, Mapping):
            raise ConfigError.of("environment_variables", value, accepted)
        for name, text in value.items():
            named = isinstance(name, str) and name and "=" not in name and "\0" not in name
            if not named or not isinstance(text, str) or "\0" in text:
                # The value may be a secret: name the variable only.
                raise ConfigError.of("environment_variables", {name: "..."}, accepted)
        return dict(value)

    def _check_description(self, value: object) -> object:
        if value is not None and not isinstance(value, str):
            raise ConfigError.of("description", value, "text, such as 'the weekly scores'")
        return value

    @property
    def memory_limit(self) -> int | None:
        """Bytes that an entry process may use, where that is given."""
        given = self.memory_limit_per_process
        return None if given is None else parse_size("memory_limit_per_process", given)

    def with_changes(self, **changes: Any) -> ParallelRunConfig:
        """Return a copy with some fields changed, checked again."""
        if self.append_row_file_name == _default_row_file(self.output_format):
            changes = {"append_row_file_name": DEFAULT_ROW_FILE, **changes}
        return replace(self, **changes)


def _default_row_file(output_format: str) -> str:
    return Path(DEFAULT_ROW_FILE).stem + _SUFFIXES[output_format]
