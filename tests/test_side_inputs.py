"""Side inputs: data that the script reads as a whole, at a path that it can open."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest

from daskprs import (
    ConfigError,
    FileDataset,
    InputNotFoundError,
    ParallelRunConfig,
    ParallelRunStep,
    UsageError,
)
from daskprs.side_inputs import SideInput

SCRIPT = """
import argparse
import sys

def tree(path):
    if os.path.isfile(path):
        return open(path).read()
    found = []
    for folder, _, names in os.walk(path):
        found += [os.path.relpath(os.path.join(folder, name), path) for name in names]
    return ",".join(sorted(found))

def run(mini_batch):
    arguments = [tree(word) if os.path.exists(word) else word for word in sys.argv[1:]]
    return [" ".join(arguments)] * len(mini_batch)
"""


def argv_in_the_script(workplace: Any, side_inputs: Any, arguments: list[Any]) -> str:
    """Return the script's arguments; a path there shows as what can be read at it."""
    step = ParallelRunStep(
        "sides",
        ParallelRunConfig(entry_script=workplace.script(SCRIPT), process_count_per_node=1),
        inputs=[FileDataset(workplace.files(1))],
        output=workplace.output,
        side_inputs=side_inputs,
        arguments=arguments,
    )
    assert step.submit().wait_for_completion() == "Completed"
    (row,) = workplace.rows()
    return str(row)


def some_data(folder: Path) -> Path:
    data = folder / "side data"
    (data / "deep").mkdir(parents=True)
    (data / "a.txt").write_text("A")
    (data / "b.bin").write_text("B")
    (data / "deep" / "c.txt").write_text("C")
    return data


def test_a_side_input_in_the_arguments_is_the_path_that_the_script_opens(workplace: Any) -> None:
    """Files, folders and globs, here or in a store; also a dataset that is only an argument."""
    data = some_data(workplace.folder)
    store = fsspec.filesystem("memory")
    root = f"/{workplace.folder.name}"
    store.pipe({f"{root}/m/x.txt": b"X", f"{root}/m/deep/y.txt": b"Y"})
    texts = FileDataset(data / "**" / "*.txt")
    in_store = FileDataset(f"memory:/{root}/m")
    sides = [str(data / "a.txt"), data, texts, in_store, f"memory:/{root}/m/x.txt"]
    only_argument = FileDataset(data / "b.bin")
    arguments = [*sides[:2], "--texts", texts, in_store, sides[4], only_argument, 7, "plain"]
    try:
        told = argv_in_the_script(workplace, sides, arguments)
    finally:
        store.rm(root, recursive=True)
    everything = "a.txt,b.bin,deep/c.txt"
    assert told == f"A {everything} --texts a.txt,deep/c.txt deep/y.txt,x.txt X B 7 plain"


def test_named_side_inputs_come_after_the_arguments_unless_they_are_there(workplace: Any) -> None:
    """A mapping gives each an option of its name; one that the arguments have comes once."""
    data = some_data(workplace.folder)
    sides = {"first": data / "a.txt", "second": str(data / "b.bin")}
    told = argv_in_the_script(workplace, sides, ["--other", data / "a.txt", "--x"])
    assert told == "--other A --x --second B"


@pytest.mark.parametrize(
    ("side_inputs", "error", "word"),
    [
        ("text", ConfigError, "side_inputs='text'"),
        ([3], ConfigError, "side_inputs=3"),
        ({"1": "in"}, ConfigError, "side_inputs='1'"),
        ({"a b": "in"}, ConfigError, "side_inputs='a b'"),
        ([FileDataset(["in", "other"])], ConfigError, "side_inputs=FileDataset"),
        (["nowhere"], InputNotFoundError, "'nowhere'"),
        (["frob://x"], InputNotFoundError, "'frob://x'"),
    ],
)
def test_a_wrong_side_input_is_told(
    workplace: Any, side_inputs: Any, error: type[UsageError], word: str
) -> None:
    """Before any work starts, and with the word that is wrong."""
    with pytest.raises(error) as caught:
        argv_in_the_script(workplace, side_inputs, [])
    assert word in str(caught.value)
    assert not workplace.output.exists()


@pytest.mark.parametrize("what", ["a.txt", "", "*/*.txt"])
def test_a_side_input_travels_to_workers_that_do_not_see_it(tmp_path: Path, what: str) -> None:
    """File, folder or glob: unpacked, it is what it was, whatever the names are."""
    data = some_data(tmp_path)
    if sys.platform == "linux":  # macOS has no such names
        (data / "deep" / os.fsdecode(b"\xff.txt")).write_text("odd")
    side = SideInput.find("words", f"{data}/{what}").packed(in_place=False)
    before = Path(data / what) if "*" not in what else data
    expected = {path.relative_to(data): path.read_text() for path in before.rglob("*.*")}
    if what == "a.txt":
        expected = {Path("a.txt"): "A"}
    if "*" in what:
        expected = {path: text for path, text in expected.items() if len(path.parts) == 2}
    (tmp_path / "side data").rename(tmp_path / "gone")
    path = Path(side.local_path(tmp_path / "worker"))
    assert path.is_relative_to(tmp_path / "worker")
    assert side.local_path(tmp_path / "worker") == str(path)
    if what == "a.txt":
        assert {Path(path.name): path.read_text()} == expected
        return
    files = [found for found in path.rglob("*") if found.is_file()]
    assert {found.relative_to(path): found.read_text() for found in files} == expected


def test_a_side_input_that_is_too_large_to_travel_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be sent to every worker; a store is the place for it."""
    monkeypatch.setattr("daskprs.side_inputs.MOST_BYTES", 2)
    side = SideInput.find("words", str(some_data(tmp_path)))
    assert side.packed(in_place=True).archive is None
    with pytest.raises(UsageError, match="too much to send to every worker"):
        side.packed(in_place=False)


def test_the_identity_of_a_side_input_changes_with_its_content(tmp_path: Path) -> None:
    """So that a run with other data is not reused; the name counts, too."""
    data = some_data(tmp_path)
    first = SideInput.find("words", str(data)).identity()
    assert SideInput.find("words", str(data)).identity() == first
    assert SideInput.find("others", str(data)).identity() != first
    (data / "deep" / "c.txt").write_text("changed")
    assert SideInput.find("words", str(data)).identity() != first
