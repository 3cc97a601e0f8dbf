"""``PythonScriptStep``, and the ``RunConfiguration`` that it may have."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from daskprs.azureml.consumption import as_input
from daskprs.azureml.environments import CondaDependencies, Environment
from daskprs.azureml.outputs import OutputFileDatasetConfig, as_output, set_producer
from daskprs.azureml.partial import Partial, refuse
from daskprs.exceptions import ConfigError, UsageError
from daskprs.pipelines.script_step import ScriptStep

__all__ = ["DockerConfiguration", "PythonScriptStep", "RunConfiguration"]

logger = logging.getLogger(__name__)

_AT_SUBMISSION = "give PipelineParameter objects as arguments"
_UNUSED = ("version", "hash_paths", "compute_target")


class DockerConfiguration(Partial):
    """Kept, without a meaning here: scripts run in no container.

    Parameters
    ----------
    use_docker : bool
    """

    def __init__(self, use_docker: bool = False, **kwargs: object) -> None:
        self.use_docker = use_docker


class RunConfiguration(Partial):
    """How a script is run: of it, the environment counts here.

    Attributes
    ----------
    environment : Environment
    target, framework, docker, node_count
        Can be set, and have no meaning here.
    environment_variables : dict of str
    """

    def __init__(
        self,
        script: str | None = None,
        arguments: Sequence[Any] | None = None,
        framework: str | None = None,
        communicator: str | None = None,
        conda_dependencies: CondaDependencies | None = None,
        **kwargs: object,
    ) -> None:
        self.script, self.arguments = script, arguments
        self.framework, self.communicator = framework or "Python", communicator
        self.environment = Environment("script")
        if conda_dependencies is not None:
            self.environment.python.conda_dependencies = conda_dependencies  # type: ignore[attr-defined]
        self.environment_variables: dict[str, str] = {}
        self.target: Any = None
        self.docker: Any = None
        self.node_count = 1

    @staticmethod
    def load(path: str | os.PathLike[str], name: str | None = None) -> RunConfiguration:
        """Read a ``.runconfig`` file, or the one of that name in a folder or its ``.azureml``.

        Raises
        ------
        UserErrorException
            There is none.
        """
        import yaml

        file = _find_file(Path(path), f"{name}.runconfig")
        told = yaml.safe_load(file.read_text("utf-8")) or {}
        made = RunConfiguration(told.get("script"), told.get("arguments"), told.get("framework"))
        made.target = told.get("target")
        if told.get("environment"):
            made.environment = Environment._of_definition(told["environment"], file.parent)
        made.environment_variables = dict(told.get("environmentVariables") or {})
        return made


def _find_file(path: Path, name: str) -> Path:
    places = [path, path / name, path / ".azureml" / name]
    for place in places:
        if place.is_file():
            return place
    raise UsageError(f"there is no run configuration at {os.fspath(path)}.")


class PythonScriptStep(ScriptStep):
    """A script that is run once, on the machine that submits the pipeline.

    Parameters
    ----------
    script_name : str
        In the source directory.
    name : str, optional
        Default: `script_name`.
    arguments, inputs, outputs : list, optional
        An `OutputFileDatasetConfig` in the arguments is an output, its ``as_input()`` an input.
    runconfig : RunConfiguration, optional
    params : dict, optional
        Environment variables of the script, with ``AML_PARAMETER_`` before their names.
    source_directory : str, optional
        Default: the working directory.
    compute_target, version, hash_paths
        Of no meaning here.
    """

    def __init__(
        self,
        script_name: str,
        name: str | None = None,
        arguments: Sequence[Any] | None = None,
        compute_target: Any = None,
        runconfig: RunConfiguration | None = None,
        runconfig_pipeline_params: Mapping[str, Any] | None = None,
        inputs: Sequence[Any] | None = None,
        outputs: Sequence[Any] | None = None,
        params: Mapping[str, Any] | None = None,
        source_directory: str | None = None,
        allow_reuse: bool = True,
        version: str | None = None,
        hash_paths: Sequence[str] | None = None,
    ) -> None:
        refuse(runconfig_pipeline_params=(runconfig_pipeline_params, _AT_SUBMISSION))
        if runconfig is not None and not isinstance(runconfig, RunConfiguration):
            raise ConfigError.of("runconfig", runconfig, "a RunConfiguration")
        if hash_paths:
            logger.warning(
                "hash_paths=%r means nothing: all files beside a script count", hash_paths
            )
        environment = None if runconfig is None else as_input(runconfig.environment)
        variables = {} if runconfig is None else dict(runconfig.environment_variables)
        for key, value in (params or {}).items():
            refuse(params=(hasattr(value, "default_value") and {key: value}, _AT_SUBMISSION))
            variables[f"AML_PARAMETER_{key}"] = str(value)
        listed = [as_input(value) for value in inputs or ()]
        given = [as_input(value) for value in arguments or ()]
        written = [as_output(value) for value in outputs or ()]
        for value in given:
            is_output = isinstance(value, OutputFileDatasetConfig)
            if is_output and not any(value is one for one in (*written, *listed)):
                written.append(value)
        super().__init__(
            name or script_name,
            script_name,
            given,
            inputs=listed,
            outputs=written,
            source_directory=source_directory or ".",
            environment=environment,
            environment_variables=variables,
            allow_reuse=allow_reuse,
            azure_compatible=True,
        )
        set_producer(self)
