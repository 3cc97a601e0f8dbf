"""ScriptStep: a Python script that is run once, before or after parallel steps."""

from __future__ import annotations

import ast
import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from daskprs.exceptions import ConfigError
from daskprs.pipelines.base import Launch, Step, as_list
from daskprs.pipelines.command_run import CommandRun
from daskprs.pipelines.environments import Environment
from daskprs.pipelines.launching import check_environment
from daskprs.pipelines.opened import check_source
from daskprs.pipelines.outputs import StepOutput
from daskprs.pipelines.records import check_name
from daskprs.pipelines.script_command import ScriptCommand

__all__ = ["ScriptStep"]


class ScriptStep(Step):
    """A Python script that is run once, in a process of its own on this machine.

    Parameters
    ----------
    name : str
    script : str or Path
        Seen from `source_directory`, or from the working directory.
    arguments : list, optional
        For ``sys.argv``. Data and outputs become local paths, a parameter its value.
    inputs : list, optional
        As for `ParallelStep`, for what the script reads besides its arguments; also paths.
    outputs : list of StepOutput, optional
        Each a folder, which is there when the script begins.
    source_directory : str or Path, optional
        Whose content the script finds in its working directory; default: its folder.
    environment : Environment, optional
        The packages that this machine must have.
    environment_variables : mapping, optional
    timeout : float, optional
        Seconds after which the script is ended, and has failed.
    allow_reuse : bool
        Take over the outputs of an earlier run with the same script, arguments and inputs.
    azure_compatible : bool
        Let ``import azureml...`` mean daskprs in the script.

    Raises
    ------
    ConfigError

    Examples
    --------
    >>> from daskprs.pipelines import Pipeline, ScriptStep, StepOutput, Workspace
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "make.py").write_text(
    ...     "import pathlib, sys\\npathlib.Path(sys.argv[1], 'a.txt').write_text('abc')"
    ... )
    >>> texts = StepOutput("texts")
    >>> step = ScriptStep("make", folder / "make.py", [texts], outputs=[texts])
    >>> run = Pipeline(Workspace.create(folder / "ws"), [step]).submit("first")
    >>> run.wait_for_completion()
    'Completed'
    >>> [path] = run.find_step_run("make")[0].get_output_data("texts").download(folder / "got")
    >>> path.read_text()
    'abc'
    """

    def __init__(
        self,
        name: str,
        script: str | Path,
        arguments: Sequence[Any] | None = None,
        *,
        inputs: Sequence[Any] | None = None,
        outputs: Sequence[StepOutput] | None = None,
        source_directory: str | Path | None = None,
        environment: Environment | None = None,
        environment_variables: Mapping[str, str] | None = None,
        timeout: float | None = None,
        allow_reuse: bool = True,
        azure_compatible: bool = False,
    ) -> None:
        self.name = check_name("name", name)
        self.script, self.source_directory = _find_script(script, source_directory)
        self.arguments = as_list("arguments", arguments or ())
        if any(argument is None or "\0" in str(argument) for argument in self.arguments):
            raise ConfigError.of("arguments", self.arguments, "a list without None, such as ['1']")
        self.inputs, self.side_inputs = as_list("inputs", inputs or ()), []
        for value in self.inputs:
            check_source(value)
        self.outputs = as_list("outputs", outputs or ())
        _check_outputs(self.outputs)
        if environment is not None and not isinstance(environment, Environment):
            raise ConfigError.of("environment", environment, "an Environment")
        self._environment = environment
        self.variables = _variables(environment, environment_variables)
        if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
            raise ConfigError.of("timeout", timeout, "seconds above 0, such as 600")
        self.timeout = None if timeout is None else float(timeout)
        if not isinstance(allow_reuse, bool):
            raise ConfigError.of("allow_reuse", allow_reuse, "True or False")
        self.allow_reuse, self.azure_compatible = allow_reuse, azure_compatible
        self.models, self.after = [], []

    @property
    def environment(self) -> Environment | None:
        return self._environment

    def check_values(self, values: Mapping[str, Any]) -> None:
        """All values are accepted: they are given to the script."""

    @contextlib.contextmanager
    def start(self, launch: Launch) -> Iterator[CommandRun]:
        launch.note(check_environment(self.environment))
        command = ScriptCommand(self, launch)
        yield CommandRun(command, launch.secrets)


def _find_script(script: object, folder: object) -> tuple[Path, Path]:
    """Return the absolute paths of script and source directory."""
    if folder is not None and not isinstance(folder, str | os.PathLike):
        raise ConfigError.of("source_directory", folder, "a folder that exists, such as 'scripts'")
    base = Path(os.path.abspath(Path(folder or ".").expanduser()))
    if not base.is_dir():
        accepted = "a folder that exists, such as 'scripts'"
        raise ConfigError.of("source_directory", str(folder), accepted)
    if not isinstance(script, str | os.PathLike) or not str(script):
        raise ConfigError.of("script", script, "the path of a Python file, such as 'prepare.py'")
    path = Path(os.path.abspath(base / Path(script).expanduser()))
    if not path.is_file():
        accepted = f"the path of a Python file that exists ({path} is none), such as 'prepare.py'"
        raise ConfigError.of("script", str(script), accepted)
    if folder is not None and not path.is_relative_to(base):
        raise ConfigError.of("script", str(script), f"a path inside {base}")
    try:
        ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        where = f" (line {line})" if line else ""
        raise ConfigError(f"script={str(script)!r} does not parse: {error}{where}.") from error
    return path, path.parent if folder is None else base


def _check_outputs(outputs: list[StepOutput]) -> None:
    for output in outputs:
        if not isinstance(output, StepOutput):
            raise ConfigError.of("outputs", output, "a list of StepOutput('name')")
    names = [output.name for output in outputs]
    if len(set(names)) < len(names):
        raise ConfigError.of("outputs", names, "outputs of different names")


def _variables(environment: Environment | None, given: object) -> dict[str, str]:
    accepted = "a dict of texts, such as {'STAGE': 'test'}"
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError.of("environment_variables", given, accepted)
    found = {**(environment.variables if environment is not None else {}), **(given or {})}
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigError.of("environment_variables", name, accepted)
    return found
