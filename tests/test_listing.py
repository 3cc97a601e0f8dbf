"""Tests of turning urls into files."""

from __future__ import annotations

import glob
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskprs.exceptions import InputNotFoundError
from daskprs.file_trees import AT_ONCE
from daskprs.listing import ListedFile, base_folder, is_local, list_files


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, errors="surrogateescape")


def found(root: Path, *patterns: str, **options: Any) -> list[str]:
    urls = [f"{root}/{pattern}" for pattern in patterns]
    return [os.path.relpath(file.path, root) for file in list_files(urls, **options)]


def test_folder_gives_all_files_below_it_in_order(tmp_path: Path) -> None:
    """The files of a folder come first, then its subfolders, all sorted by name."""
    make(tmp_path, "b/2", "b/10", "b/a/x", "b.txt", "a/z", "z", "B", "a-b/y", "a/c/d/e")
    expected = ["B", "b.txt", "z", "a/z", "a/c/d/e", "a-b/y", "b/10", "b/2", "b/a/x"]
    assert found(tmp_path, "") == expected
    assert found(tmp_path, "**") == expected
    assert found(tmp_path, "*") == expected


def test_files_of_a_folder_are_consecutive(tmp_path: Path) -> None:
    """No folder is come back to after another one was begun, not even with a glob."""
    make(tmp_path, *(f"{a}/{b}/{c}" for a in "xy" for b in ("p", "q.d", "q") for c in "12"), "x/3")
    folders = [file.folder for file in list_files([f"{tmp_path}/**/*"])]
    changes = [folder for n, folder in enumerate(folders) if n == 0 or folder != folders[n - 1]]
    assert len(changes) == len(set(folders)) == 7


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["a.png", "b.png"]),
        ("?.txt", ["c.txt"]),
        ("[ab].png", ["a.png", "b.png"]),
        ("[!a].png", ["b.png"]),
        ("s/*.png", ["s/d.png"]),
        ("*/*.png", ["s/d.png"]),
        ("**/*.png", ["a.png", "b.png", "s/d.png", "s/t/e.png"]),
        ("**/t/*.png", ["s/t/e.png"]),
        ("**/**/t", ["s/t/e.png", "s/t/u/f.txt"]),
        ("s/**", ["s/d.png", "s/t/e.png", "s/t/u/f.txt"]),
        ("*/t", ["s/t/e.png", "s/t/u/f.txt"]),
        ("*/t/e.png", ["s/t/e.png"]),
        ("*/", ["s/d.png", "s/t/e.png", "s/t/u/f.txt"]),
        ("s/*/u", ["s/t/u/f.txt"]),
        ("s/../[a]*", ["a.png"]),
    ],
)
def test_glob(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    """A glob gives the files it matches, and all files below the folders it matches."""
    make(tmp_path, "a.png", "b.png", "c.txt", "s/d.png", "s/t/e.png", "s/t/u/f.txt")
    assert found(tmp_path, pattern) == expected


def test_size_version_and_folder(tmp_path: Path) -> None:
    """A local file has its size, its modification time and its folder."""
    make(tmp_path, "a/b.txt")
    (file,) = list_files([str(tmp_path)])
    path = tmp_path / "a" / "b.txt"
    assert file == ListedFile(str(path), 7, str(path.stat().st_mtime_ns))
    assert file.folder == str(tmp_path / "a")
    assert ListedFile("/a", 1, "").folder == "/"


def test_changed_content_has_another_version(tmp_path: Path) -> None:
    """A file written again is told from what it was."""
    make(tmp_path, "a")
    before = list(list_files([str(tmp_path)]))
    os.utime(tmp_path / "a", ns=(1, 1))
    assert list(list_files([str(tmp_path)])) != before


def test_relative_paths_home_and_file_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a local path is written, the files have absolute paths."""
    make(tmp_path, "d/a b.txt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = str(tmp_path / "d" / "a b.txt")
    urls = [".", "d", "d/", "./d/*", "~", "~/d/*.txt", "d/a b.txt", f"file://{tmp_path}/d/*"]
    for url in [*urls, f"local://{tmp_path}", f"/{tmp_path}"]:
        assert is_local(url)
        assert [file.path for file in list_files([url])] == [expected], url


def test_single_url_may_be_given_as_it_is(tmp_path: Path) -> None:
    """One string is one url, not a sequence of characters."""
    make(tmp_path, "a")
    assert len(list(list_files(str(tmp_path)))) == 1


def test_literal_names_win_over_wildcards(tmp_path: Path) -> None:
    """A name with wildcard characters is taken literally if it exists."""
    make(tmp_path, "a[1].png", "a1.png", "b*", "bc", "d[0]/x", "d0/x", "100%#.csv")
    assert found(tmp_path, "a[1].png") == ["a[1].png"]
    assert found(tmp_path, "b*") == ["b*"]
    assert found(tmp_path, "d[0]") == ["d[0]/x"]
    assert found(tmp_path, "d[0]/*") == ["d[0]/x"]
    assert found(tmp_path, "d[0]*/*") == ["d0/x"]
    assert found(tmp_path, "100%#.csv") == ["100%#.csv"]
    (tmp_path / "a[1].png").unlink()
    assert found(tmp_path, "a[1].png") == ["a1.png"]


def test_odd_names_survive(tmp_path: Path) -> None:
    """Blanks, newlines, other scripts and bytes that are no text come out as they are."""
    names = ["a b", "c\nd", "\u00e9\u4e2d\u6587", "e::f", "s3", "\udcff\udc80", "#?&%41", "x=1"]
    make(tmp_path, *(f"{name}/{name}" for name in names))
    expected = sorted(f"{name}/{name}" for name in names)
    assert sorted(found(tmp_path, "")) == expected
    assert sorted(found(tmp_path, "*/*")) == expected
    for name in names:
        assert found(tmp_path, f"{name}/{name}") == [f"{name}/{name}"]
        assert found(tmp_path, f"{name}/*") == [f"{name}/{name}"]


def test_dot_names_are_skipped_unless_named(tmp_path: Path) -> None:
    """Hidden files and folders need a dot in the url itself."""
    make(tmp_path, "a", ".b", ".c/d", ".c/.e", "f/.g/h")
    assert found(tmp_path, "") == ["a"]
    assert found(tmp_path, "**/*") == ["a"]
    assert found(tmp_path, ".*") == [".b", ".c/d"]
    assert found(tmp_path, ".b") == [".b"]
    assert found(tmp_path, ".c") == [".c/d"]
    assert found(tmp_path, ".c/*") == [".c/d"]
    assert found(tmp_path, ".c/.*") == [".c/.e"]
    assert found(tmp_path, "**/.g/*") == ["f/.g/h"]


def test_underscored_names_are_skipped_on_demand(tmp_path: Path) -> None:
    """Marker files of other tools are files like others, unless asked otherwise."""
    make(tmp_path, "_SUCCESS", "part", "_m/x", ".h")
    assert found(tmp_path, "") == ["_SUCCESS", "part", "_m/x"]
    assert found(tmp_path, "", skip_underscored=True) == ["part"]
    assert found(tmp_path, "*", skip_underscored=True) == ["part"]
    assert found(tmp_path, "_*", skip_underscored=True) == ["_SUCCESS", "_m/x"]
    assert found(tmp_path, "_SUCCESS", skip_underscored=True) == ["_SUCCESS"]


def test_file_matched_twice_is_given_once(tmp_path: Path) -> None:
    """Several urls come in the order given, without files that came before."""
    make(tmp_path, "a", "b", "c/d")
    assert found(tmp_path, "b", "*", "c") == ["b", "a", "c/d"]
    assert found(tmp_path, "a", "a") == ["a"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    """A link to a folder is a folder, unless it leads back to where it is in."""
    make(tmp_path, "top/a/b/x", "other/y")
    (tmp_path / "top/a/b/up").symlink_to(tmp_path / "top")
    (tmp_path / "top/a/self").symlink_to(".")
    (tmp_path / "top/o1").symlink_to(tmp_path / "other")
    (tmp_path / "top/o2").symlink_to("../other")
    (tmp_path / "other/back").symlink_to(tmp_path / "top")
    expected = ["a/b/x", "o1/y", "o2/y"]
    assert found(tmp_path / "top", "") == expected
    assert found(tmp_path / "top", "**/*") == expected
    assert found(tmp_path / "top", "a/self/b/x") == ["a/self/b/x"]
    assert found(tmp_path / "top", "[a]/self/b/x") == ["a/self/b/x"]
    (tmp_path / "link").symlink_to("top")
    assert found(tmp_path, "link") == [f"link/{name}" for name in expected]


def test_link_to_above_the_folder_ends(tmp_path: Path) -> None:
    """A link out of the folder listed is followed once, not back into the folder."""
    make(tmp_path, "top/in/x", "top/y")
    (tmp_path / "top/in/out").symlink_to(tmp_path / "top")
    assert found(tmp_path / "top/in", "") == ["x", "out/y"]


def test_broken_links_are_files_without_size(tmp_path: Path) -> None:
    """A link to nothing is not dropped silently."""
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "self").symlink_to("self")
    for urls in ([str(tmp_path)], [f"{tmp_path}/*"], [f"{tmp_path}/broken", f"{tmp_path}/self"]):
        assert list(list_files(urls)) == [
            ListedFile(str(tmp_path / "broken"), None, ""),
            ListedFile(str(tmp_path / "self"), None, ""),
        ]


def test_pipes_are_no_files(tmp_path: Path) -> None:
    """What would block when it is read is not listed."""
    make(tmp_path, "a")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    assert found(tmp_path, "") == ["a"]


def test_file_that_vanishes_has_no_size(tmp_path: Path) -> None:
    """A file removed after its folder was read is no error, nor is a folder."""
    many = [f"{n:03}" for n in range(AT_ONCE)]
    make(tmp_path, *many, "a", "b", "c/d", "e/f")
    files = list_files([str(tmp_path)])
    assert [next(files).size for _ in many] == [3] * AT_ONCE
    (tmp_path / "b").unlink()
    (tmp_path / "c/d").unlink()
    (tmp_path / "c").rmdir()
    left = [(Path(file.path).name, file.size) for file in files]
    assert left == [("a", 1), ("b", None), ("f", 3)]


@pytest.mark.parametrize("count", [2, 20])
def test_file_that_vanishes_between_its_name_and_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """It has no size, and the others have, be they few or many; also if all are gone."""
    make(tmp_path, *(f"a/{n:03}" for n in range(count)), *(f"b/{n:03}" for n in range(count)))
    scan = os.scandir

    class Scan(list[Any]):
        def __init__(self, path: str) -> None:
            with scan(path) as entries:
                super().__init__(entries)
            if path.endswith("/a"):
                os.unlink(f"{path}/001")
            elif path.endswith("/b"):
                for name in range(count):
                    os.unlink(f"{path}/{name:03}")
                os.rmdir(path)

        def __enter__(self) -> Scan:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Scan)
    sizes = [(file.path[-5:], file.size) for file in list_files([str(tmp_path)])]
    assert sizes[:2] == [("a/000", 5), ("a/001", None)]
    assert [size for _, size in sizes] == [5, None] + [5] * (count - 2) + [None] * count


def test_listing_is_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not many more files are looked at than were asked for, and only folders that were come to."""
    make(tmp_path, *(f"{n:04}" for n in range(500)), *(f"s{n}/x" for n in range(50)))
    stats: list[str] = []
    scans: list[str] = []
    stat, scan = os.stat, os.scandir
    monkeypatch.setattr(os, "stat", lambda path, **way: (stats.append(path), stat(path, **way))[1])
    monkeypatch.setattr(os, "scandir", lambda path: (scans.append(path), scan(path))[1])
    files = list_files([f"{tmp_path}/**"])
    assert not scans
    assert next(files).path.endswith("0000")
    next(files)
    assert len([path for path in stats if path != str(tmp_path)]) == AT_ONCE
    assert len(scans) == 1
    assert len(list(files)) == 548
    assert len(scans) == 51


def test_only_folders_that_can_match_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A walk does not go into folders that the glob excludes, nor read those it names."""
    make(tmp_path, "a1/in/x.png", "a1/out/y.png", "b1/in/z.png", "a2/in/deep/v.png", "a3/w.png")
    scans: list[str] = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (scans.append(path), scan(path))[1])
    assert found(tmp_path, "a*/in/*.png") == ["a1/in/x.png"]
    assert [os.path.relpath(path, tmp_path) for path in scans] == [".", "a1/in", "a2/in"]


def test_first_of_many_files_comes_soon(tmp_path: Path) -> None:
    """The time to the first of many files is that of reading their names."""
    for n in range(20_000):
        os.close(os.open(f"{tmp_path}/{n:06}", os.O_CREAT | os.O_WRONLY))
    started = time.process_time()
    next(list_files([str(tmp_path)]))
    assert time.process_time() - started < 1


def test_forbidden_folder_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that may not be read is not taken for an empty one."""
    make(tmp_path, "a/b")

    def forbid(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", forbid)
    with pytest.raises(PermissionError):
        found(tmp_path, "**")


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("*.gif", "nothing matches in the folder '{}'"),
        ("none/*.gif", "the folder '{}/none' does not exist"),
        ("none", "there is no such file or folder in '{}'"),
        ("none/a.png", "the folder '{}/none' does not exist"),
        ("empty", "there are no files in the folder '{}/empty'"),
        ("a.png/*", "the folder '{}/a.png' does not exist"),
        ("empty/**", "nothing matches in the folder '{}/empty'"),
    ],
)
def test_url_that_matches_nothing(tmp_path: Path, pattern: str, reason: str) -> None:
    """The error names the url, says why nothing matches and what is accepted."""
    make(tmp_path, "a.png", "empty/.hidden")
    with pytest.raises(InputNotFoundError) as caught:
        found(tmp_path, pattern)
    message = str(caught.value)
    assert f"no input files matched '{tmp_path}/{pattern}'" in message
    assert reason.format(tmp_path) in message
    assert "Accepted are" in message
    assert len(message.splitlines()) == 2


