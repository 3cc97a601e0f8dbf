"""Workspaces and what they know by name: datastores, datasets, models, environments, clusters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pandas as pd
import pytest
from distributed import LocalCluster
from pipeline_parts import Yard

from daskprs import ConfigError, OutputError, TargetError, UsageError
from daskprs.entry_script import EntryScriptSource
from daskprs.pipelines import (
    Data,
    Datastore,
    Environment,
    EnvironmentSecret,
    Workspace,
)

KEY = "c2VjcmV0IGtleSBvZiBhIHN0b3Jl"


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


# The workspace


def test_a_workspace_is_made_once_and_opened_again(tmp_path: Path) -> None:
    Workspace.create(tmp_path / "ws", name="one")
    assert Workspace(tmp_path / "ws").name == "one"
    assert Workspace.create(tmp_path / "ws", name="two", exist_ok=True).name == "one"
    with pytest.raises(UsageError, match="is a workspace already"):
        Workspace.create(tmp_path / "ws")
    with pytest.raises(UsageError, match="is no workspace"):
        Workspace(tmp_path)


def test_a_workspace_can_be_in_a_store() -> None:
    workspace = Workspace.create("memory://place/ws", name="remote")
    workspace.environments.register(Environment("env", ["pandas"]))
    again = Workspace("memory://place/ws")
    assert (again.name, list(again.environments)) == ("remote", ["env"])
    assert again.datastores.default.url == "memory://place/ws/data"


@pytest.mark.parametrize("where", ["config.json", ".azureml/config.json"])
@pytest.mark.parametrize("below", [".", "notebooks/deep"])
def test_the_config_of_azure_ml_is_found_above(
    where: str, below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workspace is then a hidden folder beside it, which is no part of any script."""
    azure = {"subscription_id": "s", "resource_group": "g", "workspace_name": "old"}
    (tmp_path / where).parent.mkdir(exist_ok=True)
    (tmp_path / where).write_text(json.dumps(azure))
    (tmp_path / below).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path / below)
    workspace = Workspace.from_config()
    assert workspace.name == "old"
    assert workspace.folder.local == tmp_path / ".daskprs/old"


def test_without_a_config_it_is_said_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'or write one, such as {"workspace_name": "digits"}'):
        Workspace.from_config(tmp_path)


def test_a_config_can_say_where_the_workspace_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"workspace_name": "w", "folder": "elsewhere"}')
    assert Workspace.from_config(tmp_path).folder.local == tmp_path / "elsewhere"


def test_a_workspace_is_no_part_of_a_script_beside_it(yard: Yard) -> None:
    (yard.folder / "score.py").write_text("def run(m): return m")
    source = EntryScriptSource.of(yard.folder / "score.py", yard.folder)
    assert list(source.files()) == [yard.folder / "score.py"]


# Datastores


def test_a_datastore_is_known_to_other_processes(yard: Yard) -> None:
    (yard.folder / "data/in").mkdir(parents=True)
    yard.workspace.datastores.register("pictures", yard.folder / "data")
    code = f"from daskprs.pipelines import Workspace as W; w = W({str(yard.folder / 'ws')!r});"
    code += "print(w.datastores['pictures'].url_of('in/'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(yard.folder / "data/in")


def written(folder: Path) -> str:
    return "".join(path.read_text("utf-8") for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("option", ["account_key", "sas_token", "connection_string", "secret"])
def test_a_secret_is_neither_written_nor_shown(option: str, yard: Yard) -> None:
    """This process keeps it; another one takes it from the environment, or is told how to."""
    store = yard.workspace.datastores.register("s", "memory://s", {option: KEY, "x": 1})
    assert store.storage_options == {option: KEY, "x": 1}
    assert KEY not in written(yard.folder) + repr(store) + repr(store.path("a"))
    code = f"from daskprs.pipelines import Workspace as W; w = W({str(yard.folder / 'ws')!r});"
    code += "print(w.datastores['s'].storage_options)"
    variable = f"DASKPRS_S_{option.upper()}"
    environment = {**os.environ, variable: KEY}
    for given, expected in (environment, "{"), (dict(os.environ), ""):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=given
        )
        assert done.stdout[:1] == expected
        assert (KEY in done.stdout) == bool(expected)
        assert (f"set the environment variable {variable}" in done.stderr) == (not expected)


