"""Runs over files: what run() gets, in which order, and what a script can rely on."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import pytest

from daskprs import (
    FileDataset,
    InputNotFoundError,
    ParallelRun,
    ParallelRunConfig,
    ParallelRunStep,
    TabularDataset,
)


def run_over(workplace: Any, inputs: list[Any], step: dict[str, Any], **config: Any) -> ParallelRun:
    given = ParallelRunStep(
        "files",
        ParallelRunConfig(**{"process_count_per_node": 2, **config}),
        **{"inputs": inputs, "output": workplace.output, **step},
    )
    run = given.submit()
    assert run.wait_for_completion() == "Completed"
    return run


ECHO = """
import json

def run(mini_batch, context):
    paths = [path.encode("utf-8", "surrogateescape").hex() for path in mini_batch]
    keys = context.partition_key_value
    with open(os.path.join(CALLS, "batches.jsonl"), "a") as stream:
        facts = [context.minibatch_index, context.dataset, keys,
                 context.global_row_index_lower_bound, paths]
        stream.write(json.dumps(facts) + "\\n")
    return [f"{os.path.basename(path)} {open(path, 'rb').read().decode()}" for path in mini_batch]
"""


def batches_of(workplace: Any) -> list[list[Any]]:
    lines = (workplace.calls / "batches.jsonl").read_text().splitlines()
    batches = sorted(json.loads(line) for line in lines)
    for batch in batches:
        batch[-1] = [os.fsdecode(bytes.fromhex(path)) for path in batch[-1]]
    return batches


def test_files_come_in_listing_order_and_never_from_two_folders(workplace: Any) -> None:
    """Absolute paths, whatever their names are; the rows in input order with ordered=True."""
    data = workplace.folder / "data"
    names = [
        "b 1.bin",
        "ünï.bin",
        "日本.bin",
        "a'b\"c.bin",
        "new\nline.bin",
        "-dash.bin",
        "%41.bin",
    ]
    if sys.platform == "linux":  # macOS has no such names
        names.append(os.fsdecode(b"not-utf8-\xff\xfe.bin"))
    folders = [data, data / "one", data / "one" / "two", data / "x y"]
    for folder in folders:
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_text(f"{folder.name} content")
    expected = [str(folder / name) for folder in folders for name in sorted(names)]
    run = run_over(
        workplace,
        [FileDataset(data)],
        {},
        entry_script=workplace.script(ECHO),
        mini_batch_size=3,
        ordered=True,
    )
    batches = batches_of(workplace)
    assert [path for *_, paths in batches for path in paths] == expected
    assert [index for index, *_ in batches] == list(range(len(batches)))
    assert all(len({os.path.dirname(path) for path in paths}) == 1 for *_, paths in batches)
    sizes = [3, 3, len(names) - 6]
    assert [len(paths) for *_, paths in batches] == sizes * 4
    lower = [sum((sizes * 4)[:number]) for number in range(len(batches))]
    assert [bound for *_, bound, _ in batches] == lower
    assert {(name, str(keys)) for _, name, keys, *_ in batches} == {(str(data), "None")}
    text = (workplace.output / "parallel_run_step.txt").read_bytes()
    rows = [f"{os.path.basename(path)} {Path(path).read_text()}\n" for path in expected]
    assert text == os.fsencode("".join(rows))
    assert run.report.items.succeeded == len(expected)


def test_partition_keys_of_paths_make_one_mini_batch_each(workplace: Any) -> None:
    """Files of a combination come together, from whatever folders; dates are dates."""
    data = workplace.folder / "data"
    for user in ("ann", "bob"):
        for day in ("2024/01/02", "2024/01/03"):
            for part in range(2):
                path = data / user / day / f"part{part}.bin"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{user} {day} {part}")
    keys = "{name: str(value) for name, value in context.partition_key_value.items()}"
    script = workplace.script(ECHO.replace("context.partition_key_value", keys))
    dataset = FileDataset(data, partition_format="{user}/{day:yyyy/MM/dd}/{part}.bin")
    run_over(workplace, [dataset], {}, entry_script=script, partition_keys=["day", "user"])
    batches = batches_of(workplace)
    assert len(batches) == 4
    for _, _, keys, _, paths in batches:
        assert set(keys) == {"day", "user"}
        place = f"{keys['user']}/{keys['day'][:10].replace('-', '/')}"
        assert [os.path.relpath(path, data) for path in paths] == [
            f"{place}/part{part}.bin" for part in range(2)
        ]
    rows = Counter(f"{p.name} {p.read_text()}" for p in data.rglob("*.bin"))
    assert workplace.row_counts() == rows


def test_files_of_a_store_are_local_paths_that_are_gone_afterwards(workplace: Any) -> None:
    """Files of the same name stay apart, and keep their names; rows can go to a store, too."""
    store = fsspec.filesystem("memory")
    root = f"/{workplace.folder.name}"
    for folder in ("a", "b"):
        for number in range(3):
            store.pipe(f"{root}/in/{folder}/f {number}.bin", f"{folder}{number}".encode())
    local = workplace.files(2, "local", size=2)
    try:
        run = run_over(
            workplace,
            [FileDataset(f"memory:/{root}/in"), FileDataset(local)],
            {"output": f"memory:/{root}/out"},
            entry_script=workplace.script(ECHO),
            mini_batch_size=2,
        )
        assert run.output_file == f"memory:/{root}/out/parallel_run_step.txt"
        rows = store.cat(f"{root}/out/parallel_run_step.txt").decode().splitlines()
        expected = [f"f {number}.bin {folder}{number}" for folder in "ab" for number in range(3)]
        assert Counter(rows) == Counter([*expected, "f00000.bin xx", "f00001.bin xx"])
        report = json.loads(store.cat(f"{root}/out/logs/report.json"))
        assert report["items"]["succeeded"] == 8
        assert store.exists(f"{root}/out/logs/job_progress_overview.txt")
    finally:
        store.rm(root, recursive=True)
    fetched = [path for *_, paths in batches_of(workplace) for path in paths]
    assert all(os.path.isabs(path) for path in fetched)
    left = [path for path in fetched if os.path.exists(path)]
    assert sorted(left) == sorted(str(path) for path in local.iterdir())


RELIANCE = """
import os
import sys