def test_url_that_matches_nothing_is_noticed_in_its_turn(tmp_path: Path) -> None:
    """Files before the wrong url are given, and a url with only known files is not wrong."""
    make(tmp_path, "a", "b")
    files = list_files([f"{tmp_path}/a", f"{tmp_path}/a", f"{tmp_path}/none", f"{tmp_path}/b"])
    assert next(files).path == f"{tmp_path}/a"
    with pytest.raises(InputNotFoundError, match="none"):
        next(files)


@pytest.mark.parametrize("url", ["", "a\0b", "x" * 300])
def test_unusable_url_matches_nothing(url: str) -> None:
    """Neither is the working folder listed for an empty url, nor does a strange one crash."""
    with pytest.raises(InputNotFoundError):
        list(list_files([url]))


names = st.sampled_from(["a", "b", "ab", "a.b", ".a", "a[b]", "_a"])
segments = st.sampled_from(["*", "**", "a*", "?", "[ab]", "a", "b", ".*", "*.b", ".a", "a?b", "*b"])


@settings(max_examples=250, deadline=None)
@given(
    st.lists(st.lists(names, min_size=1, max_size=4), min_size=1, max_size=12),
    st.lists(segments, min_size=1, max_size=4),
)
def test_globs_are_those_of_the_standard_library(
    tmp_path_factory: pytest.TempPathFactory, tree: list[list[str]], pattern: list[str]
) -> None:
    """The files found are those of `glob`, with all below the folders it finds."""
    root = tmp_path_factory.mktemp("tree")
    for parts in tree:
        path = root.joinpath(*parts)
        if not path.exists() and not any(parent.is_file() for parent in path.parents):
            make(root, "/".join(parts))
    expected: set[str] = set()
    for match in glob.glob("/".join([str(root), *pattern]), recursive=True):
        if os.path.isfile(match):
            expected.add(match)
        for folder, folders, files in os.walk(match):
            folders[:] = [name for name in folders if not name.startswith(".")]
            expected.update(f"{folder.rstrip('/')}/{n}" for n in files if not n.startswith("."))
    try:
        files = [file.path for file in list_files(["/".join([str(root), *pattern])])]
    except InputNotFoundError:
        files = []
    assert len(files) == len(set(files))
    assert set(files) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", ""),
        ("a", "/a"),
        ("a/", "/a"),
        ("a/x.png", "/a"),
        ("a/*.png", "/a"),
        ("a/*/b/*.png", "/a"),
        ("**/x.png", ""),
        ("a/y[1].png", "/a"),
        ("none/more", "/none/more"),
    ],
)
def test_base_folder(tmp_path: Path, url: str, expected: str) -> None:
    """The folder before the first wildcard is the base; that of a file is its folder."""
    make(tmp_path, "a/x.png", "a/y[1].png")
    assert base_folder(f"{tmp_path}/{url}") == f"{tmp_path}{expected}"
    assert base_folder("/") == base_folder("/*") == "/"


def test_a_folder_whose_path_is_too_long_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there, and its files would be missed without a word."""
    make(tmp_path, "ok")
    monkeypatch.chdir(tmp_path)
    for _ in range(25):
        os.mkdir("e" * 200)
        os.chdir("e" * 200)
    Path("lost").write_text("lost")
    with pytest.raises(OSError, match="File name too long"):
        list(list_files([str(tmp_path)]))
