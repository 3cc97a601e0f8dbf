"""Tests of turning urls of other stores into files."""

from __future__ import annotations

import functools
import http.server
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from daskprs.exceptions import InputNotFoundError
from daskprs.listing import ListedFile, base_folder, is_local, list_files


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    fs = fsspec.filesystem("memory")
    saved = fs.store.copy(), fs.pseudo_dirs.copy()
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield fs
    fs.store.clear()
    fs.store.update(saved[0])
    fs.pseudo_dirs[:] = saved[1]


def test_is_local() -> None:
    """Paths and file urls are local, whatever characters are in them."""
    assert all(
        map(is_local, ["a", "/a/b", "~/a", "file:///a", "local://a", "a:b", "a::b", "/s3://b"])
    )
    remote = ["memory://a", "s3://b/*", "https://h/a?b", "simplecache::file:///a", "zip://a::b"]
    assert not any(map(is_local, remote))


def read(url: str) -> bytes:
    with fsspec.open(url) as stream:
        content: bytes = stream.read()
        return content


def urls_of(*urls: str, **options: Any) -> list[str]:
    return [file.path for file in list_files(urls, **options)]


def test_memory_store(memory: MemoryFileSystem) -> None:
    """Folders, globs and files of a store are listed as local ones are, as full urls."""
    for name in ["/d/b/2", "/d/b/10", "/d/b/a/x", "/d/b.txt", "/d/.h/i", "/d/z", "/e", "/d/_s"]:
        memory.pipe(name, name.encode())
    below = ["_s", "b.txt", "z", "b/10", "b/2", "b/a/x"]
    everything = [f"memory:///d/{name}" for name in below]
    for url in ["memory://d", "memory://d/", "memory:///d", "memory://d/**", "memory://d/*"]:
        assert urls_of(url) == everything, url
    assert urls_of("memory://") == urls_of("memory://**") == ["memory:///e", *everything]
    assert urls_of("memory://d", skip_underscored=True) == everything[1:]
    assert urls_of("memory://d/b/[0-9]*") == ["memory:///d/b/10", "memory:///d/b/2"]
    assert urls_of("memory://*/b/2") == urls_of("memory://d/b/2") == ["memory:///d/b/2"]
    assert urls_of("memory://*/b/a") == ["memory:///d/b/a/x"]
    assert urls_of("memory://d/.h/*") == ["memory:///d/.h/i"]
    assert urls_of("memory://e", "memory://*") == ["memory:///e", *everything]
    (file,) = list_files(["memory://d/b.txt"])
    assert file.size == 8
    assert file.version
    assert file.folder == "memory:///d"
    assert read(file.path) == b"/d/b.txt"


def test_empty_store_matches_nothing(memory: MemoryFileSystem) -> None:
    """A store in which nothing is has no files."""
    with pytest.raises(InputNotFoundError):
        urls_of("memory://")


def test_memory_store_versions(memory: MemoryFileSystem) -> None:
    """An object that was replaced is told from what it was."""
    memory.pipe("/a", b"1")
    before = list(list_files(["memory://a"]))
    memory.pipe("/a", b"2")
    assert list(list_files(["memory://a"])) != before


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("memory://none", "the file or folder 'memory:///none' does not exist"),
        ("memory://none/*", "the folder 'memory:///none' does not exist"),
        ("memory://d/*.png", "nothing matches in the folder 'memory:///d'"),
    ],
)
def test_url_of_a_store_that_matches_nothing(
    memory: MemoryFileSystem, url: str, reason: str
) -> None:
    """The error is the same for all stores."""
    memory.pipe("/d/a.txt", b"")
    with pytest.raises(InputNotFoundError) as caught:
        list(list_files([url]))
    assert f"no input files matched '{url}'" in str(caught.value)
    assert reason in str(caught.value)


