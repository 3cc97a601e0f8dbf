"""``azureml.core.compute``: names for clusters."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import psutil
from dask.system import CPU_COUNT

from daskprs.azureml.errors import ComputeTargetException
from daskprs.azureml.partial import Partial
from daskprs.azureml.workspaces import Workspace
from daskprs.gpus import visible_gpus
from daskprs.pipelines.compute import ComputeTarget as NativeTarget

__all__ = ["AmlCompute", "AmlComputes", "ComputeTarget", "target_of"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Provisioning:
    """What a cluster is to be; no machines are made of it."""

    target: NativeTarget
    note: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _ScaleSettings:
    minimum_node_count: int
    maximum_node_count: int
    idle_seconds_before_scaledown: int = 0


class _Status(Partial):
    def __init__(self, target: NativeTarget) -> None:
        self._target = target
        self.provisioning_state = self.allocation_state = "Succeeded"

    def serialize(self) -> dict[str, Any]:
        return {
            "provisioningState": self.provisioning_state,
            "allocationState": "Steady",
            "vmSize": self._target.note.get("vm_size"),
            "scaleSettings": {
                "minNodeCount": self._target.min_nodes,
                "maxNodeCount": self._target.max_nodes,
            },
            "kind": self._target.kind,
            "address": self._target.address,
        }


def target_of(workspace: Workspace, name: str) -> NativeTarget:
    """Return the cluster of a name; one that is not known is this machine, as long as all are.

    Raises
    ------
    ComputeTargetException
        There is none of this name, and there are others than this machine.
    """
    targets = workspace._native.compute_targets
    if name in targets:
        return targets[name]
    if any(target.kind != "local" for target in targets.values()):
        raise ComputeTargetException(
            f"ComputeTargetNotFound: the workspace has no compute target {name!r}: it has "
            f"{list(targets)}. Register it, or name it in the config.json of the workspace."
        )
    logger.info("compute target %r: nobody has made it; it is a cluster on this machine", name)
    return NativeTarget(name)


class AmlCompute(Partial):
    """A cluster under a name: one on this machine, unless config.json says another.

    Parameters
    ----------
    workspace : Workspace
    name : str

    Raises
    ------
    ComputeTargetException
        There is none of this name, and there are others than this machine.
    """

    def __init__(self, workspace: Workspace, name: str) -> None:
        self.workspace, self._native = workspace, target_of(workspace, name)

    @classmethod
    def _of(cls, workspace: Workspace, target: NativeTarget) -> AmlCompute:
        made = cls.__new__(cls)
        made.workspace, made._native = workspace, target
        return made

    @staticmethod
    def provisioning_configuration(
        vm_size: str = "",
        vm_priority: str = "dedicated",
        min_nodes: int | str = 0,
        max_nodes: int | str | None = None,
        idle_seconds_before_scaledown: int | None = None,
        **kwargs: object,
    ) -> _Provisioning:
        """Describe a cluster; sizes of virtual machines are only kept to be shown."""
        limits: dict[str, Any] = {"min_nodes": min_nodes, "max_nodes": max_nodes}
        note = {"vm_size": vm_size, "vm_priority": vm_priority}
        return _Provisioning(NativeTarget("configuration", **limits), note)

    @staticmethod
    def supported_vmsizes(
        workspace: Workspace, location: str | None = None
    ) -> list[dict[str, Any]]:
        """Tell of the one that there is: this machine."""
        memory = psutil.virtual_memory().total / 2**30
        gpus = len(visible_gpus())
        return [{"name": "local", "vCPUs": CPU_COUNT, "gpus": gpus, "memoryGB": memory}]

    @property
    def name(self) -> str:
        return self._native.name

    @property
    def type(self) -> str:
        return "AmlCompute"

    @property
    def vm_size(self) -> str:
        return str(self._native.note.get("vm_size", ""))

    @property
    def scale_settings(self) -> _ScaleSettings:
        return _ScaleSettings(self._native.min_nodes, self._native.max_nodes or 1)

    @property
    def provisioning_state(self) -> str:
        return "Succeeded"

    def get_status(self) -> _Status:
        return _Status(self._native)

    def serialize(self) -> dict[str, Any]:
        return {"name": self.name, "computeType": self.type, **self.get_status().serialize()}

    def wait_for_completion(
        self,
        show_output: bool = False,
        min_node_count: int | None = None,
        timeout_in_minutes: float = 25,
        is_delete_operation: bool = False,
    ) -> None:
        """Return at once: a cluster is started when a run begins."""
        logger.info("compute target %r: starts when a run begins", self.name)

    def delete(self) -> None:
        self.workspace._native.compute_targets.unregister(self.name)

    def __repr__(self) -> str:
        return f"AmlCompute({self._native!r})"


class AmlComputes(dict[str, AmlCompute]):
    """Those of a workspace by their names; one that nobody has made is given, but not listed."""

    def __init__(self, workspace: Workspace) -> None:
        found = workspace._native.compute_targets
        super().__init__({name: AmlCompute(workspace, name) for name in found})
        self._workspace = workspace

    def __missing__(self, name: str) -> AmlCompute:
        return AmlCompute(self._workspace, name)


class ComputeTarget(Partial):
    """Makes and finds compute targets; calling it gives the one of a name."""

    def __new__(cls, workspace: Workspace, name: str) -> Any:
        return AmlCompute(workspace, name)

    @staticmethod
    def create(
        workspace: Workspace, name: str, provisioning_configuration: _Provisioning
    ) -> AmlCompute:
        target = provisioning_configuration.target
        made = replace(target, name=name, note=provisioning_configuration.note)
        return AmlCompute._of(workspace, workspace._native.compute_targets.register(made))

    @staticmethod
    def list(workspace: Workspace) -> list[AmlCompute]:
        return list(workspace.compute_targets.values())
