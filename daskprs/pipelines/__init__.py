"""Pipelines: steps with datastores, datasets, models and clusters that have names."""

from daskprs.pipelines.compute import ComputeTarget
from daskprs.pipelines.data import Data
from daskprs.pipelines.datastores import DataPath, Datastore
from daskprs.pipelines.environments import Environment
from daskprs.pipelines.models import Model
from daskprs.pipelines.outputs import OutputFiles, StepOutput, WrittenOutput
from daskprs.pipelines.parameters import PipelineParameter
from daskprs.pipelines.pipeline import Pipeline
from daskprs.pipelines.runs import Experiment, PipelineRun
from daskprs.pipelines.script_step import ScriptStep
from daskprs.pipelines.secrets import EnvironmentSecret
from daskprs.pipelines.step_runs import StepRun
from daskprs.pipelines.steps import NamedInput, ParallelStep
from daskprs.pipelines.workspace import Workspace

__all__ = [
    "ComputeTarget",
    "Data",
    "DataPath",
    "Datastore",
    "Environment",
    "EnvironmentSecret",
    "Experiment",
    "Model",
    "NamedInput",
    "OutputFiles",
    "ParallelStep",
    "Pipeline",
    "PipelineParameter",
    "PipelineRun",
    "ScriptStep",
    "StepOutput",
    "StepRun",
    "Workspace",
    "WrittenOutput",
]
