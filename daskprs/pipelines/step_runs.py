"""StepRun: the run of a step, live or written down."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskprs.exceptions import UsageError
from daskprs.listing import base_folder, list_files
from daskprs.pipelines.command_run import CommandReport, CommandRun
from daskprs.pipelines.datastores import DataPath
from daskprs.pipelines.outputs import WrittenOutput
from daskprs.pipelines.run_files import RunFiles
from daskprs.pipelines.transfer import fetch_to
from daskprs.report import RunReport, read_report

if TYPE_CHECKING:
    from daskprs.pipelines.runs import PipelineRun
    from daskprs.run import ParallelRun

__all__ = ["StepRun"]


class StepRun:
    """The run of a step, in the run of a pipeline.

    Attributes
    ----------
    id, name : str
    parent : PipelineRun
    status : str
        NotStarted, Running, Completed, Failed, Canceled, or Interrupted.
    """

    def __init__(self, parent: PipelineRun, name: str) -> None:
        self.parent, self.name = parent, name

    @property
    def _told(self) -> dict[str, Any]:
        told: dict[str, Any] = self.parent.record["steps"][self.name]
        return told

    @property
    def id(self) -> str:
        return str(self._told["id"])

    @property
    def status(self) -> str:
        status = str(self._told["status"])
        is_gone = status == "Running" and self.parent.status == "Interrupted"
        return "Interrupted" if is_gone else status

    @property
    def message(self) -> str:
        """Why it has failed."""
        return str(self._told["message"])

    @property
    def notes(self) -> list[str]:
        """What a person should know, though the step runs."""
        return list(self._told.get("notes", []))

    def wait_for_start(self, deadline: float | None = None) -> ParallelRun | CommandRun | None:
        """Return the run of daskprs below it, in the process that has started it."""
        return self.parent.live_run(self.name, deadline)

    def output_names(self) -> list[str]:
        """Return the names of its outputs; none before it has begun."""
        return list(self._told.get("outputs", {}))

    def get_output_data(self, name: str | None = None) -> WrittenOutput:
        """Return where an output is.

        Parameters
        ----------
        name : str, optional
            Not needed where there is only one.

        Raises
        ------
        UsageError
            There is none of this name, or the step has not begun.
        """
        names = self.output_names()
        if "outputs" not in self._told:
            raise UsageError(f"the step {self.name!r} is {self.status}: it has no output yet.")
        if name is None and len(names) == 1:
            [name] = names
        if name is None or name not in names:
            known = ", ".join(map(repr, names)) or "none"
            raise UsageError(f"the step {self.name!r} has no output {name!r}: it has {known}.")
        told = self._told["outputs"][name]
        return WrittenOutput(name, self._place(told["datastore"], told["path"]))

    def _place(self, store: str | None, path: str) -> DataPath:
        stores = self.parent.experiment.workspace.datastores
        return DataPath(stores[store] if store is not None else None, path)

    @property
    def has_report(self) -> bool:
        return "outputs" in self._told

    @property
    def report(self) -> RunReport | CommandReport:
        """Counts, failures, times; of a script, its status, time and outputs.

        Raises
        ------
        UsageError
            The step has not begun.
        """
        run = self.parent.live_run(self.name, time.monotonic())
        if run is not None:
            return run.report
        if "command" in self._told:
            return CommandReport(**self._told["command"])
        return read_report(self.get_output_data().folder())

    # Files besides the outputs: logs, and what the script has uploaded

    @property
    def _files(self) -> RunFiles:
        return RunFiles(self.parent.experiment.workspace.folder, self.id)

    def _logs(self) -> DataPath | None:
        """Where the logs of a parallel step are: beside its rows."""
        if "command" in self._told or len(self.output_names()) != 1:
            return None
        place = self.get_output_data().place
        return DataPath(place.datastore, f"{place.path}/logs")

    def log_names(self) -> list[str]:
        """Return the names of the logs, such as ``logs/job_result.txt``."""
        return [name for name in self.file_names() if name.startswith("logs/")]

    def file_names(self) -> list[str]:
        """Return the names of the logs, and of files that the script has uploaded."""
        return sorted({*self._files.names(), *self._beside_the_rows()})

    def _beside_the_rows(self) -> list[str]:
        logs = self._logs()
        if logs is None:
            return []
        base = base_folder(logs.url, storage_options=logs.storage_options)
        found = list_files([logs.url], storage_options=logs.storage_options)
        return [f"logs/{file.path[len(base) :].lstrip('/')}" for file in found]

    def download_file(self, name: str, target: str | Path) -> Path:
        """Copy a log, or a file that the script has uploaded, to this machine.

        Raises
        ------
        UsageError
            There is none of this name.
        """
        if name in self._files.names():
            return self._files.fetch(name, Path(target))
        logs = self._logs()
        if logs is None or name not in self._beside_the_rows():
            known = ", ".join(self.file_names()[:20])
            raise UsageError(f"the step {self.name!r} has no file {name!r}: it has {known}.")
        path = DataPath(logs.datastore, f"{logs.path.removesuffix('/logs')}/{name}")
        return fetch_to(path.url, path.storage_options, Path(target))

    def download_logs(self, target: str | Path, *, overwrite: bool = False) -> list[Path]:
        """Copy the logs to this machine, to below ``logs/``."""
        fetched = []
        for name in self.log_names():
            place = Path(target, name)
            if place.exists() and not overwrite:
                raise UsageError(f"{place} is there already: take overwrite=True.")
            fetched.append(self.download_file(name, place))
        return fetched

    def __repr__(self) -> str:
        return f"StepRun({self.name!r}, {self.status})"
