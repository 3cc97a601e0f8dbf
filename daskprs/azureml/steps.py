"""``ParallelRunConfig`` and ``ParallelRunStep``, of both generations."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskprs import config as native
from daskprs.azureml.consumption import PipelineParameter, as_input
from daskprs.azureml.outputs import as_output, set_producer
from daskprs.azureml.partial import Partial
from daskprs.exceptions import ConfigError, UsageError
from daskprs.pipelines.parameters import PipelineParameter as NativeParameter
from daskprs.pipelines.steps import ParallelStep

if TYPE_CHECKING:
    from daskprs.azureml.environments import Environment

__all__ = ["ContribParallelRunStep", "ParallelRunConfig", "ParallelRunStep"]

_FIELDS = ("entry_script", "error_threshold", "output_action", "node_count",
           "process_count_per_node", "mini_batch_size", "source_directory", "description",
           "logging_level", "run_invocation_timeout", "run_max_try", "append_row_file_name",
           "allowed_failed_count", "allowed_failed_percent", "partition_keys",
           "environment_variables")  # fmt: skip


_YAML = "parallel_run_config"  # above all settings in a YAML file


class ParallelRunConfig(Partial):
    """How an entry script is run, with the parameters of Azure ML in their order.

    See `daskprs.ParallelRunConfig`, whose other settings can be given by keyword. Those that may
    be a `PipelineParameter` in Azure ML may be one here.
    """

    def __init__(
        self,
        environment: Any = None,
        entry_script: Any = None,
        error_threshold: int = -1,
        output_action: str = "append_row",
        compute_target: Any = None,
        node_count: Any = 1,
        process_count_per_node: Any = None,
        mini_batch_size: Any = None,
        source_directory: Any = None,
        description: str | None = None,
        logging_level: Any = "INFO",
        run_invocation_timeout: Any = 60,
        run_max_try: Any = 3,
        append_row_file_name: str | None = None,
        allowed_failed_count: int | None = None,
        allowed_failed_percent: float | None = None,
        partition_keys: Any = None,
        environment_variables: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        given: dict[str, Any] = {
            "entry_script": entry_script,
            "error_threshold": error_threshold,
            "output_action": output_action,
            "node_count": 1 if node_count is None else node_count,
            "process_count_per_node": process_count_per_node,
            "mini_batch_size": mini_batch_size,
            "source_directory": source_directory,
            "description": description,
            "logging_level": logging_level,
            "run_invocation_timeout": run_invocation_timeout,
            "run_max_try": 3 if run_max_try is None else run_max_try,
            "append_row_file_name": append_row_file_name or native.DEFAULT_ROW_FILE,
            "allowed_failed_count": allowed_failed_count,
            "allowed_failed_percent": allowed_failed_percent,
            "partition_keys": partition_keys,
            "environment_variables": environment_variables,
            **more,
        }
        self._parameters = {n: v for n, v in given.items() if isinstance(v, NativeParameter)}
        settled = {name: _default(value) for name, value in given.items()}
        self.environment, self.compute_target = environment, compute_target
        self._config = native.ParallelRunConfig(
            **settled,
            environment=as_input(environment),
            compute_target=as_input(compute_target),
        )
        for name in _FIELDS:
            value = self._parameters.get(name, getattr(self._config, name))
            setattr(self, name, value)

    @property
    def _native(self) -> native.ParallelRunConfig:
        """The settings as they are now: they can be changed until a step is made of them."""
        changes = {name: _default(getattr(self, name)) for name in _FIELDS}
        return self._config.with_changes(
            **changes,
            environment=as_input(self.environment),
            compute_target=as_input(self.compute_target),
        )

    @property
    def _parameters_now(self) -> dict[str, NativeParameter]:
        found = {name: getattr(self, name) for name in _FIELDS}
        return {n: v for n, v in found.items() if isinstance(v, NativeParameter)}

    def save_to_yaml(self, path: str | os.PathLike[str]) -> None:
        """Write the settings, with the packages of the environment, as Azure ML does."""
        import yaml

        told: dict[str, Any] = {}
        for name in _FIELDS:
            value = getattr(self, name)
            if isinstance(value, NativeParameter):
                value = {"pipeline_parameter": value.name, "default_value": value.default_value}
            if value is not None and value != {}:
                told[name] = os.fspath(value) if isinstance(value, os.PathLike) else value
        target = getattr(self.compute_target, "name", self.compute_target)
        told |= {} if target is None else {"compute_target_name": target}
        if self.environment is not None:
            told["environment"] = self.environment._definition()
        Path(path).write_text(yaml.safe_dump({_YAML: told}, sort_keys=True), "utf-8")

    @staticmethod
    def load_yaml(workspace: Any, path: str | os.PathLike[str]) -> ParallelRunConfig:
        """Read what `save_to_yaml` has written, here or in Azure ML."""
        import yaml

        told = yaml.safe_load(Path(path).read_text("utf-8"))
        if not isinstance(told, dict) or not isinstance(told.get(_YAML), dict):
            raise UsageError(f"{os.fspath(path)} holds no settings under {_YAML!r}.")
        told = {name: value for name, value in told[_YAML].items() if value is not None}
        for name, value in told.items():
            if isinstance(value, Mapping) and "pipeline_parameter" in value:
                told[name] = PipelineParameter(value["pipeline_parameter"], value["default_value"])
        environment = _load_environment(workspace, told)
        target = told.pop("compute_target_name", None)
        return ParallelRunConfig(environment=environment, compute_target=target, **told)

    def __repr__(self) -> str:
        return repr(self._native)


def _load_environment(workspace: Any, told: dict[str, Any]) -> Environment | None:
    """Take the environment out of what a YAML file says, in any of the ways of Azure ML."""
    import yaml

    from daskprs.azureml.environments import Environment

    name, folder = told.pop("environment_name", None), told.pop("environment_dir_path", None)
    definition = told.pop("environment", None)
    if isinstance(definition, str):  # a file
        definition = yaml.safe_load(Path(definition).read_text("utf-8"))
    if definition is not None:
        return Environment._of_definition(definition, Path())
    if folder is not None:
        return Environment.load_from_directory(folder)
    return None if name is None else Environment.get(workspace, name)


def _default(value: Any) -> Any:
    return value.default_value if isinstance(value, NativeParameter) else value


class ParallelRunStep(ParallelStep):
    """A step, as of 2020; `models` is that of 2019.

    Parameters
    ----------
    name : str
    parallel_run_config : ParallelRunConfig
    inputs : list
    output : PipelineData or OutputFileDatasetConfig
    side_inputs, arguments : list, optional
    allow_reuse : bool
    models : list, optional
    """

    def __init__(
        self,
        name: str,
        parallel_run_config: ParallelRunConfig | None = None,
        inputs: Sequence[Any] | Any = (),
        output: Any = None,
        side_inputs: Sequence[Any] | None = None,
        arguments: Sequence[Any] | None = None,
        allow_reuse: bool = True,
        models: Sequence[Any] | None = None,
        **unknown: Any,
    ) -> None:
        _check_unknown(unknown)
        if not isinstance(parallel_run_config, ParallelRunConfig):
            raise ConfigError.of("parallel_run_config", parallel_run_config, "a ParallelRunConfig")
        listed = inputs if isinstance(inputs, list | tuple) else [inputs]
        output = as_output(output)
        given = [as_input(value) for value in arguments or ()]
        super().__init__(
            name,
            parallel_run_config._native,
            [as_input(value) for value in listed],
            output,
            side_inputs=[as_input(value) for value in side_inputs or ()],
            arguments=[output if as_output(value) is output else value for value in given],
            allow_reuse=allow_reuse,
            models=[as_input(model) for model in models or ()],
            parameters=parallel_run_config._parameters_now,
            azure_compatible=True,
        )
        set_producer(self)


class ContribParallelRunStep(ParallelRunStep):
    """A step, as of 2019: `models` comes second."""

    def __init__(
        self,
        name: str,
        models: Sequence[Any] | None = None,
        parallel_run_config: ParallelRunConfig | None = None,
        inputs: Sequence[Any] | Any = (),
        output: Any = None,
        side_inputs: Sequence[Any] | None = None,
        arguments: Sequence[Any] | None = None,
        allow_reuse: bool = True,
        **unknown: Any,
    ) -> None:
        super().__init__(
            name, parallel_run_config, inputs, output, side_inputs, arguments, allow_reuse, models,
            **unknown,
        )  # fmt: skip


_KEPT = ("tags", "properties", "add_parallel_run_step_dependencies")
_INSTEAD = {"inputs_mapping": "name the inputs with as_named_input(name)"}


def _check_unknown(unknown: Mapping[str, Any]) -> None:
    for name in unknown:
        if name not in _KEPT:
            instead = _INSTEAD.get(name, "it takes those of Azure ML's ParallelRunStep")
            raise TypeError(f"ParallelRunStep has no parameter {name!r}: {instead}.")
