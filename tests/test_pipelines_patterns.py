"""Patterns for what is wanted of the output of a step; its logs are never among it."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

import fsspec
import pytest
from azureml_parts import Driver
from azureml_parts import driver as driver
from azureml_parts import opened as opened
from pipeline_parts import Yard, rows

from daskprs import ConfigError, InputNotFoundError
from daskprs.pipelines import DataPath, Datastore, Pipeline, ScriptStep, StepOutput

FILES = ("a.csv", "b.txt", "[c].csv", "x/a.csv", "x/y/b.csv", "x/y/c.txt", "z/x/a.csv",
         "logs/d.csv", ".daskprs/e.csv")  # fmt: skip
PATTERNS = ("*.csv", "**/*.csv", "x/*.csv", "x/**/*.csv", "*/a.csv", "**/x/*.csv", "b.txt",
            "**/**/a.csv", "*/*/*.*", "?.csv", "[[]c].csv")  # fmt: skip


def written(folder: Path) -> None:
    for name in FILES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("n\n1\n")


@pytest.mark.parametrize("place", ["disk", "store"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_takes_what_the_glob_of_python_takes(
    pattern: str, place: str, tmp_path: Path
) -> None:
    written(tmp_path)
    url = str(tmp_path)
    if place == "store":
        url = "memory://patterns"
        fsspec.filesystem("memory").put(f"{tmp_path}/", "/patterns/", recursive=True)
    path = DataPath(Datastore("store", url), "")
    files = StepOutput("x").as_files(pattern=pattern).data(path).open().files()
    found = {file.path.removeprefix(str(tmp_path)).removeprefix("memory://") for file in files}
    found = {name.removeprefix("/patterns").lstrip("/") for name in found}
    expected = glob.glob(pattern, root_dir=tmp_path, recursive=True)
    assert found == {name for name in expected if not name.startswith("logs/")}
    fsspec.filesystem("memory").store.clear()


def test_a_pattern_that_nothing_matches_is_named(tmp_path: Path) -> None:
    written(tmp_path)
    path = DataPath(None, str(tmp_path))
    with pytest.raises(InputNotFoundError, match=r"no file of the output 'x' matches '\*\.log'"):
        StepOutput("x").as_files(pattern="*.log").data(path)


@pytest.mark.parametrize("pattern", ["", "/", "/a", "../a", "s3://a", 3])
def test_a_pattern_stays_inside_the_output(pattern: Any) -> None:
    with pytest.raises(ConfigError, match="a glob inside the output"):
        StepOutput("x").as_tables(pattern=pattern)


WRITE = """
import sys
for name in ("a.csv", "b.csv", "notes.txt", "c.tsv"):
    open(f"{sys.argv[1]}/{name}", "w").write(f"name,n\\n{name},1\\n")
"""


def test_a_parallel_step_reads_what_matches(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    (tmp_path / "write.py").write_text(WRITE)
    tables = StepOutput("tables")
    first = ScriptStep("write", tmp_path / "write.py", [tables], outputs=[tables])
    config = yard.config("def run(m): return list(m['name'])", "names.py")
    second = yard.step("names", [tables.as_tables(pattern="*.csv")], config=config)
    run = Pipeline(yard.workspace, [first, second]).submit("test")
    run.wait_for_completion()
    assert rows(run, "names", tmp_path / "got") == ["a.csv", "b.csv"]


READS = {
    "PipelineData, by extension": (
        "PipelineData('t').as_dataset()",
        "parse_delimited_files(file_extension='.csv')",
        "**/*.csv",
    ),
    "PipelineData, all": ("PipelineData('t').as_dataset()", "parse_delimited_files()", None),
    "PipelineData, parquet": (
        "PipelineData('t').as_dataset()", "parse_parquet_files()", "**/*.parquet",
    ),
    "PipelineData, all parquet": (
        "PipelineData('t').as_dataset()", "parse_parquet_files(file_extension=None)", None,
    ),
    "config, by glob": (
        "OutputFileDatasetConfig('t')", "read_delimited_files(path_glob='x/*.csv')", "x/*.csv",
    ),
    "config, parquet": (
        "OutputFileDatasetConfig('t')", "read_parquet_files(path_glob='*.p')", "*.p",
    ),
    "config, all": ("OutputFileDatasetConfig('t')", "read_delimited_files()", None),
}  # fmt: skip


@pytest.mark.parametrize("kind", READS)
def test_patterns_of_azure_ml_are_taken(kind: str, driver: Driver) -> None:
    from azureml.data import OutputFileDatasetConfig
    from azureml.pipeline.core import PipelineData

    made, call, pattern = READS[kind]
    names = {"OutputFileDatasetConfig": OutputFileDatasetConfig, "PipelineData": PipelineData}
    read = eval(f"{made}.{call}.as_named_input('x')", names)
    assert (read.pattern, read.name) == (pattern, "x")
