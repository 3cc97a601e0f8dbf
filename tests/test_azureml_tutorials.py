"""The code of Azure ML's two tutorials runs as it stands, with one line in front.

The pages stand beside the project on some machines. What they take for granted (a config.json, the
names that their cells use before they import them) is given to them, and their storage account is
one of this machine: a folder, or a container of a real server.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from object_stores import serve

from daskprs import TargetError
from daskprs.azureml import door

SHARED = Path(__file__).parents[2] / "shared"
PAGES = {"2019": "001_67bb3883f944a4b6.txt", "2020": "003_f115216e63beeda6.txt"}
SCRIPT = "digit_identification.py"
DIGITS = {f"{n}.png" for n in range(10)}
_CELL = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="tensorflow is not installed"
)

# Stands in for the script of the pages where there is no tensorflow.
WITHOUT_TENSORFLOW = """
import os
import numpy as np
from PIL import Image
from azureml.core import Model

def init():
    assert os.path.exists(os.path.join(Model.get_model_path("mnist"), "mnist-tf.model.meta"))

def run(mini_batch):
    return [f"{os.path.basename(p)}: {np.array(Image.open(p)).sum() % 10}" for p in mini_batch]
"""


def cells(page: str) -> list[str]:
    path = SHARED / "seeds" / PAGES[page]
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    return _CELL.findall(path.read_text("utf-8"))


@pytest.fixture
def images() -> Path:
    folder = SHARED / "data/mnist/images"
    if not folder.exists():
        pytest.skip(f"{folder} is not on this machine")
    return folder


@pytest.fixture
def closed_door() -> Iterator[None]:
    """The door is closed again at the end."""
    yield
    door.uninstall()


def predictions() -> dict[str, int]:
    """What the model says of each image, without daskprs."""
    import numpy as np
    from PIL import Image
    from tensorflow.compat import v1

    v1.disable_eager_execution()
    with v1.Session(graph=v1.Graph()) as session:
        with session.graph.as_default():
            model = str(SHARED / "data/mnist/model/mnist-tf.model")
            v1.train.import_meta_graph(f"{model}.meta").restore(session, model)
        found = {}
        for path in (SHARED / "data/mnist/images").iterdir():
            pixels = np.array(Image.open(path)).reshape((1, 784))
            logits = session.run("network/output/MatMul:0", {"network/X:0": pixels})
            found[path.name] = int(np.argmax(logits))
    return found


class Notebook:
    """Runs the cells of a page one after another, in a folder of its own."""

    def __init__(self, page: str, folder: Path, *, has_tensorflow: bool) -> None:
        self.page, self.folder, self._has_tensorflow = page, folder, has_tensorflow
        self.names: dict[str, Any] = {"__name__": "__main__", "__file__": str(folder / SCRIPT)}
        exec("import daskprs.azureml\ndaskprs.azureml.install()", self.names)  # the one line
        exec("import os", self.names)
        if page == "2019":
            scripts = folder / "scripts"
            scripts.mkdir()
            exec("from azureml.pipeline.core import PipelineData", self.names)
            self.names["scripts_folder"] = str(scripts)

    def run(self, text: str) -> None:
        if "def init():" in text:
            where = self.folder / ("scripts" if self.page == "2019" else "") / SCRIPT
            own = text.removeprefix(f"%%writefile {SCRIPT}\n")
            where.write_text(own if self._has_tensorflow else WITHOUT_TENSORFLOW)
            return
        if not self._has_tensorflow:
            text = re.sub(r'"tensorflow==[\d.]+", ', "", text)
        exec(compile(text, f"the page of {self.page}", "exec"), self.names)

    def run_all(self) -> None:
        for text in cells(self.page):
            self.run(text)

    def rows(self, run: str, step: str, file: str) -> dict[str, int]:
        """Read the output of a run as the page of 2020 does."""
        output = self.names[run].find_step_run(step)[0].get_output_data("inferences")
        target = self.folder / f"got-{run}"
        output.download(local_path=target)
        table = pd.read_csv(target / output.path_on_datastore / file, delimiter=":", header=None)
        return dict(zip(table[0], table[1], strict=True))


@pytest.fixture(params=["disk", "abfs"])
def store(request: pytest.FixtureRequest, tmp_path: Path, images: Path) -> Iterator[dict[str, Any]]:
    """What config.json says: where the data of the account pipelinedata are, and the workspace."""
    if request.param == "disk":
        shutil.copytree(images, tmp_path / "account/sampledata/mnist")
        yield {"accounts": {"pipelinedata": {"url": "account"}}}
        return
    with serve("abfs", tmp_path) as server:
        fs = server.fs
        fs.mkdir("sampledata")
        fs.mkdir("workspace")
        fs.put(str(images) + "/", "sampledata/mnist/", recursive=True)
        options = {"connection_string": {"$env": "STORE_OF_THE_TEST"}}
        request.getfixturevalue("monkeypatch").setenv(
            "STORE_OF_THE_TEST", server.options()["connection_string"]
        )
        yield {
            "folder": "abfs://workspace/ws",
            "storage_options": options,
            "accounts": {"pipelinedata": {"url": "abfs://", "storage_options": options}},
        }
        written = [fs.cat_file(path) for path in fs.find("workspace")]
        written += [path.read_bytes() for path in (tmp_path / "notebook").rglob("*.*")]
        assert len(written) > 20
        assert not [text for text in written if server.secret.encode() in text]


@pytest.fixture
def place(
    tmp_path: Path, store: dict[str, Any], monkeypatch: pytest.MonkeyPatch, closed_door: None
) -> Path:
    """A folder with config.json; the model that the pages download is on this machine."""
    folder = tmp_path / "notebook"
    folder.mkdir()
    accounts = store["accounts"]["pipelinedata"]
    if accounts["url"] == "account":
        accounts["url"] = str(tmp_path / "account")
    config = {"subscription_id": "s", "resource_group": "g", "workspace_name": "w", **store}
    (folder / "config.json").write_text(json.dumps(config))

    def download(url: str, name: str) -> None:
        assert url.endswith("mnist-tf.tar.gz")
        with tarfile.open(name, "w:gz") as bundle:
            for file in (SHARED / "data/mnist/model").iterdir():
                bundle.add(file, file.name)

    monkeypatch.setattr(urllib.request, "urlretrieve", download)
    monkeypatch.chdir(folder)
    return folder


def check(page: str, place: Path, *, has_tensorflow: bool) -> dict[str, int]:
    """Run a page, and check what both kinds of scripts have in common; return its predictions."""
    notebook = Notebook(page, place, has_tensorflow=has_tensorflow)
    notebook.run_all()
    if page == "2019":
        found = notebook.rows("pipeline_run", "batch-mnist", "parallel_run_step.txt")
        assert set(found) == DIGITS
        return found
    found = notebook.rows("pipeline_run", "predict-digits-mnist", "mnist_outputs.txt")
    single = notebook.rows("pipeline_run_2", "predict-digits-mnist", "mnist_outputs.txt")
    assert set(found) == DIGITS
    assert single == {"0.png": found["0.png"]}
    assert notebook.names["df"].shape == (10, 2)
    steps = notebook.names["pipeline_run_2"].find_step_run("predict-digits-mnist")
    assert steps[0]._native.report.mini_batches.total == 1
    return found


@needs_tensorflow
@pytest.mark.parametrize("page", PAGES)
def test_a_tutorial_runs_as_it_stands(page: str, place: Path) -> None:
    """Its own script, on its own model; the rows are those of a plain loop."""
    found = check(page, place, has_tensorflow=True)
    assert found == predictions()


@pytest.mark.parametrize(
    ("page", "store"), [("2019", "disk"), ("2020", "disk"), ("2020", "abfs")], indirect=["store"]
)
def test_the_driver_code_of_a_tutorial_runs_as_it_stands(page: str, place: Path) -> None:
    """With a script in the place of its own that needs no tensorflow."""
    check(page, place, has_tensorflow=False)


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None, reason="tensorflow is installed"
)
@pytest.mark.parametrize("store", ["disk"], indirect=True)
def test_a_tutorial_without_tensorflow_says_that_it_is_lacking(place: Path) -> None:
    notebook = Notebook("2020", place, has_tensorflow=True)
    with pytest.raises(TargetError, match=r"lacks packages .* tensorflow==1.15.2"):
        notebook.run_all()
