"""The dashboard of a local cluster is there for who opens it, and costs nobody else anything."""

from __future__ import annotations

import concurrent.futures
import json
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from daskprs import ParallelRunConfig
from daskprs.targets import Target, open_target


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    script = tmp_path / "score.py"
    script.touch()
    with open_target(
        None, ParallelRunConfig(entry_script=script, process_count_per_node=1)
    ) as opened:
        yield opened


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        text: str = answer.read().decode()
        return text


def test_the_link_shows_the_status_page_also_when_several_ask_first(target: Target) -> None:
    link = target.dashboard_link
    assert link is not None
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        pages = list(pool.map(get, [link] * 4))
    assert all("Bokeh" in page and "Dask" in page for page in pages)
    base = link.removesuffix("/status")
    assert "Bokeh" in get(f"{base}/")
    assert "Individual Task Stream" in json.loads(get(f"{base}/individual-plots.json"))
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(f"{base}/no-such-page")


def test_the_page_is_alive(target: Target) -> None:
    """Over the web socket that a browser opens after it has loaded the page."""
    from bokeh.client import pull_session

    assert target.dashboard_link is not None
    get(target.dashboard_link)
    session = pull_session(url=target.dashboard_link)
    try:
        assert session.document.roots
    finally:
        session.close()


def test_a_worker_has_its_page_too(target: Target) -> None:
    info = target.client.scheduler_info()["workers"]
    (worker,) = info.values()
    page = get(f"http://127.0.0.1:{worker['services']['dashboard']}/status")
    assert "Bokeh" in page


def test_who_does_not_look_does_not_wait_for_it(tmp_path: Path) -> None:
    code = """
        import sys
        from daskprs import ParallelRunConfig
        from daskprs.targets import open_target
        config = ParallelRunConfig(entry_script=sys.argv[1], process_count_per_node=1)
        with open_target(None, config) as target:
            assert target.client.submit(sum, [1, 2]).result() == 3
            print(target.dashboard_link, "bokeh" in sys.modules)
    """
    (tmp_path / "score.py").touch()
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "score.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    link, is_imported = done.stdout.split()
    assert link.startswith("http://127.0.0.1:")
    assert is_imported == "False"
