"""The Azure-compatible door: every name is there or says what to use, in two generations."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from azureml_parts import ROWS, Driver
from azureml_parts import driver as driver
from azureml_parts import opened as opened

from daskprs import ConfigError, DaskprsError, UsageError
from daskprs.azureml import door
from daskprs.azureml.names import MODULES

NAMES = [(module, name) for module, names in MODULES.items() for name in names]


@pytest.mark.parametrize(("module", "name"), NAMES, ids=".".join)
def test_a_name_of_azure_ml_can_be_imported(module: str, name: str, opened: None) -> None:
    exec(f"from {module} import {name}", {})
    assert getattr(importlib.import_module(module), name) is not None


def test_names_mean_the_same_thing_wherever_they_are_imported_from(opened: None) -> None:
    from azureml.core import Dataset, Workspace
    from azureml.core.dataset import Dataset as SameDataset
    from azureml.core.workspace import Workspace as SameWorkspace

    assert (Dataset, Workspace) == (SameDataset, SameWorkspace)


@pytest.mark.parametrize("module", ["azureml.core.model", "azureml.pipeline.steps"])
def test_a_module_can_be_imported_from_the_one_above(module: str, opened: None) -> None:
    above, _, name = module.rpartition(".")
    names: dict[str, Any] = {}
    exec(f"from {above} import {name}", names)
    assert names[name] is importlib.import_module(module)


UNSUPPORTED = {
    "from azureml.pipeline.steps import NoSuchStep": "has ParallelRunConfig, ParallelRunStep",
    "import azureml.no_such_module": "azureml has azureml.core, azureml.data",
    "import azureml.mlflow": "install mlflow",
}


@pytest.mark.parametrize("line", UNSUPPORTED)
def test_a_name_that_is_not_supported_says_so_and_what_to_use(line: str, opened: None) -> None:
    with pytest.raises(ImportError, match="is not supported by daskprs") as caught:
        exec(line, {})
    assert UNSUPPORTED[line] in str(caught.value)


USED = {
    "from azureml.core import ScriptRunConfig as A": ("A(script='a')", "take a PythonScriptStep"),
    "from azureml.pipeline.core import PublishedPipeline as A": ("A.list(1)", "start it from cron"),
    "from azureml.pipeline.steps import AutoMLStep as A": ("A()", "a library of your choice"),
    "from azureml.core.webservice import Webservice as A": ("A.deploy()", "no web services"),
    "import azureml.train.automl as A": ("A.AutoMLConfig()", "a library of your choice"),
    "from azureml.train.automl.runtime import AutoMLStep as A": ("A()", "a library of your choice"),
}


@pytest.mark.parametrize("line", USED)
def test_a_name_of_azure_ml_that_is_not_here_may_be_imported_and_says_so_when_it_is_used(
    line: str, opened: None
) -> None:
    """Published notebooks import more than they use; annotations are no use."""
    names: dict[str, Any] = {}
    exec(f"{line}\ndef use(a: A | None) -> list[A]: return isinstance(a, A)", names)
    assert names["use"](1) is False
    expression, instead = USED[line]
    with pytest.raises((UsageError, AttributeError), match="is not supported by dask") as caught:
        eval(expression, names)
    assert instead in str(caught.value)


def test_an_error_of_azure_ml_that_is_not_here_can_be_caught(opened: None) -> None:
    """Nothing raises it, but an except clause takes nothing else than exceptions."""
    code = "from azureml.automl.core.exceptions import ClientException as A\n"
    code += "try: 1 / 0\nexcept (A, ZeroDivisionError): caught = True"
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["caught"]


METHODS = {
    "ws.get_default_keyvault()": "os.environ",
    "Pipeline.publish": "start it from cron",
    "Dataset.Tabular.from_sql_query": "read_sql_table",
    "store.no_such_method": "see docs/migrating-from-azureml.md",
}


@pytest.mark.parametrize("text", METHODS)
def test_a_method_that_is_not_supported_says_so(text: str, driver: Driver) -> None:
    from azureml.core import Dataset
    from azureml.pipeline.core import Pipeline

    names = {"ws": driver.ws, "store": driver.store, "Dataset": Dataset, "Pipeline": Pipeline}
    with pytest.raises(AttributeError, match="is not supported by daskprs") as caught:
        eval(text, names)
    assert METHODS[text] in str(caught.value)


def test_parameters_that_would_mean_something_are_refused(driver: Driver) -> None:
    from azureml.core import Dataset
    from azureml.pipeline.steps import ParallelRunStep

    with pytest.raises(TypeError, match=r"include_path=True is not supported"):
        Dataset.Tabular.from_delimited_files("x.csv", include_path=True)
    with pytest.raises(TypeError, match=r"no parameter 'inputs_mapping': name the inputs"):
        ParallelRunStep("step", inputs_mapping={})


# How it is opened


def run_python(code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments] if arguments else [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60)


def fake_azure(folder: Path) -> str:
    """Put a package with the name of Azure's into a folder; return code that finds it."""
    package = folder / "site/azureml/core"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("Workspace = 'the one of Azure'")
    return f"import sys; sys.path.insert(0, {str(folder / 'site')!r});"


