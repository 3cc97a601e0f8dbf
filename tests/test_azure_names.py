"""What scripts that import azureml find in their process: the run, models, side inputs, metrics."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from entry_hosts import hosted, write

from daskprs.side_inputs import SideInput


def rows(script: str, **package: Any) -> list[str]:
    """Return what one call of the script's run() has returned, line by line."""
    with hosted(textwrap.dedent(script), **package) as host:
        outcome = host.run("a")
    assert outcome.rows is not None, outcome.traceback or outcome.error
    return outcome.rows.payload.decode().splitlines()


def told(questions: Iterable[str], script: str, **package: Any) -> dict[str, str]:
    """Return what a script's `tell` says to each question, or its error, in one entry process."""
    script += """
def run(mini_batch):
    answers = []
    for text in TEXTS:
        try:
            answers.append(tell(text))
        except Exception as error:
            answers.append(f"{type(error).__name__}: {error}")
    return answers
"""
    texts = list(questions)
    answers = rows(f"TEXTS = {texts!r}\n{script}", **package)
    return dict(zip(texts, answers, strict=True))


def evaluated(expressions: Iterable[str], **package: Any) -> dict[str, str]:
    """Return the texts of expressions in an entry process, or of the errors that they raise."""
    script = """
from azureml.core import Dataset, Experiment, Model, Run, Workspace
def tell(expression):
    return repr(eval(expression))
"""
    return told(expressions, script, **package)


def imported(lines: Iterable[str], expression: str) -> dict[str, str]:
    """Return what an expression is after each line, for each of which all modules are new."""
    script = f"""
import sys
def tell(line):
    for name in list(sys.modules):
        if name.partition(".")[0] in ("azureml", "azureml_user", "entry_script"):
            del sys.modules[name]
    names = {{}}
    exec(line, names)
    return str(eval({expression!r}, names))
"""
    return told(lines, script)


def facts(**values: Any) -> dict[str, str]:
    return {f"DASKPRS_{name.upper()}": json.dumps(value) for name, value in values.items()}


IMPORTS = {
    "EntryScript": "from azureml_user.parallel_run import EntryScript as A; A = A()",
    "its module": "from azureml_user.parallel_run.entry_script import EntryScript as A; A = A()",
    "its old name": "from entry_script import EntryScript as A; A = A()",
    "core": "from azureml.core import Dataset, Experiment, Model, Run as A, Workspace",
    "core as a name": "import azureml.core; A = azureml.core.Run",
    "Model": "from azureml.core.model import Model as A",
    "Run": "from azureml.core.run import Run as A",
    "its offline kind": "from azureml.core.run import Run, _OfflineRun as A\n"
    "assert not isinstance(Run.get_context(), A)",
    "Workspace": "from azureml.core.workspace import Workspace as A",
    "Experiment": "from azureml.core.experiment import Experiment as A",
    "Dataset": "from azureml.core.dataset import Dataset as A",
    "telemetry": "from azureml.telemetry import set_diagnostics_collection as A; A(True)",
    "errors": "from azureml.exceptions import UserErrorException as A, WebserviceException",
}


@pytest.fixture(scope="module")
def modules() -> dict[str, str]:
    return imported(IMPORTS.values(), "A.__module__.partition('.')[0]")


@pytest.mark.parametrize("line", IMPORTS.values(), ids=IMPORTS)
def test_an_import_of_a_published_script_works(modules: dict[str, str], line: str) -> None:
    assert modules[line] == "daskprs"


def test_all_names_of_entry_script_are_one_object() -> None:
    script = """
        from azureml_user.parallel_run import EntryScript
        import entry_script
        def run(mini_batch):
            return [entry_script.EntryScript() is EntryScript()]
    """
    assert rows(script) == ["True"]


MISSING = {
    "in a module": ("from azureml.core.run import Foo", "azureml.core.run.Foo", "azureml-core"),
    "a module": ("import azureml.nothing", "azureml.nothing", "install azureml-core"),
    "of azureml_user": ("from azureml_user.parallel_run import X", "parallel_run.X", "EntryScript"),
}


