"""What the tests of the Azure-compatible door share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daskprs.azureml import door

ROWS = """
import os
def run(mini_batch):
    return [f"{os.path.basename(path)},{os.path.getsize(path)}" for path in mini_batch]
"""


class Driver:
    """A folder that is the working directory of somebody's driver code."""

    def __init__(self, folder: Path) -> None:
        from azureml.core import Workspace

        self.folder = folder
        (folder / "config.json").write_text('{"workspace_name": "w", "subscription_id": "s"}')
        self.ws: Any = Workspace.from_config()
        self.store: Any = self.ws.get_default_datastore()

    def files(self, *names: str, folder: str = "input") -> Path:
        place = self.folder / folder
        place.mkdir(exist_ok=True)
        for number, name in enumerate(names, 1):
            (place / name).write_bytes(b"x" * number)
        return place

    def config(self, script: str = ROWS, name: str = "score.py", **settings: Any) -> Any:
        from azureml.pipeline.steps import ParallelRunConfig

        folder = self.folder / "scripts"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(script)
        settings = {"process_count_per_node": 1, "run_max_try": 1, **settings}
        return ParallelRunConfig(source_directory=str(folder), entry_script=name, **settings)

    def submit(self, *steps: Any, **more: Any) -> Any:
        from azureml.core import Experiment
        from azureml.pipeline.core import Pipeline

        pipeline = Pipeline(workspace=self.ws, steps=list(steps))
        return Experiment(self.ws, "test").submit(pipeline, **more)

    def rows(self, run: Any, step: str, target: str = "got") -> list[str]:
        output = next(iter(run.find_step_run(step)))
        data = output.get_output_data(output._native.get_output_data().name)
        data.download(local_path=self.folder / target, overwrite=True)
        folder = self.folder / target / data.path_on_datastore
        return sorted(
            line for path in folder.iterdir() for line in path.read_text("utf-8").splitlines()
        )


@pytest.fixture
def opened() -> Iterator[None]:
    """The door is open, and closed again at the end."""
    door.install(replace=True)
    yield
    door.uninstall()


@pytest.fixture
def driver(opened: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    monkeypatch.chdir(tmp_path)
    return Driver(tmp_path)
