"""Models of a step: files that every worker has, under names that the script knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pytest
from conftest import Workplace

from daskprs import ConfigError, FileDataset, ParallelRunConfig, ParallelRunStep
from daskprs.side_inputs import NamedModel

SCRIPT = """
    import json

    def run(mini_batch):
        models = json.loads(os.environ["DASKPRS_MODELS"])
        told = {
            name: [
                [m["version"], os.path.isdir(m["path"]) and sorted(os.listdir(m["path"]))
                 or open(m["path"]).read()]
                for m in versions
            ]
            for name, versions in models.items()
        }
        return [json.dumps(told)] * len(mini_batch)
"""


def told(workplace: Workplace, models: Any) -> Any:
    config = ParallelRunConfig(
        entry_script=workplace.script(SCRIPT), process_count_per_node=1, run_max_try=1
    )
    step = ParallelRunStep(
        "with-models",
        config,
        inputs=[FileDataset(workplace.files(1))],
        output=workplace.output,
        models=models,
    )
    step.submit().wait_for_completion()
    return json.loads(workplace.rows()[0])


def test_a_script_finds_its_models_by_name(workplace: Workplace) -> None:
    """A folder as a folder, a file as a file, of this machine or of a store."""
    folder = workplace.folder / "models"
    folder.mkdir()
    (folder / "a.bin").write_text("a")
    fsspec.filesystem("memory").pipe("/registry/b.bin", b"b")
    models = {"a": folder, "one": folder / "a.bin", "b": "memory://registry/b.bin"}
    assert told(workplace, models) == {"a": [[1, ["a.bin"]]], "one": [[1, "a"]], "b": [[1, "b"]]}


def test_versions_of_one_model_stand_side_by_side(workplace: Workplace) -> None:
    files = [workplace.folder / f"m{number}" for number in (1, 2)]
    for file in files:
        file.write_text(file.name)
    models = [NamedModel("m", number, file) for number, file in enumerate(files, 1)]
    assert told(workplace, models) == {"m": [[1, "m1"], [2, "m2"]]}


def test_another_model_makes_another_run(workplace: Workplace) -> None:
    first, second = workplace.folder / "first", workplace.folder / "second"
    first.write_text("1")
    second.write_text("2")
    assert told(workplace, {"m": first}) == {"m": [[1, "1"]]}
    assert told(workplace, {"m": second}) == {"m": [[1, "2"]]}


@pytest.mark.parametrize("models", ["m", {"m": None}, {"": "m"}, {3: "m"}, [Path("m")]])
def test_other_models_are_refused(models: object, workplace: Workplace) -> None:
    config = ParallelRunConfig(entry_script=workplace.script(SCRIPT))
    with pytest.raises(ConfigError, match=r"^models="):
        ParallelRunStep("m-s", config, [FileDataset("x")], "out", models=models)  # type: ignore[arg-type]
