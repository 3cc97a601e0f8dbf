"""The command line: ``daskprs run | plan | report``; of a job file, see `cli_jobs`.

Exit codes: 0 completed, 1 failed, 2 wrong usage (nothing was started), 130 interrupted.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from daskprs._version import __version__
from daskprs.cli_options import FIELDS, ManyUrls, as_typed, is_job_file, step_options, storage_pairs
from daskprs.exceptions import DaskprsError, RunCanceledError, UsageError

if TYPE_CHECKING:
    from daskprs.config import ParallelRunConfig
    from daskprs.plan import Plan
    from daskprs.run import ParallelRun
    from daskprs.step import ParallelRunStep

__all__ = ["main"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # would break a line of a table
COMPLETED, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

# Parameters of TabularDataset that have options of their own here.
_NOT_FOR_READERS = {"urls", "format", "storage_options", "partition_format", "name"}


class _Failed(click.ClickException):
    """An error of ours, as a few lines without a traceback."""

    exit_code = FAILED

    def show(self, file: Any = None) -> None:
        click.echo(f"Error: {self.message}", err=True)


class _WrongUsage(_Failed):
    exit_code = USAGE


class _Interrupted(_Failed):
    exit_code = INTERRUPTED


@contextlib.contextmanager
def told_plainly(urls: str = "") -> Iterator[None]:
    """Tell what is wrong before any work starts in a line or two."""
    try:
        yield
    except UsageError as error:
        raise _WrongUsage(as_typed(str(error), urls)) from None
    except RunCanceledError as error:
        raise _Interrupted(str(error)) from None
    except DaskprsError as error:
        raise _Failed(str(error)) from None
    except OSError as error:
        raise _WrongUsage(f"{type(error).__name__}: {error}") from None


class _Commands(click.Group):
    """Takes ``run`` and ``plan`` of a job file for commands of their own."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] in ("run", "plan") and is_job_file(args[1:]):
            from daskprs.cli_jobs import plan_job, run_job

            return args[0], run_job if args[0] == "run" else plan_job, args[1:]
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="daskprs")
def commands() -> None:
    """Run an entry script with init() and run(mini_batch) over files or tables, on Dask."""


