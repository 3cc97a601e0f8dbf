"""Outputs in a store: copies of what jobs have written on this machine."""

from __future__ import annotations

import json
import posixpath
from pathlib import Path
from typing import Any

import fsspec

from daskprs.exceptions import WriteFailedError
from daskprs.json_text import json_text
from daskprs.output_folder import OutputFolder
from daskprs.pipelines.file_states import folder_state
from daskprs.pipelines.transfer import copy_files
from daskprs.store_calls import one_line
from daskprs.yaml_jobs.values import Output

__all__ = ["check_store", "copy_output"]


def _folder_of(output: Output) -> str:
    url = str(output.url).rstrip("/")
    return url if output.file_name is None else posixpath.dirname(url)


def check_store(output: Output) -> None:
    """Look whether the store of an output can be written to.

    Raises
    ------
    OutputError
    """
    OutputFolder(_folder_of(output)).make()


def copy_output(output: Output, folder: Path) -> None:
    """Copy an output to its url, if it has one and is not there as it is here.

    Files that an earlier copy has left there, and that are no more, are removed.

    Parameters
    ----------
    folder : Path
        Of the job, which keeps a record of what was copied.

    Raises
    ------
    WriteFailedError
    """
    if output.url is None or output.is_direct:
        return
    files = OutputFolder(folder)
    record = f".daskprs/copied-{output.name}.json"
    told: dict[str, Any] = json.loads(files.read(record) or b"{}")
    before: dict[str, Any] = told.get("files", {}) if told.get("url") == output.url else {}
    now = folder_state(output.local)
    try:
        _copy(output, before, now)
    except Exception as error:
        raise WriteFailedError(
            f"the output {output.name!r} could not be copied to {output.url!r} "
            f"({one_line(error)}): it is in {output.local}, and the same command copies it again."
        ) from error
    files.write(record, json_text({"url": output.url, "files": now}, indent=2).encode())


def _copy(output: Output, before: dict[str, Any], now: dict[str, list[int]]) -> None:
    url = _folder_of(output)
    fs, root = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()

    def target(name: str) -> str:
        return f"{root.rstrip('/')}/{name or output.file_name}"

    def is_there(name: str) -> bool:
        return bool(fs.exists(target(name))) and fs.info(target(name))["size"] == now[name][0]

    wanted = [name for name in now if before.get(name) != now[name] or not is_there(name)]
    named = {name or str(output.file_name): output.local / name for name in wanted}
    copy_files(named, url, {}, overwrite=True)
    for name in set(before) - set(now):
        if fs.exists(target(name)):
            fs.rm_file(target(name))
