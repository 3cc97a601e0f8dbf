"""Scripts of Azure ML in pipelines of the door: PythonScriptStep, and what workers register."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from azureml_parts import Driver
from azureml_parts import driver as driver
from azureml_parts import opened as opened

from daskprs import ConfigError, EntryScriptError, FileDataset, ParallelRunStep, RunFailedError
from daskprs import ParallelRunConfig as PlainConfig

pytestmark = pytest.mark.usefixtures("no_daskprs_threads")


def step(driver: Driver, text: str, name: str = "prepare", **more: Any) -> Any:
    from azureml.pipeline.steps import PythonScriptStep

    folder = driver.folder / f"{name}_scripts"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    return PythonScriptStep(
        name=name, script_name=f"{name}.py", source_directory=str(folder), **more
    )


def done(driver: Driver, *steps: Any, **parameters: Any) -> Any:
    run = driver.submit(*steps, pipeline_parameters=parameters)
    assert run.wait_for_completion(show_output=False, timeout_seconds=100) == "Completed"
    return run


def log_of(run: Any, name: str = "prepare") -> str:
    [one] = run.find_step_run(name)
    one.download_file("logs/std_log.txt", "log.txt")
    return Path("log.txt").read_text("utf-8")


PREPARE = """
import argparse, os
from azureml.core import Run
parser = argparse.ArgumentParser()
parser.add_argument("--images", type=str)
parser.add_argument("--copies", type=int)
parser.add_argument("--out")
args = parser.parse_args()
run = Run.get_context()
assert args.images == run.input_datasets["images"]
for name in sorted(os.listdir(args.images)):
    for number in range(args.copies):
        with open(os.path.join(args.out, f"{number}-{name}"), "w") as file:
            file.write("x" * number)
run.log("files", len(os.listdir(args.out)))
run.parent.log("from below", 1)
"""

COLLECT = """
import argparse, os
parser = argparse.ArgumentParser()
parser.add_argument("--rows")
parser.add_argument("--out")
args = parser.parse_args()
with open(os.path.join(args.rows, "rows.csv")) as file:
    rows = sorted(file)
with open(os.path.join(args.out, "all.csv"), "w") as file:
    file.writelines(rows)
"""


@pytest.mark.parametrize("generation", ["PipelineData", "OutputFileDatasetConfig"])
def test_scripts_before_and_after_a_parallel_step(generation: str, driver: Driver) -> None:
    """With data between them in the forms of two generations, and submitted twice."""
    from azureml.core import Dataset
    from azureml.core.runconfig import CondaDependencies, RunConfiguration
    from azureml.data import OutputFileDatasetConfig
    from azureml.pipeline.core import PipelineData, PipelineParameter
    from azureml.pipeline.steps import ParallelRunStep

    driver.files("a", "b", folder="pictures")
    driver.store.upload("pictures", "pictures")
    images = Dataset.File.from_files((driver.store, "pictures")).as_named_input("images").as_mount()
    count = PipelineParameter("copies", 2)
    runconfig = RunConfiguration()
    runconfig.environment.python.conda_dependencies = CondaDependencies.create(
        pip_packages=["dask"]
    )
    runconfig.environment.docker.enabled = True
    more: dict[str, Any] = {"compute_target": "cpu-cluster", "runconfig": runconfig}
    if generation == "PipelineData":
        files, sizes, total = (PipelineData(name, driver.store) for name in ("f", "s", "t"))
        reads: list[Any] = [files, sizes]
        first, last = (
            {"inputs": [images], "outputs": [files]},
            {"inputs": [sizes], "outputs": [total]},
        )
    else:
        files, sizes, total = (OutputFileDatasetConfig(name) for name in ("f", "s", "t"))
        reads = [files.as_input("f"), sizes.as_input("s")]
        first, last = {}, {}
        files = files.as_upload(overwrite=True)
    prepare = step(
        driver, PREPARE, arguments=["--images", images, "--copies", count, "--out", files],
        **first, **more,
    )  # fmt: skip
    measure = ParallelRunStep(
        "measure", driver.config(append_row_file_name="rows.csv"), inputs=[reads[0]], output=sizes
    )
    collect = step(
        driver, COLLECT, "collect", arguments=["--rows", reads[1], "--out", total], **last, **more
    )
    run = done(driver, measure, collect, prepare)
    assert [one.name for one in run.get_steps()] == ["prepare", "measure", "collect"]
    assert driver.rows(run, "collect") == ["0-a,0", "0-b,0", "1-a,1", "1-b,1"]
    [prepared] = run.find_step_run("prepare")
    assert "logs/user/metrics/metrics.jsonl" in prepared.get_file_names()
    again = done(driver, measure, collect, prepare, copies=1)
    assert driver.rows(again, "collect", "again") == ["0-a,0", "0-b,0"]


EVERYTHING = """
import multiprocessing, os, sys
import joblib
from azureml.core import Dataset, Datastore, Model, Run, Workspace
from azureml.core.run import _OfflineRun

