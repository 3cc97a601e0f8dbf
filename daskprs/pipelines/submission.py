"""What happens in the thread of a pipeline's run: step after step, each on its compute target."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import logging
import os
import threading
import time
import uuid
import weakref
from typing import TYPE_CHECKING, Any

import psutil

from daskprs.exceptions import RunCanceledError
from daskprs.pipelines.base import Launch, Step
from daskprs.pipelines.command_run import CommandRun
from daskprs.pipelines.datastores import DataPath
from daskprs.pipelines.outputs import StepOutput
from daskprs.pipelines.records import Records
from daskprs.redaction import is_telling
from daskprs.waiting import wait_or_cancel

if TYPE_CHECKING:
    from daskprs.pipelines.pipeline import Pipeline
    from daskprs.run import ParallelRun

__all__ = ["Submission"]

logger = logging.getLogger(__name__)


class Submission:
    """A run of a pipeline that goes on in this process.

    Parameters
    ----------
    pipeline : Pipeline
    records : Records
        Those of all runs.
    record : dict
        That of this one; it is written whenever something in it has changed.
    values : dict
        Of the pipeline's parameters.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        records: Records,
        record: dict[str, Any],
        values: dict[str, Any],
        *,
        continue_on_step_failure: bool = False,
        regenerate_outputs: bool = False,
    ) -> None:
        self._regenerates = regenerate_outputs
        self.pipeline, self.record, self._records = pipeline, record, records
        self._values, self._goes_on = values, continue_on_step_failure
        self._workspace = pipeline.workspace
        self._places: dict[StepOutput, DataPath] = {}
        self.runs: dict[str, ParallelRun | CommandRun] = {}
        self.canceled, self.ended = threading.Event(), threading.Event()
        self.changed = threading.Condition()
        self.error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._work, name=f"daskprs-pipeline-{record['id'][:8]}", daemon=True
        )

    def start(self) -> None:
        _wait_at_the_end()
        _live.add(self)
        self._thread.start()

    def cancel(self) -> None:
        self.canceled.set()
        for run in list(self.runs.values()):
            run.cancel()

    # The thread

    def _work(self) -> None:
        try:
            for step in self.pipeline.steps:
                self._step(step)
        except BaseException as error:  # whoever waits has to be told
            self.error = self.error or error
            logger.debug("the run of the pipeline has failed", exc_info=True)
        finally:
            statuses = {told["status"] for told in self.record["steps"].values()}
            status = "Completed" if statuses == {"Completed"} else "Failed"
            if self.canceled.is_set() and status != "Completed":
                status = "Canceled"
            with contextlib.suppress(Exception):
                self._tell(None, status=status, ended=time.time(), message=_message(self.error))
            self.record["status"] = status
            self.ended.set()
            with self.changed:
                self.changed.notify_all()

    def _tell(self, step: str | None, **facts: Any) -> None:
        with self.changed:
            (self.record if step is None else self.record["steps"][step]).update(facts)
            record = self.record
            self._records.replace(record["experiment"], record, record["version"])
            self.changed.notify_all()

    def _step(self, step: Step) -> None:
        told = self.record["steps"][step.name]
        needs = set(step.needs())
        needed = [s.name for s in self.pipeline.steps if needs.intersection(s.outputs)]
        steps = self.record["steps"].values()
        waits = [name for name in needed if self.record["steps"][name]["status"] != "Completed"]
        failed = [one for one in steps if one["status"] in ("Failed", "Canceled")]
        if self.canceled.is_set() or waits or (failed and not self._goes_on):
            self._tell(step.name, status="Canceled", message="it was not started")
            return
        self._tell(step.name, status="Running", started=time.time())
        launch = self._launch(step, told["id"])
        try:
            with step.start(launch) as run:
                self.runs[step.name] = run
                if self.canceled.is_set():
                    run.cancel()
                self._tell_places(step)
                status = self._wait(step, run)
                error = _error_of(run)
        except Exception as caught:
            status, error = "Failed", caught
        if error is not None:
            error = launch.secrets.hide_in_error(error)
            self.error = self.error or error
        self._tell(step.name, status=status, ended=time.time(), message=_message(error))

    def _launch(self, step: Step, run_id: str) -> Launch:
        return Launch(
            workspace=self._workspace,
            values=self._values,
            places=self._places,
            run_id=run_id,
            surroundings=self._surroundings(step, run_id),
            regenerates=self._regenerates,
            note=functools.partial(self._note, step.name),
        )

    def _note(self, step: str, notes: list[str]) -> None:
        for note in notes:
            logger.warning("%s", note)
        self._tell(step, notes=notes)

    def _tell_places(self, step: Step) -> None:
        told = {}
        for output in step.outputs:
            place = self._places[output]
            store = place.datastore.name if place.datastore is not None else None
            told[output.name] = {"datastore": store, "path": place.path}
        self._tell(step.name, outputs=told)

    def _wait(self, step: Step, run: ParallelRun | CommandRun) -> str:
        status = run.wait_for_completion(raise_on_error=False)
        if isinstance(run, CommandRun):  # which has no folder to keep a report in
            self._tell(step.name, command=run.report.facts())
        for output in step.outputs if status == "Completed" else ():
            if output.register_as is not None:
                data = output.registered_data(self._places[output])
                self._workspace.datasets.register(data, output.register_as)
        return status

    def _surroundings(self, step: Step, run_id: str) -> dict[str, str]:
        workspace = {
            "subscription_id": "",
            "resource_group": "",
            **self._workspace.facts(),
        }
        run = {
            "id": run_id,
            "experiment": self.record["experiment"],
            "parent": self.record["id"],
        }
        packages = list(step.environment.packages) if step.environment is not None else []
        return {
            "DASKPRS_WORKSPACE": json.dumps(workspace),
            "DASKPRS_RUN": json.dumps(run),
            "DASKPRS_ENVIRONMENT": json.dumps(packages),
        }