from . import sibling
from ..lib.tools import shout
import beside

STARTED = [os.getcwd(), __file__, __name__, sys.argv[0]]

def init():
    global text
    mark("init")
    open("private.txt", "x").write("only mine")
    text = open(os.path.join(os.path.dirname(__file__), "data.txt")).read()

def run(mini_batch):
    assert open("private.txt").read() == "only mine"
    assert os.path.samefile(os.getcwd(), STARTED[0])
    assert os.environ["AZUREML_BI_OUTPUT_PATH"] == OUTPUT
    assert os.path.isfile(__file__) and sys.argv[0] == __file__
    words = sibling.WORD + beside.WORD + text
    return (shout(words + os.path.basename(path)) for path in mini_batch)

def shutdown():
    mark("shutdown")
"""


def test_a_script_finds_what_stands_beside_it(workplace: Any) -> None:
    """Imports of every kind, files through __file__, a private folder to work in, shutdown()."""
    source = workplace.folder / "source"
    head = f"OUTPUT = {str(workplace.output)!r}\n"
    script = workplace.script(head + RELIANCE, "source/pkg/score.py")
    (source / "lib").mkdir()
    (source / "lib" / "tools.py").write_text("def shout(text):\n    return text.upper()\n")
    (source / "pkg" / "sibling.py").write_text("WORD = 'sibling '\n")
    (source / "beside.py").write_text("WORD = 'beside '\n")
    (source / "pkg" / "data.txt").write_text("data ")
    run_over(
        workplace,
        [FileDataset(workplace.files(9))],
        {},
        entry_script="pkg/score.py",
        source_directory=source,
        mini_batch_size=1,
    )
    assert script.parent.name == "pkg"
    expected = [f"SIBLING BESIDE DATA F{number:05d}.BIN" for number in range(9)]
    assert workplace.row_counts() == Counter(expected)
    assert workplace.count("shutdown") == workplace.count("init")
    assert not list(source.rglob("private.txt"))


@pytest.mark.parametrize("action", ["append_row", "SUMMARY_ONLY"])
@pytest.mark.parametrize("content", [b"", b"a,b\n"])
def test_an_input_without_rows_is_an_error(workplace: Any, action: str, content: bytes) -> None:
    """Spec 3: an empty input is an error of its own, also in the next start of the run."""
    (workplace.folder / "in").mkdir()
    for name in ("one.csv", "two.csv"):
        (workplace.folder / "in" / name).write_bytes(content)
    given = ParallelRunStep(
        "empty",
        ParallelRunConfig(
            entry_script=workplace.script("def run(mini_batch):\n    mark('run')\n"),
            output_action=action,
        ),
        inputs=[TabularDataset(workplace.folder / "in")],
        output=workplace.output,
    )
    for _ in range(2):
        run = given.submit()
        with pytest.raises(InputNotFoundError, match="the input has no rows: every table"):
            run.wait_for_completion()
        assert (run.status, run.report.items.total) == ("Failed", 0)
    assert workplace.count("run") == 0
    assert not (workplace.output / "parallel_run_step.txt").exists()


def test_an_empty_table_beside_others_is_none_of_the_errors(workplace: Any) -> None:
    (workplace.folder / "in").mkdir()
    for name, content in {"a.csv": "", "b.csv": "x\n", "c.csv": "x\n1\n"}.items():
        (workplace.folder / "in" / name).write_text(content)
    run = run_over(
        workplace,
        [TabularDataset(workplace.folder / "in")],
        {},
        entry_script=workplace.script("def run(mini_batch): return list(mini_batch.x)"),
    )
    assert workplace.rows() == ["1"]
    assert (run.report.items.total, run.report.mini_batches.total) == (1, 2)