def inside(number):
    from azureml.core import Run
    return Run.get_context().id

if __name__ == "__main__":
    run = Run.get_context()
    ws = run.experiment.workspace
    assert not isinstance(run, _OfflineRun)
    print(ws.name, ws.subscription_id, run.experiment.name, run.parent.id, run.id)
    table = run.input_datasets["sales"].to_pandas_dataframe()
    print(list(table), len(table), table["code"].iloc[0])
    store = ws.get_default_datastore()
    os.makedirs("outputs", exist_ok=True)
    with open("outputs/model.txt", "w") as file:
        file.write("a model")
    model = run.register_model("first", "outputs/model.txt", tags={"rows": len(table)})
    again = Model.register(ws, "outputs/model.txt", "first")
    print(model.version, again.version, model.tags, Model(ws, "first").version)
    store.upload_files(["outputs/model.txt"], target_path="kept")
    Dataset.File.from_files((store, "kept")).register(ws, "kept")
    run.upload_file("report/here.txt", "outputs/model.txt")
    run.upload_folder("whole", "outputs")
    print(run.get_file_names(), os.environ["AML_PARAMETER_stage"])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(inside, [0]) == [run.id]
    run.complete()
"""


def test_a_script_has_the_workspace(driver: Driver) -> None:
    """Tables by their names, models, datastores, files of the run; also in what it starts."""
    from azureml.core import Dataset, Model
    from azureml.data.dataset_factory import DataType

    Path("sales").mkdir()
    pd.DataFrame({"code": ["007", "008"], "n": [1, 2]}).to_csv("sales/a.csv", sep=";", index=False)
    driver.store.upload("sales", "sales")
    sales = Dataset.Tabular.from_delimited_files(
        (driver.store, "sales/*.csv"),
        separator=";",
        set_column_types={"code": DataType.to_string()},
    )
    named = sales.as_named_input("sales")
    prepare = step(driver, EVERYTHING, arguments=["--x", named], params={"stage": "test"})
    run = done(driver, prepare)
    lines = log_of(run).splitlines()
    [one] = run.find_step_run("prepare")
    assert lines == [
        f"w s test {run.id} {one.id}",
        "['code', 'n'] 2 007",
        "1 2 {'rows': '2'} 2",
        "['logs/std_log.txt', 'report/here.txt', 'whole/model.txt'] test",
    ]
    assert sorted(one.get_file_names()) == [
        "logs/std_log.txt", "outputs/model.txt", "report/here.txt", "whole/model.txt",
    ]  # fmt: skip
    one.download_file("report/here.txt")
    assert Path("here.txt").read_text() == "a model"
    assert Model(driver.ws, "first").version == 2
    assert Dataset.get_by_name(driver.ws, "kept").to_path() == ["/model.txt"]


def test_a_script_that_fails_shows_its_traceback_first(driver: Driver) -> None:
    text = "from azureml.core import Run\nraise ValueError(Run.get_context().experiment.name)\n"
    run = driver.submit(step(driver, text))
    with pytest.raises(EntryScriptError) as caught:
        run.wait_for_completion(show_output=False)
    lines = str(caught.value).splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[3] == "ValueError: test"


def test_what_has_no_meaning_here_is_taken_or_refused_with_a_word(
    driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    from azureml.pipeline.core import PipelineParameter
    from azureml.pipeline.steps import PythonScriptStep

    assert step(driver, "", version="1", hash_paths=["a"]).name == "prepare"
    assert "all files beside a script count" in caplog.text
    with pytest.raises(TypeError, match="give PipelineParameter objects as arguments"):
        step(driver, "", runconfig_pipeline_params={"x": 1})
    with pytest.raises(TypeError, match="give PipelineParameter objects as arguments"):
        step(driver, "", params={"x": PipelineParameter("x", 1)})
    with pytest.raises(ConfigError, match="a RunConfiguration"):
        step(driver, "", runconfig="config")
    with pytest.raises(ConfigError, match=r"script='nowhere\.py' is not accepted"):
        PythonScriptStep("nowhere.py")


@pytest.mark.parametrize("form", ["DataReference", "DataPath", "Datastore"])
def test_a_path_of_a_datastore_is_an_input_as_before_there_were_datasets(
    form: str, driver: Driver
) -> None:
    from azureml.data.data_reference import DataReference

    driver.store.upload(str(driver.files("a", "b")), "pictures")
    if form == "DataReference":
        given = DataReference(driver.store, "pictures", "pictures").as_mount()
    elif form == "DataPath":
        given = driver.store.path("pictures").as_download()
    else:
        given = driver.store.as_mount()
    text = """
