"""Which names of Azure ML are here, where they come from, and what to use for others."""

from __future__ import annotations

__all__ = ["MODULES", "is_known", "is_package", "not_supported", "public_names"]

_COMPUTE = {
    "AmlCompute": "computes:AmlCompute",
    "ComputeTarget": "computes:ComputeTarget",
}
_CONFIG = {
    "ParallelRunConfig": "steps:ParallelRunConfig",
    "ParallelRunStep": "steps:ParallelRunStep",
    "PythonScriptStep": "script_steps:PythonScriptStep",
}
_OUTPUTS = {
    "OutputDatasetConfig": "outputs:OutputFileDatasetConfig",
    "OutputFileDatasetConfig": "outputs:OutputFileDatasetConfig",
    "OutputTabularDatasetConfig": "outputs:OutputTabularDatasetConfig",
}
_DATASETS = {
    "FileDataset": "datasets:FileDataset",
    "TabularDataset": "datasets:TabularDataset",
}
_RUNS = {"PipelineRun": "experiments:PipelineRun", "StepRun": "experiments:StepRun"}
_ERRORS = {
    "AzureMLException": "errors:AzureMLException",
    "ComputeTargetException": "errors:ComputeTargetException",
    "UserErrorException": "errors:UserErrorException",
    "WebserviceException": "errors:WebserviceException",
}
_LOGINS = {
    name: f"logins:{name}"
    for name in ("ArmTokenAuthentication", "AzureCliAuthentication", "MsiAuthentication",
                 "InteractiveLoginAuthentication", "ServicePrincipalAuthentication",
                 "TokenAuthentication")
}  # fmt: skip
_CONSUMPTION = {"DatasetConsumptionConfig": "consumption:DatasetConsumptionConfig"}

