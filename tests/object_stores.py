"""Real servers of Azure Blob Storage and of S3 on loopback, and a connection to them that fails.

`azurite` is a package of npm (`make` puts it into build/azurite), `moto` one of Python.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fsspec
import pytest

KINDS = ("abfs", "s3")
ACCOUNT = "daskprsaccount"
AZURITE = Path(__file__).parents[1] / "build/azurite/node_modules/azurite/dist/src/blob/main.js"
_START_SECONDS = 30.0
_UNCHECKED = 3


@dataclass(frozen=True)
class Server:
    """A store on a port of this machine."""

    kind: str
    port: int
    key: str
    secret: str = field(repr=False)

    def options(self, port: int | None = None, secret: str | None = None) -> dict[str, str]:
        """Give storage options; all of them text, as the command line gives them.

        Parameters
        ----------
        port : int, optional
            Of a proxy.
        secret : str, optional
            Another key than the right one.
        """
        where = f"http://127.0.0.1:{port or self.port}"
        key = secret or self.secret
        if self.kind == "s3":
            return {"key": self.key, "secret": key, "endpoint_url": where}
        parts = {
            "DefaultEndpointsProtocol": "http",
            "AccountName": self.key,
            "AccountKey": key,
            "BlobEndpoint": f"{where}/{self.key}",
        }
        return {"connection_string": ";".join(f"{name}={text}" for name, text in parts.items())}

    @functools.cached_property
    def fs(self) -> Any:
        """The store past all caches; one for all tests, as clients take long to make."""
        return fsspec.filesystem(
            self.kind, skip_instance_cache=True, use_listings_cache=False, **self.options()
        )


@dataclass(frozen=True)
class Bucket:
    """An empty bucket, or container, of a server."""

    server: Server
    name: str

    @property
    def _fs(self) -> Any:
        return self.server.fs

    @property
    def kind(self) -> str:
        return self.server.kind

    @property
    def options(self) -> dict[str, str]:
        return self.server.options()

    def url(self, path: str) -> str:
        return f"{self.kind}://{self.name}/{path}"

    def put(self, files: Mapping[str, bytes]) -> None:
        self._fs.pipe({f"{self.name}/{path}": data for path, data in files.items()})

    def read(self, path: str) -> bytes | None:
        try:
            data: bytes = self._fs.cat_file(f"{self.name}/{path}")
        except FileNotFoundError:
            return None
        return data

    def names(self) -> list[str]:
        """List all objects, without the name of the bucket."""
        return sorted(name.partition("/")[2] for name in self._fs.find(self.name))

    def assert_nothing_tells_the_secret(self, *texts: str, folder: Path | None = None) -> None:
        """Search some texts, all objects, and all files below a folder, for the key."""
        secret = self.server.secret
        forms = {form.encode() for form in (secret, quote(secret), quote(secret, safe=""))}
        found = {f"text {number}": text.encode() for number, text in enumerate(texts)}
        for name, info in self._fs.find(self.name, detail=True).items():
            found[name] = self._fs.cat_file(name) if info["size"] else b""
        for path in folder.rglob("*") if folder is not None else ():
            if path.is_file():
                found[str(path)] = path.read_bytes()
        told = [name for name, data in found.items() if any(form in data for form in forms)]
        assert not told, f"the key of the store stands in {told}"


@contextlib.contextmanager
def new_bucket(server: Server) -> Iterator[Bucket]:
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    server.fs.mkdir(name)
    yield Bucket(server, name)


@contextlib.contextmanager
def serve(kind: str, folder: Path) -> Iterator[Server]:
    """Start the server of a kind of store, with its data in a folder."""
    secret = base64.b64encode(f"Canary+{uuid.uuid4()}/{uuid.uuid4()}".encode()).decode()
    environment = {
        **os.environ,
        "AZURITE_ACCOUNTS": f"{ACCOUNT}:{secret}",
        "INITIAL_NO_AUTH_ACTION_COUNT": str(_UNCHECKED),
    }
    command = _moto() if kind == "s3" else _azurite(folder)
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        port = _port_of(process, folder / "server.log")
        yield _with_user(port) if kind == "s3" else Server(kind, port, ACCOUNT, secret)
    finally:
        process.kill()
        process.wait()


def _moto() -> list[str]:
    pytest.importorskip("moto.server", reason="moto and flask are not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]


def _with_user(port: int) -> Server:
    """Make a user who may do all, with the requests that need none; others are checked."""
    import boto3

    iam = boto3.client(
        "iam",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id="anybody",
        aws_secret_access_key="anything",
    )
    allowed = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.create_user(UserName="tests")
    iam.put_user_policy(UserName="tests", PolicyName="all", PolicyDocument=policy)
    key = iam.create_access_key(UserName="tests")["AccessKey"]
    return Server("s3", port, key["AccessKeyId"], key["SecretAccessKey"])


def _azurite(folder: Path) -> list[str]:
    pytest.importorskip("adlfs", reason="adlfs is not installed")
    node = shutil.which("node")
    if node is None or not AZURITE.is_file():
        pytest.skip("Azurite needs node, and `make build/azurite`")
    where = ["--blobHost", "127.0.0.1", "--blobPort", "0", "--location", str(folder)]
    quiet = ["--silent", "--disableTelemetry", "--skipApiVersionCheck"]
    return [node, str(AZURITE), *where, *quiet]


def _port_of(process: subprocess.Popen[bytes], log: Path) -> int:
    """Wait for the port that a server took: one chosen for it could be another's by then."""
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if told := re.search(r"on http://127\.0\.0\.1:(\d+)", log.read_text(errors="replace")):
            port = int(told[1])
            socket.create_connection(("127.0.0.1", port), 5).close()
            return port
        time.sleep(0.05)
    process.kill()
    raise RuntimeError(f"the server did not start: {log.read_text(errors='replace')}")