import os, sys
from azureml.core import Run
[name] = Run.get_context().input_datasets
assert os.environ["AZUREML_DATAREFERENCE_" + name] == sys.argv[1]
print(name, sorted(os.listdir(sys.argv[1])))
"""
    run = done(driver, step(driver, text, inputs=[given], arguments=[given]))
    told = "workspaceblobstore ['azureml', 'pictures']"
    assert log_of(run).rstrip().replace("'azureml', ", "") in (
        told.replace("'azureml', ", ""), "pictures ['a', 'b']",
    )  # fmt: skip


def test_a_script_knows_the_keys_of_datastores_that_this_process_knows(driver: Driver) -> None:
    """And nothing that is written or told has them."""
    key = "c2VjcmV0IGtleSBvZiBhIHN0b3Jl"
    driver.ws._native.datastores.register("far", "memory://far", {"account_key": key})
    text = f"""
import hashlib
from azureml.core import Datastore, Run
options = Datastore.get(Run.get_context().experiment.workspace, "far")._native.storage_options
print(hashlib.sha256(options["account_key"].encode()).hexdigest() == {sha256(key)!r})
"""
    run = done(driver, step(driver, text))
    assert log_of(run) == "True\n"
    found = [path.read_bytes() for path in driver.folder.rglob("*") if path.is_file()]
    assert not any(key.encode() in content for content in found)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# What workers register

TRAIN = """
import argparse, os
import joblib
from azureml.core import Run

parser = argparse.ArgumentParser()
parser.add_argument("--model_type")
args, _ = parser.parse_known_args()

def init():
    global current_run
    current_run = Run.get_context()

def run(input_data):
    os.makedirs("./outputs", exist_ok=True)
    rows = []
    for path in input_data:
        name = args.model_type + "_" + os.path.basename(path)
        joblib.dump(os.path.getsize(path), os.path.join("./outputs/", name))
        current_run.upload_file(name, os.path.join("./outputs/", name))
        tags = {"file": os.path.basename(path), "ModelType": args.model_type}
        current_run.register_model(
            model_path=name, model_name=name, model_framework=args.model_type, tags=tags
        )
        same = current_run.register_model(model_path=name, model_name="all_of_them", tags=tags)
        rows.append(f"{same.version}")
    return rows
"""

FORECAST = """
import os
import socket
import joblib
from azureml.core.model import Model
from azureml.core.run import Run

