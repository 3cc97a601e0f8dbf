"""How a parallel step starts: on its compute target, and where an earlier run of it was."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from daskprs.config import ParallelRunConfig
from daskprs.exceptions import DaskprsError, OutputError
from daskprs.pipelines.base import Launch
from daskprs.pipelines.compute import ComputeTarget
from daskprs.pipelines.datastores import DataPath
from daskprs.pipelines.environments import Environment
from daskprs.pipelines.models import Model
from daskprs.pipelines.reuse import EarlierSteps
from daskprs.targets import open_target, within

if TYPE_CHECKING:
    from daskprs.job import Job
    from daskprs.pipelines.steps import ParallelStep
    from daskprs.run import ParallelRun
    from daskprs.step import ParallelRunStep

__all__ = ["check_environment", "start_parallel"]

logger = logging.getLogger(__name__)

_CHECK_SECONDS = 900.0  # the workers may install packages


@contextlib.contextmanager
def start_parallel(step: ParallelStep, launch: Launch) -> Iterator[ParallelRun]:
    """Start a parallel step in the background; a cluster that is made for it ends with it.

    Raises
    ------
    UsageError
    """
    config = step.settings(launch.values)
    target = config.compute_target
    if isinstance(target, str) and target in launch.workspace.compute_targets:
        target = launch.workspace.compute_targets[target]
    with contextlib.ExitStack() as stack:
        if isinstance(target, ComputeTarget):
            config = stack.enter_context(target.open(config))
        run, job = _submit(step, config, launch)
        if step.allow_reuse and not step.output.is_fixed:  # by the runs to come
            _keep(step, job, launch)
        yield run


def _submit(
    step: ParallelStep, config: ParallelRunConfig, launch: Launch
) -> tuple[ParallelRun, Job]:
    launch.note(check_environment(step.environment, config))
    registered = launch.workspace.models
    named = step.named_models(registered, launch.values)
    models = [_model(model, launch) for model in (*step.models, *named)]
    fresh = step.output.place(launch.workspace.datastores.default, launch.run_id)

    def make(place: DataPath) -> tuple[ParallelRunStep, Job]:
        launch.places[step.output] = place
        built = step.build(config, launch.values, launch.places, models)
        launch.secrets = built.secrets()
        return built, built.make_job(surroundings=launch.surroundings)

    built, job = make(fresh)
    earlier = None
    if step.allow_reuse and not (step.output.is_fixed or launch.regenerates):
        earlier = EarlierSteps(launch.workspace).find(job, fresh, step.output.name)
    if earlier is not None:
        try:
            built, job = make(earlier)
            return built.start(job), job
        except OutputError:  # somebody else was faster
            built, job = make(fresh)
    return built.start(job), job


def _keep(step: ParallelStep, job: Job, launch: Launch) -> None:
    try:
        place = launch.places[step.output]
        EarlierSteps(launch.workspace).keep(job, place, step.output.name)
    except (DaskprsError, OSError) as error:
        logger.warning("the run of %r will not be reused: %s", step.name, error)


def check_environment(
    environment: Environment | None, config: ParallelRunConfig | None = None
) -> list[str]:
    """Look for the packages of an environment where a step runs; without settings, here.

    Returns
    -------
    list of str
        What a person should know.

    Raises
    ------
    TargetError
        One is lacking.
    """
    if environment is None or not environment.packages:
        return []
    if config is None or config.compute_target is None:
        return environment.check(None)
    with open_target(config.compute_target, config) as target:
        return within(_CHECK_SECONDS, lambda: environment.check(target.client))


def _model(model: Model | str, launch: Launch) -> Model:
    return launch.workspace.models.get(model) if isinstance(model, str) else model
