"""Tests of ParallelRunConfig: what each field accepts, refuses and says."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskprs.config import ParallelRunConfig, parse_size
from daskprs.exceptions import ConfigError


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    (folder / "pkg/sub").mkdir(parents=True)
    for name in ("score.py", "pkg/sub/deep.py"):
        (folder / name).write_text("def run(mini_batch): return mini_batch\n")
    return folder / "score.py"


class Pathish:
    """A path of another library."""

    def __init__(self, path: object) -> None:
        self.path = path

    def __fspath__(self) -> Any:
        return self.path if isinstance(self.path, bytes) else str(self.path)


NAN, INF = float("nan"), float("inf")
NO_NUMBERS = [True, False, np.True_, NAN, INF, "3", 1 + 0j, [], None]
NO_WHOLE_NUMBERS = [*NO_NUMBERS, 1.0, 2.5, np.float64(3)]
NO_SECONDS = [*NO_NUMBERS, 0, -1, -0.5, -INF]
NO_TEXTS = [None, 3, True, b"x", [], {}]

ACCEPTED: dict[str, list[Any]] = {
    "mini_batch_size": [None, 1, 10, np.int64(7), 2**70, "5", " 10 ", "1kb", "10 MB", "3Gb", "007"],
    "partition_keys": [None, ["a"], ["store", "brand"]],
    "error_threshold": [-1, 0, 10, np.int32(5)],
    "allowed_failed_count": [None, -1, 0, 10, np.int64(3)],
    "allowed_failed_percent": [None, 0, 0.5, 100, np.float64(5), np.int64(7)],
    "output_action": ["append_row", "APPEND_ROW", "Summary_Only"],
    "append_row_file_name": ["rows.txt", "a b.csv", ".rows", "ä.txt", "no_suffix"],
    "output_format": ["text", "CSV", "jsonl", "parquet"],
    "ordered": [True, False],
    "compute_target": [None, "tcp://host:8786", object()],
    "node_count": [1, 5, np.uint8(2)],
    "process_count_per_node": [None, 1, 64],
    "run_invocation_timeout": [1, 0.5, np.float32(2), 10**400],
    "init_timeout": [1, 0.5],
    "first_task_creation_timeout": [1, 0.5],
    "progress_update_timeout": [1, 0.5],
    "run_max_try": [1, 3, np.int64(2)],
    "split_failed_mini_batches": [True, False],
    "memory_limit_per_process": [None, 10**9, "2GB"],
    "logging_level": ["WARNING", "warn", "Info", "debug"],
    "environment": [None, "anything"],
    "environment_variables": [None, {}, {"A": "1", "b_2": ""}],
    "description": [None, "", "the weekly scores"],
}

REFUSED: dict[str, list[Any]] = {
    "entry_script": [*NO_TEXTS, "", " ", "none.py", ".", "a\0b", Pathish(b"score.py")],
    "source_directory": [3, True, b"x", [], "", " ", "/no/such/folder", Pathish(b".")],
    "mini_batch_size": [
        *(0, -1, True, False, np.True_, 1.0, 10.5, NAN, INF, [], {}, b"1"),
        *("", " ", "0", "0MB", "-1", "+1", "1.5MB", "1TB", "MB", "10 M B", "10B", "1e3", "²", "٣"),
    ],
    "partition_keys": [[], (), "a", {"a"}, {"a": 1}, ["a", "a"], ["a", 1], [""], [None], 3],
    "error_threshold": [*NO_WHOLE_NUMBERS, -2],
    "allowed_failed_count": [value for value in [*NO_WHOLE_NUMBERS, -2] if value is not None],
    "allowed_failed_percent": [True, NAN, INF, -0.1, 100.1, -1, "5", "5%", []],
    "output_action": [*NO_TEXTS, "", "append", "append-row", "summary"],
    "append_row_file_name": [
        *NO_TEXTS,
        *("", " ", ".", "..", "a/b", "a\\b", "/a", "a\nb", "a\0"),
        *(f"a{mark}b" for mark in '~"#%&*:<>?/\\{|}'),
    ],
    "output_format": [*NO_TEXTS, "", "txt", "json", "feather"],
    "ordered": [None, 0, 1, "true", np.True_],
    "node_count": [*NO_WHOLE_NUMBERS, 0, -1],
    "process_count_per_node": [value for value in [*NO_WHOLE_NUMBERS, 0] if value is not None],
    "run_invocation_timeout": NO_SECONDS,
    "init_timeout": NO_SECONDS,
    "first_task_creation_timeout": NO_SECONDS,
    "progress_update_timeout": NO_SECONDS,
    "run_max_try": [*NO_WHOLE_NUMBERS, 0, -1],
    "split_failed_mini_batches": [None, 0, 1, "true"],
    "memory_limit_per_process": [0, -1, True, 1.5, "0", "2TB", "", []],
    "logging_level": [*NO_TEXTS, "", "ERROR", "verbose", 20],
    "environment_variables": [
        *([], "A=1", {"A": 1}, {1: "a"}, {"": "a"}, {"A=B": "c"}),
        *({"A\0": "b"}, {"A": "\0"}, {"A": None}, ["A=1"]),
    ],
    "description": [3, True, b"x", []],
}


def test_the_tables_name_every_field() -> None:
    """A new field cannot be forgotten here."""
    names = {field.name for field in dataclasses.fields(ParallelRunConfig)}
    assert set(ACCEPTED) | {"entry_script", "source_directory"} == names
    assert names - set(REFUSED) == {"compute_target", "environment"}


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, vs in ACCEPTED.items() for v in vs])
def test_accepted(script: Path, field: str, value: Any) -> None:
    """What is accepted is kept, numbers as Python's own."""
    kept = getattr(ParallelRunConfig(entry_script=script, **{field: value}), field)
    if isinstance(value, np.generic):
        assert kept == value
        assert type(kept) in (int, float)
    elif isinstance(value, str) and field in ("output_action", "output_format"):
        assert kept == value.lower()
    elif field == "logging_level":
        assert kept in ("WARNING", "INFO", "DEBUG")
    elif field == "environment_variables":
        assert kept == (value or {})
    else:
        assert kept == value


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, vs in REFUSED.items() for v in vs])
def test_refused(script: Path, field: str, value: Any) -> None:
    """The error names the field, the value, and what is accepted with an example."""
    with pytest.raises(ConfigError) as caught:
        ParallelRunConfig(**{"entry_script": script, field: value})
    error = caught.value
    assert error.field == field
    assert str(error).startswith(f"{field}={error.value!r} is not accepted: it must be ")
    assert error.accepted in str(error)
    # An example is a number, something in quotes, or all that there is.
    assert any(mark in error.accepted for mark in ("such as", "one of", "True or False"))
    assert isinstance(error, ValueError)


