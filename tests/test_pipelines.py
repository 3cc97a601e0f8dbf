"""Pipelines: the order of steps, parameters at submission, reuse, and what is left of failures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pipeline_parts import SIZES, Yard, rows

from daskprs import ConfigError, FileDataset, InputNotFoundError, ThresholdExceededError, UsageError
from daskprs.pipelines import (
    Data,
    Environment,
    ParallelStep,
    Pipeline,
    PipelineParameter,
    StepOutput,
    Workspace,
)


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


GROUPS = """
def run(mini_batch):
    return [f"{int(n)}:{len(mini_batch)}" for n in mini_batch["n"]]
"""


def test_the_output_of_a_step_is_the_input_of_the_next_also_by_partition_keys(yard: Yard) -> None:
    """In whatever order the steps are given; the rows are those of a plain loop."""
    sizes = {f"{number}.txt": number % 3 for number in range(9)}
    first = yard.step("sizes", [Data.files(yard.files(sizes))], output := StepOutput("sizes"))
    config = yard.config(GROUPS, "groups.py", partition_keys=["n"])
    tables = output.as_tables(header=None, names=["file", "n"])
    second = ParallelStep("groups", config, [tables], StepOutput("groups"))
    pipeline = Pipeline(yard.workspace, [second, first])
    run = pipeline.submit("test")
    assert run.wait_for_completion() == "Completed"
    assert [step.name for step in run.steps()] == ["sizes", "groups"]
    expected = sorted(f"{name},{size}" for name, size in sizes.items())
    assert rows(run, "sizes", yard.folder / "got") == expected
    assert rows(run, "groups", yard.folder / "got") == sorted(f"{n % 3}:3" for n in range(9))


def test_a_pipeline_is_submitted_again_with_other_values(yard: Yard) -> None:
    """Parameters of inputs, of settings, also numbers as text, and of arguments."""
    data = PipelineParameter("data", Data.files(yard.files({"a": 1, "b": 2})))
    size, count = PipelineParameter("size", "5"), PipelineParameter("processes", 1)
    word = PipelineParameter("word", "default")
    script = "import sys\ndef run(m): return [f'{sys.argv[1]} {len(m)}'] * len(m)"
    step = yard.step(
        "sized",
        [data],
        config=yard.config(script),
        arguments=[word],
        parameters={"mini_batch_size": size, "process_count_per_node": count},
    )
    pipeline = Pipeline(yard.workspace, [step])
    assert set(pipeline.parameters) == {"data", "size", "processes", "word"}
    first = pipeline.submit("test")
    first.wait_for_completion()
    other = Data.files(yard.files({"c": 3, "d": 4, "e": 5}, "other"))
    values = {"data": other, "size": 1, "processes": "2", "word": "given"}
    second = pipeline.submit("test", values)
    second.wait_for_completion()
    assert rows(first, "sized", yard.folder / "one") == ["default 2"] * 2
    assert rows(second, "sized", yard.folder / "two") == ["given 1"] * 3


def test_a_parameter_that_is_not_there_is_refused(yard: Yard) -> None:
    pipeline = Pipeline(yard.workspace, [yard.step("one", [Data.files(yard.files({"a": 1}))])])
    with pytest.raises(UsageError, match=r"no parameter 'sise': it has none"):
        pipeline.submit("test", {"sise": 3})


@pytest.mark.parametrize("value", ["0", "many", True])
def test_a_value_that_is_not_accepted_is_refused_before_anything_runs(
    value: object, yard: Yard
) -> None:
    step = yard.step(
        "one",
        [Data.files(yard.files({"a": 1}))],
        parameters={"run_max_try": PipelineParameter("tries", 3)},
    )
    with pytest.raises(ConfigError, match="run_max_try"):
        Pipeline(yard.workspace, [step]).submit("test", {"tries": value})
    assert yard.workspace.experiments["test"].runs() == []


def test_a_finished_step_is_taken_over_while_nothing_has_changed(yard: Yard) -> None:
    folder = yard.files({"a": 1})
    pipeline = Pipeline(yard.workspace, [yard.step("sizes", [Data.files(folder)])])

    def run() -> Any:
        made = pipeline.submit("test")
        made.wait_for_completion()
        return made

    first, second = run(), run()
    assert [one.steps()[0].report.reused for one in (first, second)] == [False, True]
    (folder / "b").write_bytes(b"12")
    third = run()
    assert not third.steps()[0].report.reused
    assert rows(third, "sizes", yard.folder / "third") == ["a,1", "b,2"]
    assert rows(first, "sizes", yard.folder / "first") == ["a,1"]


def test_without_allow_reuse_each_run_writes_anew(yard: Yard) -> None:
    step = yard.step("sizes", [Data.files(yard.files({"a": 1}))], allow_reuse=False)
    pipeline = Pipeline(yard.workspace, [step])
    paths = []
    for _ in range(2):
        run = pipeline.submit("test")
        run.wait_for_completion()
        paths.append(run.steps()[0].get_output_data().path_on_datastore)
    assert len(set(paths)) == 2


def test_a_failed_step_goes_on_where_it_was(yard: Yard) -> None:
    """What was done before is kept; a step that needs it is not started before."""
    files = yard.files({f"{n}": n for n in range(4)})
    gate = yard.folder / "gate"
    script = f"""
