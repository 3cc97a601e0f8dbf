"""The command line for job files: ``daskprs run job.yml`` and ``daskprs plan job.yml``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from daskprs.cli import (
    COMPLETED,
    FAILED,
    INTERRUPTED,
    show_failure,
    show_plan,
    stop_on_signals,
    told_plainly,
)
from daskprs.exceptions import DaskprsError

if TYPE_CHECKING:
    from daskprs.yaml_jobs.pipeline_job import JobRun, PipelineJob

__all__ = ["plan_job", "run_job"]

_GOES_ON = "The same command goes on from"


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.argument("job", metavar="JOB.YML"),
        click.option("--output", metavar="FOLDER",
                     help="Folder of all outputs [beside JOB.YML: JOB.outputs]"),
        click.option("--set", "changes", multiple=True, metavar="KEY=VALUE",
                     help="Another value in the file: inputs.data.path=other"),
        click.option("--scheduler", metavar="ADDRESS", help="A Dask scheduler to run on"),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def _read(job: str, output: str | None, changes: tuple[str, ...], scheduler: str | None) -> Any:
    from daskprs.yaml_jobs.jobs import JobFile
    from daskprs.yaml_jobs.pipeline_job import PipelineJob

    return PipelineJob(JobFile.load(job, output, changes), scheduler)


@click.command(name="run")
@_options
@click.option("--quiet", is_flag=True, help="No progress, only the summary")
@click.pass_context
def run_job(ctx: click.Context, /, quiet: bool, **given: Any) -> None:
    """Run the jobs in a file of Azure ML: a parallel job, or a pipeline.

    The same command again goes on with what is unfinished, and reuses what is done.
    """
    with told_plainly():
        job = _read(**given)
        run = job.submit()
    stop_on_signals(run.cancel, _GOES_ON)
    ctx.exit(_follow(job, run, quiet))


@click.command(name="plan")
@_options
def plan_job(**given: Any) -> None:
    """Show the jobs in a file of Azure ML, in their order, and their mini-batches."""
    with told_plainly():
        job = _read(**given)
        for name in job.order:
            spec = job.file.jobs[name]
            after = sorted(spec.upstream())
            click.echo(f"{name} ({spec.kind}){', after ' if after else ''}{', '.join(after)}")
            plan = job.plan(name)
            if plan is not None:
                show_plan(plan)
            elif spec.kind == "parallel":
                click.echo("its mini-batches are known when those jobs have run")


def _follow(job: PipelineJob, run: JobRun, quiet: bool) -> int:
    """Show one job after another; return the exit code."""
    with told_plainly():
        for name in job.order:
            kind = job.file.jobs[name].kind
            started = run.wait_for_start(name)
            if started is not None:
                if not quiet:
                    click.echo(f"{name} ({kind})", err=True)
                started.wait_for_completion(show_output=not quiet, raise_on_error=False)
        status = run.wait()
    sys.stderr.flush()
    for name in job.order:
        _show(job, run, name)
    error = run.run.error
    if status == "Canceled":
        click.echo(f"Canceled. {_GOES_ON} there.", err=True)
        return INTERRUPTED
    if isinstance(error, DaskprsError):
        show_failure(error)
    elif error is not None:
        click.echo(f"Error: {type(error).__name__}: {error}", err=True)
    return COMPLETED if status == "Completed" else FAILED


def _show(job: PipelineJob, run: JobRun, name: str) -> None:
    from daskprs.pipelines.command_run import CommandReport

    started = run.wait_for_start(name)
    click.echo(f"{name} ({job.file.jobs[name].kind})")
    if started is None:
        status, message = run.status(name)
        click.echo(f"{'Status':<13} {status}: {message.splitlines()[0] if message else ''}")
        return
    report = started.report
    if isinstance(report, CommandReport):
        click.echo(str(report))
        return
    # Where the rows are shown says more than where the run has them.
    is_done = report.status == "Completed"
    for line in str(report).splitlines():
        if not (is_done and line.startswith("Output ")):
            click.echo(line)
    for output, path in run.outputs(name) if is_done else ():
        click.echo(f"{'Output':<13} {output}: {path}")
