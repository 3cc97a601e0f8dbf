"""``Experiment.start_logging()``: a run that is the code which asks for it."""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskprs.azureml.models import Model
from daskprs.azureml.partial import Partial
from daskprs.exceptions import UsageError
from daskprs.pipelines.run_files import RunFiles

if TYPE_CHECKING:
    from daskprs.azureml.experiments import Experiment

__all__ = ["InteractiveRun"]


class InteractiveRun(Partial):
    """Keeps what is logged while this process lives, and files and models in the workspace.

    Attributes
    ----------
    id, status : str
    experiment : Experiment
    parent : InteractiveRun or None
    """

    def __init__(self, experiment: Experiment, parent: InteractiveRun | None = None) -> None:
        self.experiment, self.parent = experiment, parent
        self.id, self.status = uuid.uuid4().hex, "Running"
        self.tags: dict[str, str] = {}
        self._metrics: dict[str, Any] = {}
        self._files = RunFiles(experiment.workspace._native.folder, self.id)

    def get_status(self) -> str:
        return self.status

    def get_details(self) -> dict[str, Any]:
        return {"runId": self.id, "status": self.status}

    def child_run(self, name: str | None = None, **kwargs: object) -> InteractiveRun:
        return InteractiveRun(self.experiment, self)

    def complete(self, **kwargs: object) -> None:
        self.status = "Completed"

    def fail(self, error_details: object = None, **kwargs: object) -> None:
        self.status = "Failed"

    def __enter__(self) -> InteractiveRun:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        self.status = "Completed" if kind is None else "Failed"

    # What is logged

    def log(self, name: str, value: Any, description: str = "", step: int | None = None) -> None:
        """Log a number or a text; of one name, all values become a list."""
        if name not in self._metrics:
            self._metrics[name] = value
        elif isinstance(self._metrics[name], list):
            self._metrics[name].append(value)
        else:
            self._metrics[name] = [self._metrics[name], value]

    def log_list(self, name: str, value: Sequence[Any], description: str = "") -> None:
        """Log several values."""
        self._metrics[name] = [*self._metrics.get(name, []), *value]

    def log_row(self, name: str, description: str | None = None, **columns: Any) -> None:
        """Log a row of a table."""
        table = self._metrics.setdefault(name, {})
        for column, value in columns.items():
            table.setdefault(column, []).append(value)

    def log_table(self, name: str, value: Mapping[str, Any], description: str = "") -> None:
        """Log a table, as a dict of columns."""
        self._metrics[name] = dict(value)

    def log_image(
        self, name: str, path: str | None = None, plot: Any = None, description: str = ""
    ) -> None:
        """Keep an image, or a plot of matplotlib."""
        with tempfile.TemporaryDirectory(prefix="daskprs-") as folder:
            place = os.path.join(folder, "plot.png")
            if path is None:
                plot.savefig(place)
            self.upload_file(f"{name}.png", path or place)

    def get_metrics(self, name: str | None = None, **kwargs: object) -> dict[str, Any]:
        """Return what was logged, by name."""
        return {known: value for known, value in self._metrics.items() if name in (None, known)}

    def tag(self, key: str, value: Any = None) -> None:
        self.tags[key] = str(value)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        for key, value in tags.items():
            self.tag(key, value)

    def get_tags(self) -> dict[str, str]:
        return dict(self.tags)

    # Files and models

    def upload_file(self, name: str, path_or_stream: Any, **kwargs: object) -> None:
        """Keep a file with the run."""
        if not hasattr(path_or_stream, "read"):
            self._files.upload({_checked(name): _existing(path_or_stream)})
            return
        with tempfile.NamedTemporaryFile(prefix="daskprs-") as copy:
            copy.write(path_or_stream.read())
            copy.flush()
            self._files.upload({_checked(name): Path(copy.name)})

    def upload_files(self, names: Sequence[str], paths: Sequence[str], **kwargs: object) -> None:
        """Keep several files with the run."""
        for name, path in zip(names, paths, strict=True):
            self.upload_file(name, path)

    def upload_folder(self, name: str, path: str, **kwargs: object) -> None:
        """Keep the files of a folder with the run, below a name."""
        root = _existing(path)
        found = [file for file in sorted(root.rglob("*")) if file.is_file()]
        below = _checked(name)
        self._files.upload({f"{below}/{file.relative_to(root).as_posix()}": file for file in found})

    def get_file_names(self) -> list[str]:
        return sorted(self._files.names())

    def download_file(
        self, name: str, output_file_path: str | os.PathLike[str] | None = None, **kwargs: object
    ) -> None:
        """Copy a file of the run to this machine."""
        known = _checked(name)
        if self._files.names(known) != [known]:
            raise UsageError(f"the run has no file {name!r}: it has {self._files.names()}.")
        target = Path(output_file_path or ".")
        self._files.fetch(known, target / Path(known).name if target.is_dir() else target)

    def register_model(
        self,
        model_name: str,
        model_path: str | os.PathLike[str] | None = None,
        tags: Mapping[str, str] | None = None,
        properties: Mapping[str, Any] | None = None,
        *_: object,
        description: str | None = None,
        **kwargs: object,
    ) -> Model:
        """Register what was uploaded under a name, or a path here, as a version of a model."""
        told = {name: str(value) for name, value in (properties or {}).items()}
        with self._local(os.fspath(model_path or model_name)) as path:
            workspace = self.experiment.workspace
            return Model.register(workspace, path, model_name, tags, told, description)

    @contextlib.contextmanager
    def _local(self, name: str) -> Iterator[str]:
        found = [] if os.path.isabs(name) else self._files.names(_checked(name))
        if not found:
            yield str(_existing(name))
            return
        with tempfile.TemporaryDirectory(prefix="daskprs-") as folder:
            for known in found:
                self._files.fetch(known, Path(folder, known))
            yield str(Path(folder, _checked(name)))

    def __repr__(self) -> str:
        return f"Run(Experiment: {self.experiment.name}, Id: {self.id}, Status: {self.status})"


def _checked(name: str) -> str:
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise UsageError(f"{name!r} is no name of a file in the run, such as 'outputs/model.pkl'.")
    return "/".join(parts)


def _existing(path: str | os.PathLike[str]) -> Path:
    if not os.path.exists(path):
        raise UsageError(f"{os.fspath(path)!r} is not there, and was not uploaded to the run.")
    return Path(path)