@pytest.fixture(scope="module")
def errors() -> dict[str, str]:
    return imported([statement for statement, _, _ in MISSING.values()], "None")


@pytest.mark.parametrize("line", MISSING)
def test_an_import_that_is_not_there_says_what_to_use_instead(
    errors: dict[str, str], line: str
) -> None:
    statement, name, instead = MISSING[line]
    error = errors[statement]
    assert error.startswith("ModuleNotFoundError: ")
    assert f"{name} is not there in an entry process of daskprs" in error
    assert instead in error


def test_an_import_that_is_not_there_ends_the_start() -> None:
    statement, name, _ = MISSING["in a module"]
    expected = pytest.raises(Exception, match=f"^ModuleNotFoundError: .*{name} is not there")
    with hosted(f"{statement}\ndef run(m): return m") as host, expected:
        host.run("a")


def test_a_script_may_try_an_import_that_is_not_there() -> None:
    script = """
        try:
            from azureml.core import Nothing
        except ImportError:
            Nothing = None
        def run(mini_batch):
            return [Nothing, hasattr(__import__("azureml.core"), "nothing")]
    """
    assert rows(script) == ["None", "False"]


UNUSED = {
    "a class": ("from azureml.core import Datastore as A", "A(1, 'b')", "side_inputs"),
    "a submodule": ("from azureml.core.authentication import Login as A", "A()", "to log in to"),
    "of a driver": (
        "from azureml.pipeline.core import PipelineData as A",
        "A()",
        "submits the run",
    ),
    "a package": ("import azureml.train.automl as A", "A.AutoMLConfig()", "install azureml-core"),
}


@pytest.mark.parametrize("kind", UNUSED)
def test_a_script_may_import_more_of_azure_ml_than_it_uses(kind: str) -> None:
    line, use, instead = UNUSED[kind]
    [text] = imported([line], use).values()
    assert "is not there in an entry process of daskprs" in text
    assert instead in text


def test_an_error_that_is_not_there_can_be_caught() -> None:
    line = "from azureml.automl.core.exceptions import ClientException as A"
    assert imported([line], "issubclass(A, Exception)") == {line: "True"}


ANSWERS = {
    "Run.get_context() is Run.get_context()": "True",
    "Run.get_context().id": "'t'",
    "Run.get_context().parent.id": "'t'",
    "Run.get_context().parent.parent": "None",
    "Run.get_context().get_status()": "'Running'",
    "Run.get_context().experiment.name": "'daskprs'",
    "Run.get_context().experiment.workspace.name": "'daskprs'",
    "dict(Run.get_context().input_datasets)": "{}",
    "Model.list(None)": "[]",
    "Model.get_model_path('iris')": "ModelNotFoundException: there is no model 'iris' here; "
    "there are none at all. Give it to the step as one of its models, or as a side input of that "
    "name.",
    "Run.get_context().upload_file('a', 'b')": "UserErrorException: Run.upload_file needs a "
    "workspace, and this run belongs to none: submit it in a pipeline, or write files to "
    "EntryScript().output_dir, the output folder of the run.",
    "Model.register(None, 'a', 'b')": "UserErrorException: Model.register needs a workspace, and "
    "this run belongs to none: submit it in a pipeline, or write files to "
    "EntryScript().output_dir, the output folder of the run.",
    "Workspace.from_config().name": "'daskprs'",
    "Workspace('sub', 'rg', 'any').name": "'daskprs'",
    "Dataset.get_by_name(None, 'labels')": "UserErrorException: there is no side input 'labels'; "
    "there are none at all. Give it to the step with side_inputs; the inputs themselves come as "
    "mini-batches.",
}


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    return evaluated(ANSWERS)


@pytest.mark.parametrize("expression", ANSWERS)
def test_without_a_workspace(answers: dict[str, str], expression: str) -> None:
    """What works does, and the rest says what to do."""
    assert answers[expression] == ANSWERS[expression]


