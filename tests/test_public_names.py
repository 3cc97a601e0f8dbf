"""The public names: all of them, only them, documented, and no import costs more than it must."""

from __future__ import annotations

import doctest
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import daskprs
from daskprs import exceptions

ROOT = Path(__file__).parents[1]
NAMES = [name for name in daskprs.__all__ if name != "__version__"]
SECTIONS = ("Parameters", "Attributes", "Returns", "Raises", "Examples", "Notes", "See Also")


def test_all_is_sorted_and_names_each_thing_once() -> None:
    assert list(daskprs.__all__) == sorted(set(daskprs.__all__))


def test_dir_tells_the_public_names_only() -> None:
    assert dir(daskprs) == daskprs.__all__


def test_every_error_of_the_tree_is_public() -> None:
    found = vars(exceptions).items()
    errors = {name for name, value in found if inspect.isclass(value) and value is not Any}
    public = {name for name in NAMES if name.endswith("Error")}
    assert public == errors == set(exceptions.__all__)


def test_every_error_stands_in_the_drawn_tree() -> None:
    drawn = re.findall(r"\w+Error\b", exceptions.__doc__ or "")
    assert {name for name in NAMES if name.endswith("Error")} <= set(drawn)


@pytest.mark.parametrize("name", daskprs.__all__)
def test_a_public_name_can_be_imported(name: str) -> None:
    assert getattr(daskprs, name) is not None


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'daskprs' has no attribute 'Workspace'"):
        _ = daskprs.Workspace


def test_importing_the_package_imports_neither_dask_nor_pandas() -> None:
    heavy = {"dask", "distributed", "numpy", "pandas", "pyarrow"}
    code = f"import sys, daskprs; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_step_is_made_and_planned_without_what_takes_long_to_import(tmp_path: Path) -> None:
    """Processes start before Dask's cluster, numpy and the stores are imported, not after."""
    (tmp_path / "score.py").write_text("def run(mini_batch): return mini_batch")
    (tmp_path / "a.csv").write_text("a\n1\n")
    code = """if True:
        import sys
        import daskprs.execution, daskprs.driver
        from daskprs import FileDataset, ParallelRunConfig, ParallelRunStep, TabularDataset
        for data in (FileDataset("a.csv"), TabularDataset("a.csv")):
            config = ParallelRunConfig(entry_script="score.py", mini_batch_size=1)
            assert len(ParallelRunStep("step", config, [data], "out").plan()) >= 1
        heavy = {"distributed", "numpy", "pandas", "pyarrow", "fsspec", "asyncio"}
        print(*heavy & set(sys.modules))
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.stdout.split(), done.stderr) == ([], "")


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_comes_from_the_module_that_lists_it(name: str) -> None:
    value = getattr(daskprs, name)
    module = inspect.getmodule(value)
    assert module is not None
    assert module.__name__.startswith("daskprs.")
    assert name in module.__all__


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_has_a_docstring(name: str) -> None:
    """A sentence, and for what takes arguments or has attributes, a section that tells them."""
    text = own_docstring(name)
    assert text.partition("\n\n")[0].endswith("."), f"{name}: {text}"
    if not name.endswith("Error"):
        assert set(sections(text)) & {"Parameters", "Attributes"}


@pytest.mark.parametrize("name", NAMES)
def test_sections_of_a_docstring_are_underlined(name: str) -> None:
    lines = own_docstring(name).splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line in SECTIONS:
            assert following == "-" * len(line), f"{name}: {line}"


@pytest.mark.parametrize("name", NAMES)
def test_a_docstring_has_an_example_or_names_what_has_one(name: str) -> None:
    """Errors refer to that of the base of all of them."""
    text = own_docstring(name)
    named = [word for word in re.findall(r"`(\w+)[.\w]*`", text) if word in NAMES and word != name]
    value = getattr(daskprs, name)
    bases = [base.__name__ for base in inspect.getmro(value)] if inspect.isclass(value) else []
    assert any(has_example(other) for other in [name, *named, *bases] if other in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_told_of_in_the_pages(name: str) -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    assert any(re.search(rf"\b{name}\b", page.read_text("utf-8")) for page in pages)


def own_docstring(name: str) -> str:
    value = getattr(daskprs, name)
    text = inspect.cleandoc(value.__doc__ or "")
    assert text, f"{name} has no docstring"
    assert not text.startswith(f"{name}("), f"{name} has only the docstring of a dataclass"
    return text


def sections(text: str) -> list[str]:
    return re.findall(r"^(\w[\w ]*)\n-{3,}$", text, re.MULTILINE)


def has_example(name: str) -> bool:
    return bool(doctest.DocTestParser().get_examples(own_docstring(name)))
