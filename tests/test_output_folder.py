"""Names in the output folder, on a disk and in stores: whole files, and none outside."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from stores import STORES, StoreError, fault, new_store

from daskprs.exceptions import OutputError
from daskprs.output import open_store
from daskprs.output_folder import OutputFolder

# A disk behind fsspec, as a network drive is: files are seen while they grow, and renamed.
PLACES = ("disk", "dir", *STORES)


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(place: str, tmp_path: Path) -> Iterator[OutputFolder]:
    if place == "disk":
        yield OutputFolder(tmp_path / "new" / "out")
    elif place == "dir":
        options = {"path": str(tmp_path), "target_protocol": "file"}
        yield OutputFolder("dir://new/out", options)
    else:
        with new_store(place) as url:
            yield OutputFolder(url)


def test_a_file_is_there_with_all_its_content(folder: OutputFolder) -> None:
    folder.make()
    assert (folder.read("a b.txt"), folder.size("a b.txt")) == (None, None)
    for data in (b"first", b"", b"another one"):
        folder.write("a b.txt", data)
        assert (folder.read("a b.txt"), folder.size("a b.txt")) == (data, len(data))
    folder.write("sub/folder/c[1].txt", b"deep")
    assert folder.sizes("sub/folder") == {"c[1].txt": 4}
    assert folder.sizes("nowhere") == {}
    assert folder.size("sub") is None
    folder.remove("a b.txt")
    folder.remove("a b.txt")
    assert folder.read("a b.txt") is None
    assert folder.url_of("x") == f"{folder.url}/x"


def test_a_new_file_appears_when_it_is_committed(folder: OutputFolder) -> None:
    folder.make()
    folder.write("big.bin", b"old")
    with folder.new("big.bin") as new:
        for _ in range(10):
            new.write(b"x" * 9)
        assert folder.read("big.bin") == b"old"
        new.finish()
        assert (folder.read("big.bin"), new.size) == (b"old", 90)
        new.commit()
    gc.collect()
    assert folder.read("big.bin") == b"x" * 90
    assert folder.sizes(".daskprs") == {}


@pytest.mark.parametrize("finished", [False, True])
def test_a_new_file_that_is_not_committed_never_appears(
    folder: OutputFolder, finished: bool
) -> None:
    folder.make()

    def write_half() -> None:
        with folder.new("big.bin") as new:
            new.write(b"x" * 100)
            if finished:
                new.finish()
            raise StoreError("in the middle")

    with pytest.raises(StoreError):
        write_half()
    gc.collect()
    assert folder.read("big.bin") is None
    assert folder.sizes(".daskprs") == {}


def test_an_exclusive_file_is_created_by_one_only(folder: OutputFolder) -> None:
    folder.make()
    assert folder.create(".daskprs/x", b"one")
    assert not folder.create(".daskprs/x", b"two")
    assert folder.read(".daskprs/x") == b"one"
    assert folder.sizes(".daskprs") == {"x": 3}


def test_a_file_moves_over_an_older_one(folder: OutputFolder) -> None:
    folder.make()
    folder.move("nothing", "target")
    assert folder.read("target") is None
    for data in (b"one", b"two"):
        folder.write("rows [1].txt", data)
        folder.set_aside("rows [1].txt")
        assert folder.read("rows [1].txt") is None
        assert folder.read("rows [1].txt.previous") == data
    folder.write("rows [1].txt", b"")
    folder.set_aside("rows [1].txt")
    assert folder.read("rows [1].txt.previous") == b"two"
    assert folder.read("rows [1].txt") is None


def test_the_age_of_a_file_is_known(folder: OutputFolder, place: str, tmp_path: Path) -> None:
    folder.make()
    folder.write("file", b"x")
    age = folder.age("file")
    assert age is not None
    assert -1 < age < 60
    if place in ("disk", "dir"):
        os.utime(tmp_path / "new/out/file", (1000, 1000))
        assert (folder.age("file") or 0) > 10**9
    with pytest.raises(FileNotFoundError):
        folder.age("nothing")


BAD_NAMES = ("..", "../x", "a/../../x", "/x", "a//x", "", ".", "./x", "a/", "a\0x")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_no_name_leads_out_of_the_folder(folder: OutputFolder, name: str) -> None:
    folder.make()
    actions = (
        lambda: folder.read(name),
        lambda: folder.write(name, b"x"),
        lambda: folder.create(name, b"x"),
        lambda: folder.new(name),
        lambda: folder.size(name),
        lambda: folder.sizes(name),
        lambda: folder.move(name, "x"),
        lambda: folder.move("x", name),
        lambda: folder.remove(name),
    )
    for action in actions:
        with pytest.raises(OutputError, match="no name inside"):
            action()


def test_the_journals_folder_is_no_name_for_the_output(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be the name"):
        open_store(OutputFolder(tmp_path), ".daskprs", "text")


@pytest.mark.parametrize(
    ("url", "path"), [("out", "out"), ("~/out", "home/out"), ("file:///a/out", "/a/out")]
)
def test_a_local_folder_is_an_absolute_path(
    url: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = OutputFolder(url)
    assert folder.local == tmp_path / path
    assert folder.url == str(tmp_path / path)


def test_a_file_in_the_way_of_the_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(OutputError, match=r"output=.*cannot be written to.*give a folder"):
            OutputFolder(path).make()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".daskprs").write_bytes(b"")
    with pytest.raises(OutputError, match=r"cannot be written to.*FileExistsError"):
        OutputFolder(tmp_path / "out").make()


def test_a_folder_that_may_not_be_written_to_is_reported(tmp_path: Path) -> None:
    # Root may write anywhere but where the kernel itself says no.
    path = Path("/proc/self/fdinfo/out") if sys.platform == "linux" else tmp_path / "out"
    if sys.platform != "linux":
        tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written to"):
        OutputFolder(path).make()
    tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("nosuchstore://x/y", {}),
        ("memory://x", {"skip_instance_cache": True, "global_store": 1, 1: 2}),
    ],
)
def test_a_store_that_cannot_be_opened_is_reported(url: str, options: dict[str, int]) -> None:
    with pytest.raises(OutputError, match=r"output=.*cannot be used.*storage options"):
        OutputFolder(url, options)


@pytest.mark.parametrize("kind", STORES)
def test_a_store_that_may_not_be_written_to_is_reported(kind: str) -> None:
    with (
        new_store(kind) as url,
        fault(kind, 1, after=False, killed=False),
        pytest.raises(OutputError, match=r"cannot be written to.*the store is unwell"),
    ):
        OutputFolder(url).make()


def test_a_copy_that_a_store_makes_in_the_background_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with new_store("closing") as url:
        folder = OutputFolder(url)
        folder.write("old", b"content")
        fs = type(fsspec.filesystem("closing"))
        copy, info = fs.cp_file, fs.info
        asked: list[str] = []

        def pending(self: object, path: str, **kwargs: object) -> dict[str, object]:
            found: dict[str, object] = info(self, path, **kwargs)
            if path.endswith("new"):
                asked.append(path)
                assert fs.exists(self, path.removesuffix("new") + "old")
                if len(asked) < 3:
                    found = {**found, "size": 0}
            return found

        monkeypatch.setattr(fs, "info", pending)
        folder.move("old", "new")
        monkeypatch.undo()
        assert copy is fs.cp_file
        assert (folder.read("old"), folder.read("new")) == (None, b"content")
        assert len(asked) >= 3
