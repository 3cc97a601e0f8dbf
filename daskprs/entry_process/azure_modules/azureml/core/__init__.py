"""``from azureml.core import Dataset, Experiment, Model, Run, Workspace``."""

from daskprs.azureml.entry.datasets import Dataset
from daskprs.azureml.entry.models import Model
from daskprs.azureml.entry.runs import Experiment, Run
from daskprs.azureml.entry.unsupported import install
from daskprs.azureml.entry.workspaces import Workspace

__all__ = ["Dataset", "Experiment", "Model", "Run", "Workspace"]

install()
