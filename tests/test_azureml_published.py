"""What published driver code does with the names of Azure ML, besides the two tutorials."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from azureml_parts import Driver
from azureml_parts import driver as driver
from azureml_parts import opened as opened

from daskprs.exceptions import UsageError

ALL_LOGINS = ("InteractiveLoginAuthentication", "AzureCliAuthentication", "MsiAuthentication",
              "ServicePrincipalAuthentication")  # fmt: skip

# Computes and environments


def test_a_cluster_that_nobody_has_made_is_one_of_this_machine(
    driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    """In Azure ML, it was made once by hand; here, a log says that it is not there."""
    from azureml.core.compute import AmlCompute, ComputeTarget

    caplog.set_level(logging.INFO, "daskprs")
    assert "cpu" not in driver.ws.compute_targets
    for found in (
        AmlCompute(driver.ws, "cpu"),
        ComputeTarget(workspace=driver.ws, name="cpu"),
        driver.ws.compute_targets["cpu"],
    ):
        assert (found.name, found.type) == ("cpu", "AmlCompute")
        assert found.scale_settings.maximum_node_count == 1
    assert "compute target 'cpu': nobody has made it" in caplog.text


def test_where_there_is_another_cluster_one_that_is_not_known_is_an_error(driver: Driver) -> None:
    from azureml.core import Dataset, Workspace
    from azureml.core.compute import AmlCompute, ComputeTarget
    from azureml.core.compute_target import ComputeTargetException
    from azureml.pipeline.core import Pipeline, PipelineData
    from azureml.pipeline.steps import ParallelRunStep

    there = {"address": "tcp://there:8786", "max_nodes": 3}
    Path("config.json").write_text(json.dumps({"workspace_name": "w", "compute": {"there": there}}))
    ws = Workspace.from_config()
    assert AmlCompute(ws, "there").scale_settings.maximum_node_count == 3
    with pytest.raises(ComputeTargetException, match=r"no compute target 'their': it has \['there"):
        ComputeTarget(ws, "their")
    data = Dataset.File.from_files(str(driver.files("a")))
    config = driver.config(compute_target="their")
    with pytest.raises(ComputeTargetException, match="no compute target 'their'"):
        Pipeline(ws, [ParallelRunStep("step", config, [data], PipelineData("out"))])


def test_a_step_may_have_the_name_of_a_cluster_alone(driver: Driver) -> None:
    from azureml.core import Dataset
    from azureml.pipeline.core import PipelineData
    from azureml.pipeline.steps import ParallelRunStep

    data = Dataset.File.from_files(str(driver.files("a")))
    config = driver.config(compute_target="cpu-cluster", node_count=1)
    run = driver.submit(ParallelRunStep("named", config, [data], PipelineData("out")))
    assert run.wait_for_completion(show_output=False) == "Completed"
    assert driver.rows(run, "named") == ["a,1"]


def test_an_environment_comes_from_an_image_or_a_folder(driver: Driver) -> None:
    """Images mean nothing; the packages beside them do."""
    from azureml.core import Environment

    Path("conda.yml").write_text("dependencies:\n- python=3.8\n- pip:\n  - pandas\n")
    Path("pip.txt").write_text("dask\n")
    image = Environment.from_docker_image("a", "image:1", conda_specification="conda.yml")
    assert (image.docker.base_image, image._native.packages) == ("image:1", ("pandas",))
    file = Environment.from_dockerfile("b", "./Dockerfile", pip_requirements="pip.txt")
    assert (file.docker.base_dockerfile, file._native.packages) == ("./Dockerfile", ("dask",))
    image.environment_variables["A"] = "1"
    image.save_to_directory("env")
    with pytest.raises(UsageError, match="env is there already: give overwrite=True"):
        image.save_to_directory("env")
    image.save_to_directory("env", overwrite=True)
    again = Environment.load_from_directory("env")
    assert (again.name, again.environment_variables) == ("a", {"A": "1"})
    assert again._native.packages == ("pandas",)


def test_an_environment_that_azure_ml_keeps_ready_asks_for_no_packages(driver: Driver) -> None:
    from azureml.core import Environment

    curated = Environment.get(workspace=driver.ws, name="AzureML-sklearn-0.24-py37-cpu")
    assert curated._native.packages == ()
    mine = curated.clone("mine")
    mine.python.conda_dependencies.add_pip_package("pandas")
    assert (mine.name, mine._native.packages) == ("mine", ("pandas",))


SETTINGS = """
parallel_run_config:
  output_action: summary_only  # nothing is kept
  mini_batch_size: 512
  error_threshold: 3
  logging_level: DEBUG
  compute_target_name: cpu-cluster
  node_count: 1
  process_count_per_node: 2
  entry_script: score.py
  source_directory: scripts
  description: null
  run_invocation_timeout: 180
