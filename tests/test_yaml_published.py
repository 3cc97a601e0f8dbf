"""What published jobs of Azure ML's command line do, besides what the other tests have."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from job_files import Place

from daskprs import ConfigError
from daskprs.yaml_jobs.modules import mltable
from daskprs.yaml_jobs.parallel_job import ParallelJob

PARTITION = """\
import os, sys
import mltable
import pandas as pd
import yaml

source, keys, target = sys.argv[1:]
keys = keys.split(",")
for values, rows in pd.read_csv(source).groupby(keys):
    folder = os.path.join(target, *map(str, values))
    os.makedirs(folder)
    rows.drop(columns=keys).to_csv(os.path.join(folder, "part.csv"), index=False)
table = {
    "type": "mltable",
    "paths": [{"pattern": "./**/*.csv"}],
    "transformations": [
        {"read_delimited": {"delimiter": ",", "encoding": "ascii", "include_path_column": True}},
        {"extract_columns_from_partition_format": {
            "partition_format": "".join("{" + key + "}/" for key in keys) + "{file}.{ending}"}},
        {"drop_columns": ["Path", "file", "ending"]},
    ],
}
with open(os.path.join(target, "MLTable"), "w") as file:
    yaml.dump(table, file)
"""
MEAN = """\
import argparse
import mltable

def init():
    parser = argparse.ArgumentParser()
    parser.add_argument("--column")
    parser.add_argument("--logging_level")
    global args
    args, _ = parser.parse_known_args()

def run(rows, context):
    keys = "/".join(context.partition_key_value.values())
    return [f"{keys} {rows[args.column].mean()} {list(rows.columns)} {args.logging_level}"]
"""
JOBS = """\
type: pipeline
inputs:
  processes: 2
  level: DEBUG
  column: sold
jobs:
  partition:
    type: command
    code: ./src
    command: >-
      python partition.py ${{inputs.source}} ${{inputs.keys}} ${{outputs.table}}
    inputs:
      source:
        type: uri_file
        path: ./sales.csv
      keys: store,brand
    outputs:
      table:
        type: mltable
  mean:
    type: parallel
    inputs:
      rows:
        type: mltable
        path: ${{parent.jobs.partition.outputs.table}}
        mode: direct
      column: ${{parent.inputs.column}}
    outputs:
      means:
        type: uri_file
    input_data: ${{inputs.rows}}
    partition_keys: [store, brand]
    logging_level: ${{parent.inputs.level}}
    max_concurrency_per_instance: ${{parent.inputs.processes}}
    resources:
      instance_count: 1
    task:
      type: run_function
      code: ./src
      entry_script: mean.py
      program_arguments: --column ${{inputs.column}}
      append_row_to: ${{outputs.means}}
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.write("sales.csv", "store,brand,day,sold\n1,a,mo,2\n1,b,mo,3\n1,a,tu,4\n")
    place.write("src/partition.py", PARTITION)
    place.write("src/mean.py", MEAN)
    return place


def test_partitions_that_a_command_has_written_with_the_names_of_their_files(place: Place) -> None:
    """The keys come last, as from Azure ML; settings may be inputs of the pipeline."""
    place.write("job.yml", JOBS)
    place.complete("job.yml")
    rows = place.lines("job.outputs/mean/means/parallel_run_step.txt")
    columns = ["day", "sold", "store", "brand"]
    assert rows == [f"1/a 3.0 {columns} DEBUG", f"1/b 3.0 {columns} DEBUG"]


def test_an_option_of_azure_ml_may_lack_its_last_letter(place: Place) -> None:
    """As in the page about such jobs; there is no other that it could mean."""
    flags = "--allowed_failed_percen 30 --resource_monitor_interva 20"
    place.write("job.yml", JOBS.replace("--column", f"{flags} --column"))
    step = place.load("job.yml").steps["mean"]
    assert isinstance(step, ParallelJob)
    assert step.config.allowed_failed_percent == 30


def test_a_setting_that_is_an_input_with_data_is_told(place: Place) -> None:
    text = JOBS.replace("  processes: 2", "  processes: {type: uri_file, path: ./sales.csv}")
    place.write("job.yml", text)
    expected = "jobs.mean.max_concurrency_per_instance: .*parent.inputs.processes}} is data"
    with pytest.raises(ConfigError, match=expected):
        place.run("job.yml")


def test_mltable_loads_a_table_and_tells_what_it_cannot(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write("t/a.csv", "n\n1\n2\n")
    place.write("t/MLTable", "paths: [{file: a.csv}]\ntransformations:\n- read_delimited: {}\n")
    assert list(mltable.load(str(place.folder / "t")).to_pandas_dataframe()["n"]) == [1, 2]
    place.write("files/MLTable", "paths: [{file: ../t/a.csv}]\n")
    files = mltable.load(str(place.folder / "files"))
    with pytest.raises(ImportError, match="without a read_ transformation"):
        files.to_pandas_dataframe()
    with pytest.raises(AttributeError, match=r"mltable\.MLTable\.keep_columns is not supported"):
        files.keep_columns()
    monkeypatch.setitem(sys.modules, "mltable", mltable)
    with pytest.raises(ImportError, match=r"mltable\.from_paths is not supported by daskprs"):
        exec("from mltable import from_paths")
