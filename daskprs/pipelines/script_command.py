"""ScriptCommand: what a script step starts, and what is done before and after it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import daskprs
from daskprs.entry_process.entry_script_api import FOLDER, write_facts
from daskprs.entry_process.surroundings import data_references, kill_marked, link_source
from daskprs.entry_script import EntryScriptSource
from daskprs.exceptions import DaskprsError, InputNotFoundError
from daskprs.listing import is_local
from daskprs.pipelines.base import Launch
from daskprs.pipelines.command_run import Call, Command
from daskprs.pipelines.datastores import DataPath
from daskprs.pipelines.file_states import input_state
from daskprs.pipelines.outputs import StepOutput
from daskprs.pipelines.records import Records
from daskprs.pipelines.run_files import RunFiles
from daskprs.pipelines.script_inputs import Output, ScriptInputs
from daskprs.pipelines.secrets import kept_variables
from daskprs.pipelines.transfer import copy_files, relative_paths
from daskprs.redaction import Secrets

if TYPE_CHECKING:
    from daskprs.pipelines.script_step import ScriptStep

__all__ = ["ScriptCommand"]

logger = logging.getLogger(__name__)

LOG = "logs/std_log.txt"
_METRICS = "logs/user/metrics/metrics.jsonl"
_KEPT = ("outputs", "logs")  # what a script writes to these in its working directory
_AZURE_MODULES = str(Path(daskprs.__file__).parent / "azureml" / "script_modules")


class ScriptCommand(Command):
    """What a script step starts, and what is done before and after it.

    Parameters
    ----------
    step : ScriptStep
    launch : Launch
        Gets the places of the outputs: of an earlier run, where that can be taken over.

    Raises
    ------
    InputNotFoundError
    """

    words = ("step", "script", "timeout")

    def __init__(self, step: ScriptStep, launch: Launch) -> None:
        self.name, self.timeout = step.name, step.timeout
        self._step, self._launch, self._workspace = step, launch, launch.workspace
        self._inputs = ScriptInputs(step, launch)
        default = self._workspace.datastores.default
        self._fresh = {one: one.place(default, launch.run_id) for one in step.outputs}
        options = [self._workspace.folder.storage_options, *self._inputs.options()]
        options += [place.storage_options for place in self._fresh.values()]
        launch.secrets = Secrets(options, self._inputs.urls(), step.variables)
        self._reuse = Records(self._workspace.folder, "reuse")
        self._key = self._identity()
        earlier = None
        if step.allow_reuse and not launch.regenerates:
            earlier = self._earlier()
        self._is_done = earlier is not None
        self._places = earlier if earlier is not None else self._fresh
        for place in self._places.values():
            if is_local(place.url):  # also one that an earlier run has left empty
                Path(place.url).mkdir(parents=True, exist_ok=True)
        launch.places.update(self._places)
        self._files = RunFiles(self._workspace.folder, launch.run_id)
        self._scratch = Path()
        self._local: dict[StepOutput, Path] = {}
        self.log = (self._files.local or self._scratch) / LOG

    # Is an earlier run the same?

    def _identity(self) -> str:
        step = self._step
        local = [place.url for place in self._fresh.values() if is_local(place.url)]
        skipped = tuple(Path(place) for place in [*local, *self._inputs.local_folders()])
        source = EntryScriptSource(step.script, step.source_directory, "", skipped)
        facts = {
            "step": step.name,
            "script": str(step.script),
            "code": [source.code_token(), source.data_files()],
            "inputs": self._inputs.facts(),
            "outputs": [
                [one.name, place.datastore and place.datastore.name, one.path]
                for one, place in self._fresh.items()
            ],
            "variables": sorted(step.variables.items()),
            "azure": step.azure_compatible,
        }
        text = json.dumps(facts, sort_keys=True).encode("utf-8", "surrogateescape")
        return hashlib.sha256(text).hexdigest()[:40]

    def _earlier(self) -> dict[StepOutput, DataPath] | None:
        """Find the outputs of an earlier run, if they are as it has left them."""
        record = self._reuse.read(self._key)
        if record is None:
            return None
        told = record["outputs"]
        places = {
            one: DataPath(fresh.datastore, told[one.name]["path"])
            for one, fresh in self._fresh.items()
        }
        try:
            same = all(_state(place) == told[one.name]["state"] for one, place in places.items())
        except (DaskprsError, OSError):
            return None
        return places if same else None

    def is_done(self) -> bool:
        if self._is_done:
            text = "The script was not run: its outputs are those of an earlier run.\n"
            with tempfile.NamedTemporaryFile("w", prefix="daskprs-", encoding="utf-8") as note:
                note.write(text)
                note.flush()
                self._files.upload({LOG: Path(note.name)})
        return self._is_done

    # Before

    def begin(self) -> Call:
        step = self._step
        scratch = self._scratch = Path(os.path.realpath(tempfile.mkdtemp(prefix="daskprs-")))
        logs = self._files.local or scratch / "files"
        self.log = logs / LOG
        self._metrics = logs / _METRICS
        if step.azure_compatible:
            self._metrics.parent.mkdir(parents=True, exist_ok=True)
        for output, place in self._places.items():
            if is_local(place.url):
                self._local[output] = Path(place.url)
            else:
                self._local[output] = scratch / "written" / output.name
                self._local[output].mkdir(parents=True)
        self._inputs.fetch(scratch / "inputs")
        work = scratch / "work"
        for name in _KEPT:
            (work / name).mkdir(parents=True)
        link_source(step.script.parent, step.source_directory, work)
        self._write_facts(work)
        words = self._inputs.words({Output(one.name): str(p) for one, p in self._local.items()})
        text = shlex.join([sys.executable, "-u", str(step.script), *words])
        return Call(f"exec {text}", work, scratch / "lock", self._variables(), scratch)

    def _write_facts(self, work: Path) -> None:
        first = next(iter(self._local.values()), work)
        facts = {
            "run_id": self._launch.run_id,
            "metrics_file": str(self._metrics),
            "side_inputs": self._inputs.named_paths(),
            "tables": self._inputs.named_tables(),
            "outputs": {one.name: str(path) for one, path in self._local.items()},
            "log_dir": str(work / "logs"),
            "working_dir": str(work),
            "output_dir": str(first),
        }
        write_facts(self._scratch, facts)

    def _variables(self) -> dict[str, str]:
        step, workspace = self._step, self._workspace
        # What the script imports, wherever it is: relative paths are not those of this process.
        folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        path = [os.path.abspath(folder) for folder in folders if folder]
        if step.script.parent != step.source_directory:
            path.insert(0, str(step.source_directory))
        variables = {
            "PYTHONIOENCODING": "utf-8",
            **kept_variables(workspace.folder.url),
            **self._launch.surroundings,
        }
        if step.azure_compatible:
            path.insert(0, _AZURE_MODULES)
            variables |= {
                "AZUREML_RUN_ID": self._launch.run_id,
                "AZUREML_ARM_WORKSPACE_NAME": workspace.name,
                "AZUREML_ARM_SUBSCRIPTION": str(workspace.config.get("subscription_id") or ""),
                "AZUREML_ARM_RESOURCEGROUP": str(workspace.config.get("resource_group") or ""),
                **data_references(self._inputs.named_paths()),
                **data_references({one.name: str(p) for one, p in self._local.items()}),
            }
        if path:
            variables["PYTHONPATH"] = os.pathsep.join(path)
        return {**variables, **step.variables, FOLDER: str(self._scratch)}

    # After

    def finish(self) -> None:
        for output, place in self._places.items():
            if not is_local(place.url):
                _upload(self._local[output], place.url, place.storage_options)
        told = {
            one.name: {"path": place.path, "state": _state(place)}
            for one, place in self._places.items()
        }
        self._reuse.replace(self._key, {"outputs": told})

    def close(self) -> None:
        if self._scratch == Path():
            return
        kill_marked(self._scratch)
        try:
            self._keep_files()
        except (DaskprsError, OSError) as error:
            logger.warning("the files of %r could not be kept: %s", self.name, error)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _keep_files(self) -> None:
        found = {}
        roots = [(self._scratch / "work" / name, f"{name}/") for name in _KEPT]
        if self._files.local is None:
            roots.append((self._scratch / "files", ""))
        for root, prefix in roots:
            for path in sorted(root.rglob("*")):
                if path.is_file():
                    found[f"{prefix}{path.relative_to(root).as_posix()}"] = path
        if found:
            self._files.upload(found)

    @property
    def log_place(self) -> str:
        return f"{self._files.url}/{LOG}"

    def outputs(self) -> dict[str, str]:
        return {one.name: place.url for one, place in self._places.items()}


def _state(place: DataPath) -> list[Any]:
    """Tell what is known of the files of an output without reading them."""
    try:
        state = input_state(place.url, place.storage_options)
    except InputNotFoundError:
        return []
    found: list[Any] = json.loads(json.dumps(state))  # as a record has it
    return found


def _upload(folder: Path, url: str, options: dict[str, Any]) -> None:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    copy_files(relative_paths(files, folder), url, options, overwrite=True)