def test_a_run_knows_its_pipeline_and_workspace() -> None:
    environment = facts(
        run={"id": "step-1", "experiment": "digits", "parent": "pipeline-1"},
        workspace={"name": "ws", "subscription_id": "sub", "resource_group": "rg"},
    )
    script = """
        import os
        from azureml.core import Run
        context = Run.get_context()
        def run(mini_batch):
            ws = context.experiment.workspace
            names = ("RUN_ID", "ARM_WORKSPACE_NAME", "ARM_SUBSCRIPTION", "ARM_RESOURCEGROUP",
                     "ARM_PROJECT_NAME")
            return [
                f"{context.id} {context.parent.id} {context.experiment.name}",
                f"{ws.name} {ws.subscription_id} {ws.resource_group}",
                " ".join(os.environ[f"AZUREML_{name}"] for name in names),
            ]
    """
    expected = ["step-1 pipeline-1 digits", "ws sub rg", "step-1 ws sub rg digits"]
    assert rows(script, environment=environment) == expected


def test_a_script_may_open_the_workspace_of_its_run_and_no_other() -> None:
    told = {"name": "ws", "subscription_id": "sub", "resource_group": "rg", "folder": "/ws"}
    environment = facts(workspace=told)
    script = """
        from azureml.core import Workspace
        def opened(open):
            try:
                return open().name
            except Exception as error:
                return str(error)
        def run(mini_batch):
            return [
                opened(Workspace.from_config),
                opened(lambda: Workspace("sub", "rg", "ws")),
                opened(lambda: Workspace.get(name="ws", subscription_id="sub")),
                opened(lambda: Workspace.get("other")),
            ]
    """
    found = rows(script, environment=environment)
    assert found[:3] == ["ws"] * 3
    assert found[3].startswith("the workspace of this run is 'ws', and 'other' cannot be opened")


def test_facts_that_are_not_json_end_the_start_with_their_name() -> None:
    expected = pytest.raises(Exception, match="environment variable DASKPRS_RUN is not JSON")
    with hosted("def run(m): return m", environment={"DASKPRS_RUN": "{"}) as host, expected:
        host.run("a")


