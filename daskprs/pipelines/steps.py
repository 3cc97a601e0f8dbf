"""ParallelStep: an entry script over the inputs that a pipeline gives it."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskprs.config import ParallelRunConfig
from daskprs.entry_script import EntryScriptSource
from daskprs.exceptions import ConfigError
from daskprs.pipelines.base import Launch, NamedInput, Step, as_list, source_of
from daskprs.pipelines.compute import ComputeTarget
from daskprs.pipelines.datastores import DataPath
from daskprs.pipelines.environments import Environment
from daskprs.pipelines.launching import start_parallel
from daskprs.pipelines.models import Model
from daskprs.pipelines.opened import Opened, check_source
from daskprs.pipelines.outputs import StepOutput
from daskprs.pipelines.parameters import PipelineParameter, value_of
from daskprs.step import ParallelRunStep, check_step_name
from daskprs.targets import check_target

if TYPE_CHECKING:
    from daskprs.run import ParallelRun

__all__ = ["NamedInput", "ParallelStep"]

_WHOLE_NUMBERS = ("node_count", "process_count_per_node", "run_max_try", "run_invocation_timeout")
_PARAMETERS = (*_WHOLE_NUMBERS, "mini_batch_size", "logging_level", "partition_keys")
_MODEL = "Model"  # the class of azureml.core that finds models
_QUOTED = re.compile(r"""["']([^"'\n]{1,100})["']""")
_MOST_FILES = 2000
# Options that Azure ML adds to those of the script.
_FLAGS = ("logging_level", "partition_keys", "output", "mini_batch_size", "error_threshold",
          "output_action", "append_row_file_name", "run_invocation_timeout", "run_max_try",
          "process_count_per_node")  # fmt: skip


class ParallelStep(Step):
    """An entry script over the inputs that a pipeline gives it.

    Parameters
    ----------
    name : str
        As for `daskprs.ParallelRunStep`.
    config : ParallelRunConfig
        Its `compute_target` may be a `ComputeTarget`, its `environment` an `Environment`.
    inputs : list
        Of `Data`, of outputs of other steps, of what `daskprs.ParallelRunStep` takes, of
        parameters with such values, or of these as `NamedInput`.
    output : StepOutput, optional
    side_inputs : list, optional
        As `inputs`, for what every worker reads as a whole.
    arguments : list, optional
        For ``sys.argv`` of the script. Data become the local path, an output its folder, a
        parameter its value.
    allow_reuse : bool
        Take over a finished run with the same settings, script and inputs, or go on with an
        unfinished one.
    models : list, optional
        Models, or their names in the workspace.
    parameters : mapping, optional
        Settings of `config` that are given at submission: their names to parameters.
    azure_compatible : bool
        Give the script what Azure ML would without being asked: the options that it adds, and the
        models of the workspace; of both, those that the script or the arguments name.

    Raises
    ------
    ConfigError

    Examples
    --------
    >>> from daskprs import ParallelRunConfig
    >>> from daskprs.pipelines import Data, ParallelStep, PipelineParameter, StepOutput
    >>> import pathlib, tempfile
    >>> script = pathlib.Path(tempfile.mkdtemp(), "score.py")
    >>> _ = script.write_text("def run(mini_batch): return mini_batch")
    >>> ParallelStep(
    ...     "score",
    ...     ParallelRunConfig(entry_script=script),
    ...     inputs=[Data.files("images")],
    ...     output=StepOutput("scores"),
    ...     parameters={"mini_batch_size": PipelineParameter("size", 5)},
    ... )
    ParallelStep('score')
    """

    def __init__(
        self,
        name: str,
        config: ParallelRunConfig,
        inputs: Sequence[Any],
        output: StepOutput | None = None,
        *,
        side_inputs: Sequence[Any] | None = None,
        arguments: Sequence[Any] | None = None,
        allow_reuse: bool = True,
        models: Sequence[Model | str] | None = None,
        parameters: Mapping[str, PipelineParameter] | None = None,
        azure_compatible: bool = False,
    ) -> None:
        self.name = check_step_name(name)
        if not isinstance(config, ParallelRunConfig):
            raise ConfigError.of("parallel_run_config", config, "a ParallelRunConfig")
        self.config, self.parameters = config, dict(parameters or {})
        if not set(self.parameters) <= set(_PARAMETERS):
            raise ConfigError.of("parameters", list(self.parameters), f"some of {_PARAMETERS}")
        self.settings({})  # with the default values
        if not isinstance(config.compute_target, ComputeTarget | str):
            check_target(config.compute_target)
        self.inputs = as_list("inputs", inputs)
        if not self.inputs:
            raise ConfigError.of("inputs", inputs, "a list with at least one input")
        self.side_inputs = as_list("side_inputs", side_inputs or ())
        self.arguments = as_list("arguments", arguments or ())
        if output is None and config.output_action != "summary_only":
            raise ConfigError.of("output", None, "a StepOutput, such as StepOutput('scores')")
        if output is not None and not isinstance(output, StepOutput):
            raise ConfigError.of("output", output, "a StepOutput, such as StepOutput('scores')")
        self.output = output or StepOutput(name)
        self.outputs = [self.output]
        if not isinstance(allow_reuse, bool):
            raise ConfigError.of("allow_reuse", allow_reuse, "True or False")
        self.allow_reuse = allow_reuse
        self.models = as_list("models", models or ())
        for model in self.models:
            if not isinstance(model, Model | str):
                raise ConfigError.of("models", model, "a list of models, or of their names")
        self.azure_compatible = azure_compatible
        self.after = []
        for value in (*self.inputs, *self.side_inputs):
            check_source(value)

    # What a pipeline asks

    def all_parameters(self) -> Iterator[PipelineParameter]:
        yield from self.parameters.values()
        yield from super().all_parameters()

    @property
    def environment(self) -> Environment | None:
        environment = self.config.environment
        return environment if isinstance(environment, Environment) else None

    @property
    def compute_target(self) -> Any:
        return self.config.compute_target

    def check_values(self, values: Mapping[str, Any]) -> None:
        self.settings(values)

    # At submission

    def start(self, launch: Launch) -> AbstractContextManager[ParallelRun]:
        return start_parallel(self, launch)

    def settings(self, values: Mapping[str, Any]) -> ParallelRunConfig:
        """Put the values of the parameters into the settings.

        Raises
        ------
        ConfigError
        """
        changes = {
            field: _as_setting(field, value_of(parameter, values))
            for field, parameter in self.parameters.items()
        }
        variables = dict(self.environment.variables) if self.environment is not None else {}
        variables.update(self.config.environment_variables)
        return self.config.with_changes(**changes, environment_variables=variables)

    def build(
        self,
        config: ParallelRunConfig,
        values: Mapping[str, Any],
        places: Mapping[StepOutput, DataPath],
        models: Sequence[Model],
    ) -> ParallelRunStep:
        """Make what runs, of the values of parameters and the places of outputs.

        Parameters
        ----------
        places : mapping
            Where each output is, also that of this step.
        """
        opened = Opened(values, places)
        place = places[self.output]
        arguments = [opened.argument(thing) for thing in self.arguments]
        if self.azure_compatible:
            arguments += self._azure_flags(config, place.url, arguments)
        return ParallelRunStep(
            self.name,
            config,
            inputs=[opened.dataset(thing) for thing in self.inputs],
            output=place.url,
            side_inputs=[opened.side_input(thing) for thing in self.side_inputs],
            arguments=arguments,
            allow_reuse=self.allow_reuse,
            storage_options=place.storage_options,
            models=[model.as_input() for model in models],
        )

    def named_models(self, known: Iterable[str], values: Mapping[str, Any]) -> list[str]:
        """Tell which models of the workspace the script can ask for, besides its own.

        Parameters
        ----------
        known : iterable of str
            All names.
        """
        if not self.azure_compatible:
            return []
        own = {model if isinstance(model, str) else model.name for model in self.models}
        config = self.settings(values)
        source = EntryScriptSource.of(config.script_path, config.source_path)
        texts = [path.read_text("utf-8", "replace") for path in _code(source)]
        if not any(_MODEL in text for text in texts):
            return []
        words = {str(value_of(source_of(argument), values)) for argument in self.arguments}
        words |= {word for text in texts for word in _QUOTED.findall(text)}
        return [name for name in known if name in words and name not in own]

    @staticmethod
    def _azure_flags(config: ParallelRunConfig, output: str, arguments: Sequence[Any]) -> list[str]:
        text = config.script_path.read_text("utf-8", "replace")
        given = {str(argument).partition("=")[0] for argument in arguments}
        flags: list[str] = []
        for name in _FLAGS:
            value = output if name == "output" else getattr(config, name)
            named = re.search(rf"""["']--{name}["']""", text) is not None
            if named and f"--{name}" not in given and value is not None:
                flags += [f"--{name}", json.dumps(value) if isinstance(value, list) else str(value)]
        return flags


def _code(source: EntryScriptSource) -> Iterator[Path]:
    """Python files of a script, without those of data folders beside it."""
    files = itertools.islice(source.files(), _MOST_FILES)
    return (path for path in files if path.suffix == ".py" or path == source.script)


def _as_setting(field: str, value: Any) -> Any:
    """Read a whole number that came as text, as parameters of a pipeline often do."""
    is_number = field in _WHOLE_NUMBERS and isinstance(value, str) and value.strip().isdigit()
    return int(value) if is_number else value
