"""Dask's dashboard on a local cluster: made when somebody opens it.

It is half a second of imports at the start, and a quarter of a second at the end of the process,
which a short run does not have to wait for.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from typing import Any

from distributed import Worker
from distributed.deploy import LocalCluster
from tornado import web

__all__ = ["SCHEDULER_OPTIONS", "QuietWorker", "add_dashboard", "is_available"]

# Of a cluster that gets its dashboard from `add_dashboard`.
SCHEDULER_OPTIONS = {"dashboard": False}


class QuietWorker(Worker):  # type: ignore[misc]
    """A worker without pages of its own, until they are added."""

    def __init__(self, *args: Any, dashboard: bool = False, **options: Any) -> None:
        super().__init__(*args, dashboard=False, **options)


def is_available() -> bool:
    """Say whether the dashboard can be shown: Bokeh is there."""
    return importlib.util.find_spec("bokeh") is not None


def add_dashboard(cluster: LocalCluster) -> None:
    """Let the web servers of a cluster in this process answer with the dashboard."""
    servers = [(cluster.scheduler, "distributed.dashboard.scheduler")]
    servers += [(worker, "distributed.dashboard.worker") for worker in cluster.workers.values()]
    for server, pages in servers:
        server.http_application.add_application(_Waiting(server, pages))


class _Waiting(web.Application):
    """Takes requests for pages that are not there yet, until they are."""

    def __init__(self, server: Any, pages: str) -> None:
        super().__init__([(r".*", _FirstRequest)])
        self._server, self._pages = server, pages
        self._making = asyncio.Lock()
        self._is_made = False

    def find_handler(self, request: Any, **kwargs: Any) -> Any:
        """Find no page once these are there: the request goes on to them."""
        return None if self._is_made else super().find_handler(request, **kwargs)

    async def make(self) -> None:
        """Import the pages, and add them to the web server."""
        async with self._making:
            if not self._is_made:
                pages = await asyncio.to_thread(importlib.import_module, self._pages)
                server = self._server
                pages.connect(server.http_application, server.http_server, server, prefix="/")
                self._is_made = True


class _FirstRequest(web.RequestHandler):
    async def get(self) -> None:
        await self.application.make()  # type: ignore[attr-defined]
        self.redirect(self.request.uri or "/")
