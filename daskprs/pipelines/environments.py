"""Environments: the packages that workers must have, and variables for the scripts."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskprs.exceptions import ConfigError, TargetError
from daskprs.pipelines.records import Records, check_name

if TYPE_CHECKING:
    from distributed import Client

    from daskprs.pipelines.workspace import Workspace

__all__ = ["Environment", "Environments", "lacking_packages"]

_SECONDS = 300.0
_OURS = "azureml"  # packages of Azure's SDK: what scripts need of them is here
# The same modules in distributions of other names.
_SAME = {
    "tensorflow": ("tensorflow-cpu", "tensorflow-gpu", "tensorflow-macos", "tf-nightly"),
    "tensorflow-gpu": ("tensorflow", "tensorflow-cpu"),
    "opencv-python": ("opencv-python-headless", "opencv-contrib-python"),
    "pillow": ("pillow-simd",),
}


@dataclass(frozen=True)
class Environment:
    """Packages that workers must have, and environment variables for the scripts.

    Parameters
    ----------
    name : str
    packages : sequence of str
        As in a requirements file: ``"scikit-learn>=1.4"``.
    variables : mapping, optional
    install : bool
        Have Dask install on the workers what they lack. Without it, a package that they lack is
        an error, and one of another version a note.
    version : int, optional
        Of a registered one.

    Raises
    ------
    ConfigError
        A package that cannot be understood.

    Examples
    --------
    >>> from daskprs.pipelines import Environment
    >>> Environment("plain", ["pandas>=2", "no-such-package"]).lacking()
    (['no-such-package'], [])
    """

    name: str
    packages: Sequence[str] = ()
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    install: bool = False
    version: int | None = None

    def __post_init__(self) -> None:
        from packaging.requirements import InvalidRequirement, Requirement

        check_name("name", self.name)
        for package in self.packages:
            try:
                Requirement(package)
            except (InvalidRequirement, TypeError):
                raise ConfigError.of("packages", package, "such as 'scikit-learn>=1.4'") from None

    @classmethod
    def from_requirements(cls, name: str, path: str | Path, **more: Any) -> Environment:
        """Read the packages from a requirements file."""
        lines = [line.partition("#")[0].strip() for line in Path(path).read_text().splitlines()]
        return cls(name, [line for line in lines if line and not line.startswith("-")], **more)

    def lacking(self) -> tuple[list[str], list[str]]:
        """Tell which packages this process lacks, and which have another version."""
        return lacking_packages(list(self.packages))

    def check(self, client: Client | None) -> list[str]:
        """Look whether the workers have the packages; install what they lack, if that is wanted.

        Parameters
        ----------
        client : Client or None
            None where the workers are in this process.

        Returns
        -------
        list of str
            What to note.

        Raises
        ------
        TargetError
        """
        missing, others = self._ask(client)
        if missing and self.install and client is not None:
            from distributed.diagnostics.plugin import PipInstall

            client.register_plugin(PipInstall(packages=missing))
            missing, others = self._ask(client)
        if missing:
            how = "pip install " + " ".join(f"'{package}'" for package in missing)
            where = "this machine lacks" if client is None else "the workers lack"
            raise TargetError(
                f"{where} packages of the environment {self.name!r}: {', '.join(missing)}. "
                f"Install them there ({how}), or take them out of the environment."
            )
        return [f"the environment {self.name!r} asks for {other}" for other in others]

    def _ask(self, client: Client | None) -> tuple[list[str], list[str]]:
        if client is None:
            return self.lacking()
        answers = client.run(lacking_packages, list(self.packages))
        if not answers:  # a cluster that starts its workers when there is work
            task = client.submit(lacking_packages, list(self.packages), pure=False)
            answers = {"": task.result(timeout=_SECONDS)}
        missing = {package: None for found, _ in answers.values() for package in found}
        others = {other: None for _, found in answers.values() for other in found}
        return list(missing), list(others)


def lacking_packages(packages: list[str]) -> tuple[list[str], list[str]]:
    """Tell which packages are not installed here, and which have another version."""
    from packaging.requirements import Requirement

    missing, others = [], []
    for package in packages:
        wanted = Requirement(package)
        if wanted.name.startswith(_OURS) or (wanted.marker and not wanted.marker.evaluate()):
            continue
        version = _version_of(wanted.name)
        if version is None:
            missing.append(package)
        elif version and not wanted.specifier.contains(version, prereleases=True):
            others.append(f"{package}, and {version} is installed")
    return missing, others


def _version_of(name: str) -> str | None:
    """Return the installed version; empty if it is not known, None if it is not installed."""
    for distribution in (name, *_SAME.get(name.lower(), ())):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    module = name.replace("-", "_").replace(".", "_")
    return "" if importlib.util.find_spec(module) is not None else None


class Environments(Mapping[str, Environment]):
    """The registered environments of a workspace, by name.

    Parameters
    ----------
    workspace : Workspace
    """

    def __init__(self, workspace: Workspace) -> None:
        self._records = Records(workspace.folder, "environments")

    def register(self, environment: Environment) -> Environment:
        """Keep an environment under its name, as a new version unless nothing has changed."""
        record = {
            "packages": list(environment.packages),
            "variables": dict(environment.variables),
            "install": environment.install,
        }
        latest = self._records.read(environment.name)
        if latest is None or any(latest[fact] != value for fact, value in record.items()):
            latest = self._records.add(environment.name, record)
        return self._environment(latest)

    def version(self, name: str, version: int | None = None) -> Environment:
        """Return a version of one, by default the latest.

        Raises
        ------
        KeyError
        """
        record = self._records.read(name, version)
        if record is None:
            raise KeyError(f"the workspace has no environment {name!r}: it has {list(self)}.")
        return self._environment(record)

    @staticmethod
    def _environment(record: Mapping[str, Any]) -> Environment:
        return Environment(
            record["name"],
            tuple(record["packages"]),
            record["variables"],
            record["install"],
            record["version"],
        )

    def __getitem__(self, name: str) -> Environment:
        return self.version(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._records.all())

    def __len__(self) -> int:
        return len(self._records.all())
