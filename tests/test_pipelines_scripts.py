"""Scripts as steps of a pipeline: before and after parallel steps, inputs, outputs and reuse."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import fsspec
import pytest
from pipeline_parts import Yard, completed, log_of, made, rows, script

from daskprs import ConfigError, UsageError
from daskprs.pipelines import (
    Data,
    Environment,
    ParallelStep,
    Pipeline,
    PipelineParameter,
    ScriptStep,
    StepOutput,
    Workspace,
)

pytestmark = pytest.mark.usefixtures("no_daskprs_threads")


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


MAKE = """
import pathlib, sys
folder, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
for number in range(count):
    (folder / f"{number}.txt").write_text("x" * number)
print("made", count)
"""

COLLECT = """
import pathlib, sys
rows = pathlib.Path(sys.argv[1], "rows.csv").read_text().splitlines()
pathlib.Path(sys.argv[2], "total").write_text(str(sum(int(r.split(",")[1]) for r in rows)))
"""


def three_steps(yard: Yard) -> tuple[list[Any], StepOutput]:
    """Make files, measure them, and add up what was measured."""
    files, sizes, total = StepOutput("files"), StepOutput("sizes"), StepOutput("total")
    count = PipelineParameter("count", 4)
    make = made(yard, MAKE, files, count, outputs=[files])
    measure = yard.step("measure", [files], sizes)
    collect = made(yard, COLLECT, sizes, total, name="collect", outputs=[total])
    return [collect, measure, make], total


def test_a_script_comes_before_and_after_a_parallel_step(yard: Yard) -> None:
    steps, _ = three_steps(yard)
    run = completed(yard, *steps)
    assert [step.name for step in run.steps()] == ["make", "measure", "collect"]
    assert rows(run, "collect", yard.folder / "got") == [str(0 + 1 + 2 + 3)]
    assert log_of(run, "make", yard.folder) == "made 4\n"
    report = run.find_step_run("make")[0].report
    assert (report.status, report.reused, list(report.outputs)) == ("Completed", False, ["files"])


def test_a_script_whose_inputs_are_the_same_is_not_run_again(yard: Yard) -> None:
    """Nor what comes after it; each change has it run, and an earlier state is found again."""
    steps, _ = three_steps(yard)

    def reused(**parameters: Any) -> list[bool]:
        run = completed(yard, *steps, **parameters)
        assert rows(run, "collect", yard.folder / "got")
        return [step.report.reused for step in run.steps()]

    assert reused() == [False, False, False]
    assert reused() == [True, True, True]
    assert reused(count=6) == [False, False, False]
    assert reused() == [True, True, True]
    made(yard, COLLECT + "# other", name="collect")
    assert reused() == [True, True, False]
    made(yard, MAKE + "# other")
    assert reused() == [False, False, False]


def test_outputs_that_somebody_has_changed_are_made_anew(yard: Yard) -> None:
    output = StepOutput("files")
    step = made(yard, MAKE, output, 1, outputs=[output])
    [first] = completed(yard, step).steps()
    place = Path(first.get_output_data().place.url)
    (place / "0.txt").write_text("other")
    [second] = completed(yard, step).steps()
    assert not second.report.reused
    assert second.get_output_data().place.path != first.get_output_data().place.path


@pytest.mark.parametrize("how", ["allow_reuse", "regenerate_outputs"])
def test_a_script_is_run_again_where_that_is_asked_for(how: str, yard: Yard) -> None:
    output = StepOutput("files")
    again = how == "allow_reuse"
    step = made(yard, MAKE, output, 1, outputs=[output], allow_reuse=not again)
    for _ in range(2):
        run = Pipeline(yard.workspace, [step]).submit("test", regenerate_outputs=not again)
        run.wait_for_completion()
        assert not run.steps()[0].report.reused


def test_data_in_arguments_become_local_paths(yard: Yard) -> None:
    """Also what is in a store, tables, other files of this machine, and globs."""
    remote = fsspec.filesystem("memory")
    remote.pipe("/far/words/a.txt", b"far")
    near = yard.files({"b.txt": 3}, "near")
    text = """
