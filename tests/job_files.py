"""What the tests of job files share: folders with jobs as people publish them, and runs of them."""

from __future__ import annotations

import textwrap
from pathlib import Path

from daskprs.yaml_jobs.jobs import JobFile
from daskprs.yaml_jobs.pipeline_job import JobRun, PipelineJob

IRIS = """\
$schema: https://azuremlschemas.azureedge.net/latest/pipelineJob.schema.json
type: pipeline
display_name: iris-batch-prediction
experiment_name: hello-parallel
tags:
  owner: ada
settings:
  default_compute: azureml:cpu-cluster
jobs:
  batch_prediction:
    type: parallel
    compute: azureml:cpu-cluster
    inputs:
      input_data:
        type: mltable
        path: ./iris-mltable
        mode: direct
      score_model:
        type: uri_folder
        path: ./iris-model
        mode: download
    outputs:
      job_output_file:
        type: uri_file
        path: azureml://datastores/${{default_datastore}}/paths/${{name}}/aggregated_returns.csv
        mode: rw_mount
    input_data: ${{inputs.input_data}}
    mini_batch_size: "1kb"
    resources:
        instance_count: 1
    max_concurrency_per_instance: 2
    logging_level: "DEBUG"
    error_threshold: 5
    mini_batch_error_threshold: 5
    retry_settings:
      max_retries: 2
      timeout: 60
    environment_variables:
      "PARALLEL_EXAMPLE": "2a_yaml"
    task:
      type: run_function
      code: "./script"
      entry_script: predict.py
      environment:
        name: "prs-env"
        version: 1
        image: mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04
        conda_file: ./environment/environment_parallel.yml
      program_arguments: >-
        --model ${{inputs.score_model}}
        --allowed_failed_percent 30
        --task_overhead_timeout 1200
        --progress_update_timeout 600
        --first_task_creation_timeout 600
        --resource_monitor_interval 20
      append_row_to: ${{outputs.job_output_file}}
"""

PREDICT = """\
import argparse
import os


def init():
    global limit
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    args = parser.parse_args()
    with open(os.path.join(args.model, "limit.txt")) as file:
        limit = float(file.read())


def run(mini_batch):
    mini_batch["large"] = mini_batch["length"] > limit
    mini_batch["where"] = os.environ["PARALLEL_EXAMPLE"]
    return mini_batch
"""


class Place:
    """A folder with a job file and all that it names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), "utf-8")
        return path

    def iris(self) -> list[tuple[float, str]]:
        """Write the job of a table and a model; return the rows of the table."""
        rows = [(1 + number % 7 / 2, f"kind {number % 3}") for number in range(200)]
        self.write("pipeline.yml", IRIS)
        self.write("script/predict.py", PREDICT)
        self.write("iris-model/limit.txt", "2.5")
        table = "".join(f"{length},{kind}\n" for length, kind in rows)
        self.write("iris-mltable/iris.csv", f"length,kind\n{table}")
        self.write(
            "iris-mltable/MLTable",
            """\
            type: mltable
            paths:
              - file: ./iris.csv
            transformations:
              - read_delimited:
                  delimiter: ","
                  encoding: ascii
                  header: all_files_same_headers
            """,
        )
        return rows

    def load(self, name: str = "pipeline.yml", *changes: str) -> PipelineJob:
        return PipelineJob(JobFile.load(self.folder / name, changes=changes))

    def run(self, name: str = "pipeline.yml", *changes: str) -> JobRun:
        """Run a job file to its end."""
        run = self.load(name, *changes).submit()
        run.wait()
        return run

    def complete(self, name: str = "pipeline.yml", *changes: str) -> JobRun:
        run = self.run(name, *changes)
        if run.run.error is not None:
            raise run.run.error
        return run

    def lines(self, name: str) -> list[str]:
        """Return the sorted lines of a file of the outputs."""
        return sorted((self.folder / name).read_text("utf-8").splitlines())