# module -> name in it -> where it is in this package
MODULES: dict[str, dict[str, str]] = {
    "azureml.core": {
        **_COMPUTE,
        "Dataset": "datasets:Dataset",
        "Datastore": "datastores:Datastore",
        "Environment": "environments:Environment",
        "Experiment": "experiments:Experiment",
        "Model": "models:Model",
        "Run": "script_runs:Run",
        "RunConfiguration": "script_steps:RunConfiguration",
        "VERSION": "workspaces:VERSION",
        "Workspace": "workspaces:Workspace",
        "__version__": "workspaces:VERSION",
    },
    "azureml.core.authentication": _LOGINS,
    "azureml.core.compute": _COMPUTE,
    "azureml.core.compute.amlcompute": {"AmlCompute": "computes:AmlCompute"},
    "azureml.core.compute_target": {
        "ComputeTargetException": "errors:ComputeTargetException",
        "ComputeTarget": "computes:ComputeTarget",
    },
    "azureml.core.conda_dependencies": {"CondaDependencies": "environments:CondaDependencies"},
    "azureml.core.dataset": {"Dataset": "datasets:Dataset"},
    "azureml.core.datastore": {"Datastore": "datastores:Datastore"},
    "azureml.core.environment": {
        "CondaDependencies": "environments:CondaDependencies",
        "Environment": "environments:Environment",
    },
    "azureml.core.experiment": {"Experiment": "experiments:Experiment"},
    "azureml.core.model": {"Model": "models:Model"},
    "azureml.core.resource_configuration": {
        "ResourceConfiguration": "models:ResourceConfiguration"
    },
    "azureml.core.run": {"Run": "script_runs:Run", "_OfflineRun": "entry.runs:OfflineRun"},
    "azureml.core.runconfig": {
        "CondaDependencies": "environments:CondaDependencies",
        "DEFAULT_CPU_IMAGE": "environments:DEFAULT_CPU_IMAGE",
        "DEFAULT_GPU_IMAGE": "environments:DEFAULT_GPU_IMAGE",
        "DockerConfiguration": "script_steps:DockerConfiguration",
        "RunConfiguration": "script_steps:RunConfiguration",
    },
    "azureml.core.workspace": {"Workspace": "workspaces:Workspace"},
    "azureml.data": {**_DATASETS, **_OUTPUTS, "DataType": "data_types:DataType"},
    "azureml.data.abstract_datastore": {"AbstractDatastore": "datastores:Datastore"},
    "azureml.data.azure_storage_datastore": {"AzureBlobDatastore": "datastores:Datastore"},
    "azureml.data.data_reference": {"DataReference": "data_references:DataReference"},
    "azureml.data.datapath": {
        "DataPath": "datastores:DataPath",
        "DataPathComputeBinding": "consumption:DataPathComputeBinding",
    },
    "azureml.data.dataset_consumption_config": _CONSUMPTION,
    "azureml.data.dataset_factory": {
        "DataType": "data_types:DataType",
        "FileDatasetFactory": "datasets:FileDatasetFactory",
        "TabularDatasetFactory": "datasets:TabularDatasetFactory",
    },
    "azureml.data.dataset_type_definitions": {
        "PromoteHeadersBehavior": "data_types:PromoteHeadersBehavior"
    },
    "azureml.data.file_dataset": {"FileDataset": "datasets:FileDataset"},
    "azureml.data.output_dataset_config": _OUTPUTS,
    "azureml.data.tabular_dataset": {"TabularDataset": "datasets:TabularDataset"},
    "azureml.exceptions": _ERRORS,
    "azureml.pipeline.core": {
        **_RUNS,
        "Pipeline": "pipelines:Pipeline",
        "PipelineData": "outputs:PipelineData",
        "PipelineParameter": "consumption:PipelineParameter",
        "PortDataReference": "experiments:PortDataReference",
        "StepSequence": "pipelines:StepSequence",
    },
    "azureml.pipeline.core.builder": {"StepSequence": "pipelines:StepSequence"},
    "azureml.pipeline.core.graph": {
        "PipelineParameter": "consumption:PipelineParameter",
    },
    "azureml.pipeline.core.pipeline": {"Pipeline": "pipelines:Pipeline"},
    "azureml.pipeline.core.pipeline_output_dataset": {
        "PipelineOutputFileDataset": "outputs:PipelineOutputFileDataset",
        "PipelineOutputTabularDataset": "outputs:OutputTabularDatasetConfig",
    },
    "azureml.pipeline.core.run": {
        **_RUNS,
        "PortDataReference": "experiments:PortDataReference",
    },
    "azureml.pipeline.steps": _CONFIG,
    "azureml.pipeline.steps.python_script_step": {
        "PythonScriptStep": "script_steps:PythonScriptStep"
    },
    "azureml.pipeline.steps.parallel_run_config": {"ParallelRunConfig": "steps:ParallelRunConfig"},
    "azureml.contrib.pipeline.steps": {
        "ParallelRunConfig": "steps:ParallelRunConfig",
        "ParallelRunStep": "steps:ContribParallelRunStep",
    },
    "azureml.telemetry": {
        "INSTRUMENTATION_KEY": "telemetry:INSTRUMENTATION_KEY",
        "set_diagnostics_collection": "telemetry:set_diagnostics_collection",
    },
    "azureml.widgets": {"RunDetails": "widgets:RunDetails"},
}