def test_a_secret_from_the_environment_is_written_as_that(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given by reference, or as the value that the variable has."""
    monkeypatch.setenv("STORE_KEY", KEY)
    stores = yard.workspace.datastores
    stores.register("a", "memory://a", {"account_key": os.environ["STORE_KEY"]})
    stores.register("b", "memory://b", {"account_key": EnvironmentSecret("STORE_KEY")})
    for name in ("a", "b"):
        told = json.loads((yard.folder / f"ws/datastores/{name}@1.json").read_text())
        assert told["storage_options"] == {"account_key": {"$env": "STORE_KEY"}}
        assert stores[name].storage_options == {"account_key": KEY}


def test_secrets_are_written_only_when_that_is_said(yard: Yard) -> None:
    yard.workspace.datastores.register("s", "memory://s", {"account_key": KEY}, write_secrets=True)
    assert KEY in written(yard.folder)


@pytest.mark.parametrize("url", [f"https://h/c?sig={KEY}", f"sftp://me:{KEY}@host/data"])
def test_a_url_with_a_key_is_refused_without_showing_it(url: str, yard: Yard) -> None:
    with pytest.raises(ConfigError, match="put it in storage_options") as caught:
        yard.workspace.datastores.register("s", url)
    assert KEY not in str(caught.value)


def test_an_account_can_have_moved(tmp_path: Path) -> None:
    """The config says where; without that, a container is one of Azure."""
    accounts = {"old": {"url": "stores/old"}, "far": {"url": "memory://far"}}
    (tmp_path / "config.json").write_text(json.dumps({"workspace_name": "w", "accounts": accounts}))
    stores = Workspace.from_config(tmp_path).datastores
    register = stores.register_azure_blob_container
    assert register("a", "c", "old").url == str(tmp_path / "stores/old/c")
    assert register("b", "c", "far").url == "memory://far/c"
    azure = register("d", "c", "other", account_key=KEY)
    assert azure.url == "abfs://c"
    assert azure.storage_options == {"account_name": "other", "account_key": KEY}


def test_a_datastore_takes_and_gives_files(yard: Yard) -> None:
    store = yard.workspace.datastores.default
    files = yard.files({"a": 1, "b": 2}, "input/deep").parent
    store.upload(files, "up")
    with pytest.raises(UsageError, match="is there already: take overwrite=True"):
        store.upload(files, "up")
    store.upload(files, "up", overwrite=True)
    store.upload_files([files / "deep/a"], "one")
    got = store.download(yard.folder / "got", "up")
    expected = [yard.folder / "got/up/deep" / name for name in "ab"]
    assert sorted(got) == expected
    assert [path.stat().st_size for path in sorted(got)] == [1, 2]
    [one] = store.download(yard.folder / "got", "one/a")
    assert one == yard.folder / "got/one/a"


@pytest.mark.parametrize("path", ["../x", "a/../../x"])
def test_a_path_does_not_lead_out_of_a_datastore(path: str) -> None:
    with pytest.raises(ConfigError, match="a path inside the datastore"):
        Datastore("s", "memory://s").url_of(path)


def test_the_default_datastore_can_be_another(yard: Yard) -> None:
    yard.workspace.datastores.register("other", yard.folder / "other")
    yard.workspace.datastores.set_default("other")
    assert Workspace(yard.folder / "ws").datastores.default.name == "other"
    with pytest.raises(KeyError, match="no datastore 'third'"):
        yard.workspace.datastores.set_default("third")


# Datasets


def test_a_dataset_has_versions(yard: Yard) -> None:
    """The same data again are the same version."""
    store = yard.workspace.datastores.default
    datasets = yard.workspace.datasets
    first = datasets.register(Data.files((store, "a/")), "d", tags={"x": "y"})
    same = datasets.register(Data.files((store, "a/")), "d")
    second = datasets.register(Data.files((store, "b/")), "d")
    assert [one.version for one in (first, same, second)] == [1, 1, 2]
    assert datasets.versions("d") == [1, 2]
    assert datasets.get("d").paths[0].path == "b/"
    assert datasets.get("d", 1).tags == {"x": "y"}
    with pytest.raises(UsageError, match="create_new_version=True"):
        datasets.register(Data.files((store, "c/")), "d", new_version=False)
    with pytest.raises(UsageError, match="no dataset 'd' with version 3"):
        datasets.get("d", 3)


def test_versions_that_are_made_at_the_same_time_are_all_there(yard: Yard) -> None:
    def register(number: int) -> int | None:
        return yard.workspace.datasets.register(Data.files(f"/data/{number}"), "d").version

    with ThreadPoolExecutor(8) as pool:
        made = sorted(pool.map(register, range(20)))
    assert made == list(range(1, 21))


def test_a_dataset_of_a_url_with_a_key_is_not_registered(yard: Yard) -> None:
    with pytest.raises(ConfigError, match="register a datastore first"):
        yard.workspace.datasets.register(Data.files(f"https://h/x?sig={KEY}"), "d")


def test_tables_can_be_looked_at(yard: Yard) -> None:
    folder = yard.files({})
    for number in range(3):
        frame = pd.DataFrame({"n": [10 * number, 10 * number + 1], "t": ["x", "y"]})
        frame.to_csv(folder / f"{number}.csv", index=False)
    data = Data.tables(folder)
    assert list(data.to_pandas()["n"]) == [0, 1, 10, 11, 20, 21]
    assert list(data.rows(1, 4).rows(1, 2).to_pandas()["n"]) == [10, 11]
    with pytest.raises(ConfigError, match="a whole dataset"):
        data.rows(0, 1).open()


def test_some_files_of_a_dataset_are_a_dataset() -> None:
    fsspec.filesystem("memory").pipe({f"/some/{n}": b"x" for n in range(5)})
    data = Data.files((Datastore("s", "memory://some"), ""))
    assert [path.path for path in data.first_files(1, 3).paths] == ["/1", "/2"]
    assert len(list(data.first_files(1, 3).open().files())) == 2


def test_tables_are_written_by_keys(yard: Yard) -> None:
    """All rows once, each combination in files of its own, the keys as the last columns; not into a
    folder with other files.
    """
    frame = pd.DataFrame({"k": ["a", "b/c"] * 50, "j": [1, 1, 2, 2] * 25, "v": range(100)})
    frame.to_csv(yard.files({}) / "t.csv", index=False)
    store = yard.workspace.datastores.default
    data = Data.tables(yard.folder / "input").partition_by(["k", "j"], (store, "parts"))
    folders = {path.parent.name for path in (yard.folder / "ws/data/parts").rglob("*.parquet")}
    assert folders == {"j=1", "j=2"}
    found = data.to_pandas().sort_values("v").reset_index(drop=True)
    assert found.astype({"k": object}).equals(frame[["v", "k", "j"]].astype({"k": object}))
    with pytest.raises(OutputError, match="is not empty"):
        Data.tables(yard.folder / "input").partition_by(["k"], (store, "parts"))


def test_the_same_partitions_are_written_once_however_often_they_are_asked_for(yard: Yard) -> None:
    """A notebook is run again; and the first time it may have been killed in the middle."""
    pd.DataFrame({"k": ["a", "b"] * 3, "v": range(6)}).to_csv(yard.files({}) / "t.csv", index=False)
    target = (yard.workspace.datastores.default, "parts")
    folder = yard.folder / "ws/data/parts"
    rows = list(range(6))

    def written() -> dict[Path, int]:
        tables = Data.tables(yard.folder / "input").partition_by(["k"], target).to_pandas()
        assert sorted(tables["v"]) == rows
        return {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}

    before = written()
    assert written() == before
    mark = folder / ".partitions.json"
    mark.write_text(mark.read_text().replace("true", "false"))
    assert not set(written()) & set(before)
    with (yard.folder / "input/t.csv").open("a") as stream:
        stream.write("c,6\n")
    rows.append(6)
    assert not set(written()) & set(before), "other rows take the place of these"
    (folder / "mine.parquet").write_bytes(b"")
    (yard.folder / "input/t.csv").write_text("k,v\nc,6\n")
    with pytest.raises(OutputError, match="is not empty"):
        Data.tables(yard.folder / "input").partition_by(["k"], target)


# Models


def test_a_model_has_versions_with_files_of_their_own(yard: Yard) -> None:
    folder = yard.files({"a": 1}, "model")
    models = yard.workspace.models
    one = models.register(folder, "digits", tags={"kind": "old"})
    (folder / "a").write_bytes(b"new")
    two = models.register(folder, "digits", description="better")
    assert [one.version, two.version] == [1, 2]
    assert models.get("digits").description == "better"
    assert models.get("digits", tags={"kind": "old"}).version == 1
    assert (models.get("digits", 1).download(yard.folder / "one") / "a").read_bytes() == b"x"
    single = models.register(folder / "a", "single")
    assert single.download(yard.folder / "two").read_bytes() == b"new"
    with pytest.raises(UsageError, match="no model 'digits' with version 3"):
        models.get("digits", 3)


@pytest.mark.parametrize("path", ["nothing", "empty"])
def test_a_model_without_files_is_refused(path: str, yard: Yard) -> None:
    (yard.folder / "empty").mkdir()
    with pytest.raises(ConfigError):
        yard.workspace.models.register(yard.folder / path, "m")
    assert list(yard.workspace.models) == []


# Environments


def test_an_environment_tells_what_is_lacking() -> None:
    """Azure's own packages are not asked for; another version is only noted."""
    packages = ["pandas", "azureml-core", "azureml-dataset-runtime[pandas, fuse]", "dask==1.0",
                "no-such-package", "other-no-such; python_version < '3'"]  # fmt: skip
    missing, others = Environment("e", packages).lacking()
    assert missing == ["no-such-package"]
    assert len(others) == 1
    assert others[0].startswith("dask==1.0, and 20")


def test_the_workers_are_asked_for_their_packages() -> None:
    with (
        LocalCluster(1, 1, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        cluster.get_client() as client,
    ):
        assert Environment("e", ["dask==1.0"]).check(client)[0].startswith("the environment 'e'")
        with pytest.raises(TargetError, match="pip install 'no-such-package'"):
            Environment("e", ["no-such-package"]).check(client)


def test_an_environment_is_a_new_version_only_when_it_has_changed(yard: Yard) -> None:
    register = yard.workspace.environments.register
    made = [register(Environment("e", packages)).version for packages in (["a"], ["a"], ["b"])]
    assert made == [1, 1, 2]
    assert yard.workspace.environments.version("e", 1).packages == ("a",)
    with pytest.raises(ConfigError, match="packages='what is'"):
        Environment("e", ["what is"])
