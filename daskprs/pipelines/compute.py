"""Compute targets: clusters under a name."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from daskprs.config import ParallelRunConfig
from daskprs.exceptions import ConfigError, TargetError, UsageError
from daskprs.pipelines.records import Records, check_name
from daskprs.store_calls import one_line
from daskprs.targets import check_target

if TYPE_CHECKING:
    from daskprs.pipelines.workspace import Workspace

__all__ = ["ComputeTarget", "ComputeTargets"]

_KINDS = ("local", "address", "kubernetes")
_NOT_IN_NAMES = re.compile("[^a-z0-9]+")
_NAME_LENGTH = 40  # with a number of its own, and what the operator adds


@dataclass(frozen=True)
class ComputeTarget:
    """A cluster under a name.

    Parameters
    ----------
    name : str
    kind : {"local", "address", "kubernetes"}
        ``local`` is a cluster on this machine for the time of each run; ``address`` is one that
        is there; ``kubernetes`` starts one for each run, which needs dask-kubernetes.
    min_nodes, max_nodes : int
        On Kubernetes, workers come and go between them. A step that asks for more nodes than the
        most is refused.
    address : str, optional
        Of the scheduler.
    options : mapping, optional
        Of ``dask_kubernetes.operator.KubeCluster``, such as ``image`` and ``namespace``.
    note : mapping, optional
        Kept and shown, without a meaning here: such as a size of virtual machines.

    Examples
    --------
    >>> from daskprs.pipelines import ComputeTarget
    >>> ComputeTarget("cluster", "address", address="tcp://127.0.0.1:8786")
    ComputeTarget('cluster', address)
    """

    name: str
    kind: str = "local"
    min_nodes: int = 0
    max_nodes: int | None = None
    address: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    note: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name("name", self.name)
        if self.kind not in _KINDS:
            raise ConfigError.of("kind", self.kind, "one of " + ", ".join(map(repr, _KINDS)))
        for name in ("min_nodes", "max_nodes"):
            object.__setattr__(self, name, _nodes(name, getattr(self, name)))
        if self.max_nodes is not None and self.max_nodes < max(1, self.min_nodes):
            raise ConfigError.of(
                "max_nodes", self.max_nodes, f"at least 1 and min_nodes={self.min_nodes}"
            )
        if (self.kind == "address") != (self.address is not None):
            raise ConfigError.of("address", self.address, "given for the kind 'address', and only")
        if self.address is not None:
            check_target(self.address)

    @contextlib.contextmanager
    def open(self, config: ParallelRunConfig) -> Iterator[ParallelRunConfig]:
        """Give the settings of a run here; a cluster that is started for it ends with it.

        Raises
        ------
        UsageError
            There is no such cluster, or the run asks for more nodes than it has.
        """
        if self.max_nodes is not None and config.node_count > self.max_nodes:
            raise ConfigError.of(
                "node_count", config.node_count,
                f"at most max_nodes={self.max_nodes} of the compute target {self.name!r}",
            )  # fmt: skip
        if self.kind == "address":
            yield config.with_changes(compute_target=self.address)
        elif self.kind == "kubernetes":
            with self._kubernetes(config) as cluster:
                yield config.with_changes(compute_target=cluster)
        else:
            yield _shared_out(config.with_changes(compute_target=None))

    @contextlib.contextmanager
    def _kubernetes(self, config: ParallelRunConfig) -> Iterator[Any]:
        if importlib.util.find_spec("dask_kubernetes") is None:
            raise TargetError(
                f"the compute target {self.name!r} needs dask-kubernetes: "
                "pip install 'daskprs[kubernetes]'."
            )
        most = min(config.node_count, self.max_nodes or config.node_count)
        least = min(self.min_nodes, most)
        # Runs at the same time have a cluster each, which ends with its run.
        word = _NOT_IN_NAMES.sub("-", self.name.lower()).strip("-")[:_NAME_LENGTH].strip("-")
        name = f"{word or 'daskprs'}-{uuid.uuid4().hex[:8]}"
        given = {"name": name, "n_workers": least, "quiet": True, **self.options}
        with self._started(given) as cluster:
            cluster.adapt(minimum=least, maximum=most)
            yield cluster

    def _started(self, given: Mapping[str, Any]) -> Any:
        from dask_kubernetes.operator import KubeCluster

        try:
            return KubeCluster(**given)
        except Exception as error:
            raise TargetError(
                f"the compute target {self.name!r} cannot be started on Kubernetes "
                f"({one_line(error)}): look whether 'kubectl get pods' works here, whether Dask's "
                f"operator runs there, and whether KubeCluster has the options "
                f"{sorted(self.options)}."
            ) from error

    def __repr__(self) -> str:
        return f"ComputeTarget({self.name!r}, {self.kind})"


def _nodes(name: str, value: object) -> int | None:
    """Read a number of nodes, which environment variables give as text."""
    if value is None and name == "max_nodes":
        return None
    text = str(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or not text.isdigit():
        raise ConfigError.of(name, value, "a whole number of at least 0, such as 4")
    return int(text)


def _shared_out(config: ParallelRunConfig) -> ParallelRunConfig:
    """Nodes of one machine share its cores, where the number of processes is not given."""
    if config.process_count_per_node is not None or config.node_count == 1:
        return config
    from dask.system import CPU_COUNT

    from daskprs.gpus import visible_gpus

    count = max(1, (len(visible_gpus()) or CPU_COUNT) // config.node_count)
    return config.with_changes(process_count_per_node=count)


class ComputeTargets(Mapping[str, ComputeTarget]):
    """The compute targets of a workspace, by name; those of its ``config.json`` come first.

    Parameters
    ----------
    workspace : Workspace
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._records = Records(workspace.folder, "compute")

    def register(self, target: ComputeTarget) -> ComputeTarget:
        """Keep a compute target under its name.

        Raises
        ------
        UsageError
            The workspace's config.json has one of this name.
        """
        if target.name in self._configured():
            raise UsageError(
                f"the compute target {target.name!r} stands in the workspace's config.json: take "
                "it as it is, or change it there."
            )
        told = {name: getattr(target, name) for name in _FACTS}
        self._records.replace(target.name, told)
        return target

    def unregister(self, name: str) -> None:
        self._records.remove(name)

    def _configured(self) -> dict[str, Any]:
        told: dict[str, Any] = self._workspace.config.get("compute", {})
        return told

    def __getitem__(self, name: str) -> ComputeTarget:
        told = self._configured().get(name) or self._records.read(name)
        if told is None:
            raise KeyError(f"the workspace has no compute target {name!r}: it has {list(self)}.")
        facts = {fact: told[fact] for fact in _FACTS if fact in told}
        kind = "address" if facts.get("address") else "local"
        return ComputeTarget(name, **{"kind": kind, **facts})

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._configured(), *self._records.all()}))

    def __len__(self) -> int:
        return sum(1 for _ in self)


_FACTS = ("kind", "min_nodes", "max_nodes", "address", "options", "note")