import os, sys
print([sorted(os.listdir(p)) if os.path.isdir(p) else open(p).read() for p in sys.argv[1:]])
"""
    values: list[Any] = [
        Data.files("memory://far/words"),
        Data.files("memory://far/words/a.txt"),
        Data.files(near),
        Data.files(near / "*.txt"),
        Data.tables(near / "b.txt", format="csv"),
        PipelineParameter("data", Data.files(near)),
    ]
    run = completed(yard, made(yard, text, *values))
    told = [["a.txt"], "far", ["b.txt"], ["b.txt"], "xxx", ["b.txt"]]
    assert log_of(run, "make", yard.folder) == f"{told}\n"
    remote.rm("/far", recursive=True)


def test_an_output_in_a_store_is_copied_there_when_the_script_has_succeeded(yard: Yard) -> None:
    """And read from there by the next script; the workspace is in a store, too."""
    workspace = Workspace.create("memory://office/ws")
    files, seen = StepOutput("files"), StepOutput("seen", path="seen")
    first = made(yard, MAKE, files, 2, outputs=[files])
    text = "import os, sys; open(sys.argv[2] + '/n', 'w').write(str(len(os.listdir(sys.argv[1]))))"
    second = made(yard, text, files, seen, name="look", outputs=[seen])
    for number in range(2):
        run = Pipeline(workspace, [first, second]).submit("test")
        run.wait_for_completion()
        assert [step.report.reused for step in run.steps()] == [number == 1] * 2
    remote = fsspec.filesystem("memory")
    assert remote.cat("/office/ws/data/seen/n") == b"2"
    assert log_of(run, "look", yard.folder).startswith("The script was not run")
    remote.rm("/office", recursive=True)


def test_a_script_works_in_a_folder_of_its_own_with_the_files_beside_it(yard: Yard) -> None:
    """What it writes to `outputs` there is kept with the run; its own folder stays as it is."""
    folder = yard.folder / "steps/make"
    folder.mkdir(parents=True)
    (folder / "beside.py").write_text("word = 'beside'")
    (folder / "settings.json").write_text("{}")
    text = """
