"""Compute targets: clusters under a name, and steps on them."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Workplace
from dask.system import CPU_COUNT
from distributed import LocalCluster
from pipeline_parts import Yard, rows

from daskprs import ConfigError, ParallelRunConfig, TargetError, UsageError
from daskprs.pipelines import ComputeTarget, Data, Environment, Pipeline, Workspace


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


REFUSED: dict[str, dict[str, Any]] = {
    "kind": {"kind": "cloud"},
    "min_nodes": {"min_nodes": -1},
    "max_nodes": {"min_nodes": 2, "max_nodes": 1},
    "address": {"kind": "address"},
    "compute_target": {"kind": "address", "address": "no address"},
}


@pytest.mark.parametrize("field", REFUSED)
def test_other_compute_targets_are_refused(field: str) -> None:
    with pytest.raises(ConfigError, match=f"^{field}="):
        ComputeTarget("c", **REFUSED[field])


def test_a_compute_target_comes_from_the_config_or_the_registry(tmp_path: Path) -> None:
    config = {"cluster": {"address": "tcp://127.0.0.1:8786"}}
    workspace = Workspace.create(tmp_path / "ws", compute=config)
    workspace.compute_targets.register(ComputeTarget("cpu", min_nodes="0", max_nodes="4"))  # type: ignore[arg-type]
    again = Workspace(tmp_path / "ws").compute_targets
    assert list(again) == ["cluster", "cpu"]
    assert again["cluster"].address == "tcp://127.0.0.1:8786"
    assert again["cpu"] == ComputeTarget("cpu", max_nodes=4)
    with pytest.raises(UsageError, match=r"stands in the workspace's config\.json"):
        again.register(ComputeTarget("cluster"))


def test_nodes_of_this_machine_share_its_cores(workplace: Workplace) -> None:
    script = workplace.script("def run(m): return m")
    config = ParallelRunConfig(entry_script=script, node_count=4)
    with ComputeTarget("c", max_nodes=4).open(config) as settled:
        cores = CPU_COUNT
        assert settled.process_count_per_node == max(1, cores // 4)
    with (
        pytest.raises(ConfigError, match="at most max_nodes=3 of the compute target 'c'"),
        ComputeTarget("c", max_nodes=3).open(config),
    ):
        pass


def test_a_step_runs_on_the_cluster_of_an_address(yard: Yard) -> None:
    with LocalCluster(
        1, 1, processes=False, dashboard_address="127.0.0.1:0", protocol="tcp", host="127.0.0.1"
    ) as cluster:
        address = cluster.scheduler_address
        target = ComputeTarget("c", "address", address=address)
        config = yard.config(compute_target=target, environment=Environment("e", ["dask"]))
        step = yard.step("sizes", [Data.files(yard.files({"a": 1}))], config=config)
        run = Pipeline(yard.workspace, [step]).submit("test")
        run.wait_for_completion()
    assert rows(run, "sizes", yard.folder / "got") == ["a,1"]


def test_a_step_runs_on_a_cluster_that_begins_without_workers(yard: Yard) -> None:
    """As those that grow and shrink with the work, such as one on Kubernetes."""
    with LocalCluster(0, processes=False, dashboard_address="127.0.0.1:0") as cluster:
        cluster.adapt(minimum=0, maximum=2)
        config = yard.config(compute_target=cluster, environment=Environment("e", ["dask"]))
        step = yard.step("sizes", [Data.files(yard.files({"a": 1, "b": 2}))], config=config)
        run = Pipeline(yard.workspace, [step]).submit("test")
        run.wait_for_completion(timeout=60)
    assert rows(run, "sizes", yard.folder / "got") == ["a,1", "b,2"]


# Has the place of dask-kubernetes, which wants a Kubernetes.
KUBE_CLUSTER = """
from distributed import LocalCluster

class KubeCluster(LocalCluster):
    made = []

    def __init__(self, name, n_workers=3, quiet=False, image=None, namespace=None):
        if namespace == "forbidden":
            raise PermissionError("namespace is forbidden")
        self.made.append((name, n_workers, quiet, image))
        super().__init__(n_workers, processes=False, dashboard_address="127.0.0.1:0")

    def adapt(self, minimum, maximum):
        self.made.append((minimum, maximum))
        return super().adapt(minimum=minimum, maximum=maximum)
"""


@pytest.fixture
def kube_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    package = tmp_path / "site/dask_kubernetes"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "operator.py").write_text(KUBE_CLUSTER)
    monkeypatch.syspath_prepend(str(package.parent))
    yield importlib.import_module("dask_kubernetes.operator").KubeCluster
    for name in ("dask_kubernetes", "dask_kubernetes.operator"):
        del sys.modules[name]


def test_a_kubernetes_target_is_a_cluster_of_its_own_for_each_run(
    kube_cluster: Any, yard: Yard
) -> None:
    """Of a name that no other run has, between the numbers of nodes that are wanted."""
    target = ComputeTarget("My_Big Cluster!", "kubernetes", max_nodes=3, options={"image": "i"})
    config = yard.config(node_count=2, compute_target=target)
    for folder in ("one", "two"):
        step = yard.step("sizes", [Data.files(yard.files({"a": 1}, folder))], config=config)
        run = Pipeline(yard.workspace, [step]).submit("test")
        run.wait_for_completion(timeout=60)
        assert rows(run, "sizes", yard.folder / "got") == ["a,1"]
    (first, *facts), limits, (second, *_), _ = kube_cluster.made
    assert (facts, limits) == ([0, True, "i"], (0, 2))
    assert re.fullmatch(r"my-big-cluster-[0-9a-f]{8}", first)
    assert first != second


REFUSED_BY_KUBERNETES = {
    "an option": ({"imagee": "x"}, r"TypeError: .*'imagee'.*has the options \['imagee'\]"),
    "the cluster": ({"namespace": "forbidden"}, "PermissionError: namespace is forbidden"),
}


@pytest.mark.parametrize("what", REFUSED_BY_KUBERNETES)
def test_what_kubernetes_refuses_is_told_as_the_target_of_that_name(
    what: str, kube_cluster: Any, workplace: Workplace
) -> None:
    options, message = REFUSED_BY_KUBERNETES[what]
    config = ParallelRunConfig(entry_script=workplace.script("def run(m): return m"))
    with (
        pytest.raises(TargetError, match=f"the compute target 'k8s' cannot be started.*{message}"),
        ComputeTarget("k8s", "kubernetes", options=options).open(config),
    ):
        pass


def test_kubernetes_needs_its_package(workplace: Workplace) -> None:
    config = ParallelRunConfig(entry_script=workplace.script("def run(m): return m"))
    with (
        pytest.raises(TargetError, match="needs dask-kubernetes"),
        ComputeTarget("c", "kubernetes").open(config),
    ):
        pass
