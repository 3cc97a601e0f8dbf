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
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psutil

from daskprs.config import ParallelRunConfig
from daskprs.exceptions import DaskprsError, OutputError, RunCanceledError
from daskprs.pipelines.compute import ComputeTarget
from daskprs.pipelines.data import Data
from daskprs.pipelines.datastores import DataPath
from daskprs.pipelines.models import Model
from daskprs.pipelines.outputs import StepOutput
from daskprs.pipelines.records import Records
from daskprs.pipelines.reuse import EarlierSteps
from daskprs.pipelines.steps import ParallelStep
from daskprs.redaction import is_telling
from daskprs.targets import open_target, within

if TYPE_CHECKING:
    from daskprs.job import Job
    from daskprs.pipelines.pipeline import Pipeline
    from daskprs.run import ParallelRun
    from daskprs.step import ParallelRunStep

__all__ = ["Submission"]

logger = logging.getLogger(__name__)

_CHECK_SECONDS = 900.0  # the workers may install packages


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
        self._built: dict[str, ParallelRunStep] = {}
        self.runs: dict[str, ParallelRun] = {}
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

    def join(self) -> None:
        self._thread.join()

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

    def _step(self, step: ParallelStep) -> None:
        told = self.record["steps"][step.name]
        needed = [s.name for s in self.pipeline.steps if s.output in set(step.needs())]
        steps = self.record["steps"].values()
        waits = [name for name in needed if self.record["steps"][name]["status"] != "Completed"]
        failed = [one for one in steps if one["status"] in ("Failed", "Canceled")]
        if self.canceled.is_set() or waits or (failed and not self._goes_on):
            self._tell(step.name, status="Canceled", message="it was not started")
            return
        self._tell(step.name, status="Running", started=time.time())
        try:
            run = self._start(step, told["id"])
            with run as (parallel_run, job):
                status = self._wait(step, parallel_run, job)
                error = _error_of(parallel_run)
        except Exception as caught:
            built = self._built.get(step.name)
            status, error = "Failed", caught if built is None else _hidden(caught, built)
        if error is not None:
            self.error = self.error or error
        self._tell(step.name, status=status, ended=time.time(), message=_message(error))

    def _wait(self, step: ParallelStep, run: ParallelRun, job: Job) -> str:
        self.runs[step.name] = run
        if self.canceled.is_set():
            run.cancel()
        place = self._places[step.output]
        store = place.datastore.name if place.datastore is not None else None
        self._tell(step.name, output=step.output.name, datastore=store, path=place.path)
        if step.allow_reuse and not step.output.is_fixed:  # by the runs to come
            try:
                EarlierSteps(self._workspace).keep(job, place, step.output.name)
            except (DaskprsError, OSError) as error:
                logger.warning("the run of %r will not be reused: %s", step.name, error)
        status = run.wait_for_completion(raise_on_error=False)
        if status == "Completed" and step.output.register_as is not None:
            data = Data.files(place)
            self._workspace.datasets.register(data, step.output.register_as)
        return status

    @contextlib.contextmanager
    def _start(self, step: ParallelStep, run_id: str) -> Iterator[tuple[ParallelRun, Job]]:
        config = step.settings(self._values)
        target = config.compute_target
        if isinstance(target, str) and target in self._workspace.compute_targets:
            target = self._workspace.compute_targets[target]
        if not isinstance(target, ComputeTarget):
            yield self._submit(step, config, run_id)
            return
        with target.open(config) as config:
            yield self._submit(step, config, run_id)

    def _submit(
        self, step: ParallelStep, config: ParallelRunConfig, run_id: str
    ) -> tuple[ParallelRun, Job]:
        notes = self._check_environment(step, config)
        for note in notes:
            logger.warning("%s", note)
        self._tell(step.name, notes=notes)
        registered = self._workspace.models
        named = step.named_models(registered, self._values)
        models = [self._model(model) for model in (*step.models, *named)]
        fresh = step.output.place(self._workspace.datastores.default, run_id)
        surroundings = self._surroundings(step, run_id)

        def make(place: DataPath) -> tuple[ParallelRunStep, Job]:
            self._places[step.output] = place
            built = step.build(config, self._values, self._places, models)
            self._built[step.name] = built
            return built, built.make_job(surroundings=surroundings)

        built, job = make(fresh)
        earlier = None
        if step.allow_reuse and not (step.output.is_fixed or self._regenerates):
            earlier = EarlierSteps(self._workspace).find(job, fresh, step.output.name)
        if earlier is not None:
            try:
                built, job = make(earlier)
                return built.start(job), job
            except OutputError:  # somebody else was faster
                built, job = make(fresh)
        return built.start(job), job

    def _check_environment(self, step: ParallelStep, config: ParallelRunConfig) -> list[str]:
        environment = step.environment
        if environment is None or not environment.packages:
            return []
        if config.compute_target is None:
            return environment.check(None)
        with open_target(config.compute_target, config) as target:
            return within(_CHECK_SECONDS, lambda: environment.check(target.client))

    def _model(self, model: Model | str) -> Model:
        return self._workspace.models.get(model) if isinstance(model, str) else model

    def _surroundings(self, step: ParallelStep, run_id: str) -> dict[str, str]:
        config = self._workspace.config
        workspace = {
            "name": self._workspace.name,
            "subscription_id": config.get("subscription_id", ""),
            "resource_group": config.get("resource_group", ""),
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


def _error_of(run: ParallelRun) -> BaseException | None:
    try:
        run.wait_for_completion(timeout=60)
    except Exception as error:
        return error
    return None


def _hidden(error: Exception, step: ParallelRunStep) -> BaseException:
    return step.secrets().hide_in_error(error)


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
    for submission in list(_live):
        submission.join()


@functools.cache
def _wait_at_the_end() -> None:
    # What is registered last comes first: before concurrent.futures and Dask end.
    for name in ("distributed", "daskprs.run"):
        importlib.import_module(name)
    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        register(_wait_for_all)