@given(st.integers(1, 10**6), st.sampled_from(["", "k", "m", "g"]), st.booleans())
def test_sizes_are_1024_based(number: int, unit: str, upper: bool) -> None:
    """Text with a unit in any case, with or without a blank, is a number of bytes."""
    power = ["", "k", "m", "g"].index(unit)
    text = f"{number} {unit}b" if unit else str(number)
    assert parse_size("x", text.upper() if upper else text) == number * 1024**power


def test_size_and_keys_exclude_each_other(script: Path) -> None:
    """Both together are refused, and both are named."""
    with pytest.raises(ValueError, match=r"mini_batch_size=5 and partition_keys=\['a'\]"):
        ParallelRunConfig(entry_script=script, mini_batch_size=5, partition_keys=["a"])


def test_keys_may_be_a_tuple(script: Path) -> None:
    """A tuple of names is as good as a list."""
    config = ParallelRunConfig(entry_script=script, partition_keys=("a", "b"))  # type: ignore[arg-type]
    assert config.partition_keys == ["a", "b"]


@pytest.mark.parametrize(
    ("output_format", "name"),
    [("text", "txt"), ("csv", "csv"), ("jsonl", "jsonl"), ("parquet", "parquet")],
)
def test_default_name_has_the_suffix_of_the_format(
    script: Path, output_format: str, name: str
) -> None:
    """The name of the output follows the format, also when the format is changed later."""
    expected = f"parallel_run_step.{name}"
    config = ParallelRunConfig(entry_script=script, output_format=output_format)
    assert config.append_row_file_name == expected
    for other in ("csv", "text"):
        changed = ParallelRunConfig(entry_script=script, output_format=other)
        assert changed.with_changes(output_format=output_format).append_row_file_name == expected