@contextlib.contextmanager
def port_without_server() -> Iterator[int]:
    """A port that is taken, so that nobody else gets it, and refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


class Proxy:
    """A connection to a server that can stall, or break.

    Attributes
    ----------
    sent : int
        Bytes that have gone to the server.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._open = threading.Event()
        self._open.set()
        self._is_refusing = False
        self._limit: int | None = None
        self._then = self.stall
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self.sent = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self) -> None:
        """Take connections and bytes, and pass nothing on."""
        self._open.clear()

    def refuse(self) -> None:
        """Break all connections, and each new one."""
        self._is_refusing = True
        self._open.set()
        self._break_all()

    def forward(self) -> None:
        """Work again."""
        self._is_refusing, self._limit = False, None
        self._open.set()

    def stall_after(self, sent: int) -> None:
        """Stall when so many more bytes have gone to the server."""
        self._limit, self._then = self.sent + sent, self.stall

    def refuse_after(self, sent: int) -> None:
        self._limit, self._then = self.sent + sent, self.refuse

    def close(self) -> None:
        self._listener.close()
        self.refuse()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        if self._is_refusing:
            client.close()
            return
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            client.close()
            return
        with self._lock:
            self._sockets |= {client, server}
        for source, sink in ((client, server), (server, client)):
            arguments = (source, sink, source is client)
            threading.Thread(target=self._pump, args=arguments, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_upload: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._open.wait()
                sink.sendall(data)
                if is_upload:
                    self._count(len(data))
        with self._lock:
            self._sockets -= {source, sink}
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _count(self, sent: int) -> None:
        with self._lock:
            self.sent += sent
            is_due = self._limit is not None and self.sent >= self._limit
        if is_due:
            self._limit = None
            self._then()

    def _break_all(self) -> None:
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for end in sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxied(server: Server) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    try:
        yield proxy
    finally:
        proxy.close()
