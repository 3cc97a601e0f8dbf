"""ParallelRunStep: an entry script, its inputs and its output, checked and ready to run."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskprs.arguments import as_argument, check_arguments
from daskprs.config import ParallelRunConfig
from daskprs.datasets import FileDataset, FrameDataset, as_dataset
from daskprs.entry_script import EntryScriptSource
from daskprs.exceptions import ConfigError, DaskprsError, InputNotFoundError
from daskprs.input_checks import check_inputs, first_file
from daskprs.mini_batches import Dataset, bytes_of, count_of
from daskprs.output_folder import Lock, OutputFolder
from daskprs.plan import Plan
from daskprs.redaction import Secrets
from daskprs.run import ParallelRun  # now: an import registers what nobody can register later
from daskprs.side_inputs import NamedModel, SideInput, SideModel, SidePath
from daskprs.targets import check_target

if TYPE_CHECKING:
    from daskprs.job import Argument, Job

__all__ = ["ParallelRunStep", "check_step_name"]

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SIDE_NAME = re.compile(r"[A-Za-z_][\w-]*")


class ParallelRunStep:
    """Run an entry script over all mini-batches of its inputs.

    Parameters
    ----------
    name : str
        3 to 32 lower-case letters, digits and dashes.
    parallel_run_config : ParallelRunConfig
    inputs : list
        Of `FileDataset`; or of `TabularDataset`, pandas and Dask DataFrames. Each is cut into
        mini-batches on its own.
    output : str or Path, optional
        Folder for the output file, the logs and the report; of this machine or of any store
        that fsspec opens. Required.
    side_inputs : list or mapping, optional
        Files, folders or `FileDataset` that every worker reads as a whole. One that also stands
        in `arguments` is replaced there by its local path; one of a mapping is appended to the
        arguments as ``--NAME <local path>``.
    arguments : list, optional
        For ``sys.argv`` of the script. Paths of files that exist become absolute, since the
        script runs in a folder of its own.
    allow_reuse : bool
        Take over a finished run with the same settings, script and inputs, or go on with an
        unfinished one. False starts from the beginning; what stands in the output folder is
        kept under ``*.previous``.
    storage_options : mapping, optional
        For the store of `output`; see fsspec.
    models : mapping, optional
        Names of models to their files or folders, as for `side_inputs`; a script that came from
        Azure ML finds them by ``Model.get_model_path(name)``.

    Raises
    ------
    ConfigError, EntryScriptNotUsableError

    Examples
    --------
    >>> from daskprs import FileDataset, ParallelRunConfig, ParallelRunStep
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "sizes.py").write_text('''
    ... import os
    ... def run(mini_batch):
    ...     return [f"{os.path.basename(p)} {os.path.getsize(p)}" for p in mini_batch]
    ... ''')
    >>> _ = (folder / "a.dat").write_bytes(b"1234")
    >>> config = ParallelRunConfig(entry_script=folder / "sizes.py", process_count_per_node=1)
    >>> step = ParallelRunStep(
    ...     "file-sizes", config, inputs=[FileDataset(folder / "*.dat")], output=folder / "out"
    ... )
    >>> run = step.submit()
    >>> run.wait_for_completion()
    'Completed'
    >>> pathlib.Path(run.output_file).read_text()
    'a.dat 4\\n'
    """

    def __init__(
        self,
        name: str,
        parallel_run_config: ParallelRunConfig,
        inputs: Sequence[Any],
        output: str | Path | None = None,
        side_inputs: Sequence[Any] | Mapping[str, Any] | None = None,
        arguments: Sequence[Any] | None = None,
        allow_reuse: bool = True,
        *,
        storage_options: Mapping[str, Any] | None = None,
        models: Mapping[str, Any] | Sequence[NamedModel] | None = None,
    ) -> None:
        self.name = check_step_name(name)
        if not isinstance(parallel_run_config, ParallelRunConfig):
            raise ConfigError.of("parallel_run_config", parallel_run_config, "a ParallelRunConfig")
        self.config = parallel_run_config
        check_target(parallel_run_config.compute_target)
        self.inputs = _check_inputs(inputs, parallel_run_config)
        if not isinstance(output, str | Path) or not str(output).strip():
            raise ConfigError.of("output", output, "a folder, such as 'out'")
        self.output = output
        self.storage_options = dict(storage_options or {})
        if not isinstance(allow_reuse, bool):
            raise ConfigError.of("allow_reuse", allow_reuse, "True or False")
        self.allow_reuse = allow_reuse
        self.side_inputs = _check_side_inputs(side_inputs)
        self.arguments = check_arguments(arguments)
        self.models = _check_models(models)
        self._check_script()

    def _check_script(self) -> EntryScriptSource:
        config = self.config
        outside: list[Path] = [p for d in self.inputs for p in d.local_folders()]
        folder = self._output_folder()
        if folder.local is not None:
            outside.append(folder.local)
        source = EntryScriptSource.of(config.script_path, config.source_path, tuple(outside))
        source.to_csv_options()
        return source

    def _output_folder(self) -> OutputFolder:
        seconds = self.config.progress_update_timeout
        folder = OutputFolder(self.output, self.storage_options, seconds=seconds)
        if folder.local is None and self.config.output_action == "summary_only":
            raise ConfigError.of(
                "output",
                self.secrets().hide(str(self.output)),
                "a local folder, such as 'out', where output_action='summary_only': the script "
                "writes its own files there, and a store's url is no path that it could open. Let "
                "it send them to the store by itself, or return rows with 'append_row'",
            )
        return folder

    def plan(self) -> Plan:
        """List the inputs and cut them into mini-batches; reads no data, starts nothing.

        Raises
        ------
        InputNotFoundError
        """
        try:
            return Plan.of(self.inputs, self.config)
        except DaskprsError as error:
            raise self.secrets().hide_in_error(error).with_traceback(None) from None

    def secrets(self) -> Secrets:
        """What must not stand in any message about the step."""
        named = [dataset for dataset in self.inputs if not isinstance(dataset, FrameDataset)]
        options = [self.storage_options, *(dataset.storage_options for dataset in named)]
        urls = [str(self.output), *(url for dataset in named for url in dataset.urls)]
        return Secrets(options, urls, self.config.environment_variables)

    def submit(self, *, retry_failed: bool = False) -> ParallelRun:
        """Start the run in the background.

        Parameters
        ----------
        retry_failed : bool
            Take up the last run into this output, also a finished one, and run only what has
            failed in it. The script and its arguments may have changed since; inputs and settings
            that decide mini-batches and rows may not.

        Raises
        ------
        UsageError
            An input that matches nothing, an output folder that cannot be used or is in use, a
            scheduler that cannot be reached: whatever is wrong before any work starts.
        """
        try:
            return self.start(self.make_job(retry_failed=retry_failed))
        except DaskprsError as error:
            raise self.secrets().hide_in_error(error).with_traceback(None) from None

    def make_job(
        self, *, retry_failed: bool = False, surroundings: Mapping[str, str] | None = None
    ) -> Job:
        """Check all that can be checked before any work starts; starts nothing.

        Parameters
        ----------
        surroundings : mapping, optional
            Environment variables for the script that do not make its run another one.

        Raises
        ------
        UsageError
        """
        if not isinstance(retry_failed, bool):
            raise ConfigError.of("retry_failed", retry_failed, "True or False")
        if retry_failed and not self.allow_reuse:
            raise ConfigError.of("retry_failed", True, "False where allow_reuse is False")
        source = self._check_script()
        folder = self._output_folder()
        check_inputs(self.inputs, self.config, folder)
        # Dask takes a second to import: who has mistyped something is told before.
        from daskprs.job import Job

        side, arguments = self._arguments(source)
        models = [(f"{number}-model", model) for number, model in enumerate(self.models)]
        seconds = self.config.progress_update_timeout
        side += tuple(_side_input(name, model.content, seconds) for name, model in models)
        return Job(
            name=self.name,
            config=self.config,
            inputs=self.inputs,
            source=source,
            folder=folder,
            arguments=arguments,
            side_inputs=side,
            models=tuple(SideModel(m.name, m.version, name) for name, m in models),
            surroundings=dict(surroundings or {}),
            allow_reuse=self.allow_reuse,
            retry_failed=retry_failed,
        )

    def start(self, job: Job) -> ParallelRun:
        """Start what `make_job` has made, in the background.

        Raises
        ------
        OutputError
            The output folder cannot be used, or is in use.
        """
        job.folder.make()
        lock = Lock(job.folder)
        lock.acquire()
        try:
            return ParallelRun(job, lock, self.config.compute_target)
        except BaseException:
            lock.release()
            raise

    # Arguments

    def _arguments(
        self, source: EntryScriptSource
    ) -> tuple[tuple[SideInput, ...], tuple[Argument, ...]]:
        seconds = self.config.progress_update_timeout
        side = [_side_input(name, value, seconds) for name, value, _ in self.side_inputs]
        arguments: list[Argument] = []
        for argument in self.arguments:
            same = [n for n, value, _ in self.side_inputs if _is_same(value, argument)]
            if same:
                arguments.append(SidePath(same[0]))
            elif isinstance(argument, FileDataset):
                side.append(_side_input(f"{len(arguments)}-argument", argument, seconds))
                arguments.append(SidePath(side[-1].name))
            else:
                arguments.append(as_argument(argument, source))
        for name, _, is_named in self.side_inputs:
            if is_named and SidePath(name) not in arguments:
                arguments += [f"--{name}", SidePath(name)]
        return tuple(side), tuple(arguments)

    def __repr__(self) -> str:
        return f"ParallelRunStep({self.name!r}, {self.config.script_path.name})"


def check_step_name(name: object) -> str:
    if not isinstance(name, str) or not 3 <= len(name) <= 32 or not _NAME.fullmatch(name):
        raise ConfigError.of(
            "name",
            name,
            "3 to 32 lower-case letters, digits and dashes that begin with a letter and do not "
            "end with a dash, such as 'predict-digits'",
        )
    return name


def _check_inputs(inputs: object, config: ParallelRunConfig) -> tuple[Dataset, ...]:
    accepted = "a list with at least one input, such as [FileDataset('images/*.png')]"
    if isinstance(inputs, str | bytes | Mapping) or not isinstance(inputs, Sequence) or not inputs:
        raise ConfigError.of("inputs", inputs, accepted)
    datasets = _with_names_apart([as_dataset(value) for value in inputs])
    files = [dataset for dataset in datasets if isinstance(dataset, FileDataset)]
    if files and len(files) < len(datasets):
        kinds = [type(dataset).__name__ for dataset in datasets]
        raise ConfigError.of("inputs", kinds, "either all files or all tables")
    if files:
        count_of(config.mini_batch_size)
        for dataset in files:
            missing = set(config.partition_keys or ()) - set(dataset.keys)
            if missing:
                raise ConfigError.of(
                    "partition_keys",
                    config.partition_keys,
                    "keys of the input's partition_format, such as ['user'] where that is "
                    "'{user}/{season}.wav'; this input has "
                    f"{dataset.keys or 'no partition_format'}",
                )
    else:
        bytes_of(config.mini_batch_size)
    return datasets


def _with_names_apart(datasets: Sequence[Dataset]) -> tuple[Dataset, ...]:
    """Number the names that several inputs have, since rows and mini-batches are told by them."""
    named: list[Dataset] = []
    for dataset in datasets:
        name, number = dataset.name, 1
        while any(other.name == name for other in named):
            number += 1
            name = f"{dataset.name} {number}"
        if number > 1:
            dataset = copy.copy(dataset)
            object.__setattr__(dataset, "name", name)  # one kind of them is frozen
        named.append(dataset)
    return tuple(named)


def _check_side_inputs(given: object) -> list[tuple[str, Any, bool]]:
    """Return (name, what was given, whether it has an option of its own)."""
    if given is None:
        return []
    accepted = "a list of paths, urls or FileDataset, or a dict of names to them"
    if isinstance(given, Mapping):
        named = [(name, value, True) for name, value in given.items()]
    elif isinstance(given, Sequence) and not isinstance(given, str | bytes):
        named = [(_own_name(value) or f"side{n}", value, False) for n, value in enumerate(given)]
    else:
        raise ConfigError.of("side_inputs", given, accepted)
    for name, value, _ in named:
        if not isinstance(name, str) or not _SIDE_NAME.fullmatch(name):
            raise ConfigError.of("side_inputs", name, "a name such as 'vocabulary' for each")
        if not isinstance(value, str | os.PathLike | FileDataset):
            raise ConfigError.of("side_inputs", value, accepted)
    names = [name for name, _, _ in named]
    if len(set(names)) < len(names):
        raise ConfigError.of("side_inputs", names, "inputs of different names")
    return named


def _own_name(value: object) -> str | None:
    if isinstance(value, FileDataset) and value.name != value.urls[0]:
        return value.name if _SIDE_NAME.fullmatch(value.name) else None
    return None


def _check_models(given: object) -> list[NamedModel]:
    accepted = "a dict of names to paths, urls or FileDataset, such as {'digits': 'models/digits'}"
    if given is None:
        return []
    if isinstance(given, Mapping):
        given = [NamedModel(name, 1, content) for name, content in given.items()]
    if not isinstance(given, list | tuple):
        raise ConfigError.of("models", given, accepted)
    for model in given:
        if not isinstance(model, NamedModel) or not isinstance(model.name, str) or not model.name:
            raise ConfigError.of("models", given, accepted)
        if not isinstance(model.content, str | os.PathLike | FileDataset):
            raise ConfigError.of("models", model.content, accepted)
    return list(given)


def _side_input(name: str, value: Any, seconds: float) -> SideInput:
    options = value.storage_options if isinstance(value, FileDataset) else {}
    urls = value.urls if isinstance(value, FileDataset) else (os.fspath(value),)
    if len(urls) != 1:
        raise ConfigError.of("side_inputs", value, "a FileDataset of one file, folder or glob")
    try:
        first_file(urls[0], options, seconds=seconds)
    except InputNotFoundError as error:
        raise InputNotFoundError(f"side_inputs={name!r}: {error}") from error
    return SideInput.find(name, urls[0], options)


def _is_same(side_input: Any, argument: Any) -> bool:
    """Whether an argument stands for a side input: the same object, or the same path."""
    if isinstance(side_input, FileDataset) or isinstance(argument, FileDataset):
        return side_input is argument
    return isinstance(argument, str | os.PathLike) and os.fspath(side_input) == os.fspath(argument)
