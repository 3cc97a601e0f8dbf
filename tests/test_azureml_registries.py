"""The Azure-compatible door: datastores, datasets, models, environments, compute targets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest
from azureml_parts import Driver
from azureml_parts import driver as driver
from azureml_parts import opened as opened

from daskprs import InputNotFoundError, TargetError, UsageError


def test_a_workspace_is_found_and_written_down(driver: Driver) -> None:
    from azureml.core import Workspace

    ws = driver.ws
    assert (ws.name, ws.subscription_id, ws.resource_group) == ("w", "s", "")
    ws.write_config("elsewhere")
    again = Workspace.from_config("elsewhere")
    assert again.get_details() == ws.get_details()
    assert Workspace.get("other").name == "other"
    assert Path(".daskprs/other/config.json").exists()
    with pytest.raises(UsageError, match="keep the one of Azure ML there"):
        Workspace.from_config("/")


def test_a_datastore_uploads_and_downloads(driver: Driver) -> None:
    """Files that are there are left alone, unless they are to be overwritten."""
    from azureml.core import Datastore

    folder = driver.files("a", "b")
    assert repr(driver.store.upload(str(folder), "up")) == "DataPath(workspaceblobstore: up)"
    (folder / "a").write_text("new")
    driver.store.upload(str(folder), "up")
    driver.store.upload_files([str(folder / "a")], target_path="one", overwrite=True)
    assert driver.store.download("got", prefix="up") == 2
    assert driver.store.download("got", prefix="up") == 0
    assert Path("got/up/a").read_text() == "x"
    driver.store.download("got", prefix="one")
    assert Path("got/one/a").read_text() == "new"
    assert Datastore.get(driver.ws, "workspaceblobstore").name == driver.store.name
    with pytest.raises(UsageError, match="no datastore 'none'"):
        Datastore.get(driver.ws, "none")


def test_a_blob_container_is_registered_without_its_key(driver: Driver) -> None:
    from azureml.core import Datastore

    key = "c2VjcmV0IG9mIHRoZSBzdG9yZQ=="
    made = Datastore.register_azure_blob_container(
        driver.ws, "blobs", "container", "account", account_key=key, overwrite=True
    )
    assert (made.account_name, made.container_name) == ("account", "container")
    assert made._native.storage_options["account_key"] == key
    texts = [path.read_text() for path in Path(".daskprs").rglob("*.json")]
    assert key not in "".join(texts) + repr(made) + repr(made.path("x"))
    made.set_as_default()
    assert driver.ws.get_default_datastore().name == "blobs"
    made.unregister()
    with pytest.raises(UsageError, match="not supported: take register_azure_blob_container"):
        Datastore.register_azure_file_share(driver.ws, "files", "share", "account")


PATHS: dict[str, Any] = {
    "a path": lambda d: str(d.folder / "input"),
    "a DataPath": lambda d: d.store.path("up"),
    "a tuple": lambda d: (d.store, "up"),
    "a list": lambda d: [(d.store, "up/a"), (d.store, "up/b")],
    "a glob": lambda d: (d.store, "up/*"),
}


@pytest.mark.parametrize("what", PATHS)
def test_files_are_described_in_many_ways(what: str, driver: Driver) -> None:
    from azureml.core import Dataset

    driver.store.upload(str(driver.files("a", "b")), "up")
    data = Dataset.File.from_files(PATHS[what](driver))
    assert data.to_path() == ["/a", "/b"]
    assert data.take(1).to_path() == ["/a"]
    assert data.skip(1).to_path() == ["/b"]
    assert sorted(map(os.path.basename, data.download("down"))) == ["a", "b"]


def test_files_that_are_not_there_are_told_unless_that_is_not_wanted(driver: Driver) -> None:
    from azureml.core import Dataset

    with pytest.raises(InputNotFoundError):
        Dataset.File.from_files("nothing/")
    Dataset.File.from_files("nothing/", validate=False)


def test_datasets_are_registered_with_versions(driver: Driver) -> None:
    from azureml.core import Dataset

    first = Dataset.File.from_files(str(driver.files("a")), validate=False)
    made = first.register(driver.ws, "d", description="told", tags={"t": "1"})
    assert (made.name, made.version, made.description, made.tags) == ("d", 1, "told", {"t": "1"})
    other = Dataset.File.from_files(str(driver.files("a", folder="other")))
    with pytest.raises(UsageError, match="create_new_version=True"):
        other.register(driver.ws, "d")
    assert other.register(driver.ws, "d", create_new_version=True).version == 2
    assert Dataset.get_by_name(driver.ws, "d").version == 2
    assert Dataset.get_by_name(driver.ws, "d", version=1).to_path() == ["/a"]
    assert list(driver.ws.datasets) == ["d"]
    made.unregister_all_versions(driver.ws)
    assert list(driver.ws.datasets) == []


FRAME = pd.DataFrame({"k": ["a", "b", "a"], "n": [1, 2, 3], "t": ["007", "x", "y"]})


def test_tables_of_three_formats_read_the_same(driver: Driver) -> None:
    from azureml.core import Dataset

    driver.files()
    FRAME.to_csv("input/t.csv", index=False)
    FRAME.to_parquet("input/t.parquet")
    FRAME.to_json("input/t.jsonl", orient="records", lines=True)
    tabular = Dataset.Tabular
    made = [
        tabular.from_delimited_files("input/*.csv"),
        tabular.from_parquet_files("input/*.parquet"),
        tabular.from_json_lines_files("input/*.jsonl"),
    ]
    for data in made:
        found = data.to_pandas_dataframe()
        assert found.astype(object).equals(FRAME.astype(object))
        assert list(data.skip(1).take(1).to_pandas_dataframe()["n"]) == [2]
    assert list(made[0].keep_columns(["n"]).to_pandas_dataframe()) == ["n"]
    assert list(made[1].keep_columns("n").to_pandas_dataframe()) == ["n"]
    assert len(made[0].to_dask_dataframe()) == 3


def test_delimited_files_are_read_as_told(driver: Driver) -> None:
    from azureml.core import Dataset
    from azureml.data import DataType

    driver.files()
    Path("input/t.csv").write_text("007;1;2024-05-01;\n008;2;2024-05-02;x\n")
    read = Dataset.Tabular.from_delimited_files
    plain = read("input/t.csv", separator=";", header=False, infer_column_types=False)
    frame = plain.to_pandas_dataframe()
    assert list(frame) == ["Column1", "Column2", "Column3", "Column4"]
    assert list(frame["Column1"]) == ["007", "008"]
    types = {"Column1": DataType.to_string(), "Column2": DataType.to_float(),
             "Column3": DataType.to_datetime("%Y-%m-%d")}  # fmt: skip
    typed = read(
        "input/t.csv", separator=";", header=False, set_column_types=types, empty_as_string=True
    ).to_pandas_dataframe()
    assert typed["Column1"][0] == "007"
    assert typed["Column2"].dtype == "float64"
    assert typed["Column3"][1] == pd.Timestamp("2024-05-02")
    assert list(typed["Column4"]) == ["", "x"]


@pytest.mark.parametrize("as_files", [False, True])
def test_tables_are_partitioned_by_keys(as_files: bool, driver: Driver) -> None:
    from azureml.core import Dataset
    from azureml.data.datapath import DataPath

    driver.files()
    FRAME.to_csv("input/t.csv", index=False)
    data = Dataset.Tabular.from_delimited_files("input/t.csv")
    made = data.partition_by(
        ["k"], DataPath(driver.store, "by"), name="parts", partition_as_file_dataset=as_files
    )
    assert made.partition_keys == ["k"]
    assert Dataset.get_by_name(driver.ws, "parts").partition_keys == ["k"]
    found = Path(".daskprs/w/data/by").iterdir()
    folders = sorted(path.name for path in found if path.is_dir())
    assert folders == ["k=a", "k=b"]
    if not as_files:
        assert sorted(made.to_pandas_dataframe()["n"]) == [1, 2, 3]


def test_a_dataframe_becomes_a_registered_dataset(driver: Driver) -> None:
    from azureml.core import Dataset

    made = Dataset.Tabular.register_pandas_dataframe(FRAME, (driver.store, "frames"), "frame")
    assert made.name == "frame"
    assert Dataset.get_by_name(driver.ws, "frame").to_pandas_dataframe().shape == (3, 3)


def test_a_directory_becomes_a_dataset(driver: Driver) -> None:
    from azureml.core import Dataset

    folder = driver.files("a")
    made = Dataset.File.upload_directory(str(folder), (driver.store, "dir"))
    assert made.to_path() == ["/a"]


def test_models_are_registered_found_and_downloaded(driver: Driver) -> None:
    from azureml.core import Model
    from azureml.exceptions import WebserviceException

    driver.files("a", folder="models")
    one = Model.register(model_path="models/", model_name="m", tags={"k": "v"}, workspace=driver.ws)
    two = Model.register(driver.ws, "models/a", "m")
    assert (one.id, two.id) == ("m:1", "m:2")
    assert Model(driver.ws, "m").version == 2
    assert Model(driver.ws, id="m:1").tags == {"k": "v"}
    assert [model.version for model in Model.list(driver.ws, "m")] == [2, 1]
    assert [model.version for model in Model.list(driver.ws, tags=[["k", "v"]])] == [1]
    assert os.listdir(Model.get_model_path("m", version=1, _workspace=driver.ws)) == ["a"]
    assert Path(two.download("here")).read_bytes() == b"x"
    with pytest.raises(WebserviceException, match=r"ModelNotFound: .* no model 'none'"):
        Model(driver.ws, "none")


def test_a_model_in_a_store_is_copied_for_its_path(driver: Driver) -> None:
    from azureml.core import Model, Workspace

    Path("config.json").write_text('{"workspace_name": "w", "folder": "memory://far/ws"}')
    ws = Workspace.from_config()
    driver.files("a", folder="models")
    Model.register(ws, "models", "far")
    assert fsspec.filesystem("memory").exists("/far/ws/models/far/1/a")
    assert os.listdir(Model.get_model_path("far", _workspace=ws)) == ["a"]


def test_an_environment_is_what_its_sections_say(driver: Driver, tmp_path: Path) -> None:
    from azureml.core import Environment
    from azureml.core.conda_dependencies import CondaDependencies

    packages = CondaDependencies.create(pip_packages=["pandas"], conda_packages=["numpy"])
    packages.add_pip_package("pyarrow")
    packages.add_pip_package("--index-url https://example.com/simple")
    packages.add_pip_package("git+https://example.com/code.git")
    made = Environment(name="env")
    made.python.conda_dependencies = packages
    made.docker.enabled = True
    made.spark.precache_packages = False
    made.environment_variables = {"A": "1"}
    assert made.register(driver.ws).version == "1"
    found = Environment.get(driver.ws, "env")
    assert found._native.packages == ("pandas", "pyarrow")
    assert found.environment_variables == {"A": "1"}
    assert list(Environment.list(driver.ws)) == ["env"]
    packages.save("conda.yml")
    read = Environment.from_conda_specification("other", "conda.yml")
    assert read._native.packages == ("pandas", "pyarrow")
    assert len(read.python.conda_dependencies.pip_packages) == 4
    assert read.python.conda_dependencies.conda_packages == ["numpy"]
    Path("requirements.txt").write_text("dask  # the best\n\n")
    assert Environment.from_pip_requirements("r", "requirements.txt")._native.packages == ("dask",)
    assert found.clone("clone").name == "clone"
    made.python.user_managed_dependencies = True
    assert made._native.packages == ()
    with pytest.raises(UsageError, match=r"Make it with Environment\('mine'\)"):
        Environment.get(driver.ws, "mine")


def test_packages_that_are_lacking_end_the_run(driver: Driver) -> None:
    from azureml.core import Dataset, Environment
    from azureml.pipeline.core import PipelineData
    from azureml.pipeline.steps import ParallelRunStep

    environment = Environment("env")
    environment.python.conda_dependencies.add_pip_package("no-such-package-of-ours")
    data = Dataset.File.from_files(str(driver.files("a")))
    config = driver.config(environment=environment)
    run = driver.submit(ParallelRunStep("step", config, [data], PipelineData("out")))
    with pytest.raises(TargetError, match="lacks packages of the environment 'env'"):
        run.wait_for_completion(show_output=False)


def test_a_compute_target_is_made_and_found(driver: Driver) -> None:
    """Numbers of nodes may be text, as from environment variables."""
    from azureml.core.compute import AmlCompute, ComputeTarget

    assert "cpu" not in driver.ws.compute_targets
    configuration = AmlCompute.provisioning_configuration(
        vm_size="STANDARD_D2_V2", min_nodes="0", max_nodes="4"
    )
    made = ComputeTarget.create(driver.ws, "cpu", configuration)
    made.wait_for_completion(show_output=True, min_node_count=None, timeout_in_minutes=20)
    assert type(driver.ws.compute_targets["cpu"]) is AmlCompute
    assert type(ComputeTarget(driver.ws, "cpu")) is AmlCompute
    assert made.get_status().serialize()["scaleSettings"] == {"minNodeCount": 0, "maxNodeCount": 4}
    assert made.vm_size == "STANDARD_D2_V2"
    made.delete()
    assert driver.ws.compute_targets == {}


def test_a_step_may_name_its_compute_target(driver: Driver) -> None:
    from azureml.core import Dataset
    from azureml.core.compute import AmlCompute, ComputeTarget
    from azureml.pipeline.core import PipelineData
    from azureml.pipeline.steps import ParallelRunStep

    ComputeTarget.create(driver.ws, "cpu", AmlCompute.provisioning_configuration(max_nodes=2))
    data = Dataset.File.from_files(str(driver.files("a")))
    config = driver.config(compute_target="cpu", node_count=2)
    run = driver.submit(ParallelRunStep("step", config, [data], PipelineData("out")))
    run.wait_for_completion(show_output=False)
    assert driver.rows(run, "step") == ["a,1"]


def test_the_run_of_driver_code_is_one_that_is_nowhere(driver: Driver) -> None:
    from azureml.core import Run

    run = Run.get_context()
    run.log("metric", 1)
    assert run.experiment.workspace.name


def test_a_script_finds_the_models_of_the_workspace_that_it_or_its_arguments_name(
    driver: Driver,
) -> None:
    """As in Azure ML, without being given to the step; others do not travel to the workers."""
    from azureml.core import Dataset, Model
    from azureml.pipeline.core import PipelineData
    from azureml.pipeline.steps import ParallelRunStep

    script = """
import json, os, sys
import daskprs.azureml  # the modules of entry scripts stay those of entry scripts
from azureml.core import Model
def run(mini_batch):
    first, second = (Model.get_model_path(name) for name in ("first", sys.argv[1]))
    return [*os.listdir(first), *os.listdir(second), *json.loads(os.environ["DASKPRS_MODELS"])]
"""
    for name in ("first", "second", "third"):
        Model.register(driver.ws, str(driver.files(f"{name}.bin", folder=name)), name)
    data = Dataset.File.from_files(str(driver.files("a")))
    step = ParallelRunStep(
        "named", driver.config(script), [data], PipelineData("out"), arguments=["second"]
    )
    run = driver.submit(step)
    run.wait_for_completion(show_output=False)
    assert driver.rows(run, "named") == ["first", "first.bin", "second", "second.bin"]