import beside, os
print(beside.word, os.listdir("."), open("settings.json").read(), os.environ["STAGE"])
open("outputs/model.txt", "w").write("model")
open("scratch.txt", "w").write("")
"""
    step = made(
        yard, text, environment=Environment("e", ["dask"], {"STAGE": "no"}),
        environment_variables={"STAGE": "test"},
    )  # fmt: skip
    run = completed(yard, step)
    told = log_of(run, "make", yard.folder)
    assert told.startswith("beside [")
    assert told.endswith("{} test\n")
    [one] = run.steps()
    assert one.file_names() == ["logs/std_log.txt", "outputs/model.txt"]
    assert one.download_file("outputs/model.txt", yard.folder / "m").read_text() == "model"
    kept = {path.name for path in folder.iterdir()}
    assert kept - {"__pycache__"} == {"beside.py", "settings.json", "make.py"}
    with pytest.raises(UsageError, match=r"no file 'nothing': it has logs/std_log\.txt, outputs/"):
        one.download_file("nothing", yard.folder / "m")


def test_an_environment_that_lacks_a_package_ends_the_step_before_the_script(yard: Yard) -> None:
    step = made(yard, "", environment=Environment("e", ["no-such-package-of-ours"]))
    with pytest.raises(UsageError, match="lacks packages of the environment 'e': no-such"):
        completed(yard, step)


def test_a_script_may_have_several_outputs_or_none(yard: Yard) -> None:
    one, two = StepOutput("one"), StepOutput("two", register_as="second")
    text = "import sys\nfor folder in sys.argv[1:]: open(folder + '/a', 'w').write(folder)"
    step = made(yard, text, one, two, outputs=[one, two])
    last = made(yard, "print('done')", name="last", inputs=[one, two.as_files()])
    run = completed(yard, last, step)
    [first, second] = run.steps()
    assert first.output_names() == ["one", "two"]
    assert first.get_output_data("two").download(yard.folder / "got")
    assert "/two" in yard.workspace.datasets["second"].paths[0].path
    with pytest.raises(UsageError, match="has no output None: it has 'one', 'two'"):
        first.get_output_data()
    with pytest.raises(UsageError, match="has no output 'one': it has none"):
        second.get_output_data("one")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "script": ({"script": "no.py"}, "script='no.py' is not accepted"),
    "syntax": ({"script": "wrong.py"}, r"does not parse: .* \(line 1\)"),
    "outside": ({"script": "../steps/make/make.py", "source_directory": "ws"}, "a path inside"),
    "folder": ({"source_directory": "nowhere"}, "source_directory='nowhere' is not accepted"),
    "arguments": ({"arguments": ["a", None]}, "a list without None"),
    "words": ({"arguments": "a b"}, "arguments='a b' is not accepted"),
    "inputs": ({"inputs": [object()]}, "is not accepted"),
    "outputs": ({"outputs": ["x"]}, r"a list of StepOutput\('name'\)"),
    "two outputs": ({"outputs": [StepOutput("a"), StepOutput("a")]}, "of different names"),
    "timeout": ({"timeout": 0}, "timeout=0 is not accepted"),
    "variables": ({"environment_variables": {"A": 1}}, "a dict of texts"),
    "environment": ({"environment": "e"}, "an Environment"),
    "reuse": ({"allow_reuse": 1}, "True or False"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_accepted_is_refused(
    what: str, yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, message = REFUSED[what]
    script(yard, "", "make.py")
    (yard.folder / "wrong.py").write_text("def")
    monkeypatch.chdir(yard.folder)
    with pytest.raises(ConfigError, match=message):
        ScriptStep(**{"name": "make", "script": "steps/make/make.py", **given})


def test_an_input_that_is_not_there_fails_the_step_before_the_script(yard: Yard) -> None:
    step = made(yard, "open('ran', 'w')", inputs=[Data.files(yard.folder / "nothing")])
    with pytest.raises(UsageError, match="no input files matched"):
        completed(yard, step)


def test_a_folder_that_is_empty_can_be_given_to_a_script(yard: Yard) -> None:
    place = yard.files({})
    run = completed(yard, made(yard, "import os, sys; print(os.listdir(sys.argv[1]))",
                               Data.files(place)))  # fmt: skip
    assert log_of(run, "make", yard.folder) == "[]\n"


def test_a_run_that_is_shown_tells_of_its_scripts(
    yard: Yard, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        run = Pipeline(yard.workspace, [made(yard, "import time; time.sleep(1)")]).submit("test")
        run.wait_for_completion(show_output=True)
        told = capsys.readouterr()
        assert told.out == ""
        last = told.err.splitlines()[-1]
        assert re.fullmatch(r"make: Completed \((reused|\d\.\d s)\)", last)
        assert ("reused" in last) == (number == 1)


def test_tables_of_a_step_are_one_input_with_its_folder(yard: Yard) -> None:
    """In an argument, and among the inputs, by name or not."""
    sizes = StepOutput("sizes")
    first = yard.step("measure", [Data.files(yard.files({"a": 1}))], sizes)
    tables = sizes.as_tables(header=None, names=["file", "n"])
    step = made(yard, "import os, sys; print(len(set(sys.argv[1:])))", sizes, tables, sizes,
                inputs=[tables])  # fmt: skip
    run = completed(yard, first, step)
    assert log_of(run, "make", yard.folder) == "1\n"


def test_a_parallel_step_can_run_after_a_script_without_its_data(yard: Yard) -> None:
    mark = yard.folder / "mark"
    step = made(yard, f"open({str(mark)!r}, 'w').write('done')")
    config = yard.config(f"def run(m): return [open({str(mark)!r}).read()]", "reads.py")
    after = ParallelStep("reads", config, [Data.files(yard.files({"a": 1}))], StepOutput("x"))
    after.run_after(step)
    run = completed(yard, after, step)
    assert rows(run, "reads", yard.folder / "got") == ["done"]
