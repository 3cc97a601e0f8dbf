"""Job files in the style that people publish give the rows of a plain loop."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
from commands import daskprs
from job_files import Place

from daskprs import EntryScriptError

pytestmark = pytest.mark.usefixtures("no_daskprs_threads")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_table_and_a_model(place: Place) -> None:
    """The batch prediction with an MLTable, by the command as it is typed."""
    rows = place.iris()
    done = daskprs("run", "pipeline.yml", "--quiet", cwd=place.folder)
    assert done.returncode == 0, done.stderr
    expected = sorted(f'{length} "{kind}" {length > 2.5} 2a_yaml' for length, kind in rows)
    shown = "pipeline.outputs/batch_prediction/job_output_file/aggregated_returns.csv"
    assert place.lines(shown) == expected
    assert done.stdout.splitlines()[:4] == [
        "batch_prediction (parallel)",
        "Status        Completed",
        "Mini-batches  3 of 3 succeeded",
        "Items         200 of 200 succeeded",
    ]
    assert f"Output        job_output_file: {place.folder / shown}" in done.stdout
    planned = daskprs("plan", "pipeline.yml", cwd=place.folder)
    assert planned.returncode == 0, planned.stderr
    assert "3 mini-batches" in planned.stdout


OJ_SALES = """\
type: pipeline
settings: {default_compute: "azureml:cpu-cluster"}
jobs:
  partition_job:
    type: command
    component: ./src/partition_data/partition_data.yml
    inputs:
      data_source:
        type: uri_file
        path: ./sales.csv
      partition_keys: Store,Brand
    outputs:
      tabular_output_data: {type: mltable, mode: rw_mount}
  parallel_train:
    type: parallel
    compute: azureml:cpu-cluster
    inputs:
      data_source:
        path: ${{parent.jobs.partition_job.outputs.tabular_output_data}}
        type: mltable
        mode: direct
      target_col: "Quantity"
    outputs:
      model_folder: {type: uri_folder, mode: rw_mount}
      returns: {type: uri_folder}
    partition_keys:
      - Store
      - Brand
    resources: {instance_count: 1}
    error_threshold: -1
    mini_batch_error_threshold: 5
    mini_batch_size: "10kb"
    logging_level: "INFO"
    input_data: ${{inputs.data_source}}
    max_concurrency_per_instance: 2
    retry_settings: {max_retries: 2, timeout: 60}
    task:
      type: run_function
      code: ./src/parallel_train
      entry_script: parallel_train.py
      environment: azureml:prs-env@latest
      program_arguments: >-
        --target_col ${{inputs.target_col}}
        --model_folder ${{outputs.model_folder}}
      append_row_to: ${{outputs.returns}}
