"""PipelineJob: the jobs of a file as a pipeline, and its run."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from daskprs.entry_script import WORKSPACE_MARK
from daskprs.exceptions import ConfigError, DaskprsError, UsageError
from daskprs.output_folder import Lock, OutputFolder
from daskprs.pipelines import Datastore, Pipeline, PipelineRun, Workspace
from daskprs.pipelines.command_run import CommandRun
from daskprs.plan import Plan
from daskprs.run import ParallelRun
from daskprs.targets import check_software, open_target
from daskprs.yaml_jobs.command_job import CommandJob
from daskprs.yaml_jobs.copies import check_store
from daskprs.yaml_jobs.jobs import JobFile, JobSpec
from daskprs.yaml_jobs.parallel_job import ParallelJob
from daskprs.yaml_jobs.sources import Sources

__all__ = ["JobRun", "PipelineJob"]

_WORKSPACE = Path(".daskprs", "pipeline")


class PipelineJob:
    """The jobs of a file, checked as far as they can be before any work starts.

    Parameters
    ----------
    file : JobFile
    scheduler : str, optional
        Address of a Dask scheduler; default: a cluster on this machine.

    Attributes
    ----------
    order : list of str
        Names of the jobs, in the order in which they run.

    Raises
    ------
    ConfigError
        Names file, line and key.
    """

    def __init__(self, file: JobFile, scheduler: str | None = None) -> None:
        self.file, self._scheduler = file, scheduler
        store = Datastore("outputs", str(file.folder))
        sources = Sources(file.jobs)
        names = _step_names(file.jobs)
        for name, spec in file.jobs.items():
            with _located(spec):
                sources.steps[name] = (
                    ParallelJob(spec, names[name], store, sources, scheduler)
                    if spec.kind == "parallel"
                    else CommandJob(spec, names[name], store, sources, file.folder)
                )
        self.steps = sources.steps
        try:
            # Its workspace is made when something runs.
            ordered = Pipeline(cast(Workspace, None), list(self.steps.values())).steps
        except UsageError as error:
            raise file.document.error(("jobs",), str(error)) from None
        by_step = {step: name for name, step in names.items()}
        self.order = [by_step[step.name] for step in ordered]
        for spec in file.jobs.values():
            if not spec.upstream():
                self._check_inputs(spec)

    def _check_inputs(self, spec: JobSpec) -> None:
        step = self.steps[spec.name]
        with _located(spec):
            if isinstance(step, ParallelJob):
                place = step.output.place(Datastore("outputs", str(self.file.folder)), "")
                step.prepare(step.config, {step.output: place}).make_job()
            elif isinstance(step, CommandJob):
                step.check_inputs()

    def plan(self, name: str) -> Plan | None:
        """Plan a parallel job; None for a command, and while other jobs have not written its input.

        Raises
        ------
        UsageError
        """
        step, spec = self.steps[name], self.file.jobs[name]
        if not isinstance(step, ParallelJob):
            return None
        with _located(spec):
            place = step.output.place(Datastore("outputs", str(self.file.folder)), "")
            try:
                return step.prepare(step.config, {step.output: place}).plan()
            except UsageError:
                if spec.upstream():
                    return None
                raise

    def _check_elsewhere(self) -> None:
        """Look whether the scheduler and the stores of outputs can be reached."""
        parallel = [step for step in self.steps.values() if isinstance(step, ParallelJob)]
        if self._scheduler is not None and parallel:
            with open_target(self._scheduler, parallel[0].config) as target:
                check_software(target.client)
        for spec in self.file.jobs.values():
            for output in spec.outputs.values():
                if output.url is not None:
                    with _located(spec):
                        check_store(output)

    def submit(self) -> JobRun:
        """Start the jobs, one after another, in the background.

        Raises
        ------
        UsageError
            The folder of the outputs cannot be used, or is in use; so a store of outputs, or the
            scheduler.
        """
        self._check_elsewhere()
        folder = OutputFolder(self.file.folder)
        folder.make()
        folder.write(WORKSPACE_MARK, b"Outputs of jobs that daskprs has run.\n")
        lock = Lock(folder)
        lock.acquire()
        try:
            workspace = Workspace.create(self.file.folder / _WORKSPACE, exist_ok=True)
            workspace.datastores.register("outputs", self.file.folder)
            pipeline = Pipeline(workspace, list(self.steps.values()))
            experiment = workspace.experiments["jobs"]
            run = experiment.submit(pipeline, continue_on_step_failure=self.file.goes_on)
        except BaseException:
            lock.release()
            raise
        return JobRun(self, run, lock)


class JobRun:
    """A run of the jobs of a file.

    Parameters
    ----------
    job : PipelineJob
    run : PipelineRun
    lock : Lock
        On the folder of the outputs; released at the end.
    """

    def __init__(self, job: PipelineJob, run: PipelineRun, lock: Lock) -> None:
        self.job, self.run, self._lock = job, run, lock

    def wait_for_start(self, name: str) -> ParallelRun | CommandRun | None:
        """Wait until a job has begun; None if it will not."""
        [step] = self.run.find_step_run(self.job.steps[name].name)
        return step.wait_for_start()

    def status(self, name: str) -> tuple[str, str]:
        """Tell the status of a job, and why it has failed."""
        [step] = self.run.find_step_run(self.job.steps[name].name)
        return step.status, step.message

    def cancel(self) -> None:
        self.run.cancel()

    def wait(self) -> str:
        """Wait for the end; show the rows in their outputs, and give the folder back.

        Returns
        -------
        str
            Completed, Failed or Canceled.
        """
        try:
            status = self.run.wait_for_completion(raise_on_error=False)
            for name, step in self.job.steps.items():
                if isinstance(step, ParallelJob) and self.status(name)[0] == "Completed":
                    step.publish()
        finally:
            self._lock.release()
        return status

    def outputs(self, name: str) -> list[tuple[str, str]]:
        """Tell the outputs of a parallel job, and where they are."""
        step = self.job.steps[name]
        given = self.job.file.jobs[name].outputs
        found = {key: output.url or output.path for key, output in given.items()}
        if isinstance(step, ParallelJob) and step.published is not None:
            found[step.job_settings.rows_name] = step.published
        return list(found.items())


@contextlib.contextmanager
def _located(spec: JobSpec) -> Iterator[None]:
    """Say which job an error is about."""
    try:
        yield
    except ConfigError as error:
        if getattr(error, "is_located", False):
            raise
        raise spec.use.error(str(error)) from None
    except DaskprsError as error:
        raise spec.use.error(str(error)) from None


def _step_names(names: Mapping[str, JobSpec]) -> dict[str, str]:
    """Make names of the form that steps want of the names of jobs."""
    found: dict[str, str] = {}
    for name in names:
        word = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[:28].strip("-")
        word = word if len(word) >= 3 else f"job-{word}"
        number, step = 1, word
        while step in found.values():
            number += 1
            step = f"{word}-{number}"
        found[name] = step
    return found