def run(input_data):
    ws = Run.get_context().experiment.workspace
    rows = []
    for path in input_data:
        tags = [["file", os.path.basename(path)], ["ModelType", "lr"]]
        [model] = [m for m in Model.list(ws, tags=tags, latest=True) if m.name != "all_of_them"]
        same = Model.get_model_path(model.name, _workspace=ws)
        assert joblib.load(same) == joblib.load(model.download(exist_ok=True))
        rows.append(f"{model.name} {model.version} {joblib.load(same)}")
    return rows
"""


def test_each_worker_registers_a_model_for_each_file_at_the_same_time(driver: Driver) -> None:
    """Every version is there, and a step after finds the models by their tags."""
    from azureml.core import Model
    from azureml.pipeline.core import PipelineData
    from azureml.pipeline.steps import ParallelRunStep

    names = [f"{number:02d}" for number in range(24)]
    folder = driver.files(*names)
    settings = {"mini_batch_size": 1, "process_count_per_node": 4}
    trained, forecasts = PipelineData("trained"), PipelineData("forecasts")
    train = ParallelRunStep(
        "train",
        driver.config(TRAIN, "train.py", **settings),
        inputs=[driver_files(driver, folder)],
        output=trained,
        arguments=["--model_type", "lr"],
    )
    forecast = ParallelRunStep(
        "forecast",
        driver.config(FORECAST, "forecast.py", mini_batch_size=8),
        inputs=[driver_files(driver, folder)],
        output=forecasts,
    )
    forecast.run_after(train)
    run = done(driver, forecast, train)
    assert sorted(map(int, driver.rows(run, "train"))) == list(range(1, 25))
    known = Model.list(driver.ws, "all_of_them")
    assert [model.version for model in known] == list(range(24, 0, -1))
    assert sorted(model.tags["file"] for model in known) == names
    expected = [f"lr_{name} 1 {size}" for size, name in enumerate(names, 1)]
    assert driver.rows(run, "forecast") == expected
    [one] = run.find_step_run("train")
    assert {name for name in one.get_file_names() if "/" not in name} == {
        f"lr_{name}" for name in names
    }


def driver_files(driver: Driver, folder: Path) -> Any:
    from azureml.core import Dataset

    return Dataset.File.from_files(str(folder)).as_named_input("files")


def test_a_run_of_no_pipeline_has_no_workspace_and_says_so(tmp_path: Path) -> None:
    script = tmp_path / "score.py"
    script.write_text(
        "from azureml.core import Run\ndef run(m): Run.get_context().upload_file('a', m[0])"
    )
    (tmp_path / "a.txt").write_text("a")
    config = PlainConfig(entry_script=script, process_count_per_node=1, run_max_try=1)
    run = ParallelRunStep("score", config, [FileDataset(tmp_path / "a.txt")], tmp_path / "out")
    with pytest.raises(RunFailedError, match=r"Run\.upload_file needs a workspace, and this run"):
        run.submit().wait_for_completion()


def test_a_workspace_that_the_worker_does_not_see_is_named(driver: Driver) -> None:
    """As on another machine: the worker says where it has looked, and what to do."""
    from azureml.pipeline.core import PipelineData
    from azureml.pipeline.steps import ParallelRunStep

    text = """
import json, os
from azureml.core import Model, Run
told = json.loads(os.environ["DASKPRS_WORKSPACE"])
os.environ["DASKPRS_WORKSPACE"] = json.dumps({**told, "folder": "/nowhere/ws"})
def run(mini_batch):
    Model.register(Run.get_context().experiment.workspace, mini_batch[0], "m")
"""
    score = ParallelRunStep(
        "score",
        driver.config(text),
        inputs=[driver_files(driver, driver.files("a"))],
        output=PipelineData("x"),
    )
    run = driver.submit(score)
    with pytest.raises(RunFailedError) as caught:
        run.wait_for_completion(show_output=False)
    message = (
        f"Model.register: the workspace '/nowhere/ws' cannot be reached from {socket.gethostname()}"
    )
    assert f"{message}: put it where all machines see it" in str(caught.value)