"""


def test_one_model_for_each_combination_of_keys(place: Place) -> None:
    """A component that writes an MLTable, and a parallel job by partition_keys after it."""
    sales = [
        (store, brand, 10 * store + week)
        for store in (1, 2, 3) for brand in ("tropicana", "dominicks") for week in range(4)
    ]  # fmt: skip
    place.write("pipeline.yml", OJ_SALES)
    table = "".join(f"{store},{brand},{count}\n" for store, brand, count in sales)
    place.write("sales.csv", f"Store,Brand,Quantity\n{table}")
    place.write(
        "src/partition_data/partition_data.yml",
        """\
        type: command
        name: partition_data
        version: 1
        inputs:
          data_source: {type: uri_file}
          partition_keys: {type: string}
          limit: {type: integer, optional: true}
        outputs:
          tabular_output_data: {type: mltable}
        code: ./
        environment: {image: "mcr.microsoft.com/azureml/openmpi", conda_file: ./conda.yml}
        command: >-
          python partition_data.py
          --data_source ${{inputs.data_source}}
          --partition_keys ${{inputs.partition_keys}}
          $[[--limit ${{inputs.limit}}]]
          --tabular_output_data ${{outputs.tabular_output_data}}
        """,
    )
    place.write(
        "src/partition_data/partition_data.py",
        """\
        import argparse, os, shutil
        parser = argparse.ArgumentParser()
        for name in ("data_source", "partition_keys", "limit", "tabular_output_data"):
            parser.add_argument("--" + name)
        args = parser.parse_args()
        assert args.limit is None and args.partition_keys == "Store,Brand"
        shutil.copy(args.data_source, os.path.join(args.tabular_output_data, "part.csv"))
        with open(os.path.join(args.tabular_output_data, "MLTable"), "w") as file:
            file.write("paths: [{pattern: ./*.csv}]\\ntransformations: [{read_delimited: {}}]\\n")
        """,
    )
    place.write(
        "src/parallel_train/parallel_train.py",
        """\
        import argparse, json, os
        import pandas as pd

        def init():
            global args
            parser = argparse.ArgumentParser()
            parser.add_argument("--target_col")
            parser.add_argument("--model_folder")
            parser.add_argument("--partition_keys")
            args, _ = parser.parse_known_args()
            assert json.loads(args.partition_keys) == ["Store", "Brand"]

        def run(input_data, mini_batch_context):
            keys = mini_batch_context.partition_key_value
            total = int(input_data[args.target_col].sum())
            folder = os.path.join(args.model_folder, *map(str, keys.values()))
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, "model.txt"), "w") as file:
                file.write(str(total))
            return pd.DataFrame({"Store": [keys["Store"]], "Brand": keys["Brand"], "n": [total]})
        """,
    )
    place.complete()
    totals: dict[tuple[int, str], int] = {}
    for store, brand, count in sales:
        totals[store, brand] = totals.get((store, brand), 0) + count
    folder = place.folder / "pipeline.outputs" / "parallel_train"
    assert place.lines(str(folder / "returns" / "parallel_run_step.txt")) == sorted(
        f"{store} {brand} {total}" for (store, brand), total in totals.items()
    )
    models = {path.parent: path.read_text() for path in folder.rglob("model.txt")}
    assert models == {
        folder / "model_folder" / str(store) / brand: str(total)
        for (store, brand), total in totals.items()
    }


MNIST = """\
type: pipeline
inputs:
  count: 7
  suffix: {type: string, default: png}
outputs:
  final:
    type: uri_folder
jobs:
  prepare_data:
    type: command
    code: ./script
    command: |
      mkdir -p ${{outputs.images}}/inner
      for n in $(seq ${{inputs.count}}); do
        echo "$GREETING $n" > ${{outputs.images}}/inner/$n.${{inputs.suffix}}
      done
    environment: azureml:any@latest
    environment_variables: {GREETING: hello}
    inputs:
      count: ${{parent.inputs.count}}
      suffix: ${{parent.inputs.suffix}}
    outputs:
      images:
  predict_digits:
    type: parallel
    inputs:
      job_data_path:
        type: uri_folder
        path: ${{parent.jobs.prepare_data.outputs.images}}
        mode: ro_mount
    outputs:
      job_output_file:
        type: uri_file
    mini_batch_size: "5"
    max_concurrency_per_instance: 1
    input_data: ${{inputs.job_data_path}}
    task:
      type: run_function
      code: ./script
      entry_script: digits.py
      append_row_to: ${{outputs.job_output_file}}
  count_rows:
    type: command
    command: python -c "print(len(open('${{inputs.rows}}').readlines()))" > ${{outputs.total}}/n
    inputs:
      rows: ${{parent.jobs.predict_digits.outputs.job_output_file}}
    outputs:
      total: ${{parent.outputs.final}}
"""

DIGITS = """\
import os

def run(mini_batch):
    return [f"{os.path.basename(path)}: {open(path).read().strip()}" for path in mini_batch]