"""
ENVIRONMENTS = {
    "a folder": "  environment_dir_path: env\n",
    "a name": "  environment_name: registered\n",
    "a file": "  environment: env.yml\n",
    "there": "  environment:\n    name: e\n    python:\n      condaDependencies:\n"
    "        dependencies:\n        - pip:\n          - pandas\n",
}


@pytest.mark.parametrize("kind", ENVIRONMENTS)
def test_settings_that_azure_ml_has_written_are_read(kind: str, driver: Driver) -> None:
    from azureml.core import Environment
    from azureml.pipeline.steps import ParallelRunConfig

    driver.config()
    Path("conda.yml").write_text("dependencies:\n- pip:\n  - pandas\n")
    environment = Environment.from_conda_specification("registered", "conda.yml")
    environment.save_to_directory("env")
    environment.register(driver.ws)
    Path("env.yml").write_text("name: e\npython:\n  condaDependenciesFile: conda.yml\n")
    Path("config.yml").write_text(SETTINGS + ENVIRONMENTS[kind])
    config = ParallelRunConfig.load_yaml(workspace=driver.ws, path="config.yml")
    native = config._native
    assert (native.mini_batch_size, native.error_threshold, native.node_count) == (512, 3, 1)
    assert (native.output_action, native.logging_level) == ("summary_only", "DEBUG")
    assert (config.compute_target, native.run_invocation_timeout) == ("cpu-cluster", 180)
    assert config.environment._native.packages == ("pandas",)


def test_other_yaml_is_no_settings(driver: Driver) -> None:
    from azureml.pipeline.steps import ParallelRunConfig

    Path("config.yml").write_text("node_count: 1\n")
    with pytest.raises(UsageError, match="no settings under 'parallel_run_config'"):
        ParallelRunConfig.load_yaml(driver.ws, "config.yml")


def test_the_sizes_of_machines_are_that_of_this_one(driver: Driver) -> None:
    from azureml.core.compute import AmlCompute

    [here] = AmlCompute.supported_vmsizes(driver.ws)
    assert here["vCPUs"] >= 1


@pytest.mark.parametrize("place", ["dev.runconfig", ".azureml/dev.runconfig"])
def test_the_environment_of_a_run_configuration_is_read(place: str, driver: Driver) -> None:
    from azureml.core import RunConfiguration
    from azureml.pipeline.steps import ParallelRunConfig

    driver.config()
    file = Path(place)
    file.parent.mkdir(exist_ok=True)
    file.with_name("conda.yml").write_text("dependencies:\n- pip:\n  - pandas\n")
    file.write_text(
        "script: train.py\ntarget: cpu-cluster\nenvironment:\n  name: mine\n"
        "  environmentVariables: {A: '1'}\n  python: {condaDependenciesFile: conda.yml}\n"
    )
    read = RunConfiguration.load(path=".", name="dev")
    assert (read.script, read.target) == ("train.py", "cpu-cluster")
    config = ParallelRunConfig(read.environment, "score.py", 1, source_directory="scripts")
    assert config.environment._native.packages == ("pandas",)
    assert config.environment.environment_variables == {"A": "1"}
    assert RunConfiguration.load(place).environment.name == "mine"
    with pytest.raises(UsageError, match=r"no run configuration at \."):
        RunConfiguration.load(".", "other")


# Pipelines and outputs


def test_the_steps_that_a_step_needs_are_brought_in(driver: Driver) -> None:
    """Those whose outputs it reads, and those that run before it; unless that is not wanted."""
    from azureml.core import Dataset
    from azureml.data import OutputFileDatasetConfig
    from azureml.pipeline.core import Pipeline, PipelineData
    from azureml.pipeline.steps import ParallelRunStep, PythonScriptStep

    Path("make.py").write_text("import sys\nopen(sys.argv[1] + '/a.txt', 'w').write('abc')")
    Path("first.py").write_text("print('first')")
    made = OutputFileDatasetConfig("made")
    first = PythonScriptStep("first.py", "first", source_directory=".")
    make = PythonScriptStep("make.py", "make", arguments=[made], source_directory=".")
    make.run_after(first)
    step = ParallelRunStep("sizes", driver.config(), [made.as_input("made")], PipelineData("out"))
    run = driver.submit(step)
    assert run.wait_for_completion(show_output=False) == "Completed"
    assert [one.name for one in run.get_steps()] == ["first", "make", "sizes"]
    assert driver.rows(run, "sizes") == ["a.txt,3"]
    with pytest.raises(UsageError, match="needs the output 'made', which no step"):
        Pipeline(driver.ws, [step], resolve_closure=False)
    data = Dataset.File.from_files(str(driver.files("a")))
    other = ParallelRunStep("other", driver.config(), [data], PipelineData("out"))
    assert len(Pipeline(driver.ws, [other])._native.steps) == 1


def test_an_output_may_be_given_as_what_the_next_step_reads(driver: Driver) -> None:
    from azureml.core import Dataset
    from azureml.pipeline.core import PipelineData
    from azureml.pipeline.core.pipeline_output_dataset import PipelineOutputFileDataset
    from azureml.pipeline.steps import ParallelRunStep

    script = """