def new_record(pipeline: Pipeline, values: dict[str, Any], **facts: Any) -> dict[str, Any]:
    """Describe a run that has not begun."""
    steps = {
        step.name: {"id": uuid.uuid4().hex, "status": "NotStarted", "message": ""}
        for step in pipeline.steps
    }
    process = {"pid": os.getpid(), "started": psutil.Process().create_time()}
    return {
        **facts,
        "status": "Running",
        "message": "",
        "steps": steps,
        "parameters": {
            name: "***" if is_telling(name) else repr(value) for name, value in values.items()
        },
        "process": process,
        "started": time.time(),
    }


def is_alive(process: dict[str, Any]) -> bool:
    """Say whether the process that a run was started in is there."""
    try:
        found = psutil.Process(process["pid"])
        return bool(abs(found.create_time() - process["started"]) < 1)
    except psutil.Error:
        return False


def _error_of(run: ParallelRun | CommandRun) -> BaseException | None:
    try:
        run.wait_for_completion(timeout=60)
    except Exception as error:
        return error
    return None


def _message(error: BaseException | None) -> str:
    if error is None or isinstance(error, RunCanceledError):
        return ""
    return str(error)


_live: weakref.WeakSet[Submission] = weakref.WeakSet()


def live(run_id: str) -> Submission | None:
    """Return a run that was started in this process."""
    return next((one for one in list(_live) if one.record["id"] == run_id), None)


def _wait_for_all() -> None:
    """A script that ends without waiting gets its pipelines done."""
    wait_or_cancel({submission.ended: submission.cancel for submission in list(_live)})


@functools.cache
def _wait_at_the_end() -> None:
    # What is registered last comes first: before concurrent.futures and Dask end.
    for name in ("distributed", "daskprs.run"):
        importlib.import_module(name)
    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        register(_wait_for_all)