import os
def run(mini_batch):
    open({str(yard.folder / "calls")!r}, "a").write(os.path.basename(mini_batch[0]))
    if mini_batch[0].endswith("3") and not os.path.exists({str(gate)!r}):
        raise ValueError("closed")
    return [os.path.basename(p) for p in mini_batch]
"""
    output = StepOutput("names")
    config = yard.config(script, "gated.py", mini_batch_size=1, error_threshold=0, ordered=True)
    first = ParallelStep("gated", config, [Data.files(files)], output)
    second = yard.step("after", [output])
    pipeline = Pipeline(yard.workspace, [first, second])
    failed = pipeline.submit("test")
    with pytest.raises(ThresholdExceededError, match="ValueError: closed"):
        failed.wait_for_completion()
    assert failed.status == "Failed"
    assert [step.status for step in failed.steps()] == ["Failed", "Canceled"]
    assert "ValueError: closed" in failed.steps()[0].message
    gate.touch()
    again = pipeline.submit("test")
    assert again.wait_for_completion() == "Completed"
    assert rows(again, "gated", yard.folder / "got") == ["0", "1", "2", "3"]
    assert (yard.folder / "calls").read_text().count("0") == 1


def test_other_steps_can_go_on_after_a_failure(yard: Yard) -> None:
    bad = yard.step("bad", [Data.files(yard.folder / "nothing")], StepOutput("one"))
    good = yard.step("good", [Data.files(yard.files({"a": 1}))], StepOutput("two"))
    run = Pipeline(yard.workspace, [bad, good]).submit("test", continue_on_step_failure=True)
    with pytest.raises(InputNotFoundError):
        run.wait_for_completion()
    assert {step.name: step.status for step in run.steps()} == {
        "bad": "Failed",
        "good": "Completed",
    }


def test_a_canceled_run_stops_its_step_and_starts_no_other(yard: Yard) -> None:
    output = StepOutput("one")
    slow = "import time\ndef run(m): time.sleep(100)"
    first = ParallelStep(
        "slow", yard.config(slow, "slow.py"), [Data.files(yard.files({"a": 1}))], output
    )
    run = Pipeline(yard.workspace, [first, yard.step("after", [output])]).submit("test")
    assert run.steps()[0].wait_for_start() is not None
    run.cancel()
    assert run.wait_for_completion(raise_on_error=False, timeout=60) == "Canceled"
    assert [step.status for step in run.steps()] == ["Canceled", "Canceled"]


def test_another_process_reads_what_a_run_has_done(yard: Yard) -> None:
    """As that of the same workspace opened anew, without the run's own objects."""
    run = Pipeline(yard.workspace, [yard.step("sizes", [Data.files(yard.files({"a": 1}))])]).submit(
        "test"
    )
    run.wait_for_completion()
    read = Workspace(yard.folder / "ws").experiments["test"].run(run.id)
    read._live = None
    assert (read.status, read.steps()[0].status) == ("Completed", "Completed")
    assert read.steps()[0].report.items.succeeded == 1
    assert rows(read, "sizes", yard.folder / "got") == ["a,1"]