def test_store_names_with_wildcards(memory: MemoryFileSystem) -> None:
    """An object whose name has wildcard characters is taken literally if it exists."""
    memory.pipe("/d/a[1].png", b"")
    memory.pipe("/d/a1.png", b"")
    assert urls_of("memory://d/a[1].png") == ["memory:///d/a[1].png"]
    memory.rm_file("/d/a[1].png")
    assert urls_of("memory://d/a[1].png") == ["memory:///d/a1.png"]


def test_only_folders_of_a_store_that_can_match_are_read(
    memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A walk in a store does not go where nothing can match."""
    for name in ["/r/a1/in/x.png", "/r/a1/out/y.png", "/r/b1/in/z.png", "/r/a2/w.png"]:
        memory.pipe(name, b"")
    lists: list[str] = []
    ls = MemoryFileSystem.ls
    monkeypatch.setattr(
        MemoryFileSystem,
        "ls",
        lambda self, path, **options: (lists.append(path), ls(self, path, **options))[1],
    )
    assert urls_of("memory://r/a*/in/*.png") == ["memory:///r/a1/in/x.png"]
    assert lists == ["/r", "/r/a1/in", "/r/a2/in"]


class ObjectStore(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """A store with placeholders of folders, with hosts and with a cache."""

    protocol = ("objects", "obj")
    root_marker = ""
    invalidated = 0
    tree: dict[str, list[dict[str, Any]]] = {  # noqa: RUF012
        "b/d": [
            {"name": "b/d", "type": "directory", "size": 0},
            {"name": "b/d/", "type": "file", "size": 0},
            {"name": "b/d/s/", "type": "file", "size": 0},
            {"name": "b/d/s", "type": "directory", "size": 0},
            {"name": "b/d/x", "type": "file", "size": 3, "LastModified": 1, "ETag": '"e"'},
            {"name": "b/d/w", "type": "file", "size": None, "Last-Modified": 5, "etag": None},
            {"name": "b/d/v", "type": "file", "size": 1, "color": "red"},
        ],
        "b/d/s": [{"name": "b/d/s/", "type": "directory", "size": 0}],
    }

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        path = path.partition("://")[2] or path
        container, _, rest = path.partition("/")
        return f"{container.partition('@')[0]}/{rest}".rstrip("/")

    @staticmethod
    def _get_kwargs_from_urls(url: str) -> dict[str, str]:
        host = url.partition("://")[2].partition("/")[0].partition("@")[2]
        return {"host": host} if host else {}

    def invalidate_cache(self, path: str | None = None) -> None:
        type(self).invalidated += 1

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        if path in self.tree:
            return {"name": path, "type": "directory", "size": 0}
        for info in self.tree["b/d"]:
            if info["name"] == path and info["type"] == "file":
                return info
        if "forbidden" in path:
            raise PermissionError(path)
        raise FileNotFoundError(path)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[dict[str, Any]]:
        if path not in self.tree:
            raise FileNotFoundError(path)
        return self.tree[path]


@pytest.fixture
def objects() -> None:
    fsspec.register_implementation("objects", ObjectStore, clobber=True)
    fsspec.register_implementation("obj", ObjectStore, clobber=True)


@pytest.mark.usefixtures("objects")
def test_placeholders_of_folders_are_no_files() -> None:
    """Objects that stand for folders are not listed, and versions are the best there are."""
    before = ObjectStore.invalidated
    assert list(list_files(["objects://b/d"])) == [
        ListedFile("objects://b/d/v", 1, ""),
        ListedFile("objects://b/d/w", None, "5"),
        ListedFile("objects://b/d/x", 3, '"e"'),
    ]
    assert ObjectStore.invalidated > before


@pytest.mark.usefixtures("objects")
def test_urls_keep_what_is_needed_to_open_them() -> None:
    """A host stays in the url, while a mere alias of the protocol does not."""
    for url in ["objects://b@host/d/*", "objects://b@host/d", "objects://b@host/d/x"]:
        assert urls_of(url)[-1] == "objects://b@host/d/x"
        assert base_folder(url) == "objects://b@host/d"
    assert urls_of("obj://b/d/x", "objects://b/d/x") == ["objects://b/d/x"]


@pytest.mark.usefixtures("objects")
def test_missing_permission_of_a_store_is_left_as_it_is() -> None:
    """No access is another error than no files."""
    with pytest.raises(PermissionError):
        list(list_files(["objects://b/forbidden"]))


def test_unknown_protocol_is_left_as_it_is() -> None:
    """What fsspec says of a protocol that it does not know is clear enough."""
    with pytest.raises(ValueError, match="Protocol not known"):
        list(list_files(["nonsense://a"]))


def test_chained_urls(tmp_path: Path, memory: MemoryFileSystem) -> None:
    """Files of chained urls have urls that open the same way."""
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for name in ["b.csv", "d/a.csv", "d/c.txt"]:
            archive.writestr(name, name)
    memory.pipe("/m/z.zip", (tmp_path / "z.zip").read_bytes())
    for end in (f"::{tmp_path}/z.zip", f"::file://{tmp_path}/z.zip", "::memory://m/z.zip"):
        for url in (f"zip://**/*.csv{end}", f"zip://*.csv{end}"):
            files = list(list_files([url]))
            assert [file.path for file in files][:1] == [f"zip://b.csv{end}"]
            assert read(files[0].path) == b"b.csv"
        (file,) = list_files([f"zip://d/*.csv{end}"])
        assert file.path == f"zip://d/a.csv{end}"
        assert file.folder == base_folder(f"zip://d/*.csv{end}") == f"zip://d{end}"
        assert len(urls_of(f"zip://{end}")) == len(urls_of(f"zip{end}")) == 3
    memory.pipe("/m/s/x", b"x")
    assert urls_of("simplecache::memory://m/s/*") == ["simplecache::memory://m/s/x"]
    assert urls_of(f"simplecache::file://{tmp_path}/*") == [f"simplecache::file://{tmp_path}/z.zip"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("memory://m/a", "memory:///m/a"),
        ("memory://m/a/x", "memory:///m/a"),
        ("memory://m/*/x", "memory:///m"),
        ("memory://m/none", "memory:///m/none"),
        ("memory://*", "memory://"),
        ("memory://", "memory://"),
    ],
)
def test_base_folder_of_a_store(memory: MemoryFileSystem, url: str, expected: str) -> None:
    """The base folder is written as the urls of the files are."""
    memory.pipe("/m/a/x", b"")
    assert base_folder(url) == expected


def test_storage_options_are_passed(tmp_path: Path, memory: MemoryFileSystem) -> None:
    """Options go to the store, as fsspec has them."""
    make(tmp_path, "d/a")
    options = {"path": str(tmp_path), "target_protocol": "file"}
    assert [Path(url).name for url in urls_of("dir://d/*", storage_options=options)] == ["a"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_web_server(tmp_path: Path, server: str) -> None:
    """Files of a web server are taken one by one, or from its listings of folders."""
    make(tmp_path, "d/a b.csv", "d/c.csv", "d/e.txt", "d/s/f.csv", "d/s/t/g.csv")
    assert urls_of(f"{server}/d/c.csv?v=1") == [f"{server}/d/c.csv?v=1"]
    (file,) = list_files([f"{server}/d/c.csv"])
    assert file.size == 7
    assert file.version
    csvs = [f"{server}/d/a%20b.csv", f"{server}/d/c.csv"]
    assert urls_of(f"{server}/d/*.csv") == csvs
    assert urls_of(f"{server}/d/a *.csv") == csvs[:1]
    assert read(csvs[0]) == b"d/a b.csv"
    deeper = [f"{server}/d/s/f.csv", f"{server}/d/s/t/g.csv"]
    assert urls_of(f"{server}/d/**/*.csv") == [*csvs, *deeper]
    assert urls_of(f"{server}/d/s") == urls_of(f"{server}/d/s/") == deeper
    for url in ("none.csv", "d/*.gif", "none/*.csv"):
        with pytest.raises(InputNotFoundError):
            list(list_files([f"{server}/{url}"]))
