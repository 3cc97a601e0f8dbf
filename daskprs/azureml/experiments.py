"""``azureml.core.Experiment``, and runs of pipelines."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from daskprs.azureml.consumption import as_input
from daskprs.azureml.interactive_runs import InteractiveRun
from daskprs.azureml.partial import Partial
from daskprs.azureml.pipelines import Pipeline
from daskprs.azureml.workspaces import Workspace
from daskprs.exceptions import ConfigError, UsageError
from daskprs.pipelines import outputs
from daskprs.pipelines import runs as native
from daskprs.pipelines.step_runs import StepRun as NativeStepRun

__all__ = ["Experiment", "PipelineRun", "PortDataReference", "StepRun"]


class Experiment(Partial):
    """A name for runs that belong together.

    Parameters
    ----------
    workspace : Workspace
    name : str
    """

    def __init__(self, workspace: Workspace, name: str, **kwargs: object) -> None:
        self.workspace, self.name = workspace, name
        self._native = native.Experiment(workspace._native, name)

    def submit(
        self,
        config: Pipeline,
        tags: Mapping[str, str] | None = None,
        pipeline_parameters: Mapping[str, Any] | None = None,
        continue_on_step_failure: bool = False,
        regenerate_outputs: bool = False,
        **kwargs: object,
    ) -> PipelineRun:
        """Start a run of a pipeline in the background."""
        if not isinstance(config, Pipeline):
            accepted = "a Pipeline; run other scripts by themselves"
            raise ConfigError.of("config", config, accepted)
        values = {name: as_input(value) for name, value in (pipeline_parameters or {}).items()}
        run = self._native.submit(
            config._native,
            values,
            tags=tags,
            continue_on_step_failure=continue_on_step_failure,
            regenerate_outputs=regenerate_outputs,
        )
        return PipelineRun._of(self, run)

    def start_logging(self, **kwargs: object) -> InteractiveRun:
        """Start a run that is this code itself: it logs, and keeps files and models."""
        return InteractiveRun(self)

    def get_runs(self, **kwargs: object) -> Iterator[PipelineRun]:
        """Give all runs, the latest first."""
        return (PipelineRun._of(self, run) for run in self._native.runs())

    @staticmethod
    def list(workspace: Workspace, **kwargs: object) -> list[Experiment]:
        return list(workspace.experiments.values())

    def __repr__(self) -> str:
        return f"Experiment(Name: {self.name}, Workspace: {self.workspace.name})"


class PortDataReference(Partial):
    """An output that a run has written."""

    def __init__(self, output: outputs.WrittenOutput) -> None:
        self._native = output

    @property
    def name(self) -> str:
        return self._native.name

    @property
    def path_on_datastore(self) -> str:
        return self._native.path_on_datastore

    def download(
        self,
        local_path: str | os.PathLike[str],
        overwrite: bool | None = None,
        show_progress: bool | None = None,
    ) -> int:
        """Copy it to below its path on the datastore; return how many files."""
        return len(self._native.download(os.fspath(local_path), overwrite=bool(overwrite)))


class PipelineRun(Partial):
    """A run of a pipeline.

    Parameters
    ----------
    experiment : Experiment
    run_id : str
    """

    def __init__(self, experiment: Experiment, run_id: str, **kwargs: object) -> None:
        self.experiment = experiment
        self._native = experiment._native.run(run_id)

    @classmethod
    def _of(cls, experiment: Experiment, run: native.PipelineRun) -> PipelineRun:
        made = cls.__new__(cls)
        made.experiment, made._native = experiment, run
        return made

    @staticmethod
    def get(workspace: Workspace, run_id: str) -> PipelineRun:
        for experiment in workspace.experiments.values():
            for run in experiment.get_runs():
                if run.id == run_id:
                    return run
        raise UsageError(f"the workspace has no run {run_id!r}.")

    @property
    def id(self) -> str:
        return self._native.id

    @property
    def status(self) -> str:
        return self._native.status

    def get_status(self) -> str:
        return self._native.status

    def get_portal_url(self) -> str:
        """Return where the workspace, which has no portal, keeps its runs."""
        return str(self.experiment.workspace._native.folder.url)

    def get_tags(self) -> dict[str, str]:
        return dict(self._native.record.get("tags", {}))

    def get_details(self) -> dict[str, Any]:
        """Return what is written down about the run."""
        return {"runId": self.id, "status": self.status, **self._native.record}

    def wait_for_completion(
        self,
        show_output: bool = True,
        timeout_seconds: float | None = None,
        raise_on_error: bool = True,
    ) -> str:
        """Wait until the run has ended; returns the status."""
        return self._native.wait_for_completion(show_output, timeout_seconds, raise_on_error)

    def cancel(self) -> None:
        self._native.cancel()

    def get_steps(self) -> Iterator[StepRun]:
        return (StepRun(self, step) for step in self._native.steps())

    def get_children(self, **kwargs: object) -> Iterator[StepRun]:
        return self.get_steps()

    def find_step_run(self, name: str) -> list[StepRun]:
        return [StepRun(self, step) for step in self._native.find_step_run(name)]

    def get_pipeline_output(self, pipeline_output_name: str) -> PortDataReference:
        for step in self._native.steps():
            if pipeline_output_name in step.output_names():
                return PortDataReference(step.get_output_data(pipeline_output_name))
        raise UsageError(f"no step of the run has written {pipeline_output_name!r}.")

    def _repr_html_(self) -> str:
        return self._native._repr_html_()

    def __repr__(self) -> str:
        name = self.experiment.name
        return f"PipelineRun(Experiment: {name}, Id: {self.id}, Status: {self.status})"


class StepRun(Partial):
    """The run of a step, in that of a pipeline."""

    def __init__(self, parent: PipelineRun, step: NativeStepRun) -> None:
        self.parent, self.experiment, self._native = parent, parent.experiment, step

    @property
    def id(self) -> str:
        return self._native.id

    @property
    def name(self) -> str:
        return self._native.name

    @property
    def status(self) -> str:
        return self._native.status

    def get_status(self) -> str:
        return self._native.status

    def get_portal_url(self) -> str:
        return self.parent.get_portal_url()

    def get_details(self) -> dict[str, Any]:
        return {"runId": self.id, "status": self.status, "message": self._native.message}

    def wait_for_completion(
        self,
        show_output: bool = True,
        timeout_seconds: float | None = None,
        raise_on_error: bool = True,
    ) -> str:
        """Wait until the run of the pipeline has ended."""
        self.parent.wait_for_completion(show_output, timeout_seconds, raise_on_error)
        return self.status

    def get_output_data(self, name: str) -> PortDataReference:
        return PortDataReference(self._native.get_output_data(name))

    def get_file_names(self) -> list[str]:
        """Return the names of the logs, and of files that the script has uploaded."""
        return self._native.file_names()

    def download_file(
        self, name: str, output_file_path: str | os.PathLike[str] | None = None
    ) -> None:
        """Copy a log, or a file that the script has uploaded, to this machine."""
        self._native.download_file(name, Path(output_file_path or Path(name).name))

    def download_files(
        self, prefix: str | None = None, output_directory: str | None = None, **kwargs: object
    ) -> None:
        """Copy the files whose names begin so to this machine."""
        for name in self.get_file_names():
            if name.startswith(prefix or ""):
                self.download_file(name, Path(output_directory or ".", name))

    def __repr__(self) -> str:
        return f"StepRun(Name: {self.name}, Id: {self.id}, Status: {self.status})"
