"""Entry scripts in the style of published ones write what they wrote in Azure ML."""

from __future__ import annotations

import json
from pathlib import Path

import joblib
import pytest
from entry_hosts import write
from published_scripts import FILES, SCRIPTS, TABLE, Published

from daskprs import FileDataset, ParallelRunConfig, ParallelRunStep
from daskprs.exceptions import MiniBatchFailedError
from daskprs.testing import EntryScriptResult, run_entry_script


def run_published(published: Published, folder: Path) -> EntryScriptResult:
    write(folder, FILES)
    write(folder, {"in/labels.txt": "cat dog", "models/weights.txt": "2"})
    joblib.dump({"factor": 0.5}, folder / "net.joblib")
    write(folder / "scripts", {published.name: published.script, **published.files})
    options = dict(published.options)
    for kind in ("models", "side_inputs"):
        paths = {name: str(folder / path) for name, path in options.get(kind, {}).items()}
        options |= {kind: paths} if paths else {}
    script = folder / "scripts" / published.name
    if "source_directory" in options:
        options["source_directory"], script = folder / "scripts", Path(published.name)
    mini_batch = TABLE if published.table else [folder / name for name in FILES]
    return run_entry_script(script, mini_batch, **options)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_published_script_writes_what_it_wrote_in_azure_ml(name: str, tmp_path: Path) -> None:
    published = SCRIPTS[name]
    result = run_published(published, tmp_path)
    assert result.text == published.text.replace("{in}", str(tmp_path / "in"))


FAILURES = {
    "forgot to return": ("def run(m):\n    [p for p in m]\n", "run() returned None"),
    "returned text": ("def run(m):\n    return 'done'\n", "run() returned a value of type str"),
    "returned a number": ("def run(m):\n    return len(m)\n", "a value of type int"),
    "an unknown model": (
        "from azureml.core import Model\ndef run(m):\n    Model.get_model_path('mnist')\n",
        "there is no model 'mnist' here",
    ),
    "a registry": (
        "from azureml.core import Run\ndef run(m):\n    Run.get_context().register_model('a')\n",
        "Run.register_model needs a workspace, and this run belongs to none: submit it in a",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_fails_says_why(name: str, tmp_path: Path) -> None:
    script, message = FAILURES[name]
    with pytest.raises(MiniBatchFailedError) as failed:
        run_published(Published(script, ""), tmp_path)
    assert message in str(failed.value)


def test_what_a_script_prints_and_logs_is_kept_apart(tmp_path: Path) -> None:
    script = """
        import logging, sys
        from azureml.core import Run
        from azureml_user.parallel_run import EntryScript

        def run(mini_batch):
            print("printed")
            print("complained", file=sys.stderr)
            logging.info("logged")
            EntryScript().logger.info("told")
            Run.get_context().log("measured", 1)
            return mini_batch
    """
    result = run_published(Published(script, ""), tmp_path)
    assert "printed\n" in result.stdout
    assert "|INFO|root|logged\n" in result.stdout
    assert result.stderr == "complained\n"
    assert result.entry_script_log.endswith("|INFO|told\n")
    assert '"name": "measured", "value": 1' in result.metrics


def test_a_run_gives_models_side_inputs_and_metrics_to_every_process(tmp_path: Path) -> None:
    """The same as on one mini-batch, with the files of the metrics beside the other logs."""
    script = """
        import os
        from azureml.core import Model, Run

        def init():
            global factor, labels
            factor = int(open(Model.get_model_path("net") + "/weights.txt").read())
            labels = open(Run.get_context().input_datasets["labels"]).read()

        def run(mini_batch):
            Run.get_context().log("size", len(mini_batch))
            return [f"{os.path.basename(path)} {factor} {labels}" for path in mini_batch]
    """
    write(tmp_path, {**FILES, "models/weights.txt": "2", "labels.txt": "cat", "s/score.py": script})
    config = ParallelRunConfig(
        entry_script=tmp_path / "s/score.py", mini_batch_size=2, process_count_per_node=1
    )
    step = ParallelRunStep(
        "published-script",
        config,
        inputs=[FileDataset(tmp_path / "in")],
        output=tmp_path / "out",
        side_inputs={"labels": str(tmp_path / "labels.txt")},
        models={"net": str(tmp_path / "models")},
    )
    run = step.submit()
    run.wait_for_completion()
    rows = sorted(Path(run.output_file).read_text().splitlines())
    assert rows == ["a.txt 2 cat", "b.txt 2 cat", "c.txt 2 cat"]
    (metrics,) = (tmp_path / "out/logs/user/metrics").rglob("process*.metrics.jsonl")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert sorted(line["value"] for line in lines) == [1, 2]
