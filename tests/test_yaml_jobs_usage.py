"""What is wrong in a job file is said in a few lines, with its line, before any work starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import content_of, daskprs
from job_files import IRIS, Place

from daskprs import ConfigError

# (text of the file, what stands there instead, the line, words that the message must have)
WRONG = [
    ("type: pipeline", "type: pipelin", 2, "'pipelin' did you mean 'pipeline'?"),
    ("type: pipeline", "type: sweep", 2, "'sweep' are not run here"),
    ("jobs:", "jbs:", 9, "jbs did you mean 'jobs'?"),
    ("type: parallel", "type: paralel", 11, "jobs.batch_prediction.type 'paralel' 'parallel'"),
    ("    compute:", "    comput:", 12, "comput did you mean 'compute'?"),
    ("type: mltable", "type: ml_table", 15, "'ml_table' Did you mean 'mltable'?"),
    ("path: ./iris-mltable", "pth: ./iris-mltable", 16, "pth did you mean 'path'?"),
    ("path: ./iris-mltable", "path: ./nowhere", 16, "'./nowhere' is not there"),
    ("path: ./iris-mltable", "path: azureml:iris@latest", 16,
     "'azureml:iris@latest' --set jobs.batch_prediction.inputs.input_data.path=PATH"),
    ("path: ./iris-mltable", "path: ${{parent.inputs.table}}", 16,
     "${{parent.inputs.table}} the pipeline has no such input"),
    ("path: ./iris-mltable", "path: ${{parent.jobs.prep.outputs.table}}", 16,
     "there is no job 'prep'"),
    ("path: ./iris-mltable", "path: ${{parent.jobs.prep.output.table}}", 16,
     "${{parent.jobs.prep.output.table}} is not accepted here"),
    ("path: ./iris-mltable", "path: a-${{parent.inputs.table", 16, "an expression has no }}"),
    ("path: ./iris-model", "path: ${{parent.jobs.batch_prediction.outputs.job_output_file}}", 9,
     "need one another"),
    ("mode: direct", "mode: directly", 17, "'directly' Did you mean 'direct'?"),
    ("type: uri_file", "type: uri_fil", 24, "'uri_fil' Did you mean 'uri_file'?"),
    ("path: azureml://datastores", "path: abfs://datastores", 25, "an expression in a url is not"),
    ("${{inputs.input_data}}", "${{inputs.input_dat}}", 27, "did you mean 'input_data'?"),
    ("input_data: ${{inputs.input_data}}", "input_data: ./iris-mltable", 27,
     "'./iris-mltable' write ${{inputs.NAME}}"),
    ('mini_batch_size: "1kb"', "mini_batch_size: 1 XB", 28, "'1 XB' 10mb"),
    ('mini_batch_size: "1kb"', "mini_batch_sizes: 3", 28, "did you mean 'mini_batch_size'?"),
    ('mini_batch_size: "1kb"', "partition_keys: []", 28, "partition_keys it is empty"),
    ('mini_batch_size: "1kb"', "partition_keys: [colour]", 10, "colour"),
    ("instance_count: 1", "instance_counts: 1", 30, "did you mean 'instance_count'?"),
    ("instance_count: 1", "instance_count: 0", 30, "0 at least 1"),
    ("max_concurrency_per_instance: 2", "max_concurrency_per_instance: many", 31, "'many'"),
    ('logging_level: "DEBUG"', "logging_level: LOUD", 32, "'LOUD' DEBUG"),
    ("error_threshold: 5", "error_threshold: -2", 33, "-2 at least -1"),
    ("mini_batch_error_threshold: 5", "mini_batch_eror_threshold: 5", 34,
     "did you mean 'mini_batch_error_threshold'?"),
    ("mini_batch_error_threshold: 5", "mini_batch_error_threshold: true", 34, "True"),
    ("max_retries: 2", "max_retry: 2", 36, "retry_settings.max_retry 'max_retries'"),
    ("max_retries: 2", "max_retries: -1", 36, "-1"),
    ("timeout: 60", "timeout: 0", 37, "0 seconds"),
    ('"2a_yaml"', "[1]", 39, "environment_variables.PARALLEL_EXAMPLE"),
    ("type: run_function", "type: function", 41, "run_function"),
    ('code: "./script"', 'code: "./scripts"', 42, "'./scripts' is not there"),
    ("entry_script: predict.py", "entry_script: predct.py", 43, "'predct.py' is not there"),
    ("entry_script: predict.py", "entry_scrip: predict.py", 43, "did you mean 'entry_script'?"),
    ("program_arguments: >-", "program_argument: >-", 49, "did you mean 'program_arguments'?"),
    ("--model ${{inputs.score_model}}", "--model ${{inputs.scoremodel}}", 49,
     "did you mean 'score_model'?"),
    ("--model ${{inputs.score_model}}", "--model ${{parent.inputs.model}}", 49,
     "${{parent.inputs.model}} is not accepted here"),
    ("--model ${{inputs.score_model}}", "--model '${{inputs.score_model}}", 49, "quotation"),
    ("--resource_monitor_interval", "--resource_monitr_interval", 49,
     "--resource_monitr_interval did you mean --resource_monitor_interval?"),
    ("--allowed_failed_percent 30", "--allowed-failed-percent 30", 49,
     "did you mean --allowed_failed_percent?"),
    ("--allowed_failed_percent 30", "--allowed_failed_percent lots", 49, "lots"),
    ("--allowed_failed_percent 30", "--allowed_failed_percent 300", 49, "300"),
    ("--allowed_failed_percent 30", "--error_threshold 6", 49,
     "--error_threshold 6 is not what error_threshold says"),
    ("--resource_monitor_interval 20", "--resource_monitor_interval", 49, "has no value"),
    ("append_row_to: ${{outputs.job_output_file}}", "append_row_to: ${{outputs.rows}}", 56,
     "${{outputs.rows}} 'job_output_file'"),
    ("append_row_to:", "append_rows_to:", 56, "did you mean 'append_row_to'?"),
    ("experiment_name: hello", "display_name: hello", 4, "'display_name' is there twice"),
    ("tags:", "tags: [", 7, "this is not YAML"),
    ("settings:", "schedule: x\nsettings:", 7, "schedule it is not supported"),
    ("  batch_prediction:", "  batch prediction:", 9, "'batch prediction'"),
    ("    type: parallel\n", "    type: parallel\n    component: ./none.yml\n", 12, "./none.yml"),
    ("    type: parallel\n", "    type: command\n", 27, "input_data there is no such key"),
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("usage"))
    place.iris()
    return place


@pytest.mark.parametrize(("old", "new", "line", "words"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_key_or_value_is_named(
    place: Place, old: str, new: str, line: int, words: str
) -> None:
    """The message has the line and the right name, in at most three lines; nothing is written."""
    assert old in IRIS
    place.write("wrong.yml", IRIS.replace(old, new, 1))
    before = content_of(place.folder)
    with pytest.raises(ConfigError) as caught:
        place.load("wrong.yml")
    told = str(caught.value)
    assert told.startswith(f"wrong.yml, line {line}: "), told
    assert all(word in told for word in words.split()), told
    assert len(told.splitlines()) <= 3
    assert content_of(place.folder) == before


def test_an_option_that_the_script_names_is_its_own(place: Place) -> None:
    """However near it is to one of a parallel job."""
    text = 'parser.add_argument("--model")'
    script = (place.folder / "script/predict.py").read_text()
    more = script.replace(text, f'{text}\n    parser.add_argument("--error_thresholds")')
    place.write("own/predict.py", more)
    text = IRIS.replace("./script", "./own")
    place.write("own.yml", text.replace("--resource_monitor_interval", "--error_thresholds"))
    place.load("own.yml")


SETS = {
    "jobs.batch_prediction.retry_settings.max_retry=3": "did you mean 'max_retries'?",
    "jobs.batch_prediction.retry_settings.max_retries=x": "'x'",
    "jobs.batch_predicton.type=parallel": "batch_predicton",
    "type.x=3": "there is no mapping that could hold 'x'",
    "type": "inputs.NAME.path=VALUE",
}


@pytest.mark.parametrize("change", SETS)
def test_a_wrong_set_is_named(place: Place, change: str) -> None:
    with pytest.raises(ConfigError) as caught:
        place.load("pipeline.yml", change)
    told = str(caught.value)
    assert SETS[change] in told
    assert f"--set {change.partition('=')[0]}" in told.replace("'", "")


COMPONENTS = {
    "inputs: {n: 3}": "the component has no such input",
    "outputs: {n: }": "the component has no such output",
    "inputs: {}": "the input 'count' is not given",
    "inputs: {count: many}": "'many' is not accepted: the input is of type integer",
    "inputs: {count: 11}": "from 1 to 10",
}


@pytest.mark.parametrize("use", COMPONENTS)
def test_inputs_and_outputs_are_those_of_the_component(place: Place, use: str) -> None:
    place.write(
        "make.yml",
        """\
        type: command
        inputs: {count: {type: integer, min: 1, max: 10}}
        outputs: {images: {type: uri_folder}}
        command: echo ${{inputs.count}} ${{outputs.images}}
        """,
    )
    more = "" if use.startswith("inputs") else "\n    inputs: {count: 3}"
    place.write(
        "use.yml", f"type: pipeline\njobs:\n  a:\n    component: make.yml{more}\n    {use}\n"
    )
    with pytest.raises(ConfigError, match=r"use\.yml, line") as caught:
        place.load("use.yml")
    assert COMPONENTS[use.splitlines()[-1].strip()] in str(caught.value)


LINES = {
    "run wrong.yml": "wrong.yml, line 9: jbs: there is no such key; did you mean 'jobs'?",
    "plan nowhere.yml": "nowhere.yml",
    "run pipeline.yml --frob": "--frob",
    "run pipeline.yml --output abfs://x/y": "abfs://x/y",
    "run pipeline.yml --scheduler nonsense": "nonsense",
}


@pytest.mark.parametrize("line", LINES)
def test_a_wrong_command_line_is_answered_in_two_lines(place: Place, line: str) -> None:
    """Exit code 2, and nothing on standard output."""
    place.write("wrong.yml", IRIS.replace("jobs:", "jbs:"))
    told = daskprs(*line.split(), cwd=place.folder)
    assert (told.returncode, told.stdout) == (2, "")
    assert LINES[line] in told.stderr
    assert len(told.stderr.splitlines()) <= 2
    assert not list(Path(place.folder).glob("*.outputs"))


def test_an_output_of_the_pipeline_has_one_writer(place: Place) -> None:
    job = "{type: command, command: 'true', outputs: {x: '${{parent.outputs.all}}'}}"
    place.write("two.yml", f"outputs: {{all: }}\njobs:\n  a: {job}\n  b: {job}\n")
    with pytest.raises(ConfigError, match=r"line 1: outputs\.all: both a and b write it"):
        place.load("two.yml")