def test_given_name_stays(script: Path) -> None:
    """A name that the user gave is not touched by a change of the format."""
    config = ParallelRunConfig(entry_script=script, append_row_file_name="rows.txt")
    assert config.with_changes(output_format="csv").append_row_file_name == "rows.txt"


# --- Where the script is ----------------------------------------------------------------------


def test_script_alone(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a source directory it is the folder of the script, however that is written."""
    monkeypatch.chdir(script.parent)
    monkeypatch.setenv("HOME", str(script.parent))
    for given_script in (
        script,
        str(script),
        "score.py",
        "./score.py",
        Pathish(script),
        "~/score.py",
    ):
        config = ParallelRunConfig(entry_script=given_script)
        assert (config.script_path, config.source_path) == (script, script.parent)


def test_script_in_a_source_directory(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script is relative to the source directory where that is given."""
    monkeypatch.chdir(script.parent / "pkg")
    for folder in (script.parent, "..", Pathish(script.parent)):
        for name in ("pkg/sub/deep.py", Path("pkg") / "sub" / "deep.py"):
            config = ParallelRunConfig(entry_script=name, source_directory=folder)
            assert config.script_path == script.parent / "pkg/sub/deep.py"
            assert config.source_path == script.parent


def test_script_outside_of_the_source_directory(script: Path) -> None:
    """It would not reach the workers: refused."""
    with pytest.raises(ConfigError, match="a path inside") as caught:
        ParallelRunConfig(entry_script=script, source_directory=script.parent / "pkg")
    assert caught.value.field == "entry_script"


def test_script_that_is_a_folder(script: Path) -> None:
    """The message says what is there instead of a file."""
    with pytest.raises(ConfigError, match="is a folder"):
        ParallelRunConfig(entry_script=script.parent)


# --- The object -------------------------------------------------------------------------------


def test_fields_are_given_by_name_and_fixed(script: Path) -> None:
    """Nothing is positional, unknown or changed afterwards."""
    with pytest.raises(TypeError):
        ParallelRunConfig(script)  # type: ignore[misc]
    with pytest.raises(TypeError):
        ParallelRunConfig(entry_script=script, mini_batchsize=3)  # type: ignore[call-arg]
    config = ParallelRunConfig(entry_script=script)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.run_max_try = 5  # type: ignore[misc]


def test_with_changes_checks_again(script: Path) -> None:
    """A changed copy is a config like any other, and the first one stays as it was."""
    config = ParallelRunConfig(
        entry_script=script, mini_batch_size=5, environment_variables={"A": "1"}
    )
    changed = config.with_changes(mini_batch_size=None, partition_keys=["a"])
    assert (config.mini_batch_size, changed.mini_batch_size) == (5, None)
    assert changed.environment_variables == {"A": "1"}
    with pytest.raises(ConfigError, match="partition_keys"):
        config.with_changes(partition_keys=["a"])
    with pytest.raises(ConfigError, match="run_max_try=0"):
        config.with_changes(run_max_try=0)


def test_config_pickles(script: Path) -> None:
    """A config survives the way to another process."""
    config = ParallelRunConfig(
        entry_script=script, mini_batch_size="10MB", environment_variables={"A": "1"}
    )
    assert pickle.loads(pickle.dumps(config)) == config


def test_defaults(script: Path) -> None:
    """The defaults are those that the documentation of Azure ML names."""
    config = ParallelRunConfig(entry_script=script)
    assert (config.error_threshold, config.run_max_try, config.run_invocation_timeout) == (
        -1,
        3,
        60,
    )
    assert (config.output_action, config.append_row_file_name) == (
        "append_row",
        "parallel_run_step.txt",
    )
    assert (config.node_count, config.process_count_per_node, config.logging_level) == (
        1,
        None,
        "INFO",
    )


def test_secrets_are_not_shown(script: Path) -> None:
    """Values of environment variables are neither in the repr nor in an error."""
    config = ParallelRunConfig(entry_script=script, environment_variables={"KEY": "secret"})
    assert "secret" not in repr(config)
    with pytest.raises(ConfigError) as caught:
        ParallelRunConfig(entry_script=script, environment_variables={"KEY": "secret\0"})
    assert "secret" not in f"{caught.value} {caught.value.value}"