import os, sys
def run(mini_batch):
    for path in mini_batch:
        with open(os.path.join(sys.argv[1], os.path.basename(path)), "w") as copy:
            copy.write("copied")
    return mini_batch
"""
    data = Dataset.File.from_files(str(driver.files("a", "b")))
    between = PipelineOutputFileDataset(PipelineData("between"))
    between = between.register(name="copies", create_new_version=True)
    config = driver.config(script, "copy.py", output_action="summary_only")
    first = ParallelRunStep("first", config, [data], between, arguments=[between])
    second = ParallelRunStep("second", driver.config(), [between], PipelineData("out"))
    run = driver.submit(second, first)
    run.wait_for_completion(show_output=False)
    assert driver.rows(run, "second") == ["a,6", "b,6"]
    assert sorted(Dataset.get_by_name(driver.ws, "copies").to_path()) == ["/a", "/b"], "no logs"


def test_rows_are_registered_as_the_table_that_the_next_step_would_read(driver: Driver) -> None:
    from azureml.core import Dataset
    from azureml.data import OutputFileDatasetConfig
    from azureml.pipeline.steps import ParallelRunStep

    output = OutputFileDatasetConfig("sizes", destination=(driver.store, "sizes"))
    output.read_delimited_files(header=False).register_on_complete(name="table")
    data = Dataset.File.from_files(str(driver.files("a", "b")))
    run = driver.submit(ParallelRunStep("step", driver.config(), [data], output))
    run.wait_for_completion(show_output=False)
    table = Dataset.get_by_name(driver.ws, "table").to_pandas_dataframe()
    assert sorted(table["Column2"]) == [1, 2]


def test_a_notebook_logs_and_registers_a_model_as_a_run_of_its_own(driver: Driver) -> None:
    """Before the pipeline that uses the model."""
    import io

    from azureml.core import Experiment, Model

    run = Experiment(workspace=driver.ws, name="train").start_logging(snapshot_directory=None)
    run.log("AUC", 0.5)
    for value in (1, 2, 3):
        run.log("loss", value)
        run.log_row("scores", fold=value, r2=value / 10)
    run.log_list("all", [1, 2])
    run.log_table("table", {"a": [1]})
    run.tag("kind", "test")
    Path("model.pkl").write_text("weights")
    run.upload_file(name="outputs/model.pkl", path_or_stream="./model.pkl")
    run.upload_file("notes.txt", io.BytesIO(b"notes"))
    Path("folder").mkdir()
    Path("folder/a.txt").write_text("a")
    run.upload_folder("more", "folder")
    assert run.get_file_names() == ["more/a.txt", "notes.txt", "outputs/model.pkl"]
    run.download_file("notes.txt", "copy.txt")
    assert Path("copy.txt").read_text() == "notes"
    run.complete()
    assert run.get_status() == "Completed"
    metrics = run.get_metrics()
    assert (metrics["AUC"], metrics["loss"], metrics["all"]) == (0.5, [1, 2, 3], [1, 2])
    assert metrics["scores"]["fold"] == [1, 2, 3]
    framework = Model.Framework.SCIKITLEARN
    for path in ("outputs/model.pkl", "model.pkl", "more"):
        model = run.register_model(
            model_path=path,
            model_name="net",
            tags={"a": "b"},
            properties={"AUC": metrics["AUC"]},
            model_framework=framework,
        )
    assert (model.version, model.tags, model.properties) == (3, {"a": "b"}, {"AUC": "0.5"})
    assert Path(Model.get_model_path("net", 1, driver.ws)).read_text() == "weights"
    with pytest.raises(UsageError, match=r"'no\.pkl' is not there, and was not uploaded"):
        run.register_model("net", "no.pkl")
    with pytest.raises(ZeroDivisionError), run.child_run() as child:
        child.log("x", 1 / 0)
    assert child.status == "Failed"


@pytest.mark.parametrize(
    "login",
    ["InteractiveLoginAuthentication(tenant_id='t', force=True)", "AzureCliAuthentication()",
     "ServicePrincipalAuthentication(tenant_id='t', service_principal_id='i', "
     "service_principal_password='p')", "MsiAuthentication()"],
)  # fmt: skip
def test_logins_are_accepted_and_do_nothing(login: str, driver: Driver) -> None:
    from azureml.core import Workspace, authentication

    auth = eval(login, vars(authentication) | {n: getattr(authentication, n) for n in ALL_LOGINS})
    assert Workspace.from_config(auth=auth).name == "w"
    assert Workspace.get(name="w", subscription_id="s", resource_group="r", auth=auth).name == "w"
    with pytest.raises(AttributeError, match="there is nothing to log in to"):
        auth.get_authentication_header()


def test_a_path_may_be_an_input_with_how_it_gets_there(driver: Driver) -> None:
    """And a parameter: another path when the pipeline is submitted."""
    from azureml.data.datapath import DataPath, DataPathComputeBinding
    from azureml.pipeline.core import Pipeline, PipelineParameter
    from azureml.pipeline.steps import PythonScriptStep

    for name in ("one", "two"):
        driver.store.upload(str(driver.files(name, folder=name)), f"paths/{name}")
    Path("list.py").write_text("import os, sys\nprint(os.listdir(sys.argv[1]))")
    paths = [DataPath(driver.store, f"paths/{name}") for name in ("one", "two")]
    given = (PipelineParameter("path", paths[0]), DataPathComputeBinding(mode="mount"))
    step = PythonScriptStep("list.py", "list", arguments=[given], inputs=[given])
    pipeline = Pipeline(driver.ws, [step])
    for values, expected in (({}, "['one']"), ({"path": paths[1]}, "['two']")):
        run = pipeline.submit("test", pipeline_parameters=values)
        assert run.wait_for_completion(show_output=False) == "Completed"
        [only] = run.get_steps()
        only.download_files(output_directory=expected)
        told = [path.read_text() for path in Path(expected).rglob("*") if path.is_file()]
        assert expected in "".join(told)


def test_files_get_a_folder_while_they_are_mounted(driver: Driver) -> None:
    from azureml.core import Dataset

    driver.store.upload(str(driver.files("a.txt", "b.txt")), "texts")
    data = Dataset.File.from_files((driver.store, "texts"))
    with data.mount() as mounted:
        assert sorted(path.name for path in Path(mounted.mount_point).iterdir()) == [
            "a.txt",
            "b.txt",
        ]
    assert not Path(mounted.mount_point).exists()
    mounted = data.mount("here")
    mounted.start()
    mounted.stop()
    assert Path("here/a.txt").read_text() == "x"  # what the caller named is the caller's


def test_drivers_may_ask_where_a_run_is_to_be_seen(driver: Driver) -> None:
    from azureml.core import Dataset
    from azureml.pipeline.core import PipelineData
    from azureml.pipeline.steps import ParallelRunStep

    driver.store.upload(str(driver.files("a.txt")), "texts")
    data = Dataset.File.from_files((driver.store, "texts")).as_named_input("in")
    run = driver.submit(ParallelRunStep("sized", driver.config(), [data], PipelineData("out")))
    run.wait_for_completion(show_output=False)
    [step] = run.get_steps()
    assert step.get_portal_url() == run.get_portal_url()
    assert Path(run.get_portal_url()).is_dir()


def test_a_python_version_may_be_asked_for(driver: Driver) -> None:
    from azureml.core.conda_dependencies import CondaDependencies

    packages = CondaDependencies.create(pip_packages=["numpy"])
    packages.set_python_version("3.6.2")
    assert list(packages.pip_packages) == ["numpy"]