def test_a_run_whose_process_is_gone_is_interrupted(yard: Yard) -> None:
    run = Pipeline(yard.workspace, [yard.step("sizes", [Data.files(yard.files({"a": 1}))])]).submit(
        "test"
    )
    run.wait_for_completion()
    file = yard.folder / "ws/runs/test@1.json"
    told = json.loads(file.read_text())
    told["status"] = told["steps"]["sizes"]["status"] = "Running"
    told["process"]["started"] -= 100
    file.write_text(json.dumps(told))
    [read] = Workspace(yard.folder / "ws").experiments["test"].runs()
    read._live, read._record = None, told
    assert (read.status, read.steps()[0].status) == ("Interrupted", "Interrupted")


def test_the_script_is_told_where_its_run_belongs(yard: Yard) -> None:
    """By environment variables, which do not make another run of it."""
    script = """
import json, os
def run(mini_batch):
    names = ("DASKPRS_WORKSPACE", "DASKPRS_RUN", "DASKPRS_ENVIRONMENT", "WORD")
    return ["\\t".join(os.environ[name] for name in names)]
"""
    environment = Environment("env", ["pandas"], {"WORD": "hello"})
    config = yard.config(script, environment=environment)
    step = ParallelStep("told", config, [Data.files(yard.files({"a": 1}))], StepOutput("facts"))
    run = Pipeline(yard.workspace, [step]).submit("test")
    run.wait_for_completion()
    [line] = rows(run, "told", yard.folder / "got")
    *facts, word = line.split("\t")
    told = [json.loads(fact) for fact in facts]
    place = {"folder": str(yard.folder / "ws"), "storage_options": {}}
    assert told[0] == {"name": "yard", "subscription_id": "", "resource_group": "", **place}
    ids = {"id": run.steps()[0].id, "experiment": "test", "parent": run.id}
    assert told[1:] == [ids, ["pandas"]]
    assert word == "hello"


def test_side_inputs_models_and_outputs_in_arguments_become_paths(yard: Yard) -> None:
    script = """
import json, os, sys
def run(mini_batch):
    words, folder, output = sys.argv[1:]
    models = json.loads(os.environ["DASKPRS_MODELS"])
    return [open(words).read(), *os.listdir(folder), os.path.basename(output),
            open(models["digits"][0]["path"]).read()]
"""
    (yard.folder / "words.txt").write_text("words")
    (yard.folder / "model").write_text("model")
    yard.workspace.models.register(yard.folder / "model", "digits")
    words = Data.files(yard.folder / "words.txt")
    folder = FileDataset(yard.files({"x": 1}, "folder"))
    output = StepOutput("out")
    step = ParallelStep(
        "sides",
        yard.config(script),
        [Data.files(yard.files({"a": 1}))],
        output,
        side_inputs=[words, folder],
        arguments=[words, folder, output],
        models=["digits"],
    )
    run = Pipeline(yard.workspace, [step]).submit("test")
    run.wait_for_completion()
    assert rows(run, "sides", yard.folder / "got") == sorted(["words", "x", "out", "model"])


def test_an_output_can_be_registered_and_have_a_place_of_its_own(yard: Yard) -> None:
    output = StepOutput("sizes", path="results/sizes", register_as="all-sizes")
    step = yard.step("sizes", [Data.files(yard.files({"a": 1}))], output)
    Pipeline(yard.workspace, [step]).submit("test").wait_for_completion()
    assert (yard.folder / "ws/data/results/sizes/rows.csv").read_text() == "a,1\n"
    registered = yard.workspace.datasets["all-sizes"]
    assert [path.path for path in registered.paths] == ["results/sizes/rows.csv"], "no logs"


