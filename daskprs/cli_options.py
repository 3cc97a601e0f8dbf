"""The options that ``daskprs run`` and ``daskprs plan`` share, and how they are read."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import click

__all__ = [
    "FIELDS",
    "ManyUrls",
    "as_typed",
    "is_job_file",
    "pairs",
    "step_options",
    "storage_pairs",
]

# Options of the same name as the field of ParallelRunConfig: (field, type, help).
FIELDS: list[tuple[str, Any, str]] = [
    ("source_directory", str, "Folder that reaches every worker [default: that of SCRIPT]"),
    ("mini_batch_size", str, "Files: a count [10]. Tables: bytes, such as 10MB [1MB]"),
    ("error_threshold", int, "Abort when more items than this have failed; -1: never [-1]"),
    ("allowed_failed_count", int, "Abort when more mini-batches than this have failed"),
    ("allowed_failed_percent", float, "Abort when more percent of the mini-batches have failed"),
    ("output_action", str, "append_row or summary_only [append_row]"),
    ("append_row_file_name", str, "Name of the output file [parallel_run_step.txt]"),
    ("output_format", str, "text, csv, jsonl or parquet [text]"),
    ("node_count", int, "Workers of the local cluster [1]"),
    ("process_count_per_node", int, "Processes on each worker [GPUs, or else CPU cores]"),
    ("run_invocation_timeout", float, "Seconds that one call of run() may take [60]"),
    ("run_max_try", int, "How often a mini-batch is tried [3]"),
    ("memory_limit_per_process", str, "Memory of an entry process, such as 2GB"),
    ("init_timeout", float, "Seconds that init() may take [600]"),
    ("first_task_creation_timeout", float, "Seconds to wait for a first worker [600]"),
    ("progress_update_timeout", float, "Seconds to wait for any sign of progress [1800]"),
    ("logging_level", str, "WARNING, INFO or DEBUG [INFO]"),
    ("environment", str, "Kept for the report"),
    ("description", str, "Kept for the report"),
]


_JOB_FILES = (".yml", ".yaml")

# Options that have another name than the parameter that they set.
_OTHER_NAMES = {
    "entry_script": "SCRIPT",
    "partition_keys": "--partition-keys",
    "partition_format": "--partition-format",
    "compute_target": "--scheduler",
    "environment_variables": "--env",
    "reader_options": "--reader-option",
    "side_inputs": "--side-input",
    "format": "--format",
    "name": "--name",
    "output": "--output",
}


def as_typed(message: str, urls: str = "--files or --tabular") -> str:
    """Name the options as they were typed; `urls` is the one that has the inputs."""
    names = {name: f"--{name.replace('_', '-')}" for name, _, _ in FIELDS} | _OTHER_NAMES
    names["urls"] = urls
    message = message.replace("None, a distributed.Client, a Dask cluster object, or ", "")
    field, mark, rest = message.partition("=")
    if mark and field in names:
        message = f"{names[field]}{mark}{rest}"
    message = message.replace(" and partition_keys=", " and --partition-keys=")
    return message.replace("retry_failed", "--retry-failed")


def is_job_file(words: list[str]) -> bool:
    """Say whether what is to be run is a job file: the first word, or one among its options."""
    head = words[: words.index("--")] if "--" in words else words
    if head and not head[0].startswith("-"):
        return head[0].lower().endswith(_JOB_FILES)
    is_of_script = {"--files", "--tabular"} & {word.partition("=")[0] for word in head}
    return not is_of_script and any(word.lower().endswith(_JOB_FILES) for word in head)


def pairs(option: str, form: str = "NAME=VALUE") -> Callable[..., dict[str, str]]:
    """Make the reader of an option ``NAME=VALUE`` that can be given many times."""

    def parse(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
        found = {}
        for text in given:
            name, mark, value = text.partition("=")
            if not mark or not name:
                raise click.UsageError(f"{option} {text!r} is not of the form {form}")
            found[name] = value
        return found

    return parse


def storage_pairs(
    ctx: click.Context, param: click.Parameter, given: tuple[str, ...]
) -> dict[str, Any]:
    """Read ``--storage-option``: true, false and objects of JSON are that, all else is text."""
    return {n: _typed(text) for n, text in pairs("--storage-option")(ctx, param, given).items()}


def _typed(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.startswith("{"):
        with contextlib.suppress(ValueError):
            return json.loads(text)
    return text


class ManyUrls(click.Command):
    """Lets ``--files`` and ``--tabular`` take all words up to the next option."""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["SCRIPT", self.options_metavar or ""]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        head, rest = args, []
        if "--" in args:
            cut = args.index("--")
            head, rest = args[:cut], args[cut + 1 :]
        ctx.meta["arguments"] = rest
        self._refuse_repeated(ctx, head)
        try:
            return super().parse_args(ctx, self._one_url_an_option(ctx, head))
        except click.MissingParameter as error:
            if error.param is None or error.param.name != "script":
                raise
            raise click.UsageError(
                "SCRIPT is missing: put it first, before --files or --tabular takes it for a URL",
                ctx,
            ) from None
        except click.NoSuchOption as error:
            if "--" in args:
                raise
            hint = "Arguments of SCRIPT go after --."
            raise click.UsageError(f"{error.format_message()} {hint}", ctx) from None
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def _refuse_repeated(self, ctx: click.Context, given: list[str]) -> None:
        words = Counter(word.partition("=")[0] for word in given)
        for param in self.params:
            times = sum(words[name] for name in param.opts if name.startswith("--"))
            if times > 1 and isinstance(param, click.Option) and not param.multiple:
                raise click.UsageError(f"{param.opts[0]} is given {times} times: give one", ctx)

    def _one_url_an_option(self, ctx: click.Context, given: list[str]) -> list[str]:
        words, option, is_waiting = [], "", False
        for word in given:
            if not word.startswith("--") and word != "-h":
                words += [option, word] if option else [word]
                is_waiting = False
                continue
            if is_waiting:
                break
            name, mark, value = word.partition("=")
            option = name if name in ("--files", "--tabular") else ""
            is_waiting = bool(option) and not mark
            if not option:
                words.append(word)
            elif mark:
                words += [option, value]
        if is_waiting:
            raise click.UsageError(f"{option} needs at least one URL", ctx)
        return words


def step_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that ``run`` and ``plan`` share."""
    for name, kind, text in reversed(FIELDS):
        command = click.option(f"--{name.replace('_', '-')}", name, type=kind, help=text)(command)
    options = [
        click.argument("script"),
        click.option("--files", multiple=True, metavar="URL...",
                     help="Files, globs or folders: a mini-batch is a list of paths"),
        click.option("--tabular", multiple=True, metavar="URL...",
                     help="Tables (csv, tsv, jsonl, parquet): a mini-batch is a DataFrame"),
        click.option("--output", metavar="URL", help="Folder of the output file, logs and report"),
        click.option("--name", default=None, help="Name of the run [from the script's name]"),
        click.option("--partition-keys", help="One mini-batch for each combination: a,b"),
        click.option("--partition-format", help="Keys in the paths: {user}/{season}.csv"),
        click.option("--format", "format_", help="Format of tables without a telling suffix"),
        click.option("--reader-option", "reader_options", multiple=True, metavar="NAME=VALUE",
                     callback=pairs("--reader-option"),
                     help="For pandas.read_csv, ...; VALUE may be JSON, as in sep=;"),
        click.option("--storage-option", "storage_options", multiple=True, metavar="NAME=VALUE",
                     callback=storage_pairs,
                     help="For the store, see fsspec; true, false and {...} as in JSON"),
        click.option("--side-input", "side_inputs", multiple=True, metavar="NAME=URL",
                     callback=pairs("--side-input", "NAME=URL"),
                     help="The script gets --NAME <local path>"),
        click.option("--env", multiple=True, metavar="NAME=VALUE", callback=pairs("--env"),
                     help="Environment variable of the script"),
        click.option("--ordered", is_flag=True, help="Write the rows in input order"),
        click.option("--split-failed-mini-batches", is_flag=True,
                     help="Halve mini-batches that fail until the bad items stand alone"),
        click.option("--scheduler", metavar="ADDRESS", help="A Dask scheduler to run on"),
        click.option("--no-reuse", is_flag=True, help="Start from the beginning in any case"),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command
