"""What the tests of pipelines share: a workspace, scripts, and steps of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daskprs import ParallelRunConfig
from daskprs.pipelines import (
    ParallelStep,
    Pipeline,
    PipelineRun,
    ScriptStep,
    StepOutput,
    Workspace,
)

SIZES = """
import os
def run(mini_batch):
    return [f"{os.path.basename(path)},{os.path.getsize(path)}" for path in mini_batch]
"""


class Yard:
    """A folder with a workspace, and scripts and inputs beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = Workspace.create(folder / "ws", name="yard")

    def files(self, sizes: Mapping[str, int], folder: str = "input") -> Path:
        place = self.folder / folder
        place.mkdir(parents=True, exist_ok=True)
        for name, size in sizes.items():
            (place / name).write_bytes(b"x" * size)
        return place

    def config(self, text: str = SIZES, name: str = "score.py", **settings: Any) -> Any:
        script = self.folder / name.removesuffix(".py") / name
        script.parent.mkdir(exist_ok=True)
        if not script.exists() or script.read_text() != text:
            script.write_text(text)
        settings = {"process_count_per_node": 1, "run_max_try": 1, **settings}
        return ParallelRunConfig(entry_script=script, **settings)

    def step(self, name: str, inputs: Any, output: StepOutput | None = None, **more: Any) -> Any:
        """Make a step that writes names and sizes of files."""
        config = more.pop("config", None) or self.config(append_row_file_name="rows.csv")
        return ParallelStep(name, config, inputs, output or StepOutput("sizes"), **more)


def rows(run: PipelineRun, step: str, target: Path) -> list[str]:
    """Download the output of a step, and return its lines, sorted."""
    output = run.find_step_run(step)[0].get_output_data()
    found = output.download(target, overwrite=True)
    return sorted(line for path in found for line in path.read_text("utf-8").splitlines())


def script(yard: Yard, text: str, name: str = "make.py") -> Path:
    path = yard.folder / "steps" / Path(name).stem / name  # what is beside it is a part of it
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def made(yard: Yard, text: str, *arguments: Any, name: str = "make", **more: Any) -> ScriptStep:
    return ScriptStep(name, script(yard, text, f"{name}.py"), list(arguments), **more)


def completed(yard: Yard, *steps: Any, **parameters: Any) -> Any:
    run = Pipeline(yard.workspace, list(steps)).submit("test", parameters)
    run.wait_for_completion(timeout=60)
    return run


def log_of(run: Any, step: str, folder: Path) -> str:
    [one] = run.find_step_run(step)
    return one.download_file("logs/std_log.txt", folder / "log.txt").read_text("utf-8")