def test_one_line_opens_the_door(tmp_path: Path) -> None:
    code = "import daskprs.azureml; from azureml.core import Workspace as W; print(W.__module__)"
    assert run_python(code, cwd=tmp_path).stdout.strip() == "daskprs.azureml.workspaces"


def test_without_that_line_there_is_no_azureml(tmp_path: Path) -> None:
    done = run_python("import daskprs, daskprs.pipelines, azureml.core", cwd=tmp_path)
    assert "No module named 'azureml'" in done.stderr


@pytest.mark.parametrize("asked", [False, True])
def test_where_azures_packages_are_installed_they_stay_unless_asked(
    asked: bool, tmp_path: Path
) -> None:
    """And it is said, since what is submitted then goes to Azure."""
    code = fake_azure(tmp_path) + "import daskprs.azureml as door;"
    code += "door.install(replace=True);" if asked else ""
    done = run_python(code + "from azureml.core import Workspace as W; print(W)", cwd=tmp_path)
    assert ("the one of Azure" in done.stdout) is not asked
    assert "azureml-core is installed, and stays in use" in done.stderr


def test_other_packages_of_the_namespace_do_not_close_the_door(tmp_path: Path) -> None:
    other = tmp_path / "site/azureml/mlflow"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("name = 'mlflow'")
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); import daskprs.azureml;"
    code += "import azureml.mlflow, azureml.core; print(azureml.mlflow.name, azureml.core.VERSION)"
    assert run_python(code, cwd=tmp_path).stdout.startswith("mlflow 0.")


def test_the_door_closes_again(opened: None) -> None:
    import azureml.core  # noqa: F401

    door.uninstall()
    assert "azureml.core" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("azureml.core")


def test_a_driver_script_runs_as_a_module(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("word = 'beside'")
    script = tmp_path / "driver.py"
    script.write_text(
        "import sys, beside\nfrom azureml.core import VERSION\n"
        "print(__name__, beside.word, *sys.argv[1:])\nassert VERSION"
    )
    done = run_python("", "-m", "daskprs.azureml", str(script), "--flag", "x", cwd=tmp_path)
    assert done.stdout.split() == ["__main__", "beside", "--flag", "x"]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [([], 2, "usage:"), (["no-such.py"], 2, "no file 'no-such.py'"), (["--help"], 0, "usage:")],
)
def test_wrong_usage_of_the_module_says_so(
    words: list[str], code: int, told: str, tmp_path: Path
) -> None:
    done = run_python("", "-m", "daskprs.azureml", *words, cwd=tmp_path)
    assert (done.returncode, told in done.stderr) == (code, True)


