"""Entry scripts in the style of published ones, and the text that Azure ML would write for them.

Each is run on one mini-batch: of three files, or of the table below.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

FILES = {"in/a.txt": "ada", "in/b.txt": "grace hopper", "in/c.txt": "émilie"}
TABLE = pd.DataFrame(
    {
        "store": ["north", "north", "south bay"],
        "day": pd.to_datetime(["2020-01-05", "2020-01-06", "2020-01-05"]),
        "sold": [3, 4, 5],
        "price": [0.1, 1e-07, None],
    }
)


@dataclass(frozen=True)
class Published:
    """A script, what stands beside it, how it is run, and the text that is to be written."""

    script: str
    text: str
    table: bool = False
    name: str = "score.py"
    files: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


SCRIPTS = {
    "the tutorial: names and numbers, with a model in a folder": Published(
        """
        import os
        from azureml.core import Model

        def init():
            global g_weights
            model_path = Model.get_model_path("lengths")
            with open(os.path.join(model_path, 'weights.txt')) as weights:
                g_weights = int(weights.read())

        def run(mini_batch):
            print(f'run method start: {__file__}, run({mini_batch})')
            resultList = []
            for image in mini_batch:
                best_result = g_weights * os.path.getsize(image)
                resultList.append("{}: {}".format(os.path.basename(image), best_result))
            return resultList
        """,
        "a.txt: 6\nb.txt: 24\nc.txt: 14\n",
        options={"models": {"lengths": "models"}},
    ),
    "a model of joblib, by the name in an argument, at module level": Published(
        """
        import argparse
        import joblib
        from azureml.core.model import Model

        parser = argparse.ArgumentParser()
        parser.add_argument('--model_name', dest="model_name", required=True)
        parser.add_argument("--drop_columns", type=str, nargs='*', default=[])
        args, unknown_args = parser.parse_known_args()
        model = joblib.load(Model.get_model_path(args.model_name))

        def run(data):
            return data.drop(columns=args.drop_columns).assign(score=data["sold"] * model["factor"])
        """,
        'north 2020-01-05 1.5\nnorth 2020-01-06 2.0\n"south bay" 2020-01-05 2.5\n',
        table=True,
        options={
            "models": {"net": "net.joblib"},
            "arguments": ["--model_name", "net", "--other", "--drop_columns", "sold", "price"],
        },
    ),
    "strict parse_args in init": Published(
        """
        from argparse import ArgumentParser

        def init():
            global args
            parser = ArgumentParser("split")
            parser.add_argument("--target_column", required=True)
            parser.add_argument("--n_test_periods", type=int, default=2)
            args = parser.parse_args()

        def run(input_data):
            return input_data[args.target_column].tail(args.n_test_periods)
        """,
        "4\n5\n",
        table=True,
        options={"arguments": ["--target_column=sold"]},
    ),
    "the logger of EntryScript at module level": Published(
        """
        from azureml_user.parallel_run import EntryScript

        logger = EntryScript().logger
        logger.info("the module is loaded")

        def init():
            logger.info("init() is called.")

        def run(mini_batch):
            EntryScript().logger.info(f"{__file__}: {len(mini_batch)}.")
            return [len(mini_batch)]
        """,
        "3\n",
    ),
    "the entry_script module of 2019": Published(
        """
        from entry_script import EntryScript

        def init():
            entry_script = EntryScript()
            entry_script.logger.debug("This will show up in files under logs/user.")

        def run(mini_batch):
            return [EntryScript().logging_level]
        """,
        "DEBUG\n",
        options={"logging_level": "DEBUG"},
    ),
    "the context of the run at module level, metrics and a table of results": Published(
        """
        import os
        import pandas as pd
        from azureml.core import Run

        current_run = Run.get_context()

        def run(input_data):
            result_list = []
            for idx, path in enumerate(input_data):
                result = {}
                current_run.log(os.path.basename(path) + '_size', os.path.getsize(path))
                result['file_name'] = os.path.basename(path)[:-4]
                result['index'] = idx
                result['num_models'] = len(input_data)
                result['status'] = current_run.get_status()
                result_list.append(result)
            return pd.DataFrame(result_list)
        """,
        "a 0 3 Running\nb 1 3 Running\nc 2 3 Running\n",
    ),
    "no init, no imports, the paths as they came": Published(
        "def run(mini_batch):\n    return mini_batch\n",
        "{in}/a.txt\n{in}/b.txt\n{in}/c.txt\n",
    ),
    "a table as it came, with blanks, dates, fractions and nothing": Published(
        "def run(df):\n    return df\n",
        'north 2020-01-05 3 0.1\nnorth 2020-01-06 4 1e-07\n"south bay" 2020-01-05 5 \n',
        table=True,
    ),
    "a table with the settings file": Published(
        "def run(df):\n    return df[['store', 'sold', 'price']]\n",
        "store|sold|price\nnorth|3|0.10\nnorth|4|0.00\nsouth bay|5|NA\n",
        table=True,
        files={
            "parallel_run_step.settings.json": """
                {"append_row": {"pandas.DataFrame.to_csv":
                    {"sep": "|", "header": true, "float_format": "%.2f", "na_rep": "NA"}}}
            """
        },
    ),
    "quotes and line ends inside a table": Published(
        """
        import pandas as pd

        def run(mini_batch):
            texts = ['say "hi"', "two\\nlines", "plain"]
            return pd.DataFrame({"a": texts, "b": [True, False, None]})
        """,
        '"say ""hi""" True\n"two\nlines" False\nplain \n',
    ),
    "tables put together, with an index that is no row": Published(
        """
        import pandas as pd

        def run(mini_batch):
            frames = []
            for path in mini_batch:
                with open(path, encoding="utf8") as text:
                    frame = pd.DataFrame({"words": text.read().split()})
                frames.append(frame)
            return pd.concat(frames)
        """,
        "ada\ngrace\nhopper\némilie\n",
    ),
    "dicts": Published(
        "def run(m):\n    return [{'name': 'a b', 'score': 0.5, 'tags': None}]\n",
        "{'name': 'a b', 'score': 0.5, 'tags': None}\n",
    ),
    "tuples and lists": Published(
        "def run(m):\n    return [('a', 1), ['b', 2.0]]\n",
        "('a', 1)\n['b', 2.0]\n",
    ),
    "elements of numpy": Published(
        """
        import numpy as np

        def run(m):
            return [np.float32(0.25), np.str_("x"), np.int64(3), np.array([1.5, 2])]
        """,
        "0.25\nx\n3\n[1.5 2. ]\n",
    ),
    "an array": Published(
        "import numpy as np\ndef run(m):\n    return np.arange(4).reshape(2, 2) / 2\n",
        "[0.  0.5]\n[1.  1.5]\n",
    ),
    "a Series, without its index": Published(
        "def run(df):\n    return df.groupby('store')['sold'].sum()\n", "7\n5\n", table=True
    ),
    "a tuple": Published("def run(m):\n    return ('a', None, True)\n", "a\nNone\nTrue\n"),
    "a generator": Published("def run(m):\n    yield from 'xyz'\n", "x\ny\nz\n"),
    "one message for the whole mini-batch": Published(
        "def run(m):\n    return ['Success']\n",
        "Success\n",
    ),
    "a script in a package, with relative and absolute imports": Published(
        """
        from .helpers import clean
        from pkg.helpers import suffix
        from common.shared import prefix
        import helpers

        def run(mini_batch):
            return [clean(prefix + suffix + helpers.suffix)]
        """,
        "prefix-suffix-suffix\n",
        name="pkg/score.py",
        files={
            "pkg/__init__.py": "",
            "pkg/helpers.py": "suffix = '-SUFFIX'\ndef clean(text): return text.lower()\n",
            "common/shared.py": "prefix = 'PREFIX'\n",
        },
        options={"source_directory": "."},
    ),
    "a script with the name of a module of Python": Published(
        "import helpers\ndef run(m):\n    return [helpers.name]\n",
        "beside\n",
        name="statistics.py",
        files={"helpers.py": "name = 'beside'\n"},
    ),
    "files beside the script, by its path and by theirs": Published(
        """
        import os
        import sys

        script_dir = os.path.realpath(os.path.join(__file__, '..',))
        sys.path.append(os.path.join(script_dir, "lib"))
        from tools import read

        def run(mini_batch):
            first = read(os.path.join(script_dir, "labels.txt"))
            return [first, read("labels.txt"), read("./data/more.txt")]
        """,
        "label\nlabel\nmore\n",
        files={
            "labels.txt": "label",
            "data/more.txt": "more",
            "lib/tools.py": "def read(path): return open(path).read()\n",
        },
    ),
    "what is saved in ./outputs, and in the output folder": Published(
        """
        import os
        import joblib

        def run(mini_batch):
            os.makedirs('./outputs', exist_ok=True)
            joblib.dump([1, 2], filename=os.path.join('./outputs/', "model"))
            folder = os.environ["AZUREML_BI_OUTPUT_PATH"]
            joblib.dump([3], os.path.join(folder, "model"))
            return joblib.load("outputs/model") + joblib.load(f"{folder}/model")
        """,
        "1\n2\n3\n",
    ),
    "the folder of the model of SDK v2": Published(
        """
        import os

        def init():
            global factor
            for root, dirs, files in os.walk(os.getenv("AZUREML_MODEL_DIR", ".")):
                if "weights.txt" in files:
                    factor = open(os.path.join(root, "weights.txt")).read()

        def run(mini_batch):
            return [factor] * len(mini_batch)
        """,
        "2\n2\n2\n",
        options={"models": {"net": "models"}},
    ),
    "environment variables": Published(
        """
        import os

        THRESHOLD = float(os.getenv("PREDICTION_THRESHOLD", "0.7"))

        def run(mini_batch):
            return [THRESHOLD]
        """,
        "0.25\n",
        options={"environment_variables": {"PREDICTION_THRESHOLD": "0.25"}},
    ),
    "a helper in place of what Azure ML has, where the script runs by itself": Published(
        """
        import os

        IN_AZURE = "AZUREML_RUN_ID" in os.environ
        if IN_AZURE:
            from azureml.core import Run
            from azureml_user.parallel_run import EntryScript
        else:
            from local_helper import LocalScript as EntryScript

        def run(mini_batch):
            EntryScript().logger.info("not by itself")
            return [os.environ["AZUREML_RUN_ID"] == Run.get_context().id]
        """,
        "True\n",
    ),
    "imports of more than is used": Published(
        """
        from azureml.core import Datastore, Experiment, Run, ScriptRunConfig, Workspace
        from azureml.core.authentication import ServicePrincipalAuthentication
        from azureml.automl.core.shared.exceptions import AutoMLException, ClientException
        from azureml.telemetry import INSTRUMENTATION_KEY
        from azureml.train.automl import AutoMLConfig
        from azureml.data.data_reference import DataReference

        def upload(store: Datastore, login: ServicePrincipalAuthentication) -> AutoMLConfig:
            store.upload_files([])

        def run(mini_batch):
            try:
                return [1 / 0]
            except (AutoMLException, ClientException, ZeroDivisionError) as error:
                return [error] * len(mini_batch)
        """,
        "division by zero\n" * 3,
    ),
    "a side input, by its argument and by its name": Published(
        """
        import argparse
        from azureml.core import Run

        def init():
            global labels
            parser = argparse.ArgumentParser()
            parser.add_argument("--labels")
            path = parser.parse_known_args()[0].labels
            labels = open(path).read() + Run.get_context().input_datasets["labels"][-10:]

        def run(mini_batch):
            return [labels]
        """,
        "cat doglabels.txt\n",
        options={"side_inputs": {"labels": "in/labels.txt"}},
    ),
    "the keys of a partition": Published(
        """
        def run(mini_batch, mini_batch_context):
            keys = mini_batch_context.partition_key_value
            total = f"{keys['store']}:{mini_batch['sold'].sum()}"
            return [total, mini_batch_context.minibatch_index]
        """,
        "north:12\n7\n",
        table=True,
        options={"partition_key_value": {"store": "north"}, "minibatch_index": 7},
    ),
    "an object that does the work, and a part for the command line": Published(
        """
        class Step:
            def prs_step_init(self):
                self.ready = True

            def prs_step_run(self, mini_batch):
                return [self.ready for _ in mini_batch]

        INPUT_STEP = None

        def init():
            global INPUT_STEP
            INPUT_STEP = Step()
            INPUT_STEP.prs_step_init()

        def run(mini_batch):
            return INPUT_STEP.prs_step_run(mini_batch)

        if __name__ == "__main__":
            raise SystemExit("not here")
        """,
        "True\nTrue\nTrue\n",
    ),
    "models of the workspace by their tags": Published(
        """
        from azureml.core.model import Model
        from azureml.core.run import Run

        def run(input_data):
            ws = Run.get_context().experiment.workspace
            models = Model.list(ws, name="net", latest=True)
            return [open(models[0].download(exist_ok=True) + "/weights.txt").read(), models[0].id]
        """,
        "2\nnet:1\n",
        options={"models": {"net": "models"}},
    ),
}