def main() -> None:
    """Run a command; what is wrong is said in a line or two, without the whole usage."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who has started this
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        # A file name, or an error of a script, need not be text that the terminal can show.
        getattr(sys, name).reconfigure(errors="backslashreplace")
    # Until a run waits for its end, SIGTERM ends the command as Ctrl-C does.
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt_early)
    try:
        code = commands.main(prog_name="daskprs", standalone_mode=False)
    except click.UsageError as error:
        _WrongUsage(error.format_message()).show()
        where = error.ctx.command_path if error.ctx is not None else "daskprs"
        click.echo(f"Try '{where} --help'.", err=True)
        sys.exit(USAGE)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        # Ctrl-C may have come in the moment between the start of a run and the wait for it.
        run = sys.modules.get("daskprs.run")
        if run is not None and run.cancel_all():
            click.echo("Canceled. The same command goes on from what is written.", err=True)
        else:
            click.echo("Canceled before any work started.", err=True)
        sys.exit(INTERRUPTED)
    gc.freeze()  # else a fifth of a second goes by in looking for garbage when the process ends
    sys.exit(code if isinstance(code, int) else COMPLETED)


@commands.command(
    cls=ManyUrls,
    name="run",
    options_metavar="(--files URL... | --tabular URL...) --output URL [OPTIONS] [-- ARGS...]",
)
@step_options
@click.option(
    "--retry-failed", is_flag=True, help="Run only what has failed in the last run into OUTPUT"
)
@click.option("--quiet", is_flag=True, help="No progress, only the summary")
@click.pass_context
def run_command(ctx: click.Context, /, quiet: bool, retry_failed: bool, **options: Any) -> None:
    """Run SCRIPT over all mini-batches; words after -- are its arguments.

    If SCRIPT is a job file of Azure ML, job.yml, then its jobs: see daskprs run job.yml --help.

    The same command again goes on with an unfinished run, or reuses a finished one; with
    --retry-failed it runs again what has failed in it.
    """
    urls = _option_of_inputs(ctx, options)
    if not options["output"]:
        raise click.UsageError("--output is missing: give a folder, such as --output out", ctx)
    if retry_failed and options["no_reuse"]:
        raise click.UsageError("--retry-failed and --no-reuse exclude each other", ctx)
    with told_plainly(urls):
        step = _make_step(ctx, options)
        run = step.submit(retry_failed=retry_failed)
    same = "The same command without --no-reuse" if options["no_reuse"] else "The same command"
    ctx.exit(_wait(run, quiet, f"{same} goes on from"))


@commands.command(
    cls=ManyUrls,
    name="plan",
    options_metavar="(--files URL... | --tabular URL...) [OPTIONS] [-- ARGS...]",
)
@step_options
@click.pass_context
def plan_command(ctx: click.Context, /, **options: Any) -> None:
    """Show the mini-batches that would run; reads no data."""
    options["output"] = options["output"] or "out"
    with told_plainly(_option_of_inputs(ctx, options)):
        plan = _make_step(ctx, options).plan()
    show_plan(plan)


def show_plan(plan: Plan) -> None:
    click.echo("mini-batch\titems\tbytes\tinput")
    for row in plan.rows():
        # As bytes: a file name need not be text that the terminal can show.
        cells = (_CONTROL.sub(lambda found: repr(found[0])[1:-1], cell) for cell in row)
        click.echo("\t".join(cells).encode("utf-8", "surrogateescape"))
    click.echo(plan.summary)


@commands.command(name="report")
@click.argument("output")
@click.option("--json", "as_json", is_flag=True, help="All of it, for programs")
@click.option("--storage-option", "storage_options", multiple=True, metavar="NAME=VALUE",
              callback=storage_pairs, help="For the store, see fsspec")  # fmt: skip
def report_command(output: str, as_json: bool, storage_options: dict[str, Any]) -> None:
    """Show what the last run into the folder OUTPUT did."""
    from daskprs.output_folder import OutputFolder
    from daskprs.report import read_report

    with told_plainly():
        report = read_report(OutputFolder(output, storage_options))
    click.echo(report.to_json() if as_json else str(report))


def _option_of_inputs(ctx: click.Context, options: dict[str, Any]) -> str:
    files, tabular = options["files"], options["tabular"]
    if bool(files) == bool(tabular):
        wrong = "exclude each other" if files else "are both missing"
        raise click.UsageError(
            f"--files and --tabular {wrong}: give one of them, such as --files 'images/*.png'", ctx
        )
    for name, option in (("reader_options", "--reader-option"), ("format_", "--format")):
        if files and options[name]:
            raise click.UsageError(f"{option} is for --tabular only", ctx)
    return "--files" if files else "--tabular"


def _make_step(ctx: click.Context, options: dict[str, Any]) -> ParallelRunStep:
    files, tabular = options["files"], options["tabular"]
    config = _make_config(options)
    from daskprs.entry_script import check_script

    check_script(config.script_path)
    from daskprs.datasets import FileDataset, TabularDataset
    from daskprs.step import ParallelRunStep

    shared = {
        "storage_options": options["storage_options"],
        "partition_format": options["partition_format"],
    }
    dataset: FileDataset | TabularDataset
    if files:
        dataset = FileDataset(list(files), **shared)
    else:
        reader = {name: _value(text) for name, text in options["reader_options"].items()}
        for name in _NOT_FOR_READERS.intersection(reader):
            raise click.UsageError(f"--reader-option {name} is no option of a pandas reader", ctx)
        dataset = TabularDataset(list(tabular), format=options["format_"], **shared, **reader)
    return ParallelRunStep(
        name=_name_of(config.script_path.stem) if options["name"] is None else options["name"],
        parallel_run_config=config,
        inputs=[dataset],
        output=options["output"],
        side_inputs=_side_inputs(options["side_inputs"], options["storage_options"]),
        arguments=ctx.meta["arguments"],
        allow_reuse=not options["no_reuse"],
        storage_options=options["storage_options"],
    )


def _side_inputs(urls: dict[str, str], storage_options: dict[str, Any]) -> dict[str, Any] | None:
    if not storage_options:
        return urls or None
    from daskprs.datasets import FileDataset

    return {n: FileDataset(url, storage_options=storage_options) for n, url in urls.items()} or None


def _make_config(options: dict[str, Any]) -> ParallelRunConfig:
    from daskprs.config import ParallelRunConfig

    given = {name: options[name] for name, _, _ in FIELDS if options[name] is not None}
    if options["partition_keys"] is not None:
        given["partition_keys"] = [key.strip() for key in options["partition_keys"].split(",")]
    return ParallelRunConfig(
        entry_script=options["script"],
        environment_variables=options["env"],
        compute_target=options["scheduler"],
        ordered=options["ordered"],
        split_failed_mini_batches=options["split_failed_mini_batches"],
        **given,
    )


def _name_of(stem: str) -> str:
    """Make a name of the form that a step wants of a file's name."""
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in stem.lower()).strip("-")
    while name and not name[0].isalpha():
        name = name[1:]
    name = name[:32].strip("-")
    return name if len(name) >= 3 else f"run-{name}".strip("-")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


_interrupted: list[int] = []


def _interrupt_early(number: int, frame: Any) -> None:
    _interrupted.append(number)
    raise KeyboardInterrupt


def stop_on_signals(cancel: Callable[[], None], goes_on: str) -> None:
    """Have the first Ctrl-C stop cleanly, and the second at once.

    Raises
    ------
    KeyboardInterrupt
        One came before: Python has lost it, as it does in the middle of an import.
    """
    if _interrupted:
        raise KeyboardInterrupt
    presses = 0

    def interrupt(number: int, frame: Any) -> None:
        nonlocal presses
        presses += 1
        if presses > 1:
            _say_from_a_signal(f"Stopped at once. {goes_on} what is written.")
            os._exit(INTERRUPTED)
        click.echo("Stopping; what is done is kept. Ctrl-C again stops at once.", err=True)
        cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)


def show_failure(error: DaskprsError) -> None:
    """Show what made a run fail: the user's own traceback first."""
    script_traceback = getattr(error, "script_traceback", "")
    if script_traceback:
        click.echo(f"{script_traceback.rstrip()}\n", err=True)
    _Failed(error.message).show()


def _say_from_a_signal(text: str) -> None:
    # A stream refuses to be written to in the middle of its own writing.
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode())


def _wait(run: ParallelRun, quiet: bool, goes_on: str) -> int:
    stop_on_signals(run.cancel, goes_on)
    with told_plainly():
        try:
            run.wait_for_completion(show_output=not quiet)
        except RunCanceledError:
            click.echo(str(run.report))
            click.echo(f"Canceled. {goes_on} there.", err=True)
            return INTERRUPTED
        except UsageError:
            raise
        except DaskprsError as error:
            show_failure(error)
            click.echo(str(run.report))
            return FAILED
    sys.stderr.flush()
    click.echo(str(run.report))
    return COMPLETED
