"""``azureml.core.Run``: which run this is, and a file for what the script logs with it."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from daskprs.azureml.entry import facts, uploads
from daskprs.azureml.entry.datasets import InputDatasets, input_datasets
from daskprs.azureml.entry.models import Model
from daskprs.azureml.entry.unsupported import Partial, UserErrorException
from daskprs.azureml.entry.workspaces import Workspace
from daskprs.entry_process.plain import json_line

__all__ = ["Experiment", "OfflineRun", "Run"]

logger = logging.getLogger("azureml")


class Experiment(Partial):
    """The experiment of the run.

    Attributes
    ----------
    name : str
    workspace : Workspace
    """

    def __init__(self, workspace: object, name: str) -> None:
        raise UserErrorException(
            "Experiment() cannot be made in an entry process of daskprs: "
            "Run.get_context().experiment is the one of this run."
        )

    @classmethod
    def _of_run(cls, name: str) -> Experiment:
        experiment = cls.__new__(cls)
        experiment.name = name
        experiment.workspace = Workspace._of_run()
        return experiment

    name: str
    workspace: Workspace


class Run(Partial):
    """The run that this process works for, from ``Run.get_context()``.

    Attributes
    ----------
    id : str
    parent : Run or None
        The run of the pipeline. A run that is of no pipeline has a parent with its own id.
    experiment : Experiment
    input_datasets : dict
        Local paths of the side inputs by their names.
    """

    id: str
    parent: Run | None
    experiment: Experiment
    _of_this_process: Run | None = None

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise UserErrorException(
            "Run() cannot be made in an entry process of daskprs: use Run.get_context()."
        )

    @classmethod
    def get_context(cls, allow_offline: bool = True, **_: Any) -> Run:
        """Return the run of this process, always the same object."""
        if Run._of_this_process is None:
            told = facts.run_facts()
            experiment = cls._experiment_of(str(told["experiment"]))
            parent = cls._make(str(told["parent"]), experiment, None)
            Run._of_this_process = cls._make(str(told["id"]), experiment, parent)
        return Run._of_this_process

    @classmethod
    def _experiment_of(cls, name: str) -> Any:
        return Experiment._of_run(name)

    @classmethod
    def _make(cls, run_id: str, experiment: Experiment, parent: Run | None) -> Run:
        run = cls.__new__(cls)
        run.id, run.experiment, run.parent = run_id, experiment, parent
        return run

    @property
    def input_datasets(self) -> InputDatasets:
        return input_datasets()

    def get_status(self) -> str:
        """Return ``"Running"``: else this code would not run."""
        return "Running"

    @property
    def status(self) -> str:
        return self.get_status()

    # Files and models, in the workspace

    def upload_file(
        self, name: str, path_or_stream: Any, datastore_name: str | None = None
    ) -> None:
        """Keep a file with the run, over an older one of that name.

        Raises
        ------
        UserErrorException
            There is no such file, or the workspace cannot be reached from here.
        """
        uploads.upload_file(self.id, name, path_or_stream)

    def upload_files(
        self, names: Sequence[str], paths: Sequence[str], datastore_name: str | None = None
    ) -> None:
        """Keep several files with the run."""
        for name, path in zip(names, paths, strict=True):
            self.upload_file(name, path)

    def upload_folder(self, name: str, path: str, datastore_name: str | None = None) -> None:
        """Keep the files of a folder with the run, below a name."""
        uploads.upload_folder(self.id, name, path)

    def download_file(
        self, name: str, output_file_path: str | os.PathLike[str] | None = None, **_: object
    ) -> None:
        """Copy a file that was uploaded to this run."""
        uploads.download_file(self.id, name, output_file_path)

    def get_file_names(self) -> list[str]:
        """Return the names of the files that were uploaded to this run."""
        return uploads.names(self.id)

    def register_model(
        self,
        model_name: str,
        model_path: str | os.PathLike[str] | None = None,
        tags: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        *_: object,
        description: str | None = None,
        **__: object,
    ) -> Any:
        """Register what was uploaded under a name, or a path here, as a version of a model.

        Parameters
        ----------
        model_path : str, optional
            Default: the name of the model.

        Raises
        ------
        UserErrorException
            There is neither, or the workspace cannot be reached from here.
        """
        with uploads.local_path(self.id, model_path or model_name) as path:
            return self._register(path, model_name, tags, properties, description)

    def _register(
        self,
        path: str,
        name: str,
        tags: Mapping[str, str] | None,
        properties: Mapping[str, str] | None,
        description: str | None,
    ) -> Any:
        return Model.register(self.experiment.workspace, path, name, tags, properties, description)

    # What the script logs, as lines of JSON in logs/user/metrics

    def log(self, name: str, value: Any, description: str = "", step: int | None = None) -> None:
        """Log a number or a text."""
        self._write("log", name, value, description, step)

    def log_list(self, name: str, value: Sequence[Any], description: str = "") -> None:
        """Log several values."""
        self._write("log_list", name, list(value), description)

    def log_row(self, name: str, description: str | None = None, **columns: Any) -> None:
        """Log a row of a table."""
        self._write("log_row", name, columns, description or "")

    def log_table(self, name: str, value: Mapping[str, Any], description: str = "") -> None:
        """Log a table, as a dict of columns."""
        self._write("log_table", name, dict(value), description)

    def log_accuracy_table(self, name: str, value: Any, description: str = "") -> None:
        """Log an accuracy table, as it is given."""
        self._write("log_accuracy_table", name, value, description)

    def log_confusion_matrix(self, name: str, value: Any, description: str = "") -> None:
        """Log a confusion matrix, as it is given."""
        self._write("log_confusion_matrix", name, value, description)

    def log_predictions(self, name: str, value: Any, description: str = "") -> None:
        """Log predictions, as they are given."""
        self._write("log_predictions", name, value, description)

    def log_residuals(self, name: str, value: Any, description: str = "") -> None:
        """Log residuals, as they are given."""
        self._write("log_residuals", name, value, description)

    def tag(self, key: str, value: Any = None) -> None:
        """Log a tag of the run."""
        self._write("tag", key, value)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Log tags of the run."""
        for key, value in tags.items():
            self.tag(key, value)

    def add_properties(self, properties: Mapping[str, Any]) -> None:
        """Log properties of the run."""
        for key, value in properties.items():
            self._write("property", key, value)

    def child_run(self, name: str | None = None, run_id: str | None = None, **_: object) -> Run:
        """Give a run of its own to a part of the work: what is logged and kept has its id."""
        return self._make(run_id or f"{self.id}_{uuid.uuid4().hex[:8]}", self.experiment, self)

    def complete(self, **_: object) -> None:
        """Do nothing: the run has ended when its script has."""

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.complete()

    def flush(self, timeout_seconds: float = 300) -> None:
        """Return at once: every line is written when it is logged."""

    def _write(
        self, kind: str, name: str, value: Any, description: str = "", step: int | None = None
    ) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": now, "run": self.id, "kind": kind, "name": name}
        line["value"] = value
        if description:
            line["description"] = description
        if step is not None:
            line["step"] = step
        path = facts.metrics_file()
        if not path:
            logger.info("%s", json_line(line).decode().rstrip())
            return
        # One write with O_APPEND: the lines of several processes do not mix.
        opened = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(opened, json_line(line))
        finally:
            os.close(opened)

    def __repr__(self) -> str:
        return f"Run(Experiment: {self.experiment.name}, Id: {self.id}, Status: {self.status})"


class OfflineRun(Run):
    """What a script is given where it is not a part of a run: never in an entry process."""