def test_an_error_of_ours_in_a_driver_script_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(
        "from azureml.core import Workspace\nWorkspace.from_config()"
    )
    done = run_python("", "-m", "daskprs.azureml", "driver.py", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: there is no config.json")


# Two generations of steps


def test_the_generation_of_2019(driver: Driver) -> None:
    """Models by name or object, and a name for the input."""
    from azureml.contrib.pipeline.steps import ParallelRunConfig, ParallelRunStep
    from azureml.core import Dataset
    from azureml.core.model import Model
    from azureml.pipeline.core import PipelineData

    script = """
from azureml.core import Model
def run(mini_batch):
    return [open(Model.get_model_path(name)).read() for name in ("first", "second")]
"""
    (driver.folder / "m").write_text("model")
    for name in ("first", "second"):
        model = Model.register(driver.ws, "m", name)
    data = Dataset.File.from_files(str(driver.files("a", "b")))
    named = data.register(driver.ws, "data").as_named_input("data")
    driver.config(script)
    config = ParallelRunConfig(
        source_directory="scripts",
        entry_script="score.py",
        mini_batch_size="1",
        error_threshold=10,
        output_action="append_row",
        environment=None,
        compute_target=None,
        node_count=1,
    )
    step = ParallelRunStep(
        name="old",
        models=["first", model],
        parallel_run_config=config,
        inputs=[named],
        output=PipelineData("out", datastore=driver.store, output_path_on_compute="x/y"),
        arguments=[],
        allow_reuse=True,
    )
    run = driver.submit(step)
    assert run.wait_for_completion(show_output=False) == "Completed"
    assert driver.rows(run, "old") == ["model"] * 4


def test_positional_arguments_have_the_order_of_azure_ml(driver: Driver) -> None:
    from azureml.pipeline.steps import ParallelRunConfig

    driver.config()
    config = ParallelRunConfig(
        None, "score.py", 3, "append_row", None, 2, 4, "7", "scripts", "told", "DEBUG", 9.5, 2,
        "rows.txt", 5, 50, None, {"A": "1"},
    )  # fmt: skip
    native = config._native
    assert (native.error_threshold, native.node_count, native.process_count_per_node) == (3, 2, 4)
    assert (native.mini_batch_size, native.description) == ("7", "told")
    assert (native.run_invocation_timeout, native.run_max_try) == (9.5, 2)
    assert native.append_row_file_name == config.append_row_file_name == "rows.txt"
    assert (native.allowed_failed_count, native.allowed_failed_percent) == (5, 50)
    assert native.environment_variables == {"A": "1"}
    config.mini_batch_size = "8"
    assert config._native.mini_batch_size == "8"


def test_settings_go_to_yaml_and_back(driver: Driver) -> None:
    from azureml.core import Environment
    from azureml.pipeline.core import PipelineParameter
    from azureml.pipeline.steps import ParallelRunConfig

    environment = Environment("env")
    environment.register(driver.ws)
    size = PipelineParameter("size", "5")
    config = driver.config(
        environment=environment, mini_batch_size=size, error_threshold=4, compute_target="cpu"
    )
    config.save_to_yaml("config.yml")
    again = ParallelRunConfig.load_yaml(driver.ws, "config.yml")
    assert again.environment.name == "env"
    assert again.compute_target == "cpu"
    assert (again.mini_batch_size.name, again.mini_batch_size.default_value) == ("size", "5")
    first, second = Path("config.yml").read_text(), Path("again.yml")
    again.save_to_yaml(second)
    assert second.read_text() == first


def test_a_pipeline_of_two_steps_with_partition_keys_on_the_output_between(
    driver: Driver,
) -> None:
    """Written by one step with a header, and read by the next by the values of a column."""
    from azureml.core import Dataset
    from azureml.data import OutputFileDatasetConfig
    from azureml.pipeline.core import PipelineData
    from azureml.pipeline.steps import ParallelRunStep

    between = OutputFileDatasetConfig("between", destination=(driver.store, "b/{run-id}"))
    config = driver.config(append_row_file_name="rows.csv")
    data = Dataset.File.from_files(str(driver.files("a", "b")))
    first = ParallelRunStep("first", config, [data.as_named_input("in")], between)
    groups = driver.config(
        "def run(m): return [f\"{len(m)} {m['Column2'].iloc[0]}\"] * len(m)",
        "groups.py",
        partition_keys=["Column2"],
    )
    tables = between.read_delimited_files(header=False)
    step = ParallelRunStep("groups", groups, [tables], PipelineData("groups"))
    run = driver.submit(step, first)
    run.wait_for_completion(show_output=False)
    assert driver.rows(run, "groups") == ["1 1", "1 2"]
    assert [one.name for one in run.get_steps()] == ["first", "groups"]


def test_a_pipeline_is_submitted_again_with_other_datasets_and_parameters(driver: Driver) -> None:
    from azureml.core import Dataset
    from azureml.data.dataset_consumption_config import DatasetConsumptionConfig
    from azureml.pipeline.core import Pipeline, PipelineData, PipelineParameter
    from azureml.pipeline.steps import ParallelRunStep

    data = PipelineParameter("data", Dataset.File.from_files(str(driver.files("a", "b"))))
    script = "def run(mini_batch): return [len(mini_batch)] * len(mini_batch)"
    config = driver.config(script, mini_batch_size=PipelineParameter("size", "5"))
    step = ParallelRunStep(
        "sized", config, [DatasetConsumptionConfig("in", data).as_mount()], PipelineData("out")
    )
    pipeline = Pipeline(driver.ws, [step])
    other = Dataset.File.from_files(str(driver.files("c", "d", "e", folder="other")))
    values = ({}, {"data": other, "size": "2"})
    runs = [pipeline.submit("test", pipeline_parameters=given) for given in values]
    for run in runs:
        run.wait_for_completion(show_output=False)
    assert driver.rows(runs[0], "sized", "one") == ["2", "2"]
    assert driver.rows(runs[1], "sized", "two") == ["1", "2", "2"]


def test_side_inputs_have_their_names_in_the_script(driver: Driver) -> None:
    """Also one that stands in the arguments, where it becomes a path."""
    from azureml.core import Dataset
    from azureml.pipeline.core import PipelineData, PipelineParameter
    from azureml.pipeline.steps import ParallelRunStep

    script = """
import sys
from azureml.core import Run
def run(mini_batch):
    path, word = sys.argv[1:]
    run = Run.get_context()
    told = [run.experiment.name, run.experiment.workspace.name, word]
    return [*told, open(path).read(), open(run.input_datasets["labels"]).read()]
"""
    (driver.folder / "labels.txt").write_text("labels")
    labels = Dataset.File.from_files("labels.txt").as_named_input("labels").as_download()
    data = Dataset.File.from_files(str(driver.files("a")))
    step = ParallelRunStep(
        name="sides",
        parallel_run_config=driver.config(script),
        inputs=[data],
        output=PipelineData("out"),
        side_inputs=[labels],
        arguments=[labels, PipelineParameter("word", "hello")],
    )
    run = driver.submit(step)
    run.wait_for_completion(show_output=False)
    assert driver.rows(run, "sides") == sorted(["test", "w", "hello", "labels", "labels"])


def test_steps_run_after_one_another_without_inputs_from_there(driver: Driver) -> None:
    from azureml.core import Dataset
    from azureml.pipeline.core import Pipeline, PipelineData, StepSequence
    from azureml.pipeline.steps import ParallelRunStep

    data = [Dataset.File.from_files(str(driver.files("a")))]
    steps = [
        ParallelRunStep(f"step{n}", driver.config(), data, PipelineData(f"o{n}")) for n in (3, 1, 2)
    ]
    pipeline = Pipeline(driver.ws, StepSequence(steps))
    assert [step.name for step in pipeline._native.steps] == ["step3", "step1", "step2"]
    assert pipeline.validate() == []


def test_wrong_things_are_told_by_our_errors(driver: Driver) -> None:
    from azureml.core import Experiment
    from azureml.exceptions import AzureMLException, UserErrorException
    from azureml.pipeline.steps import ParallelRunStep

    assert (AzureMLException, UserErrorException) == (DaskprsError, UsageError)
    with pytest.raises(ConfigError, match=r"^parallel_run_config=None"):
        ParallelRunStep("step", None, [])
    with pytest.raises(ConfigError, match=r"^config="):
        Experiment(driver.ws, "test").submit("script.py")


def test_a_run_tells_of_itself_and_is_found_again(
    driver: Driver, capsys: pytest.CaptureFixture[str]
) -> None:
    from azureml.core import Dataset, Experiment
    from azureml.pipeline.core import PipelineData, PipelineRun
    from azureml.pipeline.steps import ParallelRunStep
    from azureml.widgets import RunDetails

    data = Dataset.File.from_files(str(driver.files("a")))
    step = ParallelRunStep("only", driver.config(ROWS), [data], PipelineData("out"))
    run = driver.submit(step, tags={"a": "b"})
    run.wait_for_completion(show_output=True)
    RunDetails(run).show()
    assert f"test: Completed (run {run.id})" in capsys.readouterr().err
    assert PipelineRun.get(driver.ws, run.id).get_status() == "Completed"
    assert [one.id for one in Experiment(driver.ws, "test").get_runs()] == [run.id]
    assert run.get_tags() == {"a": "b"}
    [only] = run.get_children()
    assert (only.name, only.get_status(), only.parent.id) == ("only", "Completed", run.id)
    assert "logs/job_result.txt" in only.get_file_names()
    only.download_files("logs/job_", output_directory="logged")
    assert Path("logged/logs/job_result.txt").exists()
    assert run.get_pipeline_output("out").name == "out"


def test_a_canceled_run_says_so(driver: Driver) -> None:
    from azureml.core import Dataset
    from azureml.pipeline.core import PipelineData
    from azureml.pipeline.steps import ParallelRunStep

    data = Dataset.File.from_files(str(driver.files("a")))
    script = "import time\ndef run(m): time.sleep(100)"
    run = driver.submit(ParallelRunStep("slow", driver.config(script), [data], PipelineData("o")))
    run.cancel()
    status: Any = run.wait_for_completion(show_output=False, raise_on_error=False)
    assert status == run.status == "Canceled"