_OWN_PROCESS = "take a PythonScriptStep"
_NO_SERVICE = "keep the script that makes the pipeline, and start it from cron or another scheduler"
_NO_WEB = "daskprs has no web services"
_TRAIN = "train with a library of your choice"
_IN_RUN = f"{_TRAIN}, in run() or in a script of its own"
_CLUSTER = "register an AmlCompute, which stands for a Dask cluster"
_FILES = "copy the files with datastore.upload_files, or by a script of your own"
# Names of Azure ML in modules that are here. They can be imported, and say this when they are used.
_INSTEAD = {
    "AutoMLConfig": _IN_RUN,
    "AutoMLStep": _IN_RUN,
    "DataTransferStep": _FILES,
    "DockerSection": "leave it out: workers run in the images that their cluster has",
    "Keyvault": "set an environment variable, and read os.environ",
    **dict.fromkeys(
        ("CommandStep", "DatabricksStep", "Estimator", "EstimatorStep", "MpiConfiguration",
         "MpiStep", "ModuleStep", "PyTorchConfiguration", "RScriptStep", "ScriptRunConfig",
         "SynapseSparkStep", "TensorflowConfiguration"),
        _OWN_PROCESS,
    ),
    **dict.fromkeys(("HyperDriveStep", "HyperDriveConfig", "TrainingOutput"), _IN_RUN),
    **dict.fromkeys(
        ("PipelineDraft", "PipelineEndpoint", "PublishedPipeline", "Schedule",
         "ScheduleRecurrence", "schedule"),
        _NO_SERVICE,
    ),
    **dict.fromkeys(
        ("AciWebservice", "AksWebservice", "ContainerImage", "Image", "InferenceConfig",
         "LocalWebservice", "Webservice", "webservice", "image"),
        _NO_WEB,
    ),
    **dict.fromkeys(
        ("AdlaCompute", "AksCompute", "BatchCompute", "ComputeInstance", "DatabricksCompute",
         "DataFactoryCompute", "KubernetesCompute", "RemoteCompute", "SynapseCompute"),
        _CLUSTER,
    ),
    **dict.fromkeys(("AzureFileDatastore", "AzureDataLakeDatastore", "AzureSqlDatabaseDatastore",
                     "AzureDataLakeGen2Datastore"), "take a datastore of a container"),
}  # fmt: skip
# Parts of Azure ML of which nothing is here. They, and what is in them, can be imported.
_ELSEWHERE = {
    "azureml.automl": _TRAIN,
    "azureml.core.image": _NO_WEB,
    "azureml.core.keyvault": _INSTEAD["Keyvault"],
    "azureml.core.script_run_config": _OWN_PROCESS,
    "azureml.core.webservice": _NO_WEB,
    "azureml.contrib": "only azureml.contrib.pipeline.steps is here",
    "azureml.datadrift": "compare the data in a script of your own",
    "azureml.dataprep": "open the files with pandas or fsspec",
    "azureml.explain": "explain the model with a library of your choice",
    "azureml.interpret": "explain the model with a library of your choice",
    "azureml.monitoring": _NO_WEB,
    "azureml.opendatasets": "copy the files into a datastore, and take Dataset.File.from_files",
    "azureml.pipeline.core.schedule": _NO_SERVICE,
    "azureml.pipeline.core.pipeline_draft": _NO_SERVICE,
    "azureml.pipeline.core.pipeline_endpoint": _NO_SERVICE,
    "azureml.train": _TRAIN,
}
_INSTALL = {
    "fsspec": "install azureml-fsspec",
    "mlflow": "install mlflow, and set its tracking url",
}


def is_known(name: str) -> bool:
    """Say whether Azure ML has a name that is not here, which can then be imported all the same."""
    above, _, inner = name.rpartition(".")
    return _elsewhere(name) is not None or (inner in _INSTEAD and above in MODULES)


def _elsewhere(name: str) -> str | None:
    parts = name.split(".")
    heads = (".".join(parts[:count]) for count in range(len(parts), 1, -1))
    return next((_ELSEWHERE[head] for head in heads if head in _ELSEWHERE), None)


def is_package(name: str) -> bool:
    """Say whether a name of a module has modules below it."""
    return any(other.startswith(f"{name}.") for other in MODULES)


def public_names(module: str) -> list[str]:
    return sorted(name for name in MODULES.get(module, {}) if not name.startswith("_"))


def not_supported(name: str) -> str:
    """Say that a name, with its module, is not here, and what to use in its place."""
    module, _, inner = name.rpartition(".")
    instead = _elsewhere(name) or _INSTEAD.get(inner) or _INSTALL.get(inner)
    if instead is None:
        known = ", ".join(public_names(module))
        if not known:
            modules = {other for other in MODULES if other.rpartition(".")[0] == module}
            known = ", ".join(sorted(modules)) or "nothing"
        instead = f"{module} has {known}"
    return f"{name} is not supported by daskprs: {instead}."
