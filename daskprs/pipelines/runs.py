"""Experiments, and the runs of pipelines in them: live ones, and those that are written down."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from daskprs.exceptions import UsageError
from daskprs.pipelines.command_run import CommandRun
from daskprs.pipelines.records import Records, check_name
from daskprs.pipelines.step_runs import StepRun
from daskprs.pipelines.submission import Submission, is_alive, live, new_record
from daskprs.waiting import wait_for, wait_until

if TYPE_CHECKING:
    from daskprs.pipelines.pipeline import Pipeline
    from daskprs.pipelines.workspace import Workspace
    from daskprs.run import ParallelRun

__all__ = ["Experiment", "Experiments", "PipelineRun"]

_ENDED = ("Completed", "Failed", "Canceled", "Interrupted")


class Experiment:
    """A name for the runs that belong together.

    Parameters
    ----------
    workspace : Workspace
    name : str
    """

    def __init__(self, workspace: Workspace, name: str) -> None:
        self.workspace, self.name = workspace, check_name("name", name)
        self._records = Records(workspace.folder, "runs")

    def submit(
        self,
        pipeline: Pipeline,
        parameters: Mapping[str, Any] | None = None,
        *,
        tags: Mapping[str, str] | None = None,
        continue_on_step_failure: bool = False,
        regenerate_outputs: bool = False,
    ) -> PipelineRun:
        """Start a run in the background; the same pipeline can be submitted again.

        Parameters
        ----------
        parameters : mapping, optional
            Values for parameters of the pipeline; the others have their default values.
        continue_on_step_failure : bool
            Also run steps that do not need those that have failed.
        regenerate_outputs : bool
            Take over nothing of earlier runs.

        Raises
        ------
        UsageError
            No such parameter, or a value that is not accepted.
        """
        values = pipeline.values(parameters)
        for step in pipeline.steps:
            step.check_values(values)
        wrong = pipeline.validate()
        if wrong:
            raise UsageError("; ".join(wrong) + ".")
        record = new_record(pipeline, values, experiment=self.name, tags=dict(tags or {}))
        record = self._records.add(self.name, record)
        submission = Submission(
            pipeline,
            self._records,
            record,
            values,
            continue_on_step_failure=continue_on_step_failure,
            regenerate_outputs=regenerate_outputs,
        )
        submission.start()
        return PipelineRun(self, record, submission)

    def runs(self) -> list[PipelineRun]:
        """Return all runs, the latest first."""
        numbers = reversed(self._records.all().get(self.name, []))
        records = [self._records.read(self.name, number) for number in numbers]
        return [PipelineRun(self, record, live(record["id"])) for record in records if record]

    def run(self, run_id: str) -> PipelineRun:
        """Return a run by its id.

        Raises
        ------
        UsageError
        """
        for run in self.runs():
            if run.id == run_id:
                return run
        raise UsageError(f"the experiment {self.name!r} has no run {run_id!r}.")

    def __repr__(self) -> str:
        return f"Experiment({self.name!r})"


class Experiments(Mapping[str, Experiment]):
    """The experiments of a workspace, by name; one is there as soon as it is asked for.

    Parameters
    ----------
    workspace : Workspace
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._records = Records(workspace.folder, "runs")

    def __getitem__(self, name: str) -> Experiment:
        return Experiment(self._workspace, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._records.all())

    def __len__(self) -> int:
        return len(self._records.all())


class PipelineRun:
    """A run of a pipeline; `Experiment.submit` makes it.

    Attributes
    ----------
    id : str
    experiment : Experiment
    status : str
        Running, Completed, Failed, Canceled, or Interrupted (its process is gone).
    """

    def __init__(
        self, experiment: Experiment, record: dict[str, Any], submission: Submission | None
    ) -> None:
        self.experiment, self._record, self._live = experiment, record, submission

    @property
    def id(self) -> str:
        return str(self._record["id"])

    @property
    def record(self) -> dict[str, Any]:
        """What is written down about the run."""
        if self._live is None and self._record["status"] not in _ENDED:
            records = Records(self.experiment.workspace.folder, "runs")
            read = records.read(self.experiment.name, self._record["version"])
            self._record = read or self._record
        return self._record

    @property
    def status(self) -> str:
        status = str(self.record["status"])
        if self._live is None and status not in _ENDED and not is_alive(self.record["process"]):
            return "Interrupted"
        return status

    @property
    def message(self) -> str:
        """Why the run has failed."""
        return str(self.record["message"])

    @property
    def error(self) -> BaseException | None:
        """What made the run fail, in the process that has started it."""
        return None if self._live is None else self._live.error

    def steps(self) -> list[StepRun]:
        """Return the runs of its steps, in their order."""
        return [StepRun(self, name) for name in self.record["steps"]]

    def find_step_run(self, name: str) -> list[StepRun]:
        """Return the runs of the step with a name: one, or none."""
        return [step for step in self.steps() if step.name == name]

    def cancel(self) -> None:
        """Stop the run: what is done is kept.

        Raises
        ------
        UsageError
            It was started by another process.
        """
        if self._live is None and self.status not in _ENDED:
            raise UsageError("the run goes on in another process: cancel it there.")
        if self._live is not None:
            self._live.cancel()

    def wait_for_completion(
        self, show_output: bool = False, timeout: float | None = None, raise_on_error: bool = True
    ) -> str:
        """Wait until the run has ended.

        Parameters
        ----------
        show_output : bool
            Show the progress of each step, in a terminal or a notebook.
        timeout : float, optional
            Seconds to wait at most; the run goes on.
        raise_on_error : bool
            Raise what made the run fail; False only returns the status.

        Returns
        -------
        str
            The status.

        Raises
        ------
        RunFailedError, UsageError
        TimeoutError

        Notes
        -----
        Ctrl-C while waiting cancels the run.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            if show_output:
                self._show(deadline)
            self._wait(deadline)
        except KeyboardInterrupt:
            if self._live is not None:
                self._live.cancel()
                wait_for(self._live.ended, 60)
            raise
        if self.error is not None and raise_on_error:
            raise self.error.with_traceback(None) from None
        if self.status != "Completed" and self._live is None and raise_on_error:
            raise UsageError(f"the run is {self.status}: {self.message}")
        return self.status

    def _show(self, deadline: float | None) -> None:
        for step in self.steps():
            run = step.wait_for_start(deadline)
            if run is not None:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                run.wait_for_completion(show_output=True, timeout=left, raise_on_error=False)

    def _wait(self, deadline: float | None) -> None:
        if self._live is not None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ended = wait_for(self._live.ended, left)
        else:
            while not (ended := self.status in _ENDED):
                if deadline is not None and time.monotonic() > deadline:
                    break
                time.sleep(0.5)
        if not ended:
            raise TimeoutError(f"the run {self.id} has not ended in time; it goes on.")

    def live_run(self, step: str, deadline: float | None) -> ParallelRun | CommandRun | None:
        """Wait until a step has begun or will not; only in the process that has started it."""
        submission = self._live
        if submission is None:
            return None
        with submission.changed:
            wait_until(
                lambda seconds: submission.changed.wait_for(
                    lambda: step in submission.runs or submission.ended.is_set()
                    or submission.record["steps"][step]["status"] in _ENDED,
                    seconds,
                ),
                None if deadline is None else max(0.0, deadline - time.monotonic()),
            )  # fmt: skip
        return submission.runs.get(step)

    def __repr__(self) -> str:
        return f"PipelineRun({self.experiment.name!r}, {self.id}, {self.status})"

    def _repr_html_(self) -> str:
        return "".join(step.report._repr_html_() for step in self.steps() if step.has_report)
