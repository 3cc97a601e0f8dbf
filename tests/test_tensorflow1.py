"""Scripts of TensorFlow 1 in a process where a later one is installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from entry_hosts import hosted, write

from daskprs.azureml.entry.tensorflow1 import is_tensorflow_1

ASKED = {
    "tensorflow==1.13.1": True,
    "tensorflow == 1.*": True,
    "tensorflow~=1.15": True,
    "tensorflow-gpu==1.15.2": True,
    "tensorflow_gpu=1.12": True,
    "TensorFlow===1.15.0": True,
    "tensorflow=1": True,
    "tensorflow<2": True,
    "tensorflow<2.0.0": True,
    "tensorflow>=1.13,<2.0": True,
    "tensorflow>=1.0, <=1.15": True,
    "tensorflow[and-cuda] (==1.15.2)": True,
    "tensorflow-cpu<2.0a0; python_version < '3.8'": True,
    "tensorflow": False,
    "tensorflow>=1.13": False,
    "tensorflow==2.1": False,
    "tensorflow==2.*": False,
    "tensorflow<3": False,
    "tensorflow<2.1": False,
    "tensorflow!=1.13": False,
    "tensorflow>1,<20": False,
    "tensorflow-hub==0.1": False,
    "tensorflow-estimator==1.15.1": False,
    "tf-models==1.0": False,
    "pillow==1.0": False,
}


@pytest.mark.parametrize("requirement", ASKED)
def test_which_requirements_ask_for_tensorflow_1(requirement: str) -> None:
    assert is_tensorflow_1(requirement) is ASKED[requirement]


STAND_IN = {
    "tensorflow/__init__.py": """
        __version__ = "2.99.0"
        eager = True
        from tensorflow import python
    """,
    "tensorflow/python.py": "import tensorflow; assert tensorflow.eager; name = 'python'",
    "tensorflow/other.py": "name = 'other'",
    "tensorflow/compat/__init__.py": "",
    "tensorflow/compat/v1/__init__.py": """
        behaviour = 2
        def placeholder(): return f"a placeholder of behaviour {behaviour}"
        def disable_v2_behavior():
            global behaviour
            behaviour = 1
    """,
}
SCRIPT = """
    import tensorflow as tf
    import tensorflow.other
    from tensorflow import python
    def run(mini_batch):
        return [
            getattr(tf, "placeholder", lambda: "no placeholder")(),
            tf.__version__, tensorflow.other.name, python.name, hasattr(tf, "eager"),
        ]
"""


@pytest.mark.parametrize(
    ("packages", "first", "has_eager"),
    [
        (["pillow", "tensorflow==1.13.1"], "a placeholder of behaviour 1", "False"),
        (["tensorflow==2.4"], "no placeholder", "True"),
        (None, "no placeholder", "True"),
    ],
)
def test_import_tensorflow_gives_what_the_environment_asks_for(
    packages: list[str] | None, first: str, has_eager: str, tmp_path: Path
) -> None:
    write(tmp_path, STAND_IN)
    environment = {"PYTHONPATH": str(tmp_path)}
    if packages is not None:
        environment["DASKPRS_ENVIRONMENT"] = json.dumps(packages)
    with hosted(SCRIPT, environment=environment) as host:
        outcome = host.run("a")
        assert outcome.rows is not None, outcome.traceback
        rows = outcome.rows.payload.decode().splitlines()
        assert ("TensorFlow 2.99.0 is installed" in host.log("stdout")) is (has_eager == "False")
    assert rows == [first, "2.99.0", "other", "python", has_eager]


DIGITS = """
    import os
    import numpy as np
    import tensorflow as tf
    from PIL import Image
    from azureml.core import Model

    def init():
        global session
        folder = Model.get_model_path("mnist")
        tf.reset_default_graph()
        saver = tf.train.import_meta_graph(os.path.join(folder, "mnist-tf.model.meta"))
        session = tf.Session()
        saver.restore(session, os.path.join(folder, "mnist-tf.model"))

    def run(mini_batch):
        pixels = session.graph.get_tensor_by_name("network/X:0")
        output = session.graph.get_tensor_by_name("network/output/MatMul:0")
        rows = []
        for path in mini_batch:
            image = np.array(Image.open(path)).reshape((1, 784))
            best = np.argmax(output.eval(feed_dict={pixels: image}, session=session))
            rows.append(f"{os.path.basename(path)}: {best}")
        return rows
"""


@pytest.fixture
def real_tensorflow() -> None:
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("tensorflow is not installed: pip install 'daskprs[tensorflow]'")


def test_a_graph_of_tensorflow_1_finds_the_digits(real_tensorflow: None, shared_data: Path) -> None:
    images = [str(shared_data / f"mnist/images/{number}.png") for number in range(10)]
    model = {"version": 1, "path": str(shared_data / "mnist/model")}
    environment = {
        "DASKPRS_MODELS": json.dumps({"mnist": [model]}),
        "DASKPRS_ENVIRONMENT": json.dumps(["tensorflow==1.13.1", "pillow"]),
    }
    with hosted(DIGITS, environment=environment) as host:
        outcome = host.run(*images, timeout=60)
        assert outcome.rows is not None, outcome.traceback
    assert outcome.rows.payload.decode().splitlines() == [
        *("0.png: 7", "1.png: 2", "2.png: 1", "3.png: 0", "4.png: 4"),
        *("5.png: 1", "6.png: 4", "7.png: 9", "8.png: 6", "9.png: 9"),
    ]