@pytest.fixture(scope="module")
def of_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Answers where a model has two versions, each a file, and another is a folder."""
    folder = tmp_path_factory.mktemp("models")
    write(folder, {"1/iris.pkl": "one", "2/iris.pkl": "two", "mnist/model.meta": "graph"})
    versions: list[dict[str, Any]] = [
        {"version": n, "path": str(folder / f"{n}/iris.pkl")} for n in (1, 2)
    ]
    versions[1]["tags"] = {"kind": "svm"}
    mnist = [{"version": 7, "path": str(folder / "mnist")}]
    environment = facts(models={"iris": versions, "mnist": mnist})
    found = evaluated(MODEL_ANSWERS, environment=environment)
    return {expression: text.replace(str(folder), "") for expression, text in found.items()}


MODEL_ANSWERS = {
    "Model.get_model_path('iris')": "'/2/iris.pkl'",
    "Model.get_model_path('iris', version=1)": "'/1/iris.pkl'",
    "Model.get_model_path('iris', version='1')": "'/1/iris.pkl'",
    "Model.get_model_path(model_name='mnist', _workspace=None)": "'/mnist'",
    "(Model(None, 'iris').version, Model(None, 'iris', version=1).id)": "(2, 'iris:1')",
    "Model(None, id='iris:1').version": "1",
    "open(Model(None, 'iris').download('sub')).read()": "'two'",
    "__import__('os').listdir(Model(None, 'mnist').download())": "['model.meta']",
    "(Model(None, 'iris').download(), Model(None, 'iris').download())": "UserErrorException: "
    "iris.pkl is there already: use download(exist_ok=True)",
    "Model.list(None, tags=[['kind', 'svm']])": "[Model(name=iris, id=iris:2, version=2)]",
    "Model.list(None, tags=['other'])": "[]",
    "[m.id for m in Model.list(None, latest=True)]": "['iris:2', 'mnist:7']",
    "sorted(Run.get_context().experiment.workspace.models)": "['iris', 'mnist']",
    "Model.get_model_path('iris', version=3)": "ModelNotFoundException: there is no model 'iris' "
    "version 3 here; there are 'iris' (version 1, 2), 'mnist' (version 7). Give it to the step as "
    "one of its models, or as a side input of that name.",
}


@pytest.mark.parametrize("expression", MODEL_ANSWERS)
def test_models_of_the_step(of_models: dict[str, str], expression: str) -> None:
    assert of_models[expression] == MODEL_ANSWERS[expression]


def test_a_model_that_is_not_on_this_node_is_told_with_its_path() -> None:
    environment = facts(models={"iris": [{"version": 1, "path": "/nowhere/iris.pkl"}]})
    [found] = evaluated(["Model.get_model_path('iris')"], environment=environment).values()
    assert "should stand at /nowhere/iris.pkl, which is not there on this node" in found


FOLDERS = {
    "versions": (".", {"iris/1/iris.pkl": "", "iris/2/iris.pkl": ""}, "iris/2/iris.pkl"),
    "versions of folders": (".", {"iris/1/a": "", "iris/1/b": ""}, "iris/1"),
    "a folder": (".", {"iris/iris.pkl": ""}, "iris"),
    "a file": (".", {"iris": ""}, "iris"),
    "of one model": ("iris/10", {"iris/10/iris.pkl": "", "iris/9/no": ""}, "iris/10/iris.pkl"),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_models_in_the_folder_of_azureml_model_dir(kind: str, tmp_path: Path) -> None:
    root, files, expected = FOLDERS[kind]
    write(tmp_path, files)
    environment = {"AZUREML_MODEL_DIR": os.path.normpath(tmp_path / root)}
    [found] = evaluated(["Model.get_model_path('iris')"], environment=environment).values()
    assert found == repr(str(tmp_path / expected))


def test_the_only_model_of_a_step_is_in_the_folder_of_azureml_model_dir(tmp_path: Path) -> None:
    write(tmp_path, {"m/model.pth": "weights"})
    environment = facts(models={"net": [{"version": 1, "path": str(tmp_path / "m/model.pth")}]})
    script = """
        import os
        def run(mini_batch):
            return [open(os.path.join(os.getenv("AZUREML_MODEL_DIR"), "model.pth")).read()]
    """
    assert rows(script, environment=environment) == ["weights"]


@pytest.fixture(scope="module")
def of_side_inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("side")
    files = {"labels/a.csv": "x,y\n1,2\n", "labels/b.csv": "x,y\n3,4\n", "iris.pkl": "model"}
    write(folder, files)
    side_inputs = tuple(
        SideInput(name, str(folder / path), is_file="." in path)
        for name, path in {"labels": "labels", "iris": "iris.pkl"}.items()
    )
    found = evaluated(SIDE_ANSWERS, side_inputs=side_inputs)
    return {expression: text.replace(str(folder), "") for expression, text in found.items()}


SIDE_ANSWERS = {
    "Model.get_model_path('iris')": "'/iris.pkl'",
    "Run.get_context().input_datasets['labels']": "'/labels'",
    "Run.get_context().input_datasets['labels'].to_pandas_dataframe()['y'].sum()": "np.int64(6)",
    "Dataset.get_by_name(Run.get_context().experiment.workspace, name='labels').to_path()": (
        "['/a.csv', '/b.csv']"
    ),
    "open(Dataset.get_by_name(None, 'labels').download('here')[1]).read()": "'x,y\\n3,4\\n'",
    "Dataset.get_by_name(None, 'iris').download()": "['/iris.pkl']",
    "Dataset.get_by_name(None, 'labels').mount().__enter__().mount_point": "'/labels'",
    "__import__('os').environ['AZUREML_DATAREFERENCE_labels']": "'/labels'",
    "Run.get_context().input_datasets['images']": "KeyError: \"there is no side input 'images'; "
    "there are ['iris', 'labels']. Give it to the step with side_inputs; the inputs themselves "
    'come as mini-batches."',
}


@pytest.mark.parametrize("expression", SIDE_ANSWERS)
def test_side_inputs(of_side_inputs: dict[str, str], expression: str) -> None:
    assert of_side_inputs[expression] == SIDE_ANSWERS[expression]


def test_what_a_run_logs_is_a_line_of_json_each() -> None:
    script = """
        import numpy as np
        from azureml.core import Run
        def run(mini_batch):
            run = Run.get_context()
            run.log("mse", np.float32(0.5), description="d")
            run.log_list("losses", (1, float("nan")))
            run.log_row("scores", fold=1, r2=0.25)
            run.log_table("t", {"a": [1, 2]})
            run.parent.log("of the parent", 1)
            with run.child_run(name="part") as child:
                child.log("of a part", child.parent.id)
            assert child.id != run.id
            run.tag("kind", "test")
            run.flush()
            return mini_batch
    """
    with hosted(textwrap.dedent(script)) as host:
        outcome = host.run("a")
        assert outcome.rows is not None, outcome.traceback
        lines = [json.loads(line) for line in host.log("metrics").splitlines()]
    assert [(line["kind"], line["name"], line["value"]) for line in lines] == [
        ("log", "mse", 0.5),
        ("log_list", "losses", [1, None]),
        ("log_row", "scores", {"fold": 1, "r2": 0.25}),
        ("log_table", "t", {"a": [1, 2]}),
        ("log", "of the parent", 1),
        ("log", "of a part", "t"),
        ("tag", "kind", "test"),
    ]
    assert lines[0]["description"] == "d"


INSTALLED = {
    "azureml/__init__.py": "__path__ = __import__('pkgutil').extend_path(__path__, __name__)",
    "azureml/core/__init__.py": "class Model: kind = 'installed'\n",
    "azureml/train/__init__.py": "kind = 'installed'\n",
}
WHICH = {
    "nothing": ({}, "installed"),
    "models of the step": (facts(models={"a": [{"version": 1, "path": "/a"}]}), "ours"),
    "a workspace": (facts(workspace={"name": "ws"}), "ours"),
    "asked for": ({"DASKPRS_AZUREML": "1"}, "ours"),
    "refused": ({"DASKPRS_AZUREML": "0", **facts(workspace={"name": "ws"})}, "installed"),
}


@pytest.mark.parametrize("given", WHICH)
def test_an_installed_azureml_is_used_unless_ours_is_asked_for(given: str, tmp_path: Path) -> None:
    environment, expected = WHICH[given]
    write(tmp_path, INSTALLED)
    script = """
        from azureml.core import Model
        import azureml.train
        def run(mini_batch):
            return [vars(Model).get("kind", "ours"), azureml.train.kind]
    """
    environment = {"PYTHONPATH": str(tmp_path), **environment}
    assert rows(script, environment=environment) == [expected, "installed"]


def test_a_part_of_azureml_that_is_installed_goes_together_with_ours(tmp_path: Path) -> None:
    write(tmp_path, {name: text for name, text in INSTALLED.items() if "core" not in name})
    script = """
        from azureml.core import Model
        import azureml.train
        def run(mini_batch):
            return [hasattr(Model, "get_model_path"), azureml.train.kind]
    """
    assert rows(script, environment={"PYTHONPATH": str(tmp_path)}) == ["True", "installed"]


def test_what_multiprocessing_starts_finds_the_same() -> None:
    script = """
        import multiprocessing
        from azureml.core import Run
        def scored(path):
            Run.get_context().log("path", path)
            return f"{path} {Run.get_context().id}"
        def run(mini_batch):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                return pool.map(scored, mini_batch)
    """
    with hosted(textwrap.dedent(script)) as host:
        outcome = host.run("a")
        assert outcome.rows is not None, outcome.traceback or outcome.error
        assert outcome.rows.payload == b"a t\n"
        assert json.loads(host.log("metrics"))["value"] == "a"


def test_a_process_that_imports_nothing_of_azureml_loads_nothing_of_it() -> None:
    script = "import sys\ndef run(m): return [n for n in sys.modules if 'azureml' in n]"
    assert rows(script) == []


def test_outside_of_a_run_there_is_no_azureml() -> None:
    code = "import importlib.util, daskprs; print(importlib.util.find_spec('azureml_user'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"