def broken(yard: Yard) -> dict[str, tuple[list[Any], str]]:
    data = [Data.files(yard.files({"a": 1}))]
    one, two = StepOutput("one"), StepOutput("two")
    sizes = [PipelineParameter("size", number) for number in (1, 2)]
    return {
        "two of a name": (
            [yard.step("same", data, one), yard.step("same", data, two)],
            "two steps have the name 'same'",
        ),
        "two writers": (
            [yard.step("first", data, one), yard.step("other", data, one)],
            "'first' and 'other' write the same output 'one'",
        ),
        "no writer": ([yard.step("first", [two], one)], "needs the output 'two', which no step"),
        "its own": ([yard.step("first", [one], one)], "has its own output as an input"),
        "a ring": (
            [yard.step("first", [two], one), yard.step("other", [one], two)],
            "need one another",
        ),
        "two parameters": (
            [
                yard.step(f"step{n}", data, StepOutput(f"o{n}"), parameters={"run_max_try": size})
                for n, size in enumerate(sizes)
            ],
            "two parameters have the name 'size'",
        ),
        "no steps": ([], "steps=\\[\\] is not accepted"),
        "not a step": (["step"], "steps='step' is not accepted"),
    }


@pytest.mark.parametrize(
    "what",
    ["two of a name", "two writers", "no writer", "its own", "a ring", "two parameters",
     "no steps", "not a step"],
)  # fmt: skip
def test_steps_that_cannot_be_put_together_are_refused(what: str, yard: Yard) -> None:
    steps, message = broken(yard)[what]
    with pytest.raises(UsageError, match=message):
        Pipeline(yard.workspace, steps)


def test_azure_flags_are_added_where_the_script_names_them(yard: Yard) -> None:
    """And only there, so that parse_args() of other scripts goes on working."""
    script = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--logging_level")
parser.add_argument("--mini_batch_size")
args = parser.parse_args()
def run(mini_batch):
    return [f"{args.logging_level} {args.mini_batch_size}"]
"""
    step = yard.step(
        "flagged",
        [Data.files(yard.files({"a": 1}))],
        config=yard.config(script, mini_batch_size=7, logging_level="DEBUG"),
        arguments=["--mini_batch_size", "mine"],
        azure_compatible=True,
    )
    run = Pipeline(yard.workspace, [step]).submit("test")
    run.wait_for_completion()
    assert rows(run, "flagged", yard.folder / "got") == ["DEBUG mine"]


def test_a_package_that_is_lacking_ends_the_step_before_it_starts(yard: Yard) -> None:
    environment = Environment("env", ["no-such-package-of-ours"])
    config = yard.config(SIZES, environment=environment)
    step = yard.step("lacking", [Data.files(yard.files({"a": 1}))], config=config)
    run = Pipeline(yard.workspace, [step]).submit("test")
    with pytest.raises(UsageError, match="lacks packages of the environment 'env': no-such"):
        run.wait_for_completion()
    assert run.steps()[0].output_names() == []


def test_a_program_that_ends_without_waiting_gets_its_steps_done(yard: Yard) -> None:
    """Also those that had not begun when it ended, each on a cluster of its own."""
    yard.config()
    program = f"""
from daskprs import ParallelRunConfig
from daskprs.pipelines import Data, ParallelStep, Pipeline, StepOutput, Workspace
config = ParallelRunConfig(entry_script={str(yard.folder / "score/score.py")!r})
one, two = StepOutput("one"), StepOutput("two")
first = ParallelStep("first", config, [Data.files({str(yard.files({"a": 1}))!r})], one)
second = ParallelStep("second", config, [one], two)
workspace = Workspace({str(yard.folder / "ws")!r})
Pipeline(workspace, [first, second]).submit("test", {{}})
"""
    (yard.folder / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, yard.folder / "program.py"], capture_output=True, text=True, timeout=60
    )
    [run] = yard.workspace.experiments["test"].runs()
    assert run.status == "Completed", (run.message, done.stderr)
    assert rows(run, "second", yard.folder / "got") == ["parallel_run_step.txt,4"]


def test_the_value_of_a_parameter_with_a_telling_name_is_not_written(yard: Yard) -> None:
    step = yard.step(
        "step",
        [Data.files(yard.files({"a": 1}))],
        arguments=[PipelineParameter("token", "c2VjcmV0")],
    )
    run = Pipeline(yard.workspace, [step]).submit("test")
    run.wait_for_completion()
    assert run.record["parameters"] == {"token": "***"}
    runs = (yard.folder / "ws/runs").iterdir()
    assert not [path for path in runs if "c2VjcmV0" in path.read_text()]
