"""A parallel job as a step of a pipeline."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from daskprs.config import DEFAULT_ROW_FILE, ParallelRunConfig
from daskprs.datasets import FileDataset, TabularDataset
from daskprs.entry_script import EntryScriptSource
from daskprs.exceptions import ConfigError
from daskprs.pipelines import DataPath, Datastore, Model, ParallelStep, StepOutput
from daskprs.step import ParallelRunStep
from daskprs.yaml_jobs.copies import copy_output
from daskprs.yaml_jobs.documents import Section
from daskprs.yaml_jobs.expressions import Reference, substitute, whole, without_missing
from daskprs.yaml_jobs.jobs import JobSpec
from daskprs.yaml_jobs.mltable import read_mltable
from daskprs.yaml_jobs.program_arguments import FLAGS, ProgramArguments
from daskprs.yaml_jobs.sources import Sources
from daskprs.yaml_jobs.values import DataInput, Output

__all__ = ["ParallelJob"]

_MOST_SCRIPTS = 2000
# Keys of a job -> settings here.
_KEYS = {
    "mini_batch_size": "mini_batch_size",
    "partition_keys": "partition_keys",
    "error_threshold": "error_threshold",
    "mini_batch_error_threshold": "allowed_failed_count",
    "logging_level": "logging_level",
    "max_concurrency_per_instance": "process_count_per_node",
    "resources.instance_count": "node_count",
    "retry_settings.timeout": "run_invocation_timeout",
    "retry_settings.max_retries": "run_max_try",
}
_WHOLE = ("error_threshold", "allowed_failed_count", "process_count_per_node", "node_count",
          "run_max_try")  # fmt: skip


class Settings:
    """The settings of a parallel job, and where each of them stands.

    Parameters
    ----------
    spec : JobSpec

    Raises
    ------
    ConfigError
    """

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec
        if spec.get("task") is None:
            raise spec.body.error("the key 'task' is missing: it names the entry_script.")
        self.task = spec.find("task").child("task")
        self.rows_name = ""
        self.given: dict[str, Any] = {}
        self.where: dict[str, Section] = {}
        for key, setting in _KEYS.items():
            outer, _, inner = key.partition(".")
            section = spec.find(outer)
            if inner and section.get(outer) is not None:
                section = section.child(outer)
            value = section.get(inner or outer)
            if value is not None:
                self.given[setting] = _number(setting, value)
                self.where[setting] = section.child(inner or outer)
        if "run_max_try" in self.given:
            self.given["run_max_try"] += 1  # the first one is no retry
        self._take_flags()
        if self.rows is not None and self.rows.type == "uri_file":
            named = replace(self.rows, file_name=self.row_file())
            spec.outputs[self.rows_name] = self.rows = named
        if "partition_keys" in self.given:
            self.given.pop("mini_batch_size", None)  # as in Azure ML

    def _take_flags(self) -> None:
        section = self.task.child("program_arguments")
        flags = {setting: flag for flag, setting in FLAGS.items() if setting}
        for setting, value in self.program_arguments.settings.items():
            if self.given.get(setting, value) != value:
                key = next(key for key, known in _KEYS.items() if known == setting)
                raise section.error(
                    f"{flags[setting]} {value} is not what {key} says: give it in one place."
                )
            self.given[setting], self.where[setting] = value, section

    @cached_property
    def source(self) -> tuple[str, str]:
        """The entry script, and the folder that reaches every worker."""
        code = self.task.get("code", ".")
        if code.startswith(("azureml:", "git", "http")):
            raise self.task.error(f"{code!r} is not a folder of this machine.", "code")
        folder = os.path.abspath(self.task.folder / code)
        if not os.path.isdir(folder):
            raise self.task.error(f"{code!r} is not there: there is no folder {folder}.", "code")
        script = self.task.get("entry_script")
        if not os.path.isfile(os.path.join(folder, script)):
            message = f"{script!r} is not there: there is no {os.path.join(folder, script)}."
            raise self.task.error(message, "entry_script")
        return script, folder

    @cached_property
    def program_arguments(self) -> ProgramArguments:
        section = self.task.child("program_arguments")
        text = without_missing(self.task.get("program_arguments", ""), self.spec.missing)
        self.spec.check_text(section, text)
        script, folder = self.source
        source = EntryScriptSource.of(Path(folder, script), Path(folder))
        return ProgramArguments.read(section, text, "\n".join(_texts(source)))

    @cached_property
    def split(self) -> DataInput:
        """The input that is cut into mini-batches."""
        section = self.spec.find("input_data")
        text = section.get("input_data")
        if text is None:
            raise self.spec.body.error("the key 'input_data' is missing: it names the input "
                                       "to split, such as ${{inputs.images}}.")  # fmt: skip
        where = section.child("input_data")
        self.spec.check_text(where, text)
        reference = whole(text)
        if reference is None or reference.scope != "inputs":
            raise where.error(f"{text!r} is not accepted: write ${{{{inputs.NAME}}}}.")
        given = self.spec.inputs.get(reference.names[0])
        if not isinstance(given, DataInput):
            raise where.error(f"the input {reference.names[0]!r} is no data: give it a path.")
        return given

    @property
    def split_name(self) -> str:
        reference = whole(self.spec.get("input_data"))
        return "" if reference is None else reference.names[0]

    @cached_property
    def rows(self) -> Output | None:
        """The output that the rows are written to; None where none are wanted."""
        text = self.task.get("append_row_to")
        if text is None:
            return None
        where = self.task.child("append_row_to")
        self.spec.check_text(where, text)
        reference = whole(text)
        if reference is None or reference.scope != "outputs":
            raise where.error(f"{text!r} is not accepted: write ${{{{outputs.NAME}}}}.")
        [self.rows_name] = reference.names
        # Its own writing is ours, whatever the mode.
        rows = replace(self.spec.outputs[self.rows_name], is_direct=False)
        self.spec.outputs[self.rows_name] = rows
        return rows

    def config(self, compute_target: str | None) -> ParallelRunConfig:
        """Make the settings of the run.

        Raises
        ------
        ConfigError
            Names file, line and key.
        """
        script, folder = self.source
        given = {key: value for key, value in self.given.items() if key != "append_row_file_name"}
        environment = self.task.get("environment")
        try:
            return ParallelRunConfig(
                entry_script=script,
                source_directory=folder,
                output_action="summary_only" if self.rows is None else "append_row",
                compute_target=compute_target,
                environment=None if environment is None else str(environment),
                environment_variables=variables(self.spec),
                description=_text(self.spec.use.get("description")),
                **given,
            )
        except ConfigError as error:
            field = getattr(error, "field", "")
            where = self.where.get(field)
            if where is None:
                raise self.spec.use.error(error.message) from None
            said = error.message.partition("=")[2] or error.message
            raise where.error(said) from None

    def row_file(self) -> str:
        """Name of the file that the rows are shown as in their output."""
        assert self.rows is not None
        name = self.given.get("append_row_file_name", DEFAULT_ROW_FILE)
        # Without a path of its own, a file is named after the output; that has no suffix.
        is_named = self.rows.file_name not in (None, self.rows.name)
        return str(self.rows.file_name if is_named else name)


class ParallelJob(ParallelStep):
    """A parallel job as a step of a pipeline.

    Parameters
    ----------
    spec : JobSpec
    step_name : str
    store : Datastore
        Of all outputs.
    sources : Sources
        Where inputs are.
    compute_target : str or None
        Address of a scheduler.
    """

    def __init__(
        self,
        spec: JobSpec,
        step_name: str,
        store: Datastore,
        sources: Sources,
        compute_target: str | None,
    ) -> None:
        self.spec, self.job_settings, self._sources = spec, Settings(spec), sources
        super().__init__(
            step_name,
            self.job_settings.config(compute_target),
            inputs=[self.job_settings.split.url or "."],  # known when it is built
            output=StepOutput(spec.name, store, path=spec.name),
            allow_reuse=not spec.is_fresh,
            azure_compatible=True,
        )

    def needs(self) -> Iterator[StepOutput]:
        for name in sorted(self.spec.upstream()):
            yield from self._sources.steps[name].outputs

    def dataset(self) -> FileDataset | TabularDataset:
        """Open the input that is split."""
        settings = self.job_settings
        url, name = self._sources.locate(settings.split), settings.split_name
        if settings.split.type == "mltable":
            return read_mltable(url, name)
        return FileDataset(url, name=name)

    def build(
        self,
        config: ParallelRunConfig,
        values: Mapping[str, Any],
        places: Mapping[StepOutput, DataPath],
        models: Sequence[Model],
    ) -> ParallelRunStep:
        self._sources.publish(self.spec)
        self.unpublish()
        for output in self.spec.outputs.values():
            if not output.is_direct:
                output.folder.mkdir(parents=True, exist_ok=True)
        return self.prepare(config, places)

    def prepare(
        self, config: ParallelRunConfig, places: Mapping[StepOutput, DataPath]
    ) -> ParallelRunStep:
        """Make what runs, as soon as its inputs are there."""
        dataset = self.dataset()
        is_free = config.mini_batch_size is None and config.partition_keys is None
        if is_free and isinstance(dataset, FileDataset):
            config = config.with_changes(mini_batch_size=1)  # as in Azure ML
        self.inputs = [dataset]
        self._side: dict[str, FileDataset] = {}
        self.arguments = [
            found
            for word in self.job_settings.program_arguments.words
            for found in self._argument(word)
        ]
        self.side_inputs = list(self._side.values())
        return super().build(config, {}, places, ())

    def _argument(self, word: str) -> list[Any]:
        flag, mark, value = word.partition("=")
        if mark and flag.startswith("--") and self._is_side(whole(value)):
            return [flag, *self._argument(value)]
        reference = whole(word)
        if reference is not None and self._is_side(reference):
            [name] = reference.names
            given = self.spec.inputs[name]
            assert isinstance(given, DataInput)
            if name not in self._side:
                self._side[name] = FileDataset(self._sources.locate(given), name=name)
            return [self._side[name]]
        return [substitute(word, self._text)]

    def _is_side(self, reference: Reference | None) -> bool:
        """Whether it is data that every worker reads as a whole."""
        if reference is None or reference.scope != "inputs":
            return False
        given = self.spec.inputs[reference.names[0]]
        return isinstance(given, DataInput) and reference.names[0] != self.job_settings.split_name

    def _text(self, reference: Reference) -> str:
        return self._sources.text(self.spec, reference)

    # The rows, in the output that they were asked for

    @property
    def _published(self) -> Path | None:
        rows = self.job_settings.rows
        return None if rows is None else rows.folder / self.job_settings.row_file()

    def unpublish(self) -> None:
        """Take away the rows of an earlier run, which stay in the folder of the run."""
        target = self._published
        if target is not None and self._is_ours(target):
            target.unlink()

    def publish(self) -> None:
        """Show the rows of a completed run in its output; a second time does nothing.

        Raises
        ------
        WriteFailedError
            An output cannot be copied to its url.
        """
        self._show_rows()
        for output in self.spec.outputs.values():
            copy_output(output, self.spec.folder)

    def _show_rows(self) -> None:
        target, source = self._published, self.spec.folder / self.config.append_row_file_name
        if target is None or not source.exists():
            return
        if target.exists() and target.samefile(source):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
        try:
            os.link(source, fresh)
        except OSError:  # another disk, or one without links
            shutil.copy2(source, fresh)
        os.replace(fresh, target)

    def _is_ours(self, target: Path) -> bool:
        source = self.spec.folder / self.config.append_row_file_name
        with contextlib.suppress(OSError):
            return target.samefile(source) or source.stat().st_size == target.stat().st_size
        return False

    @property
    def published(self) -> str | None:
        """Where the rows are in their output."""
        if self._published is None or self.job_settings.rows is None:
            return None
        url, is_folder = self.job_settings.rows.url, self.job_settings.rows.file_name is None
        if url is None:
            return str(self._published)
        return f"{url.rstrip('/')}/{self._published.name}" if is_folder else url


def variables(spec: JobSpec) -> dict[str, str]:
    """Return the environment variables of a job, as text."""
    merged = {
        **spec.body.get("environment_variables", {}),
        **spec.use.get("environment_variables", {}),
    }
    return {str(name): str(value) for name, value in merged.items()}


def _number(setting: str, value: Any) -> Any:
    if setting in _WHOLE:
        return int(value)
    return float(value) if setting == "run_invocation_timeout" else value


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _texts(source: EntryScriptSource) -> Iterator[str]:
    for number, path in enumerate(source.files()):
        if number > _MOST_SCRIPTS:
            return
        if path.suffix == ".py" or path == source.script:
            yield path.read_text("utf-8", "replace")
