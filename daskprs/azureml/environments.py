"""``azureml.core.Environment`` and ``CondaDependencies``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from daskprs.azureml.partial import Partial
from daskprs.azureml.workspaces import Workspace
from daskprs.exceptions import UsageError
from daskprs.json_text import json_text
from daskprs.pipelines.environments import Environment as NativeEnvironment

__all__ = ["DEFAULT_CPU_IMAGE", "DEFAULT_GPU_IMAGE", "CondaDependencies", "Environment"]

# Only to be stored in an environment, where they have no meaning.
DEFAULT_CPU_IMAGE = "mcr.microsoft.com/azureml/base:intelmpi2018.3-ubuntu16.04"
DEFAULT_GPU_IMAGE = "mcr.microsoft.com/azureml/base-gpu:intelmpi2018.3-cuda10.0-cudnn7-ubuntu16.04"


_CURATED = "AzureML-"
# Files of an environment in a folder.
_DEFINITION = "azureml_environment.json"
_CONDA = "conda_dependencies.yml"
# Options of pip, and urls: what they install has no name that could be looked for.
_NAMELESS = re.compile(r"-|[a-z+]+://|\.?/|git\+")


class CondaDependencies(Partial):
    """Packages of an environment; those of pip are looked for on the workers.

    Parameters
    ----------
    conda_dependencies_file_path : str, optional
        A conda specification.
    """

    def __init__(
        self,
        conda_dependencies_file_path: str | None = None,
        _underlying_structure: Mapping[str, Any] | None = None,
    ) -> None:
        told = dict(_underlying_structure or {})
        if conda_dependencies_file_path is not None:
            told = _read_yaml(conda_dependencies_file_path)
        self._channels: list[str] = list(told.get("channels", []))
        self._conda: list[str] = []
        self._pip: list[str] = []
        for dependency in told.get("dependencies", []):
            if isinstance(dependency, Mapping):
                self._pip += dependency.get("pip", [])
            else:
                self._conda.append(str(dependency))

    @staticmethod
    def create(
        pip_indexurl: str | None = None,
        pip_packages: Sequence[str] | None = None,
        conda_packages: Sequence[str] | None = None,
        python_version: str | None = None,
        pin_sdk_version: bool = True,
    ) -> CondaDependencies:
        made = CondaDependencies()
        made._pip = list(pip_packages or ())
        made._conda = list(conda_packages or ())
        return made

    @property
    def pip_packages(self) -> list[str]:
        return list(self._pip)

    @property
    def conda_packages(self) -> list[str]:
        return list(self._conda)

    def add_pip_package(self, pip_package: str) -> None:
        self._pip.append(pip_package)

    def add_conda_package(self, conda_package: str) -> None:
        self._conda.append(conda_package)

    def remove_pip_package(self, pip_package: str) -> None:
        self._pip = [package for package in self._pip if package != pip_package]

    def remove_conda_package(self, conda_package: str) -> None:
        self._conda = [package for package in self._conda if package != conda_package]

    def set_python_version(self, version: str) -> None:
        """Accepted; the version is that of the workers."""

    def add_channel(self, channel: str) -> None:
        self._channels.append(channel)

    def as_dict(self) -> dict[str, Any]:
        dependencies: list[Any] = [*self._conda, {"pip": list(self._pip)}]
        return {"channels": list(self._channels), "dependencies": dependencies}

    def serialize_to_string(self) -> str:
        import yaml

        return str(yaml.safe_dump(self.as_dict(), sort_keys=False))

    def save_to_file(self, base_directory: str, conda_file_path: str | None = None) -> str:
        name = conda_file_path or "conda_dependencies.yml"
        Path(base_directory, name).write_text(self.serialize_to_string(), "utf-8")
        return name

    def save(self, path: str | None = None) -> None:
        Path(path or "conda_dependencies.yml").write_text(self.serialize_to_string(), "utf-8")


class _Section:
    """Settings that can be stored, and have no meaning here."""

    def __init__(self, **settings: Any) -> None:
        self.__dict__.update(settings)


class Environment(Partial):
    """Packages that workers must have; images and Spark have no meaning here.

    Parameters
    ----------
    name : str

    Attributes
    ----------
    python
        With `conda_dependencies` and `user_managed_dependencies`; with the latter, packages are
        not looked for.
    docker, spark
        Can be set, and have no meaning here.
    environment_variables : dict of str
    """

    def __init__(self, name: str, **kwargs: object) -> None:
        self.name = name
        self.version: str | None = None
        self.python = _Section(
            conda_dependencies=CondaDependencies(), user_managed_dependencies=False
        )
        self.docker = _Section(enabled=False, base_image=DEFAULT_CPU_IMAGE, base_dockerfile=None)
        self.spark = _Section(precache_packages=True)
        self.environment_variables: dict[str, str] = {}

    @property
    def _native(self) -> NativeEnvironment:
        packages = self.python.conda_dependencies.pip_packages  # type: ignore[attr-defined]
        if self.python.user_managed_dependencies:  # type: ignore[attr-defined]
            packages = []
        named = tuple(package for package in packages if not _NAMELESS.match(package.strip()))
        return NativeEnvironment(self.name, named, dict(self.environment_variables))

    @classmethod
    def _of(cls, environment: NativeEnvironment) -> Environment:
        made = cls(environment.name)
        made.version = str(environment.version)
        made.python = _Section(
            conda_dependencies=CondaDependencies.create(pip_packages=environment.packages),
            user_managed_dependencies=False,
        )
        made.environment_variables = dict(environment.variables)
        return made

    @staticmethod
    def get(
        workspace: Workspace, name: str, version: str | None = None, label: str | None = None
    ) -> Environment:
        """Return a registered environment.

        Those that Azure ML keeps ready, ``AzureML-...``, ask for no packages here.
        """
        if name.startswith(_CURATED) and name not in workspace._native.environments:
            return Environment(name)
        number = None if version is None else int(version)
        try:
            return Environment._of(workspace._native.environments.version(name, number))
        except KeyError as error:
            raise UsageError(
                f"{error.args[0]} Make it with Environment({name!r}), and list its packages."
            ) from None

    @staticmethod
    def list(workspace: Workspace) -> dict[str, Environment]:
        found = workspace._native.environments
        return {name: Environment._of(environment) for name, environment in found.items()}

    def register(self, workspace: Workspace) -> Environment:
        return Environment._of(workspace._native.environments.register(self._native))

    @staticmethod
    def from_conda_specification(name: str, file_path: str | os.PathLike[str]) -> Environment:
        made = Environment(name)
        made.python = _Section(
            conda_dependencies=CondaDependencies(os.fspath(file_path)),
            user_managed_dependencies=False,
        )
        return made

    @staticmethod
    def from_pip_requirements(
        name: str, file_path: str | os.PathLike[str], pip_version: str | None = None
    ) -> Environment:
        native = NativeEnvironment.from_requirements(name, os.fspath(file_path))
        return Environment._of(native)

    @staticmethod
    def from_docker_image(
        name: str,
        image: str,
        container_registry: object = None,
        conda_specification: str | os.PathLike[str] | None = None,
        pip_requirements: str | os.PathLike[str] | None = None,
    ) -> Environment:
        """Take the packages of the specification; the image has no meaning here."""
        made = Environment(name)
        if conda_specification is not None:
            made = Environment.from_conda_specification(name, conda_specification)
        elif pip_requirements is not None:
            made = Environment.from_pip_requirements(name, pip_requirements)
        made.docker = _Section(enabled=True, base_image=image, base_dockerfile=None)
        return made

    @staticmethod
    def from_dockerfile(
        name: str,
        dockerfile: str,
        conda_specification: str | os.PathLike[str] | None = None,
        pip_requirements: str | os.PathLike[str] | None = None,
    ) -> Environment:
        """Take the packages of the specification; the image has no meaning here."""
        made = Environment.from_docker_image(
            name, "", conda_specification=conda_specification, pip_requirements=pip_requirements
        )
        made.docker = _Section(enabled=True, base_image=None, base_dockerfile=dockerfile)
        return made

    @staticmethod
    def load_from_directory(path: str | os.PathLike[str]) -> Environment:
        """Read the folder that `save_to_directory` has written."""
        told = json.loads(Path(path, _DEFINITION).read_text("utf-8"))
        return Environment._of_definition(told, Path(path))

    def save_to_directory(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the packages and the variables into a folder.

        Raises
        ------
        UserErrorException
            It is there already.
        """
        folder = Path(path)
        if folder.exists() and not overwrite:
            raise UsageError(f"{os.fspath(path)} is there already: give overwrite=True.")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _DEFINITION).write_text(json_text(self._definition(), indent=4), "utf-8")
        self.python.conda_dependencies.save(str(folder / _CONDA))  # type: ignore[attr-defined]

    def _definition(self) -> dict[str, Any]:
        """Give what the files of Azure ML hold of an environment, as far as it has a meaning."""
        python: Any = self.python
        return {
            "name": self.name,
            "version": self.version,
            "environmentVariables": dict(self.environment_variables),
            "python": {
                "userManagedDependencies": bool(python.user_managed_dependencies),
                "condaDependencies": python.conda_dependencies.as_dict(),
            },
        }

    @staticmethod
    def _of_definition(told: Mapping[str, Any], folder: Path) -> Environment:
        """Read such a definition; packages may stand in a file, seen from the folder."""
        made = Environment(str(told.get("name") or folder.name))
        made.environment_variables = dict(told.get("environmentVariables") or {})
        python = told.get("python") or {}
        file = python.get("condaDependenciesFile")
        if file is None and (folder / _CONDA).exists():
            file = _CONDA
        if python.get("condaDependencies"):
            dependencies = CondaDependencies(_underlying_structure=python["condaDependencies"])
        else:
            dependencies = CondaDependencies(None if file is None else os.fspath(folder / file))
        made.python = _Section(
            conda_dependencies=dependencies,
            user_managed_dependencies=bool(python.get("userManagedDependencies")),
        )
        return made

    def clone(self, new_name: str) -> Environment:
        made = Environment._of(self._native)
        made.name, made.version = new_name, None
        return made

    def __repr__(self) -> str:
        return f"Environment({self.name!r})"


def _read_yaml(path: str) -> dict[str, Any]:
    import yaml

    told = yaml.safe_load(Path(path).read_text("utf-8"))
    if not isinstance(told, dict):
        raise UsageError(f"{path} is no conda specification: it has no dependencies.")
    return told
