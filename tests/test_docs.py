"""What the pages, the examples and the notebooks say works when it is typed as it stands."""

from __future__ import annotations

import contextlib
import doctest
import inspect
import json
import os
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import nbclient
import nbformat
import pages
import pytest
import yaml
from distributed import LocalCluster
from jupyter_client import KernelManager
from pages import ROOT, Reader, blocks

import daskprs
from daskprs.azureml import door
from daskprs.shared_hosts import close_hosts

PAGES = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN_PAGES = [page for page in PAGES if page.parent.name != "examples"]  # its commands: below
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SHARED = ROOT.parent / "shared"


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that looks like a fresh clone, as far as the pages look at it; we are in it."""
    for name in ("docs", "examples"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    # A process that loads pandas and more for a few rows costs more than it saves. The commands of
    # the pages, and the notebooks, are run on all cores.
    monkeypatch.setattr("dask.system.CPU_COUNT", 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("daskprs.azureml", None)  # a page opens the door by importing it
    known = set(sys.modules)
    yield tmp_path
    close_hosts()
    door.uninstall()
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@contextlib.contextmanager
def cluster_for(page: Path) -> Iterator[int]:
    """The cluster that a page finds, or a free port for one that it starts by itself."""
    text = page.read_text("utf-8")
    if f":{pages.PORT}" not in text or "dask scheduler" in text:
        yield pages.free_port()
        return
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        dashboard_address="127.0.0.1:0",
        protocol="tcp",
        host="127.0.0.1",
    ) as cluster:
        yield int(cluster.scheduler_address.rpartition(":")[2])


@pytest.mark.parametrize("page", RUN_PAGES, ids=name_of)
def test_every_block_of_a_page_works_as_shown(page: Path, clone: Path) -> None:
    with cluster_for(page) as port, Reader(clone, port) as reader:
        for block in blocks(page):
            reader.do(block)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=name_of)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for path, heading in pages.links(page):
        target = (page.parent / path).resolve()
        assert target.exists(), f"{page.name} links to {path}"
        if heading:
            assert heading in headings(target), f"{page.name} links to {path}#{heading}"


def headings(page: Path) -> set[str]:
    """Anchors of a page, as GitHub makes them."""
    lines = [line for line in page.read_text("utf-8").splitlines() if line.startswith("#")]
    words = ["".join(c for c in line.lower() if c.isalnum() or c in " -_") for line in lines]
    return {line.strip().replace(" ", "-") for line in words}


def test_every_page_and_notebook_is_linked_from_the_readme() -> None:
    linked = {path for path, _ in pages.links(ROOT / "README.md")}
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= linked
    assert {f"notebooks/{notebook.name}" for notebook in NOTEBOOKS} <= linked


def test_the_conda_environment_has_all_that_the_library_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    listed = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))["dependencies"]
    known = {str(line).replace(" ", "") for line in listed}
    extras = project["optional-dependencies"]["examples"]
    needed = {re.sub(r"\[.*?\]", "", line) for line in [*project["dependencies"], *extras]}
    assert needed <= known


def test_every_module_has_one_line_in_the_table_of_contributing() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    table = text.partition("## Where things are")[2]
    told = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]
    package = ROOT / "daskprs"
    modules = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if path.name != "__init__.py" and path.name != "_version.py"
    }
    packages = {f"{path.parent.relative_to(package)}/" for path in package.rglob("*/__init__.py")}
    inner = {name for name in packages if "azure_modules/" in name}
    assert sorted(told) == sorted(
        {name for name in modules if "azure_modules/" not in name} | (packages - inner)
        | {"__init__.py", "entry_process/azure_modules/"}
    )  # fmt: skip


# One kernel runs all notebooks, as starting it and importing dask takes longer than most cells.
AFRESH = """
%reset -f
import os, sys
if "daskprs.azureml.door" in sys.modules:
    sys.modules["daskprs.azureml.door"].uninstall()
sys.modules.pop("daskprs.azureml", None)
os.chdir({folder!r})
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelManager]:
    """Its files, and those of the notebooks, are in the test's folder."""
    folder = tmp_path_factory.mktemp("kernel")
    manager = KernelManager(connection_file=str(folder / "kernel.json"))
    names = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "TMPDIR")
    manager.start_kernel(cwd=str(folder), env={**os.environ, **dict.fromkeys(names, str(folder))})
    yield manager
    manager.shutdown_kernel()


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs(notebook: Path, tmp_path: Path, kernel: KernelManager) -> None:
    """And leaves nothing behind in its folder."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    opened = nbformat.read(notebook, as_version=4)
    first = nbformat.v4.new_code_cell(AFRESH.format(folder=str(folder)))
    opened.cells.insert(0, first)
    nbclient.NotebookClient(opened, km=kernel, timeout=100).execute()
    texts = [str(output) for cell in opened.cells for output in cell.get("outputs", [])]
    assert any("Completed" in text for text in texts)
    assert any("Completed (reused)" in text for text in texts)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["iris", "orange_juice"])
def test_a_notebook_can_take_the_tables_beside_the_project(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have the columns, and the kinds of values, of those that it makes itself."""
    if not SHARED.exists():
        pytest.skip(f"{SHARED} is not on this machine")
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text("utf-8"))["cells"]
    code = next("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "project/notebooks").mkdir(parents=True)
    read = {}
    for is_beside in (False, True):
        if is_beside:
            (tmp_path / "shared").symlink_to(SHARED)
        monkeypatch.chdir(tmp_path / "project/notebooks")
        names: dict[str, Any] = {}
        exec(code, names)
        table = names["flowers" if name == "iris" else "sales"]
        read[is_beside] = {column: values.dtype.kind for column, values in table.items()}
        names["folder"].cleanup()
    assert read[False].items() <= read[True].items()


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_kept_without_outputs(notebook: Path) -> None:
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    assert len(cells) > 5
    for cell in cells:
        assert not cell.get("outputs"), "".join(cell["source"])
        assert cell.get("execution_count") is None


def test_examples_of_docstrings_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that the modules of the public names show."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    homes = {inspect.getmodule(getattr(daskprs, name)) for name in set(daskprs.__all__)}
    tried = 0
    for module in homes - {None}:
        result = doctest.testmod(
            module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        )
        close_hosts()
        assert result.failed == 0
        tried += result.attempted
    assert tried