"""


def test_commands_before_and_after_a_parallel_job_over_files(place: Place) -> None:
    place.write("pipeline.yml", MNIST)
    place.write("script/digits.py", DIGITS)
    run = place.complete()
    assert run.job.order == ["prepare_data", "predict_digits", "count_rows"]
    folder = "pipeline.outputs/predict_digits/job_output_file/parallel_run_step.txt"
    assert place.lines(folder) == [f"{n}.png: hello {n}" for n in range(1, 8)]
    assert place.lines("pipeline.outputs/final/n") == ["7"]


def test_a_parallel_job_alone_takes_other_values_by_set(place: Place) -> None:
    """No pipeline around it; --set and --output as on the command line."""
    place.write("script/digits.py", DIGITS)
    place.write("other/1.txt", "one")
    place.write(
        "job.yml",
        """\
        type: parallel
        name: alone
        inputs:
          files: {type: uri_folder, path: azureml:images@latest}
        outputs:
          rows: {type: uri_file, path: found/rows.txt}
        input_data: ${{ inputs.files }}
        task: {code: script, entry_script: digits.py, append_row_to: "${{ outputs.rows }}"}
        """,
    )
    done = daskprs(
        "run", "job.yml", "--output", "out", "--set", "inputs.files.path=other",
        "--set", "max_concurrency_per_instance=1", "--quiet", cwd=place.folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert place.lines("out/found/rows.txt") == ["1.txt: one"]


def test_a_command_that_fails_ends_the_pipeline(place: Place) -> None:
    """Its last words come first; what needs it is not started; the exit code is 1."""
    text = MNIST.replace("mkdir -p ${{outputs.images}}/inner", "echo out of paper >&2; exit 3")
    place.write("pipeline.yml", text)
    place.write("script/digits.py", DIGITS)
    done = daskprs("run", "pipeline.yml", cwd=place.folder)
    assert done.returncode == 1
    shown = done.stderr.splitlines()
    assert "out of paper" in shown
    assert any(line.startswith("Error: the job 'prepare_data' has failed: its command ended with "
                               "exit code 3.") for line in shown)  # fmt: skip
    assert done.stdout.count("Canceled: it was not started") == 2


def test_a_command_that_takes_too_long_is_stopped(place: Place) -> None:
    place.write("job.yml", "type: command\ncommand: echo begun; sleep 60\nlimits: {timeout: 0.5}\n")
    run = place.run("job.yml")
    assert run.status("job")[0] == "Failed"
    assert "longer than limits.timeout=0.5 s" in run.status("job")[1]


def test_a_script_that_fails_shows_its_own_traceback(place: Place) -> None:
    place.write("pipeline.yml", MNIST)
    place.write("script/digits.py", "def run(mini_batch):\n    raise ValueError('no digit')\n")
    with pytest.raises(EntryScriptError, match="no digit"):
        place.complete()


def test_secrets_are_hidden_in_the_log_of_a_command(place: Place) -> None:
    job = "type: command\ncommand: echo it is $MY_TOKEN\n"
    place.write("job.yml", f"{job}environment_variables: {{MY_TOKEN: secret-of-ours}}\n")
    place.complete("job.yml")
    assert place.lines("job.outputs/job/logs/std_log.txt") == ["it is ***"]


def test_what_is_in_a_store_is_fetched_for_a_command(place: Place) -> None:
    """Again when it has changed; the url itself where the mode is direct."""
    store = fsspec.filesystem("memory")
    store.pipe("/letters/a.txt", b"a")
    place.write(
        "job.yml",
        """\
        type: command
        command: (cat ${{inputs.letters}}/*; echo ${{inputs.url}}) > ${{outputs.all}}
        inputs:
          letters: {path: memory://letters}
          url: {path: memory://letters, mode: direct}
        outputs:
          all: {type: uri_file, path: all.txt}
        """,
    )
    place.complete("job.yml")
    assert place.lines("job.outputs/all.txt") == ["amemory://letters"]
    store.pipe("/letters/b.txt", b"b")
    place.complete("job.yml")
    assert place.lines("job.outputs/all.txt") == ["abmemory://letters"]
    assert len(list((place.folder / "job.outputs/job/inputs").iterdir())) == 1
    store.rm("/letters", recursive=True)


def test_rows_as_an_output_of_the_pipeline(place: Place) -> None:
    """A date is text; modules of the user's code cannot be taken for those of Python."""
    place.write("script/signal.py", "raise RuntimeError\n")
    place.write("script/digits.py", DIGITS)
    text = MNIST.replace("count: 7", "count: 2024-05-31").replace("seq ${{inputs.count}}", "seq 2")
    text = text.replace("hello", "${{inputs.count}}").replace("$GREETING", "${{inputs.count}}")
    text = text.replace("environment_variables: {GREETING: ${{inputs.count}}}", "tags: {}")
    text = text[: text.index("  count_rows:")].replace(
        "job_output_file:\n        type: uri_file", "job_output_file: ${{parent.outputs.final}}"
    )
    place.write("pipeline.yml", text)
    run = place.complete()
    rows = place.folder / "pipeline.outputs/final/parallel_run_step.txt"
    assert run.outputs("predict_digits") == [("job_output_file", str(rows))]
    assert place.lines(str(rows)) == [f"{n}.png: 2024-05-31 {n}" for n in (1, 2)]
